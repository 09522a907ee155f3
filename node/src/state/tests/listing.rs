//! Listing, page by page, against a naive list of keys.

use proptest::prelude::*;

use super::*;

/// The names of the entries; common prefixes marked.
fn names(page: &Page) -> Vec<String> {
    let name = |entry: &Entry| match entry {
        Entry::Object(key, _) => key.clone(),
        Entry::Prefix(prefix) => format!("{prefix}*"),
    };
    page.entries.iter().map(name).collect()
}

/// What a listing must show: all of it.
fn naive(keys: &BTreeSet<String>, query: &ListQuery) -> Vec<String> {
    let ListQuery { prefix, delimiter, after, .. } = query;
    let common = |key: &str| {
        let rest = key.strip_prefix(prefix.as_str()).filter(|_| !delimiter.is_empty())?;
        let at = rest.find(delimiter.as_str())?;
        Some(key[..prefix.len() + at + delimiter.len()].to_owned())
    };
    let passed = |key: &str| key <= after.as_str() || (common(after).as_ref() == Some(after) && key.starts_with(after));
    let mut shown: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix.as_str()) && !passed(key)) {
        let name = common(key).map_or_else(|| key.clone(), |common| format!("{common}*"));
        if shown.last() != Some(&name) {
            shown.push(name);
        }
    }
    shown
}

async fn paged(story: &Story, query: &ListQuery) -> Vec<String> {
    let (mut shown, mut query) = (Vec::new(), query.clone());
    loop {
        let page = story.state.list(&"b".into(), query.clone()).await.unwrap();
        assert!(page.entries.len() <= query.limit);
        shown.extend(names(&page));
        if !page.truncated {
            assert_eq!(page.next, "");
            return shown;
        }
        assert_eq!(page.entries.len(), query.limit, "these records are small");
        query.after = page.next;
    }
}

/// Few letters, so that keys have much in common, and odd ones among them.
fn text(longest: usize) -> impl Strategy<Value = String> {
    let letters = prop::sample::select(vec!["a", "b", "/", "/", "\u{1}", "\u{7f}", "ä", "\u{10ffff}", " "]);
    prop::collection::vec(letters, 0..=longest).prop_map(|letters| letters.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_page_size_shows_the_same_whole(
        keys in prop::collection::btree_set(text(5).prop_filter("a key", |key| !key.is_empty()), 0..24),
        queries in prop::collection::vec(
            (text(2), prop::sample::select(vec!["", "/", "/", "a", "ä", "ab", "/a"]), text(3)), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut story = Story::cluster().await;
            // Neighbours whose keys must not leak in.
            for (version, name) in [(1, "a"), (2, "b\u{1}"), (3, "bb")] {
                story.run(bucket(name)).await;
                let key = "a/b".to_owned();
                let (object, condition) = (object(version), Condition::None);
                story.run(Command::PutObject { bucket: name.into(), key, object, condition, now_ms: 1 }).await;
            }
            for (version, key) in (10..).zip(&keys) {
                story.put(key, object(version)).await;
            }
            for (prefix, delimiter, after) in queries {
                let query = ListQuery { prefix, delimiter: delimiter.to_owned(), after, limit: 0 };
                let expected = naive(&keys, &query);
                for limit in 1..=expected.len() + 1 {
                    let query = ListQuery { limit, ..query.clone() };
                    assert_eq!(paged(&story, &query).await, expected, "{query:?} of {keys:?}");
                }
            }
        });
    }
}

#[tokio::test]
async fn a_listing_goes_in_byte_order_page_by_page() {
    let mut story = Story::cluster().await;
    story.run(bucket("bb")).await;
    for (version, key) in ["a", "dir/1", "dir/2", "dir/30", "dir/4", "dirt", "ä", "z"].iter().enumerate() {
        story.put(key, object(version as u128 + 1)).await;
    }
    let other = Command::PutObject {
        bucket: "bb".into(),
        key: "a".into(),
        object: object(99),
        condition: Condition::None,
        now_ms: 1,
    };
    story.run(other).await;
    let bucket = BucketName::from("b");
    let query = |prefix: &str, after: &str, limit| ListQuery {
        prefix: prefix.into(),
        after: after.into(),
        limit,
        ..ListQuery::default()
    };
    let all = story.state.list(&bucket, query("", "", 100)).await.unwrap();
    assert_eq!(names(&all), ["a", "dir/1", "dir/2", "dir/30", "dir/4", "dirt", "z", "ä"]);
    assert_eq!((all.truncated, all.applied), (false, story.index));
    let first = story.state.list(&bucket, query("dir/", "", 3)).await.unwrap();
    assert_eq!((names(&first), first.truncated), (vec!["dir/1".into(), "dir/2".into(), "dir/30".into()], true));
    let rest = story.state.list(&bucket, query("dir/", "dir/30", 3)).await.unwrap();
    assert_eq!((names(&rest), rest.truncated), (vec!["dir/4".into()], false));
    assert!(story.state.list(&bucket, query("dir/", "zzz", 3)).await.unwrap().entries.is_empty());
    assert!(story.state.list(&bucket, query("dir/", "\u{10ffff}", 3)).await.unwrap().entries.is_empty());
    let step = story.state.scan(None, 8).await.unwrap();
    assert!(!step.end);
    let last = story.state.scan(Some(("b".into(), "ä".into())), 8).await.unwrap();
    assert_eq!((last.objects.len(), last.end), (1, true));
}

#[tokio::test]
async fn a_page_of_large_records_ends_early_and_the_next_goes_on() {
    let mut story = Story::cluster().await;
    // As large as the record of an object of a hundred gigabytes.
    let user = BTreeMap::from([("name".to_owned(), "x".repeat(1024 * 1024))]);
    for version in 1..=9 {
        let attributes = Attributes { user: user.clone(), ..Attributes::default() };
        story.put(&format!("k{version}"), ObjectRecord { attributes, ..object(version) }).await;
    }
    let (mut query, mut pages, mut shown) = (ListQuery { limit: 1000, ..ListQuery::default() }, 0, Vec::new());
    loop {
        let page = story.state.list(&"b".into(), query.clone()).await.unwrap();
        shown.extend(names(&page));
        pages += 1;
        if !page.truncated {
            break;
        }
        query.after = page.next;
    }
    assert_eq!((shown.len(), pages), (9, 3), "a thousand of them would be a gigabyte");
    assert!(!story.state.scan(None, 1000).await.unwrap().end);
}

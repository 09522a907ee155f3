//! Listings in pages.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_together_show_everything_once() {
    let stage = Stage::start().await;
    let keys = ["a", "b/1", "b/2", "b/3/x", "c", "d/", "d/1", "e & f", "g", "h/1/2"];
    for key in keys {
        stage.put(&format!("/test/{key}"), b"x").await.ok();
    }
    let list = || Request::new("GET", "/test");

    // The second form, with tokens.
    for size in [1, 2, 3, 1000] {
        let (mut seen, mut prefixes, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let mut ask = list().query("list-type", 2).query("delimiter", "/").query("max-keys", size);
            if let Some(token) = token {
                ask = ask.query("continuation-token", token);
            }
            let page = stage.send(ask).await.ok();
            let (objects, common) = (page.elements("Key"), page.text().matches("<CommonPrefixes>").count());
            assert!(objects.len() + common <= size);
            assert_eq!(page.element("KeyCount").unwrap(), (objects.len() + common).to_string());
            seen.extend(objects);
            prefixes.extend(
                page.elements("CommonPrefixes")
                    .iter()
                    .map(|prefix| prefix.replace("<Prefix>", "").replace("</Prefix>", "")),
            );
            token = page.element("NextContinuationToken");
            assert_eq!(page.element("IsTruncated").unwrap(), token.is_some().to_string());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "c", "e & f", "g"], "pages of {size}");
        assert_eq!(prefixes, ["b/", "d/", "h/"], "pages of {size}");
    }

    // The first form, with markers.
    let (mut seen, mut marker) = (Vec::new(), None);
    loop {
        let mut ask = list().query("prefix", "b/").query("delimiter", "/").query("max-keys", 1);
        if let Some(marker) = marker {
            ask = ask.query("marker", marker);
        }
        let page = stage.send(ask).await.ok();
        seen.extend(page.elements("Key"));
        seen.extend(page.elements("CommonPrefixes"));
        marker = page.element("NextMarker");
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["b/1", "b/2", "<Prefix>b/3/</Prefix>"]);

    let after = stage.send(list().query("list-type", 2).query("start-after", "d/")).await.ok();
    assert_eq!(after.elements("Key"), ["d/1", "e & f", "g", "h/1/2"]);
    let url = stage.send(list().query("list-type", 2).query("prefix", "e").query("encoding-type", "url")).await.ok();
    assert_eq!(url.elements("Key"), ["e%20%26%20f"]);
    let owners = stage.send(list().query("list-type", 2).query("fetch-owner", "true").query("max-keys", 1)).await.ok();
    assert!(owners.text().contains("<Owner>"));
    let none = stage.send(list().query("list-type", 2).query("max-keys", 0)).await.ok();
    assert_eq!((none.element("IsTruncated").unwrap().as_str(), none.elements("Key").len()), ("false", 0));
    let versions = stage.send(list().query("versions", "").query("prefix", "a")).await.ok();
    assert_eq!((versions.element("VersionId").as_deref(), versions.elements("Key").len()), (Some("null"), 1));

    // Nonsense.
    for (name, value) in [("max-keys", "-1"), ("max-keys", "x"), ("encoding-type", "xml"), ("continuation-token", "x")]
    {
        stage.send(list().query("list-type", 2).query(name, value)).await.refused(400, "InvalidArgument");
    }
    let token =
        stage.send(list().query("list-type", 2).query("max-keys", 1)).await.ok().element("NextContinuationToken");
    let other = list().query("list-type", 2).query("prefix", "b/").query("continuation-token", token.unwrap());
    stage.send(other).await.refused(400, "InvalidArgument");
    stage.send(Request::new("GET", "/nowhere").query("list-type", 2)).await.refused(404, "NoSuchBucket");
    stage.stop().await;
}

//! Buckets, objects and uploads against a model that holds them in plain maps: whatever is asked in whatever order, every
//! outcome is the model's, and so is what there is in the end. After each command the story itself checks that counts and
//! usage are the sums, and that no version has two owners.

mod plain;
mod play;
mod steps;

use proptest::prelude::*;

use self::plain::{Bucket, Model};
use self::play::play;
use self::steps::step;
use super::*;

const MIB: u64 = 1024 * 1024;

/// Compares everything there is.
async fn compare(story: &Story, model: &Model) {
    let mut expected = BTreeMap::new();
    for (name, bucket) in &model.buckets {
        for (key, content) in &bucket.objects {
            expected.insert(((*name).to_owned(), (*key).to_owned()), (content.version, content.size, content.etag));
        }
        for (id, upload) in &bucket.uploads {
            for (number, part) in &upload.parts {
                let key = part_key(&BucketName::from(*name), UploadId(*id), *number);
                expected.insert((UPLOADS_BUCKET.to_owned(), key), (part.version, part.size, part.etag));
            }
        }
    }
    for ((name, id), parts) in &model.leftovers {
        for (number, part) in parts {
            let key = part_key(&BucketName::from(*name), UploadId(*id), *number);
            expected.insert((UPLOADS_BUCKET.to_owned(), key), (part.version, part.size, part.etag));
        }
    }
    let live = story.live().await.into_iter();
    let live: BTreeMap<_, _> =
        live.map(|(name, object)| (name, (object.version.0, object.size_bytes, object.etag))).collect();
    assert_eq!(live, expected);
    let garbage = story.garbage().await.into_iter().map(|garbage| {
        let versions: BTreeSet<u128> = garbage.object.versions().iter().map(|version| version.0).collect();
        (garbage.object.version.0, versions)
    });
    assert_eq!(garbage.collect::<BTreeMap<_, _>>(), model.garbage);
    let (_, forbidden) = story.version_tables().await;
    assert_eq!(forbidden.iter().map(|version| version.0).collect::<BTreeSet<_>>(), model.forbidden);
    let open = story.state.scan_uploads(None, usize::MAX).await.unwrap();
    let known: usize = model.buckets.values().map(|bucket| bucket.uploads.len()).sum();
    assert_eq!(open.len(), known);
    let left = story.state.leftovers(usize::MAX).await.unwrap();
    assert_eq!(left.len(), model.leftovers.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_asked_in_whatever_order_every_outcome_is_the_models(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut story = Story::cluster().await;
            let mut model = Model { buckets: BTreeMap::from([("b", Bucket::default())]), ..Model::default() };
            for step in &steps {
                let Some((command, expected)) = play(&mut model, step) else { continue };
                assert_eq!(story.run(command.clone()).await, expected, "{step:?}: {command:?}");
            }
            compare(&story, &model).await;
            // A snapshot carries all of it.
            let file = story.dir.path().join("snapshot");
            story.state.export(&file, "s1".into()).await.unwrap();
            let other = Story::blank().await;
            other.state.install(&file).await.unwrap();
            compare(&other, &model).await;
            other.check().await;
        });
    }
}

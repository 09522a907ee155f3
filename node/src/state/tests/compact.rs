//! Compacting beside readers.

use super::*;

/// It waited for the write side of the lock, and with it everybody who came after it waited for the longest reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacting_waits_for_no_reader_and_holds_up_nobody_behind_one() {
    let mut story = Story::cluster().await;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let state = story.state.clone();
    let reading = tokio::spawn(async move {
        // Not even a transaction is open: the lock alone decides.
        let work = state.look(move |_, _| {
            let _ = begun.send(());
            let _ = ended.recv();
            Ok(())
        });
        work.await
    });
    has_begun.await.unwrap();
    let tried = tokio::time::timeout(Duration::from_secs(30), story.state.compact()).await;
    let refused = tried.expect("it waits for nobody").unwrap_err();
    assert!(matches!(refused, StateError::Busy(_)), "{refused}");
    story.run(bucket("meanwhile")).await;
    end.send(()).unwrap();
    reading.await.unwrap().unwrap();
    story.state.compact().await.unwrap();
    assert!(story.state.bucket(&"meanwhile".into()).await.unwrap().is_some());
}

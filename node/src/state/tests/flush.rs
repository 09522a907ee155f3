//! Flushing beside applying.

use super::*;

/// Found by the demonstration: three of six members disagreed about how many shards are lost. A flush published the memory
/// it had begun with after the next batch had published its own, and took that batch's totals back. Without the lock `writing`
/// this test failed in each of six runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_never_takes_back_what_a_batch_applied_meanwhile() {
    let mut story = Story::cluster().await;
    let flusher = {
        let state = story.state.clone();
        tokio::spawn(async move {
            loop {
                state.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for turn in 0..300u64 {
        story.run(bucket(&format!("b{turn}"))).await;
        assert_eq!(
            story.state.applied().map(|applied| applied.index),
            Some(story.index),
            "the applied index went back"
        );
    }
    flusher.abort();
}

//! Clock, randomness and blocking work of the seam.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use resilver_host::real;

#[test]
fn the_clock_is_the_wall_clock() {
    let before = SystemTime::now() - Duration::from_millis(1);
    let now = real::host().clock.now();
    assert!(before <= now.as_system_time() && now.as_system_time() <= SystemTime::now());
}

#[test]
fn every_fork_is_a_stream_of_its_own() {
    let rand = real::host().rand;
    let draw = |label| {
        let mut stream = rand.fork(label);
        [stream.next_u64(), stream.next_u64()]
    };
    assert_ne!(draw("a"), draw("b"));
    assert_ne!(draw("a"), draw("a"), "a label is no seed");
}

#[tokio::test]
async fn blocking_work_returns_its_value_and_leaves_the_loop_free() {
    let host = real::host();
    let (tx, rx) = std::sync::mpsc::channel();
    let waiting = host.blocking(move || rx.recv().unwrap());
    // On a single-threaded loop this is only reached in time because the work above is elsewhere.
    let (answer, ()) = tokio::join!(waiting, async { tx.send(42).unwrap() });
    assert_eq!(answer, 42);
}

#[tokio::test]
#[should_panic(expected = "blocking work panicked")]
async fn a_panic_in_blocking_work_is_a_panic_of_its_caller() {
    real::host().blocking(|| panic!("inside")).await;
}

//! What a run does all day must not cost it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::time::Instant;

use bytes::Bytes;
use common::*;

/// A generous bound: an optimised build needs about a hundredth of it. What it catches is an operation that copies, or
/// walks, the whole file.
const BOUND_SECONDS: u64 = 20;

#[test]
fn small_appends_to_large_files_cost_what_they_append() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let begin = Instant::now();
        let file = create(&*disk, "/data/segment").await;
        file.write_at(0, vec![0; 32 << 20].into()).await.unwrap();
        file.sync().await.unwrap();
        disk.sync_dir(path("/data")).await.unwrap();
        for record in 0..20_000_u64 {
            file.write_at(record * 300, Bytes::from(vec![record as u8; 300])).await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.read_at(record * 300, 300).await.unwrap()[7], record as u8);
        }
        for seed in 0..20 {
            assert!(system.fork(seed).content(path("/data/segment")).is_some());
        }
        let took = begin.elapsed();
        println!("{took:?}");
        assert!(took.as_secs() < BOUND_SECONDS, "{took:?}");
    });
}

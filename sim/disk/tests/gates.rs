//! What a process's gate sees, and what may happen behind it.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use resilver_host::OpenMode;
use resilver_sim_disk::{DeviceFault, FileSystem, Gate, NoDelay, Op, OpKind};
use tokio::time::{sleep, timeout};

/// Lets everything pass after a moment, until it is shut for good. Remembers what asked.
#[derive(Default)]
struct Guard {
    shut: AtomicBool,
    seen: Mutex<Vec<Op>>,
    passed: AtomicUsize,
}

#[async_trait]
impl Gate for Guard {
    async fn pass(&self, op: &Op) {
        self.seen.lock().unwrap().push(op.clone());
        sleep(Duration::from_millis(u64::from(op.slow))).await;
        if self.shut.load(Ordering::Relaxed) {
            poll_fn(|_| Poll::<()>::Pending).await;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    fn pass_blocking(&self, op: &Op) -> bool {
        self.seen.lock().unwrap().push(op.clone());
        !self.shut.load(Ordering::Relaxed)
    }
}

#[test]
fn a_call_dropped_at_the_gate_had_no_effect() {
    run(async {
        tokio::time::pause();
        let system = FileSystem::new(1);
        let guard = Arc::new(Guard::default());
        let disk = system.disk(guard.clone());
        let file = create(&*disk, "/file").await;
        file.write_at(0, Bytes::from_static(b"done")).await.unwrap();

        guard.shut.store(true, Ordering::Relaxed);
        let moment = Duration::from_secs(5);
        timeout(moment, file.write_at(0, Bytes::from_static(b"never"))).await.expect_err("dying");
        timeout(moment, disk.remove_file(path("/file"))).await.expect_err("dying");
        timeout(moment, disk.open(path("/new"), OpenMode::Create)).await.err().expect("dying");
        disk.open_blocking(path("/new"), OpenMode::Create).expect_err("dying");
        drop(file);
        assert_eq!(system.files(path("/")), [("/file".into(), 4)]);
        assert_eq!(&system.content(path("/file")).unwrap()[..], b"done");
    });
}

#[test]
fn the_gate_is_told_what_comes_and_how_slow_it_is() {
    run(async {
        let (system, _) = machine(1, ROOMY);
        let guard = Arc::new(Guard::default());
        let disk = system.disk(guard.clone());
        let file = create(&*disk, "/data/file").await;
        system.fault(path("/data"), DeviceFault::Slow { factor: 3 });
        system.fault(path("/data"), DeviceFault::Slow { factor: 2 });
        file.write_at(0, vec![1; 70].into()).await.unwrap();
        file.write_at(0, vec![1; 30].into()).await.unwrap();
        file.sync().await.unwrap();
        system.mend(path("/data"));
        disk.sync_dir(path("/data")).await.unwrap();
        let blocking = disk.open_blocking(path("/data/file"), OpenMode::Read).unwrap();
        blocking.read_exact_at(0, &mut [0; 9]).unwrap();
        let seen: Vec<_> = guard.seen.lock().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            seen,
            [
                "Open /data/file (0 bytes)",
                "Write /data/file (70 bytes, 3 times slower)",
                "Write /data/file (30 bytes, 3 times slower)",
                "Sync /data/file (100 bytes, 3 times slower)",
                "SyncDir /data (0 bytes)",
                "Open /data/file (0 bytes)",
                "Read /data/file (9 bytes)",
            ]
        );
    });
}

#[test]
fn a_hung_disk_answers_after_the_mend_and_the_synchronous_face_times_out() {
    run(async {
        tokio::time::pause();
        let (system, _) = machine(1, ROOMY);
        let guard = Arc::new(Guard::default());
        let disk = system.disk(guard.clone());
        let file = durable(&*disk, "/data/file", b"old").await;
        let blocking = disk.open_blocking(path("/data/file"), OpenMode::Write).unwrap();
        file.write_at(0, Bytes::from_static(b"new")).await.unwrap();

        system.fault(path("/data"), DeviceFault::Hung);
        let hanging = file.clone();
        let write = tokio::spawn(async move { hanging.write_at(3, Bytes::from_static(b"er")).await });
        let listing = disk.clone();
        let list = tokio::spawn(async move { listing.list(path("/data")).await });
        timeout(Duration::from_secs(60), file.sync()).await.expect_err("it hangs");
        assert!(!write.is_finished() && !list.is_finished());
        assert_eq!(blocking.sync().unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(blocking.write_all_at(0, b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        system.disk(Arc::new(NoDelay)).list(path("/")).await.expect("the other disk is well");
        assert_eq!(&system.content(path("/data/file")).unwrap()[..], b"new");

        system.mend(path("/data"));
        write.await.unwrap().unwrap();
        assert_eq!(list.await.unwrap().unwrap().len(), 1);
        file.sync().await.unwrap();
        assert_eq!(&system.synced_content(path("/data/file")).unwrap()[..], b"newer", "no timeout dropped anything");
    });
}

#[test]
fn a_process_that_dies_while_its_disk_hangs_does_nothing_after_the_mend() {
    run(async {
        tokio::time::pause();
        let (system, _) = machine(1, ROOMY);
        let guard = Arc::new(Guard::default());
        let file = create(&*system.disk(guard.clone()), "/data/file").await;
        system.fault(path("/data"), DeviceFault::Hung);
        let write = tokio::spawn(async move { file.write_at(0, Bytes::from_static(b"late")).await });
        sleep(Duration::from_secs(1)).await;
        guard.shut.store(true, Ordering::Relaxed);
        system.mend(path("/data"));
        sleep(Duration::from_secs(1)).await;
        assert!(!write.is_finished());
        assert_eq!(system.files(path("/data")), [("/data/file".into(), 0)]);
        assert_eq!(guard.seen.lock().unwrap().last().unwrap().kind, OpKind::Write);
    });
}

//! Where the time of rebuilds goes: totals for the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Totals since the node started. Cheap to clone; every clone counts into the same totals.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    inner: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    read_nanos: AtomicU64,
    crc_nanos: AtomicU64,
    decode_nanos: AtomicU64,
    write_nanos: AtomicU64,
    verify_nanos: AtomicU64,
    bytes: AtomicU64,
    shards: AtomicU64,
}

/// The totals at one moment. Stages of several rebuilds overlap, so their sum may exceed the time that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimingsSnapshot {
    /// Waiting for k shards: their disks and the wire.
    pub read_nanos: u64,
    /// Checking what arrived and sealing what is written.
    pub crc_nanos: u64,
    /// Reed-Solomon.
    pub decode_nanos: u64,
    /// Writing, syncing and renaming.
    pub write_nanos: u64,
    /// Reading the new shard back from disk.
    pub verify_nanos: u64,
    /// Bytes of shards rebuilt.
    pub bytes: u64,
    /// Shards rebuilt.
    pub shards: u64,
}

impl Timings {
    pub(crate) fn add_read(&self, time: Duration) {
        add(&self.inner.read_nanos, time);
    }

    pub(crate) fn add_crc(&self, time: Duration) {
        add(&self.inner.crc_nanos, time);
    }

    pub(crate) fn add_decode(&self, time: Duration) {
        add(&self.inner.decode_nanos, time);
    }

    pub(crate) fn add_write(&self, time: Duration) {
        add(&self.inner.write_nanos, time);
    }

    pub(crate) fn add_verify(&self, time: Duration) {
        add(&self.inner.verify_nanos, time);
    }

    pub(crate) fn add_shard(&self, bytes: u64) {
        self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.inner.shards.fetch_add(1, Ordering::Relaxed);
    }

    /// The totals now.
    pub fn snapshot(&self) -> TimingsSnapshot {
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        TimingsSnapshot {
            read_nanos: load(&self.inner.read_nanos),
            crc_nanos: load(&self.inner.crc_nanos),
            decode_nanos: load(&self.inner.decode_nanos),
            write_nanos: load(&self.inner.write_nanos),
            verify_nanos: load(&self.inner.verify_nanos),
            bytes: load(&self.inner.bytes),
            shards: load(&self.inner.shards),
        }
    }
}

fn add(total: &AtomicU64, time: Duration) {
    total.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

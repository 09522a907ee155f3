//! What background work does with small files in company with whatever else it does at the same disk.
//!
//! Owns: the companies of a disk. A company is one operation at it, however many are in it. Must never: take a client's step:
//! it would wait for others.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resilver_host::{Disk, File};
use tokio::sync::Semaphore;

use super::reader::FIRST_WINDOW_BYTES;
use crate::company::Company;

/// Files that go together: enough for the trip and the sync to be shared, and few enough that all of them are done well within
/// the time that a disk has for one operation, also where each costs it a seek or two.
const TOGETHER: usize = 16;

/// How long the first file that is written waits for others: some syncs' time. What is reread goes at once: a scrub
/// looks at one after the other.
const GATHER: Duration = Duration::from_millis(10);

/// An open file and its first bytes.
type Start = (Arc<dyn File>, Bytes);

/// The companies of one disk.
pub(super) struct Companies {
    /// [`Disk::create_synced`].
    pub(super) creates: Company<(PathBuf, Bytes), io::Result<()>>,
    /// [`Disk::publish`].
    pub(super) names: Company<(PathBuf, PathBuf), io::Result<Option<u64>>>,
    /// [`Disk::open_and_reread`] of a shard's first window.
    pub(super) rereads: Company<PathBuf, io::Result<Start>>,
}

impl Companies {
    /// `permits`: the operations that the disk may have in flight.
    pub(super) fn new(disk: &Arc<dyn Disk>, permits: &Arc<Semaphore>) -> Self {
        Self {
            creates: company(disk, permits, GATHER, |disk, files| async move { disk.create_all_synced(files).await }),
            names: company(disk, permits, GATHER, |disk, names| async move { disk.publish_all(names).await }),
            rereads: company(disk, permits, Duration::ZERO, |disk, paths| async move {
                disk.open_and_reread_all(paths, FIRST_WINDOW_BYTES).await
            }),
        }
    }
}

/// A company is one operation at the disk, however many are in it.
fn company<T, R, F>(
    disk: &Arc<dyn Disk>,
    permits: &Arc<Semaphore>,
    gather: Duration,
    work: impl Fn(Arc<dyn Disk>, Vec<T>) -> F + Copy + Send + Sync + 'static,
) -> Company<T, R>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = Vec<R>> + Send + 'static,
{
    let disk = Arc::clone(disk);
    Company::new(TOGETHER, gather, move |items| work(Arc::clone(&disk), items)).in_turn(Arc::clone(permits))
}

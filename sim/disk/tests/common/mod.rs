//! What the stories share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::{Disk, File, OpenMode};
use resilver_sim_disk::{FileSystem, NoDelay};

/// Runs a story to its end on one thread.
pub(crate) fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(story)
}

/// A machine with a data disk at `/data` of `capacity_bytes`, and a process's way to it.
pub(crate) fn machine(seed: u64, capacity_bytes: u64) -> (FileSystem, Arc<dyn Disk>) {
    let system = FileSystem::new(seed);
    system.device(Path::new("/data"), capacity_bytes);
    let disk = system.disk(Arc::new(NoDelay));
    (system, disk)
}

pub(crate) const ROOMY: u64 = 1 << 30;

pub(crate) fn path(text: &str) -> &Path {
    Path::new(text)
}

pub(crate) async fn create(disk: &dyn Disk, text: &str) -> Arc<dyn File> {
    disk.open(path(text), OpenMode::Create).await.unwrap()
}

/// A file whose content and entry are durable.
pub(crate) async fn durable(disk: &dyn Disk, text: &str, content: &[u8]) -> Arc<dyn File> {
    let file = create(disk, text).await;
    file.write_at(0, Bytes::copy_from_slice(content)).await.unwrap();
    file.sync().await.unwrap();
    disk.sync_dir(path(text).parent().unwrap()).await.unwrap();
    file
}

pub(crate) async fn names(disk: &dyn Disk, folder: &str) -> Vec<String> {
    disk.list(path(folder)).await.unwrap().into_iter().map(|entry| entry.name).collect()
}

pub(crate) fn code<T>(result: io::Result<T>) -> i32 {
    let error = result.err().expect("it must fail");
    error.raw_os_error().unwrap_or_else(|| panic!("{error:?} has no number"))
}

pub(crate) const EIO: i32 = 5;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;
pub(crate) const ESTALE: i32 = 116;

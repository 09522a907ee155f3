//! The snapshot folder: at most one snapshot counts, the newest.
//!
//! Owns: the files in `snapshots/` and their names. Invariants: a file gets its final name only after it is whole and
//! synced; anything else in the folder is left over from a crash and removed at start; a damaged snapshot is no loss, it
//! is removed and built again from the database.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use resilver_host::disk::create_dir_durably;
use resilver_host::{FileKind, Host};

use super::MetaError;
use crate::state::{SnapshotHead, State, inspect};

const SUFFIX: &str = ".snapshot";

/// A snapshot on disk: what openraft hands around in place of its content.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// The folder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    dir: PathBuf,
    /// Makes the ids of this run's snapshots its own.
    label: String,
    serial: AtomicU64,
    current: Mutex<Option<(SnapshotHead, SnapshotFile)>>,
}

impl Snapshots {
    /// Opens the folder, keeps the newest whole snapshot that reaches at least to `least_next` (the log begins there),
    /// removes everything else.
    pub(crate) async fn open(host: &Host, dir: &Path, label: String, least_next: u64) -> Result<Self, MetaError> {
        create_dir_durably(&*host.disk, dir).await.map_err(MetaError::io("creating", dir))?;
        let entries = host.disk.list(dir).await.map_err(MetaError::io("listing", dir))?;
        let files: Vec<PathBuf> =
            entries.iter().filter(|entry| entry.kind == FileKind::File).map(|entry| dir.join(&entry.name)).collect();
        let mut newest: Option<(SnapshotHead, SnapshotFile)> = None;
        for path in files.iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX)) {
            match inspect(host, path).await {
                Ok(head) if next(&head) < least_next => {}
                Ok(head) if newest.as_ref().is_some_and(|(known, _)| next(known) > next(&head)) => {}
                Ok(head) => newest = Some((head, SnapshotFile { path: path.clone() })),
                Err(error) => tracing::warn!(%error, "a snapshot is removed and will be built again"),
            }
        }
        let keep = newest.as_ref().map(|(_, file)| file.path.clone());
        for path in files.iter().filter(|path| Some(*path) != keep.as_ref()) {
            host.disk.remove_file(path).await.map_err(MetaError::io("removing", path))?;
        }
        let inner = Inner {
            host: host.clone(),
            dir: dir.to_path_buf(),
            label,
            serial: AtomicU64::new(0),
            current: Mutex::new(newest),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<(SnapshotHead, SnapshotFile)> {
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name for a snapshot being received.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.inner.dir.join(format!("incoming-{}.tmp", self.serial()))
    }

    /// A folder for a state that is made anew. What a crash leaves in it is swept at the next start.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.inner.dir.with_file_name(super::rebirth::SCRATCH)
    }

    /// Another one, for a copy that is only compared: both may be made at a time.
    pub(crate) fn scratch_for_replay(&self) -> PathBuf {
        self.inner.dir.with_file_name(super::rebirth::REPLAY_SCRATCH)
    }

    /// Removes a received file that came to nothing.
    pub(crate) async fn discard(&self, path: &Path) {
        match self.inner.host.disk.remove_file(path).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %path.display(), "a leftover snapshot could not be removed"),
        }
    }

    /// Writes the present state as the new snapshot.
    pub(crate) async fn build(&self, state: &State) -> Result<(SnapshotHead, SnapshotFile), MetaError> {
        let serial = self.serial();
        let path = self.inner.dir.join(format!("building-{serial}.tmp"));
        let head = state.export(&path, format!("{}-{serial}", self.inner.label)).await?;
        let file = self.seat(&path, head.clone()).await?;
        Ok((head, file))
    }

    /// Takes a verified, installed file as the new snapshot.
    pub(crate) async fn adopt(&self, path: &Path, head: SnapshotHead) -> Result<(), MetaError> {
        self.seat(path, head).await.map(|_| ())
    }

    async fn seat(&self, path: &Path, head: SnapshotHead) -> Result<SnapshotFile, MetaError> {
        let disk = self.inner.host.disk.as_ref();
        let dir = &self.inner.dir;
        let target = dir.join(format!("{:020}-{}-{}{SUFFIX}", next(&head), self.inner.label, self.serial()));
        disk.rename(path, &target).await.map_err(MetaError::io("renaming", path))?;
        disk.sync_dir(dir).await.map_err(MetaError::io("syncing", dir))?;
        let file = SnapshotFile { path: target };
        let old = {
            let mut current = self.inner.current.lock().unwrap_or_else(PoisonError::into_inner);
            // A build that began before a snapshot was installed ends with an older one: it must not take its place.
            if current.as_ref().is_some_and(|(known, _)| next(known) > next(&head)) {
                Some(file.clone())
            } else {
                current.replace((head, file.clone())).map(|(_, file)| file)
            }
        };
        if let Some(old) = old {
            // A reader that has it open goes on reading it.
            self.discard(&old.path).await;
        }
        Ok(file)
    }

    fn serial(&self) -> u64 {
        self.inner.serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// The index after the snapshot's last.
fn next(head: &SnapshotHead) -> u64 {
    head.applied.as_ref().map_or(0, |applied| applied.index + 1)
}

//! One `resilver up` per folder.
//!
//! Owns: `DIR/lock/`, where each holder leaves a file named by its turn and naming its process. Must never: trust a pid
//! alone, or take over from a process that lives.
//!
//! Invariant: a turn is created exclusively, so of two takers of one stale lock exactly one gets the next turn. The
//! holder's death is the release: nothing has to be cleaned up, and nothing can be left locked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use resilver_host::disk::read_file;
use resilver_host::{BootId, Host, OpenMode, ProcId};
use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure};

/// How long a turn may stand without a name in it: its taker is between two system calls, or died there.
const NAMING_TIME: Duration = Duration::from_secs(2);
/// How often is looked meanwhile.
const NAMING_PAUSE: Duration = Duration::from_millis(50);
/// Attempts against other takers. Each one lost means that somebody else won: a live holder is found soon.
const ATTEMPTS: u32 = 20;
/// A holder's record is some hundred bytes.
const MAX_RECORD_BYTES: u64 = 4096;

/// A process, beyond doubt over reboots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    /// Pid and start time.
    #[serde(flatten)]
    pub(crate) id: ProcId,
    /// The boot it runs in.
    pub(crate) boot_id: BootId,
}

impl ProcessRecord {
    /// Ourselves.
    pub(crate) fn own(host: &Host) -> io::Result<Self> {
        Ok(Self { id: host.proc.own(), boot_id: host.proc.boot_id()? })
    }

    /// The process, if it still runs.
    pub(crate) async fn alive(&self, host: &Host) -> io::Result<Option<std::sync::Arc<dyn resilver_host::Process>>> {
        if self.boot_id != host.proc.boot_id()? {
            return Ok(None);
        }
        host.proc.adopt(self.id).await
    }
}

/// Held until this process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _turn: u64,
}

impl DirLock {
    /// Takes the lock on `dir`.
    ///
    /// # Errors
    /// [`Code::Failed`] when another live process holds it, naming that process.
    pub(crate) async fn take(host: &Host, dir: &Path) -> Result<DirLock, Failure> {
        let folder = dir.join("lock");
        let failed = |error: io::Error| Failure::failed(format!("cannot lock {}: {error}", dir.display()));
        host.disk.create_dir_all(&folder).await.map_err(failed)?;
        for _ in 0..ATTEMPTS {
            let last = turns(host, &folder).await.map_err(failed)?.last().copied().unwrap_or(0);
            if last > 0
                && let Some(holder) = holder(host, &turn_path(&folder, last)).await.map_err(failed)?
                && holder.id != host.proc.own()
            {
                return Err(Failure::new(
                    Code::Failed,
                    format!("another `resilver up` (pid {}) runs the cluster in {}", holder.id.pid, dir.display()),
                )
                .next(format!("use it: `resilver status --dir {}`, or end it with Ctrl-C there", dir.display()))
                .next("or start a second cluster in another folder: --dir DIR"));
            }
            if create(host, &folder, last + 1).await.map_err(failed)? {
                // Somebody who had read an older list may hold a later turn: the highest counts.
                let turns = turns(host, &folder).await.map_err(failed)?;
                if turns.last() == Some(&(last + 1)) {
                    for old in turns.iter().filter(|turn| **turn < last) {
                        // Only tidiness: what is left is ignored.
                        let _ = host.disk.remove_file(&turn_path(&folder, *old)).await;
                    }
                    return Ok(DirLock { _turn: last + 1 });
                }
            }
        }
        Err(Failure::failed(format!("cannot lock {}: others keep taking it", dir.display())).next("try again"))
    }
}

fn turn_path(folder: &Path, turn: u64) -> PathBuf {
    folder.join(format!("{turn:08}.json"))
}

/// All turns there are, in order.
async fn turns(host: &Host, folder: &Path) -> io::Result<Vec<u64>> {
    let entries = host.disk.list(folder).await?;
    let mut turns: Vec<u64> =
        entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok()).collect();
    turns.sort_unstable();
    Ok(turns)
}

/// Who holds a turn, if it lives.
async fn holder(host: &Host, path: &Path) -> io::Result<Option<ProcessRecord>> {
    let deadline = tokio::time::Instant::now() + NAMING_TIME;
    loop {
        let data = match read_file(&*host.disk, path, MAX_RECORD_BYTES).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        match serde_json::from_slice::<ProcessRecord>(&data) {
            Ok(record) => return Ok(record.alive(host).await?.is_some().then_some(record)),
            Err(_) if tokio::time::Instant::now() >= deadline => return Ok(None),
            Err(_) => tokio::time::sleep(NAMING_PAUSE).await,
        }
    }
}

/// Whether this turn is ours.
async fn create(host: &Host, folder: &Path, turn: u64) -> io::Result<bool> {
    match host.disk.open(&turn_path(folder, turn), OpenMode::CreateNew).await {
        Ok(file) => {
            let record = serde_json::to_vec(&ProcessRecord::own(host)?)?;
            file.write_at(0, Bytes::from(record)).await?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

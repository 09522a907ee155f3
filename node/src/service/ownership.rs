//! One process per data folder. Not a lock of the file system: a note of who uses it, which a dead process cannot hold.

use std::path::Path;

use bytes::Bytes;
use resilver_host::disk::{create_dir_durably, read_file, replace_file};
use resilver_host::{BootId, Host, ProcId};
use serde::{Deserialize, Serialize};

use super::NodeError;

/// The note's name in the data folder.
const FILE: &str = "process.json";

/// Longer than any note of ours.
const LIMIT_BYTES: u64 = 4096;

#[derive(Serialize, Deserialize)]
struct Owner {
    process: ProcId,
    boot: BootId,
}

/// Takes the folder for this process, or says who has it.
pub(crate) async fn take(host: &Host, folder: &Path) -> Result<(), NodeError> {
    let failed = |what| {
        let folder = folder.display().to_string();
        move |source| NodeError::Io { what, folder, source }
    };
    create_dir_durably(&*host.disk, folder).await.map_err(failed("cannot make the data folder"))?;
    let path = folder.join(FILE);
    let boot = host.proc.boot_id().map_err(failed("cannot tell this boot"))?;
    // An unreadable note names nobody: it was torn by a crash, and its process is gone with it.
    if let Ok(text) = read_file(host.disk.as_ref(), &path, LIMIT_BYTES).await
        && let Ok(owner) = serde_json::from_slice::<Owner>(&text)
        && owner.boot == boot
        && owner.process != host.proc.own()
        && host.proc.identify(owner.process.pid).map_err(failed("cannot look for a process"))? == Some(owner.process)
    {
        return Err(NodeError::InUse { folder: folder.display().to_string(), pid: owner.process.pid });
    }
    let note = Owner { process: host.proc.own(), boot };
    let text = serde_json::to_vec_pretty(&note).expect("a note of two plain values is valid JSON");
    replace_file(host.disk.as_ref(), &path, Bytes::from(text)).await.map_err(failed("cannot write who uses it"))
}

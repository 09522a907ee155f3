//! Faults, each aimed at exactly one part of the target.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use resilver_host::{FileKind, Host, OpenMode, Signal};

use crate::client::Client;
use crate::target::{HostInfo, Target};

/// How many bytes a flip damages: enough that no luck restores them.
const FLIP_BYTES: usize = 16;

/// SIGKILL to a node's process: no goodbye, no flush.
///
/// # Errors
/// When the node does not run.
pub async fn kill_node(host: &Host, client: &Client, node: &HostInfo) -> anyhow::Result<u32> {
    let pid = client.observe(&node.name).await.with_context(|| format!("{} does not answer", node.name))?.pid;
    let id = host.proc.identify(pid)?.with_context(|| format!("process {pid} of {} is gone", node.name))?;
    let process = host.proc.adopt(id).await?.with_context(|| format!("process {pid} of {} is gone", node.name))?;
    process.signal(Signal::Kill)?;
    Ok(pid)
}

/// Empties a disk's folder, as a wiped or replaced disk would look. The folder itself stays, as a mount point does.
///
/// # Errors
/// When the folder is outside the target's own, or something in it cannot be removed.
pub async fn wipe_disk(host: &Host, target: &Target, disk: &Path) -> anyhow::Result<u64> {
    anyhow::ensure!(disk.starts_with(&target.dir), "{} is outside {}", disk.display(), target.dir.display());
    let mut removed = 0;
    for file in walk(host, disk).await?.files {
        // A file that is renamed or removed meanwhile is gone, which is what we want.
        removed += u64::from(host.disk.remove_file(&file).await.is_ok());
    }
    Ok(removed)
}

/// Takes away what is on a disk, all at once and for now, as when a drive is pulled and an empty one put in its place. Where it
/// went: beside the disk, for [`remove_pulled`] later. To delete thousands of files at that moment would be a load of its own, and
/// ext4 makes new files slowly (0.8 ms each, measured) for five minutes where many were deleted.
///
/// # Errors
/// When the folder is outside the target's own, or something in it cannot be moved.
pub async fn pull_disk(host: &Host, target: &Target, disk: &Path) -> anyhow::Result<PathBuf> {
    let within = disk.starts_with(&target.dir) && disk != target.dir;
    anyhow::ensure!(within, "{} is not below {}", disk.display(), target.dir.display());
    let name = disk.file_name().with_context(|| format!("{} is no folder of a disk", disk.display()))?;
    let away = disk.with_file_name(format!("{}.pulled", name.to_string_lossy()));
    let there = host.disk.metadata(&away).await.is_ok();
    anyhow::ensure!(!there, "{} is there already, of a disk that was pulled before: remove it first", away.display());
    host.disk.create_dir_all(&away).await?;
    for entry in host.disk.list(disk).await? {
        match host.disk.rename(&disk.join(&entry.name), &away.join(&entry.name)).await {
            // Removed meanwhile: gone is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            moved => moved.with_context(|| format!("{} cannot be taken away", disk.join(&entry.name).display()))?,
        }
    }
    Ok(away)
}

/// Flips bytes in the middle of a file, past any page of its head.
///
/// # Errors
/// When the file is outside the target's own, or cannot be changed.
pub async fn flip_bytes(host: &Host, target: &Target, path: &Path) -> anyhow::Result<u64> {
    anyhow::ensure!(path.starts_with(&target.dir), "{} is outside {}", path.display(), target.dir.display());
    let file = host.disk.open(path, OpenMode::Write).await.with_context(|| path.display().to_string())?;
    let offset = file.len().await? / 2;
    let bytes = file.read_at(offset, FLIP_BYTES).await?;
    anyhow::ensure!(!bytes.is_empty(), "{} is too short to be damaged", path.display());
    let flipped: BytesMut = bytes.iter().map(|byte| byte ^ 0xA5).collect::<Vec<u8>>().as_slice().into();
    file.write_at(offset, Bytes::from(flipped)).await?;
    file.sync().await?;
    Ok(offset)
}

/// The file of a shard below a disk's folder: by its name, without knowing how the disk is laid out.
///
/// # Errors
/// When the folder cannot be read.
pub async fn find_file(host: &Host, disk: &Path, name_contains: &str) -> anyhow::Result<Option<PathBuf>> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(name_contains));
    Ok(walk(host, disk).await?.files.into_iter().find(named))
}

/// Removes the target's folder with everything in it: the end of an experiment that made it.
///
/// # Errors
/// When something in it cannot be removed.
pub async fn remove_folder(host: &Host, target: &Target) -> anyhow::Result<()> {
    remove(host, &target.dir).await
}

/// Removes what [`pull_disk`] took away.
///
/// # Errors
/// When it is outside the target's own folder, or something in it cannot be removed.
pub async fn remove_pulled(host: &Host, target: &Target, pulled: &Path) -> anyhow::Result<()> {
    let within = pulled.starts_with(&target.dir) && pulled != target.dir;
    anyhow::ensure!(within, "{} is not below {}", pulled.display(), target.dir.display());
    remove(host, pulled).await
}

async fn remove(host: &Host, folder: &Path) -> anyhow::Result<()> {
    let tree = walk(host, folder).await?;
    for file in &tree.files {
        host.disk.remove_file(file).await?;
    }
    for folder in tree.folders.iter().rev() {
        host.disk.remove_dir(folder).await?;
    }
    Ok(())
}

/// Everything below a folder.
struct Tree {
    /// The folder itself first, and each before what is in it.
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

async fn walk(host: &Host, root: &Path) -> anyhow::Result<Tree> {
    let mut tree = Tree { folders: vec![root.to_owned()], files: Vec::new() };
    let mut at = 0;
    while let Some(folder) = tree.folders.get(at).cloned() {
        for entry in host.disk.list(&folder).await? {
            let path = folder.join(&entry.name);
            match entry.kind {
                FileKind::Dir => tree.folders.push(path),
                FileKind::File | FileKind::Other => tree.files.push(path),
            }
        }
        at += 1;
    }
    Ok(tree)
}

//! Disks that hang: one of each host may lie behind a fault file system, mounted in the host's own namespace, where it
//! ends with the host's power and with the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::{HostCluster, Shape};
use crate::faultfs::{self, Order};

/// How long mounting may take.
const MOUNT_TIME: Duration = Duration::from_secs(10);
/// How often is looked whether it is mounted: that is another process's doing.
const LOOK: Duration = Duration::from_millis(10);

/// A disk behind a fault file system.
struct FaultyDisk {
    /// Where the node has it.
    mount: PathBuf,
    /// The folder that it shows.
    backing: PathBuf,
    /// Where orders are taken.
    control: PathBuf,
}

/// The folder of a node's disk, counted from 1.
pub(super) fn disk_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("disk{number}"))
}

impl HostCluster {
    /// From now on everything that the host's faulty disk is asked waits.
    ///
    /// # Errors
    /// When the shape has no such disk, or its file system does not answer.
    pub async fn hang_disk(&self, at: usize) -> anyhow::Result<()> {
        self.order(at, Order::Hang).await
    }

    /// The host's faulty disk is well again, and what waited for it is done.
    ///
    /// # Errors
    /// When the shape has no such disk, or its file system does not answer.
    pub async fn clear_disk(&self, at: usize) -> anyhow::Result<()> {
        self.order(at, Order::Clear).await
    }

    /// The path of the host's faulty disk, as its node knows it.
    pub fn faulty_disk(&self, at: usize) -> Option<PathBuf> {
        self.faulty(at).map(|disk| disk.mount)
    }

    async fn order(&self, at: usize, order: Order) -> anyhow::Result<()> {
        let disk = self.faulty(at).context("no disk of these hosts lies behind a fault file system")?;
        faultfs::tell(&disk.control, order).await?;
        Ok(())
    }

    fn faulty(&self, at: usize) -> Option<FaultyDisk> {
        let Shape { faulty_disk: Some(number), .. } = self.shape else { return None };
        let folder = self.folder(at);
        Some(FaultyDisk {
            mount: disk_path(&folder, number),
            backing: folder.join(format!("behind-disk{number}")),
            control: folder.join(format!("disk{number}.control")),
        })
    }

    /// Mounts the host's faulty disk, if it is to have one, as a host does that starts.
    pub(super) async fn mount_disk(&self, at: usize) -> anyhow::Result<()> {
        let Some(disk) = self.faulty(at) else { return Ok(()) };
        for folder in [&disk.backing, &disk.mount] {
            self.host.disk.create_dir_all(folder).await?;
        }
        let [mount, backing, control] =
            [&disk.mount, &disk.backing, &disk.control].map(|path| path.display().to_string());
        // A host that lost its power leaves a mount whose file system is gone. The first time there is none.
        let stale = format!("umount --lazy {} 2> /dev/null || true", super::super::quoted(&mount));
        self.hosts.in_host(at, &stale).await?;
        let args = ["fault-fs".to_owned(), backing, mount, control];
        let log = self.folder(at).join("fault-fs.log");
        self.hosts.start(at, &self.binary, &args, &log).await?;
        let until = Instant::now() + MOUNT_TIME;
        loop {
            match faultfs::tell(&disk.control, Order::Show).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return Err(error).with_context(|| format!("no fault file system: {} says why", log.display()));
                }
                // It is being mounted.
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What a file system that was killed leaves: its socket.
    pub(super) async fn remove_controls(&self) -> anyhow::Result<()> {
        for disk in (0..self.hosts.len()).filter_map(|at| self.faulty(at)) {
            self.host.disk.remove_file(&disk.control).await?;
        }
        Ok(())
    }
}

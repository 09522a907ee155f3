//! Content that is on disks and belongs to nobody yet: an upload until its commit. One that fails, is broken off or is
//! refused gives its room back at once, or clients that try again and again on a full cluster, or beyond a quota, would
//! fill every disk with what nobody can read.
//!
//! Must never: touch a shard before its version is forbidden; give up what a commit may have made somebody's. A commit
//! whose outcome is unknown is left to the search for orphans ([`crate::repair`]), as is everything a gateway that dies
//! leaves behind.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::{Gateway, GatewayError};
use crate::model::{Command, ExtentRecord, Outcome};
use crate::types::{DiskId, ExtentId, ShardIndex, Version};

/// Uploads that give their room back side by side. Each waits for the metadata and its homes; what comes beyond is left to
/// the search for orphans.
pub(super) const MAX_GIVING_UP: usize = 64;

/// The shards of an upload that belong to nobody. Dropped, they are given up.
pub(super) struct Unowned {
    gateway: Gateway,
    version: Version,
    /// Where shards were sent, whether or not they arrived.
    sent: Vec<(ExtentId, Vec<DiskId>)>,
    /// Extents that are still being synced.
    finishing: VecDeque<JoinHandle<Result<ExtentRecord, GatewayError>>>,
}

impl std::fmt::Debug for Unowned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unowned").field("version", &self.version).field("extents", &self.sent.len()).finish()
    }
}

impl Unowned {
    /// An upload that has sent nothing yet.
    pub(super) fn new(gateway: Gateway, version: Version) -> Self {
        Self { gateway, version, sent: Vec::new(), finishing: VecDeque::new() }
    }

    /// Under which version it was uploaded.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The shards of an extent are about to be sent to these homes.
    pub(super) fn sending(&mut self, extent: ExtentId, homes: Vec<DiskId>) {
        self.sent.push((extent, homes));
    }

    /// An extent was sent; this waits for it to be durable.
    pub(super) fn finishing(&mut self, task: JoinHandle<Result<ExtentRecord, GatewayError>>) {
        self.finishing.push_back(task);
    }

    /// The oldest extent that is still being synced, if there are more than `but`. It stays here until it is durable: a
    /// client may leave while it is waited for.
    pub(super) async fn finished(&mut self, but: usize) -> Option<Result<ExtentRecord, GatewayError>> {
        if self.finishing.len() <= but {
            return None;
        }
        let done = self.finishing.front_mut()?.await;
        self.finishing.pop_front();
        Some(
            done.unwrap_or_else(|_| {
                Err(GatewayError::GivenUp("this node is stopping: put the object again".to_owned()))
            }),
        )
    }

    /// A commit is about to be proposed: from now on they may be somebody's.
    pub(super) fn proposed(&mut self) -> Vec<(ExtentId, Vec<DiskId>)> {
        std::mem::take(&mut self.sent)
    }

    /// The commit was refused: they are nobody's again.
    pub(super) fn refused(&mut self, sent: Vec<(ExtentId, Vec<DiskId>)>) {
        self.sent = sent;
    }
}

impl Drop for Unowned {
    fn drop(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let Ok(permit) = self.gateway.inner.giving_up.clone().try_acquire_owned() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (gateway, version) = (self.gateway.clone(), self.version);
        let (sent, finishing) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.finishing));
        runtime.spawn(async move {
            for task in finishing {
                // What becomes of it is the same now: it is given up.
                let _ = task.await;
            }
            if let Err(error) = give_up(&gateway, version, &sent).await {
                tracing::debug!(%version, %error, "shards of an upload that failed stay until orphans are looked for");
            }
            drop(permit);
        });
    }
}

async fn give_up(gateway: &Gateway, version: Version, sent: &[(ExtentId, Vec<DiskId>)]) -> Result<(), GatewayError> {
    let meta = &gateway.inner.meta;
    meta.barrier().await?;
    // A commit of an earlier attempt was applied, and what it made was replaced since: somebody may be reading it.
    if meta.garbage(version).await?.is_some() {
        return Ok(());
    }
    if !matches!(meta.propose(Command::ForbidVersion { version }).await?, Outcome::Done) {
        return Ok(());
    }
    let shards = sent.iter().flat_map(|(extent, homes)| {
        (0u8..).map(ShardIndex).zip(homes).map(|(shard, home)| (*home, extent.shard(shard)))
    });
    gateway.inner.shards.discard_all(shards.collect()).await;
    Ok(())
}

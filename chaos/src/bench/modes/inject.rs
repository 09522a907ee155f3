//! The faults themselves, each aimed at one part of one host.
//!
//! Must never: touch anything outside the target's folder, or a process that is not of it; leave an agent stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use redb::TableDefinition;
use resilver_host::{FileKind, Host, OpenMode, Process, Signal};
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{AddDiskRequest, SetHostStateRequest};
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::locks::{AcquireRequest, AcquireResponse, Owner, ReleaseRequest};
use resilver_proto::store::CreateBucketRequest;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::transport::{self, Profile};
use resilver_proto::web;
use serde_json::Value;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{ASK, CALM_LIMIT, Case, LOOK, RECOVERY_LIMIT, calm};
use crate::client::Client;
use crate::faults;
use crate::target::{HostInfo, Target};
use crate::watch::Line;

/// Where the first records of a log's segment lie, and how far they are overwritten (docs/formats.md).
const LOG_DAMAGE: std::ops::Range<u64> = 4096..6000;
/// Written at a time over a database.
const CHUNK_BYTES: u64 = 1 << 20;
/// A table of versions that are not to be used (docs/formats.md): one that nobody ever had makes a member differ, and harms
/// nothing.
const FORBIDDEN: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("forbidden");
/// The digests that a member keeps in step; made anew from what is stored when they are missing.
const LEAVES: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("leaves");
/// The lock that is forgotten: of the making of a bucket.
const LOCKED_BUCKET: &str = "bench-locked";
/// Whose lock it is, and who waits for it.
const FORGETFUL: &str = "0123456789abcdef0123456789abcdef";
const PATIENT: &str = "fedcba9876543210fedcba9876543210";
/// For how long it is taken: far longer than a run takes.
const LEASE: Duration = Duration::from_secs(3600);
/// The longest that one call waits for a lock.
const WAIT: Duration = Duration::from_secs(60);

/// What a fault is brought about with.
pub(super) struct Scene<'a> {
    pub(super) host: &'a Host,
    pub(super) target: &'a Target,
    pub(super) client: &'a Client,
    pub(super) bucket: &'a str,
}

/// A fault that was brought about.
pub(super) struct Injected {
    /// Wall time in milliseconds.
    pub(super) at_ms: u64,
    /// The host that it befell; of a lock: the one through whose node it is asked for in vain.
    pub(super) node: String,
    /// Its own agent opens the incident; else any agent, and the incident names the host.
    own_agent: bool,
    /// A process that was stopped and has to go on.
    pub(super) stopped: Option<Stopped>,
    /// The disk that was wiped: its folder and its id.
    disk: Option<(PathBuf, String)>,
    /// The lock that was taken, and who waits for it.
    lock: Option<(AcquireResponse, Asking)>,
}

/// A process that stands still. It goes on when this goes, however that comes about.
pub(super) struct Stopped(Arc<dyn Process>);

impl Stopped {
    fn stop(process: Arc<dyn Process>) -> std::io::Result<Self> {
        process.signal(Signal::Stop)?;
        Ok(Self(process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::Continue) {
            tracing::debug!(%error, "a stopped process has ended");
        }
    }
}

/// Those who ask for the lock; they end with this.
struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Injected {
    fn now(scene: &Scene<'_>, node: &str) -> Self {
        Self {
            at_ms: scene.host.clock.now().as_millis(),
            node: node.to_owned(),
            own_agent: true,
            stopped: None,
            disk: None,
            lock: None,
        }
    }

    /// Whether an incident of the right mode is about this.
    pub(super) fn is_of(&self, line: &Line) -> bool {
        let named = || line.details["node_ids"].as_array().is_some_and(|ids| ids.iter().any(|id| *id == *self.node));
        if self.own_agent { line.host == self.node } else { named() }
    }
}

impl Scene<'_> {
    pub(super) async fn inject(&self, case: Case, turn: usize, leader: &str) -> anyhow::Result<Injected> {
        let followers: Vec<&HostInfo> = self.target.hosts.iter().filter(|host| host.name != leader).collect();
        let node = match case {
            Case::KilledLeader => self.target.host(leader).context("the leader is not known")?,
            _ => followers.get(turn % followers.len().max(1)).context("no follower")?,
        };
        match case {
            Case::KilledNode | Case::KilledLeader => {
                let injected = Injected::now(self, &node.name);
                faults::kill_node(self.host, self.client, node).await?;
                Ok(injected)
            }
            Case::StoppedNode => {
                let process = self.process(self.pid(node).await?).await?;
                let injected = Injected::now(self, &node.name);
                Ok(Injected { stopped: Some(Stopped::stop(process)?), ..injected })
            }
            Case::DeadHost => {
                let (agent, pid) = (self.process(self.agent_pid(node).await?).await?, self.pid(node).await?);
                let process = self.process(pid).await?;
                let injected = Injected { own_agent: false, ..Injected::now(self, &node.name) };
                // First the one who would bring the other back.
                agent.signal(Signal::Kill)?;
                agent.exited().await?;
                process.signal(Signal::Kill)?;
                Ok(injected)
            }
            Case::WipedDisk => self.wipe(node, turn).await,
            Case::FlippedShard => self.flip(turn).await,
            Case::RottenLog => self.while_away(node, async |meta| self.rot_log(meta).await).await,
            Case::RottenDatabase => self.while_away(node, async |meta| self.rot_database(meta).await).await,
            Case::ChangedReplica => self.while_away(node, async |meta| self.one_record_more(meta).await).await,
            Case::ForgottenLock => self.forget_lock(node).await,
        }
    }

    async fn pid(&self, node: &HostInfo) -> anyhow::Result<u32> {
        let seen = self.client.observe(&node.name).await;
        Ok(seen.with_context(|| format!("{} does not answer", node.name))?.pid)
    }

    async fn agent_pid(&self, node: &HostInfo) -> anyhow::Result<u32> {
        let (_, body) = web::call(&self.host.net, &node.api, "/api/v1/status", None, ASK).await?;
        let status: Value = serde_json::from_slice(&body)?;
        let pid = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.with_context(|| format!("the agent of {} does not say which process it is", node.name))
    }

    async fn process(&self, pid: u32) -> anyhow::Result<Arc<dyn Process>> {
        let id = self.host.proc.identify(pid)?.with_context(|| format!("process {pid} is gone"))?;
        self.host.proc.adopt(id).await?.with_context(|| format!("process {pid} is gone"))
    }

    fn inside(&self, path: &Path) -> anyhow::Result<()> {
        let inside = path.starts_with(&self.target.dir);
        anyhow::ensure!(inside, "{} is outside {}", path.display(), self.target.dir.display());
        Ok(())
    }

    /// Kills a node and changes its metadata before its agent, which is stopped for these milliseconds, starts it again. The
    /// fault counts from the kill.
    async fn while_away(
        &self,
        node: &HostInfo,
        change: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Injected> {
        let meta = self.target.dir.join("nodes").join(&node.name).join("meta");
        self.inside(&meta)?;
        let agent = self.process(self.agent_pid(node).await?).await?;
        let process = self.process(self.pid(node).await?).await?;
        let _still = Stopped::stop(agent)?;
        let injected = Injected::now(self, &node.name);
        process.signal(Signal::Kill)?;
        process.exited().await?;
        change(&meta).await?;
        Ok(injected)
    }

    async fn overwrite(&self, path: &Path, range: std::ops::Range<u64>) -> anyhow::Result<()> {
        let file = self.host.disk.open(path, OpenMode::Write).await.with_context(|| path.display().to_string())?;
        let end = file.len().await?.min(range.end);
        anyhow::ensure!(end > range.start, "{} is too short to be damaged", path.display());
        let mut at = range.start;
        while at < end {
            let len = CHUNK_BYTES.min(end - at);
            file.write_at(at, Bytes::from(vec![0xA5; usize::try_from(len)?])).await?;
            at += len;
        }
        file.sync().await?;
        Ok(())
    }

    async fn rot_log(&self, meta: &Path) -> anyhow::Result<()> {
        let log = meta.join("log");
        let mut segments: Vec<String> = self.host.disk.list(&log).await?.into_iter().map(|entry| entry.name).collect();
        segments.retain(|name| name.starts_with("segment-"));
        let first = segments.into_iter().min().context("the log has no segment")?;
        self.overwrite(&log.join(first), LOG_DAMAGE).await
    }

    async fn rot_database(&self, meta: &Path) -> anyhow::Result<()> {
        self.overwrite(&meta.join("state.redb"), 0..u64::MAX).await
    }

    async fn one_record_more(&self, meta: &Path) -> anyhow::Result<()> {
        let path = meta.join("state.redb");
        let change = move || -> Result<(), redb::Error> {
            let database = redb::Database::open(path)?;
            let txn = database.begin_write()?;
            txn.open_table(FORBIDDEN)?.insert([0xFF; 16].as_slice(), [].as_slice())?;
            txn.delete_table(LEAVES)?;
            Ok(txn.commit()?)
        };
        Ok(self.host.blocking(change).await?)
    }

    async fn wipe(&self, node: &HostInfo, turn: usize) -> anyhow::Result<Injected> {
        let path = node.disks.get(turn % node.disks.len().max(1)).context("a node without disks")?;
        let status = self.client.status().await.context("no node answers")?;
        let of_path = status.disks.iter().find(|disk| disk.node == node.name && Path::new(&disk.path) == path);
        let id = of_path.with_context(|| format!("no disk is at {}", path.display()))?.disk_id.clone();
        let injected = Injected::now(self, &node.name);
        faults::wipe_disk(self.host, self.target, path).await?;
        Ok(Injected { disk: Some((path.clone(), id)), ..injected })
    }

    /// What a person does who has a new disk for the one that was wiped.
    pub(super) async fn replace(&self, injected: &Injected) -> anyhow::Result<()> {
        let (path, id) = injected.disk.as_ref().context("no disk was wiped")?;
        self.inside(path)?;
        self.empty(path).await?;
        let node = self.target.host(&injected.node).context("a disk of no host")?;
        let request =
            AddDiskRequest { path: path.display().to_string(), replaces: id.clone(), reason: "bench modes".to_owned() };
        NodeControlClient::new(self.channel(node)?).add_disk(request).await.context("the disk was not replaced")?;
        Ok(())
    }

    /// Removes what is in a folder.
    async fn empty(&self, folder: &Path) -> anyhow::Result<()> {
        for entry in self.host.disk.list(folder).await? {
            let path = folder.join(&entry.name);
            if entry.kind == FileKind::Dir {
                Box::pin(self.empty(&path)).await?;
                self.host.disk.remove_dir(&path).await?;
            } else {
                self.host.disk.remove_file(&path).await?;
            }
        }
        Ok(())
    }

    /// A parity shard: no client reads it while the others are well, so that only scrub can find the damage.
    async fn flip(&self, turn: usize) -> anyhow::Result<Injected> {
        let key = format!("{turn:03}");
        let verified = self.client.verify(self.bucket, &key).await?;
        let version = verified.object.map(|object| object.version).unwrap_or_default();
        let shard = verified.shards.iter().rfind(|shard| shard.state == "ok").context("no shard is ok")?;
        let node = self.target.host(&shard.node).context("a shard on an unknown host")?;
        let name = format!("{version}-{}-{}", shard.extent, shard.shard);
        for disk in &node.disks {
            let Some(path) = faults::find_file(self.host, disk, &name).await? else { continue };
            let injected = Injected::now(self, &node.name);
            faults::flip_bytes(self.host, self.target, &path).await?;
            return Ok(injected);
        }
        anyhow::bail!("the file of shard {name} was not found on {}", node.name)
    }

    fn channel(&self, node: &HostInfo) -> anyhow::Result<Channel> {
        Ok(transport::channel(&self.host.net, &node.address, Profile::Bulk)?)
    }

    /// A client takes the lock of a bucket's making and forgets it; somebody tries to make the bucket through this node, and
    /// somebody stands in the queue.
    async fn forget_lock(&self, node: &HostInfo) -> anyhow::Result<Injected> {
        let request = |label: &str, life: &str, wait: Duration| AcquireRequest {
            path: format!("config/bucket/{LOCKED_BUCKET}"),
            label: label.to_owned(),
            life: life.to_owned(),
            lease_ms: LEASE.as_secs() * 1000,
            wait_ms: wait.as_secs() * 1000,
        };
        let (mut locks, mut store) = (LocksClient::new(self.channel(node)?), StoreClient::new(self.channel(node)?));
        let injected = Injected::now(self, &node.name);
        let taken = locks.acquire(request("forgetful", FORGETFUL, Duration::ZERO)).await?.into_inner();
        let asking = tokio::spawn(async move {
            let make = CreateBucketRequest { bucket: LOCKED_BUCKET.to_owned(), ..CreateBucketRequest::default() };
            // It fails: that is what the node notices.
            let _ = store.create_bucket(make).await;
            // Until the lock is had; it is given back with the run.
            while locks.acquire(request("patient", PATIENT, WAIT)).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Injected { lock: Some((taken, Asking(asking))), ..injected })
    }

    /// Whoever has the lock after a run gives it back.
    pub(super) async fn let_go(&self, injected: &mut Injected) -> anyhow::Result<()> {
        let Some((taken, asking)) = injected.lock.take() else { return Ok(()) };
        drop(asking);
        let path = format!("config/bucket/{LOCKED_BUCKET}");
        let node = self.target.host(&injected.node).context("a lock of no host")?;
        let mut locks = LocksClient::new(self.channel(node)?);
        let gone = async {
            loop {
                let listed = locks.list(resilver_proto::locks::ListRequest {}).await?.into_inner().locks;
                let Some(lock) = listed.into_iter().find(|lock| lock.path == path) else { return anyhow::Ok(()) };
                let owner: Option<Owner> = lock.owner.or_else(|| taken.owner.clone());
                // Who came after the one that is given back has it at the next look.
                let _ = locks.release(ReleaseRequest { path: path.clone(), owner, token: lock.token }).await;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(CALM_LIMIT, gone).await.context("the lock was not given back")?
    }

    /// What a person says of a host that is back after it was given up.
    pub(super) async fn back_in_service(&self, name: &str) -> anyhow::Result<()> {
        let node = self.target.host(name).context("no such host")?;
        let serves = async {
            while self.client.observe(name).await.is_none_or(|seen| seen.phase != "healthy") {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(RECOVERY_LIMIT, serves).await.with_context(|| format!("{name} did not come back"))?;
        let request = SetHostStateRequest {
            fence: None,
            node: name.to_owned(),
            state: "up".to_owned(),
            automatic: false,
            reason: "bench modes".to_owned(),
        };
        NodeControlClient::new(self.channel(node)?)
            .set_host_state(request)
            .await
            .context("the host was not marked up")?;
        calm(self.host, self.target, self.client).await.map(drop)
    }
}

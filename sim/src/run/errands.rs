//! Errands: verbs that people ask for in the middle of trouble. Each person makes the calls of one verb of the command, in its
//! order, and starts over, at another door, until he is told that it is done or that it is refused.
//!
//! Owns: what counts as an answer, and which errands are still under way.
//!
//! Must never: help in any other way; take a broken connection for an answer. Invariant: an errand that has not ended is
//! counted as open, however its process ended.

mod metadata;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use resilver_host::Host;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::replica_repair_client::ReplicaRepairClient;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    AddDiskRequest, CompareChecksumsRequest, DiskRequest, DiskVerb, ObserveRequest, Progress, RemoveDiskRequest,
    ReplayLogsRequest, RestoreSnapshotRequest, Scope, StepDownRequest, SyncMissingEntriesRequest,
    VerifyIntegrityRequest,
};
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::{DiskStatus, StatusRequest};
use resilver_proto::transport;
use resilver_sim_kernel::Program;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::cluster::node_address;
use crate::plan::{Ask, MACHINES, Mending};

/// How long one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// How long a person waits for a whole verb before he gives his own connection up and asks again.
const VERB_DEADLINE: Duration = Duration::from_secs(25);
/// Between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(700);

/// A verb to be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    /// Which.
    pub(crate) ask: Ask,
    /// The node that it is about.
    pub(crate) node: String,
    /// The mount of the disk that it is about.
    pub(crate) mount: PathBuf,
    /// The folder that is to become a disk, where the verb takes one.
    pub(crate) folder: PathBuf,
    /// Nodes that are gone for good.
    pub(crate) gone: Vec<String>,
    /// The number of the node that is asked first.
    pub(crate) through: usize,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, String>,
    counts: BTreeMap<String, u64>,
    lines: Vec<(String, String)>,
    /// The last backup that was made whole.
    backup: Option<Bytes>,
}

/// All errands of a run.
#[derive(Clone, Default)]
pub(crate) struct Errands(Arc<Mutex<Inner>>);

impl Errands {
    /// The first that has not ended, and what was last said of it.
    pub(crate) fn open(&self) -> Option<String> {
        self.with(|inner| inner.open.values().next().cloned())
    }

    /// How often they ended in which way.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.with(|inner| inner.counts.clone())
    }

    /// What is worth a line of the trace since the last look.
    pub(crate) fn take_lines(&self) -> Vec<(String, String)> {
        self.with(|inner| std::mem::take(&mut inner.lines))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program of a person with this errand.
    pub(crate) fn send(&self, errand: Errand) -> Program {
        let number = self.with(|inner| {
            inner.next += 1;
            inner.open.insert(inner.next, format!("{} has not begun", errand.words()));
            inner.next
        });
        let errands = self.clone();
        Arc::new(move |host, _| {
            let (errand, errands) = (errand.clone(), errands.clone());
            Box::pin(async move {
                Person { host, errand, errands, number }.go().await;
                0
            })
        })
    }

    fn say(&self, number: u64, errand: &Errand, what: &str) {
        self.with(|inner| {
            inner.lines.push((format!("person{number}"), format!("{}: {what}", errand.words())));
            if let Some(last) = inner.open.get_mut(&number) {
                *last = format!("{}: {what}", errand.words());
            }
        });
    }

    fn count(&self, ask: Ask, how: &str) {
        self.with(|inner| *inner.counts.entry(format!("asked.{}.{how}", ask.name())).or_default() += 1);
    }
}

impl Errand {
    fn words(&self) -> String {
        format!("{} of {}{}", self.ask.name(), self.node, self.mount.display())
    }
}

/// Why an attempt is not a success.
#[derive(Debug)]
enum Stop {
    /// The cluster says no.
    Refused(String),
    /// Nobody said what came of it.
    Again(String),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        let words = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument => Stop::Refused(words),
            _ => Stop::Again(words),
        }
    }
}

/// How often a person asks again for what is refused: he knows what he waits for.
fn patience(ask: Ask) -> u32 {
    match ask {
        Ask::Drain => 1,
        Ask::Fail | Ask::Add => 3,
        // Until the disk is out and empty; until it does not work any more.
        Ask::Remove | Ask::Replace { .. } => 20,
        // While members are away nobody may be called wrong.
        Ask::Resync(_) => 40,
        // While survivors are away, or start, it is not known what they have.
        Ask::Recover { .. } => 60,
        Ask::Backup => 3,
        // Once somebody has joined, it stays.
        Ask::Undo => 2,
        // While others are away, or start, it is not known what they have.
        Ask::Restore => 60,
    }
}

/// How long a person asks at all, where his word comes to nothing after a while.
fn gives_up(ask: Ask) -> Duration {
    match ask {
        Ask::Undo => Duration::from_secs(10),
        _ => Duration::MAX,
    }
}

struct Person {
    host: Host,
    errand: Errand,
    errands: Errands,
    number: u64,
}

impl Person {
    async fn go(&self) {
        let (mut disk, mut door, mut refused) = (None, self.errand.through, 0);
        let (began, patience_ends) = (tokio::time::Instant::now(), gives_up(self.errand.ask));
        let how = loop {
            if began.elapsed() > patience_ends {
                self.errands.say(self.number, &self.errand, "given up");
                break "given_up";
            }
            let attempt = tokio::time::timeout(VERB_DEADLINE, self.attempt(&mut disk, door, refused == 0)).await;
            match attempt.unwrap_or_else(|_| Err(Stop::Again("it takes too long".to_owned()))) {
                Ok(what) => {
                    self.errands.say(self.number, &self.errand, &format!("done: {what}"));
                    break "done";
                }
                Err(Stop::Refused(why)) => {
                    self.errands.say(self.number, &self.errand, &format!("refused by n{door}: {why}"));
                    refused += 1;
                    if refused >= patience(self.errand.ask) {
                        break "refused";
                    }
                }
                Err(Stop::Again(why)) => {
                    self.errands.count(self.errand.ask, "repeated");
                    self.errands.say(self.number, &self.errand, &format!("again: n{door}: {why}"));
                    door = door % MACHINES + 1;
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        self.errands.count(self.errand.ask, how);
        self.errands.with(|inner| inner.open.remove(&self.number));
    }

    /// All calls of the verb, once. `disk`: the one that it is about, once it is known; `first`: nothing was refused yet.
    async fn attempt(&self, disk: &mut Option<String>, door: usize, first: bool) -> Result<String, Stop> {
        let Errand { ask, node, folder, .. } = &self.errand;
        if *ask == Ask::Add {
            return self.add(folder, "").await;
        }
        match ask {
            Ask::Recover { .. } => return self.recover_quorum().await,
            Ask::Undo => return self.undo().await,
            Ask::Backup => return self.backup(door).await,
            Ask::Restore => return self.restore().await,
            _ => {}
        }
        if let Ask::Resync(how) = ask {
            return self.resync(door, *how, first).await;
        }
        let id = match disk {
            Some(id) => id.clone(),
            None => disk.insert(self.find(door).await?).clone(),
        };
        match ask {
            Ask::Drain => self.drain(door, &id).await,
            Ask::Fail => {
                let was = self.mark(door, &id, DiskVerb::Out).await?;
                Ok(format!("disk {id} was {was}"))
            }
            Ask::Replace { .. } => self.add(folder, &id).await,
            Ask::Remove => {
                let mut control = NodeControlClient::new(self.channel(node)?);
                in_time(control.remove_disk(RemoveDiskRequest { disk_id: id.clone() })).await?;
                Ok(format!("disk {id} is forgotten"))
            }
            Ask::Add | Ask::Resync(_) | Ask::Recover { .. } | Ask::Undo | Ask::Backup | Ask::Restore => {
                unreachable!("it was asked for above")
            }
        }
    }

    /// Mends the node's member, and sees whether it is what the others are. What is refused of its own log is fetched; a
    /// leader steps down first.
    async fn resync(&self, door: usize, how: Mending, first: bool) -> Result<String, Stop> {
        let channel = self.channel(&self.errand.node)?;
        let (mut recovery, mut replicas) =
            (NodeRecoveryClient::new(channel.clone()), ReplicaRepairClient::new(channel.clone()));
        let mended = match how {
            Mending::Replay if first => recovery.replay_logs(ReplayLogsRequest::default()).await,
            Mending::Whole => recovery.restore_snapshot(RestoreSnapshotRequest::default()).await,
            Mending::Differences | Mending::Replay => {
                let scope = Some(Scope { of: Some(Of::Metadata(true)) });
                replicas.sync_missing_entries(SyncMissingEntriesRequest { scope, fence: None }).await
            }
        };
        let mended = match follow(mended?.into_inner()).await {
            Err(Stop::Refused(why)) if why.contains("this member leads") => {
                let request = StepDownRequest { fence: None, to: String::new() };
                in_time(NodeControlClient::new(channel).step_down(request)).await?;
                return Err(Stop::Again("it led, and was told to step down".to_owned()));
            }
            mended => mended?,
        };
        let verdicts = compare(&self.channel(&format!("n{door}"))?, CALL_DEADLINE).await.map_err(Stop::Again)?;
        match verdicts.get(&self.errand.node).map(String::as_str) {
            Some(RIGHT) => Ok(mended.message),
            verdict => Err(Stop::Again(format!("{}, and then it is {verdict:?}", mended.message))),
        }
    }

    fn channel(&self, node: &str) -> Result<Channel, Stop> {
        transport::channel(&self.host.net, &node_address(node), transport::Profile::Control)
            .map_err(|error| Stop::Again(error.to_string()))
    }

    /// The id of the disk that this is about, as the cluster's list has it.
    async fn find(&self, door: usize) -> Result<String, Stop> {
        let mut cluster = ClusterClient::new(self.channel(&format!("n{door}"))?);
        let status = in_time(cluster.status(StatusRequest { local: false })).await?;
        let Errand { node, mount, ask, .. } = &self.errand;
        let mut here: Vec<&DiskStatus> =
            status.disks.iter().filter(|disk| disk.node == *node && Path::new(&disk.path).starts_with(mount)).collect();
        // What is removed was given up before; everything else is about the disk that is in use.
        here.sort_by_key(|disk| (disk.state == "out") != (*ask == Ask::Remove));
        match here.first() {
            Some(disk) => Ok(disk.disk_id.clone()),
            None => Err(Stop::Refused("there is no such disk".to_owned())),
        }
    }

    /// Says what a disk may do, at its own node where that serves, else at another door.
    async fn mark(&self, door: usize, disk: &str, verb: DiskVerb) -> Result<String, Stop> {
        let own = self.channel(&self.errand.node)?;
        let seen = in_time(NodeControlClient::new(own.clone()).observe(ObserveRequest {})).await;
        let serves = seen.is_ok_and(|seen| seen.phase == "healthy");
        let mut control = NodeControlClient::new(if serves { own } else { self.channel(&format!("n{door}"))? });
        let request = DiskRequest {
            fence: None,
            disk_id: disk.to_owned(),
            verb: verb.into(),
            automatic: false,
            reason: "a person says so".to_owned(),
        };
        Ok(in_time(control.disk(request)).await?.before)
    }

    async fn drain(&self, door: usize, disk: &str) -> Result<String, Stop> {
        let channel = self.channel(&format!("n{door}"))?;
        // One that is out is marked again only in the end.
        let status = in_time(ClusterClient::new(channel.clone()).status(StatusRequest { local: false })).await?;
        let state = status.disks.iter().find(|known| known.disk_id == disk).map(|known| known.state.clone());
        match state.as_deref() {
            None => return Err(Stop::Refused("there is no such disk any more".to_owned())),
            Some("out") => {}
            Some(_) => {
                self.mark(door, disk, DiskVerb::Drain).await?;
            }
        }
        let scope = || Some(Scope { of: Some(Of::DiskId(disk.to_owned())) });
        let request = SyncMissingEntriesRequest { scope: scope(), fence: None };
        let moved = ReplicaRepairClient::new(channel.clone()).sync_missing_entries(request).await?.into_inner();
        let moved = follow(moved).await?;
        let read = NodeRecoveryClient::new(channel).verify_integrity(VerifyIntegrityRequest { scope: scope() }).await?;
        let read = follow(read.into_inner()).await?;
        self.mark(door, disk, DiskVerb::Out).await?;
        Ok(format!("{} shards left it, {} were read back", moved.done, read.done))
    }

    async fn add(&self, folder: &Path, replaces: &str) -> Result<String, Stop> {
        let request = AddDiskRequest {
            path: folder.display().to_string(),
            replaces: replaces.to_owned(),
            reason: "a person says so".to_owned(),
        };
        let mut control = NodeControlClient::new(self.channel(&self.errand.node)?);
        let answer = in_time(control.add_disk(request)).await?;
        Ok(format!("disk {}, new: {}", answer.disk_id, answer.made))
    }
}

/// A member whose metadata is the majority's.
pub(super) const RIGHT: &str = "right";

/// `meta compare --stored`: what is said of every member.
pub(super) async fn compare(door: &Channel, deadline: Duration) -> Result<BTreeMap<String, String>, String> {
    let asked = async {
        let scope = Some(Scope { of: Some(Of::Metadata(true)) });
        let request = CompareChecksumsRequest { scope, with_node: String::new(), stored: true };
        let mut messages = ReplicaRepairClient::new(door.clone()).compare_checksums(request).await?.into_inner();
        let mut verdicts = BTreeMap::new();
        while let Some(message) = messages.message().await? {
            if let Some(member) = message.member {
                verdicts.insert(member.node, member.verdict);
            }
            if message.finished {
                return Ok(verdicts);
            }
        }
        Err(Status::unavailable("it stopped telling what differs"))
    };
    match tokio::time::timeout(deadline, asked).await {
        Ok(answer) => answer.map_err(|status| format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s", deadline.as_secs())),
    }
}

async fn in_time<T>(work: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Stop> {
    match tokio::time::timeout(CALL_DEADLINE, work).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Stop::Again(format!("no answer within {} s", CALL_DEADLINE.as_secs()))),
    }
}

/// A verb's progress to its end. What failed or was skipped there is no success, and the same command goes on.
async fn follow(mut messages: Streaming<Progress>) -> Result<Progress, Stop> {
    while let Some(step) = messages.message().await? {
        if step.finished {
            let Progress { failed, skipped, ref message, .. } = step;
            return match failed + skipped {
                0 => Ok(step),
                _ => Err(Stop::Again(format!("{failed} failed, {skipped} were skipped: {message}"))),
            };
        }
    }
    Err(Stop::Again("it stopped telling how far it is".to_owned()))
}

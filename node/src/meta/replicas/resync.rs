//! Makes this member's state like the majority's, without giving its membership up: the records that differ are fetched, or
//! the whole state is, or it is made anew from this member's own snapshot and log.
//!
//! Owns: stopping at a checkpoint. The member that is mended applies the checkpoint's entry and nothing after it until it is
//! done; Raft goes on receiving meanwhile. So both sides stand at the same entry when one is made like the other.
//!
//! Must never: mend by anything but the majority's word, asked again while stopped; write at any other moment than the one
//! that was compared (the transaction itself looks); stop a leader; leave a snapshot behind that was made of what was wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use resilver_host::OpenMode;
use resilver_host::planted::{Bug, bug};
use resilver_proto::internal::StateRequest;
use tokio::sync::oneshot;

use super::side::{self, Side, Subject};
use super::verdict::{Said, Verdict};
use super::{CHECKPOINT_DEADLINE, Checkpoint, Inner, Meta, ReplicaError, Standing, unlike_leaves};
use crate::meta::MetaError;
use crate::meta::replay::{Replay, replay};
use crate::state::{Held, Owner, PatchError};
use crate::types::{Fence, NodeName};

/// How long a member may stand still for it. Nothing is lost meanwhile; what is asked of it waits.
const HOLD_LIMIT: Duration = Duration::from_secs(120);
/// Records that are mended one by one. Beyond that the whole state travels sooner than it is looked through.
const MAX_PATCH_RECORDS: usize = 10_000;
/// One file of the whole state.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(100);

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mending {
    /// The records that differ.
    Differences,
    /// Everything.
    Whole,
    /// Nothing: the state is made anew from this member's own snapshot and log.
    Replay,
}

/// How far it is, for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every member's digests are made anew and compared.
    Comparing,
    /// This member stands still at an entry, and is compared with who is right.
    Stopped {
        /// At which.
        index: u64,
        /// With whom.
        from: NodeName,
    },
    /// Records are written.
    Writing {
        /// How many; 0: the whole state.
        records: u64,
    },
    /// It goes on, and all are compared once more.
    Proving,
}

/// What was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mended {
    /// By whose state.
    pub(crate) from: NodeName,
    /// At which entry.
    pub(crate) index: u64,
    /// Records that were replaced, removed or added; 0: the whole state was.
    pub(crate) records: u64,
}

/// Where this member is to stand still.
#[derive(Default)]
pub(crate) struct Stops(Mutex<Option<(u128, oneshot::Sender<Stopped>)>>);

/// This member stands still until it is dropped, or too long.
pub(crate) struct Stopped(#[allow(dead_code)] oneshot::Sender<()>);

impl Stops {
    /// The next time this checkpoint is applied here, nothing is applied after it. Takes the place of an earlier wish.
    fn wish(&self, checkpoint: u128) -> oneshot::Receiver<Stopped> {
        let (stopped, stop) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((checkpoint, stopped));
        stop
    }

    /// Called by who applies, behind a checkpoint: returns when it may go on.
    pub(in crate::meta) async fn stop_at(&self, checkpoint: u128) {
        let wish = self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(wished, _)| *wished == checkpoint);
        let Some((_, stopped)) = wish else { return };
        let (hold, go_on) = oneshot::channel();
        if stopped.send(Stopped(hold)).is_ok() && tokio::time::timeout(HOLD_LIMIT, go_on).await.is_err() {
            tracing::warn!(operation = "resync", "this member stood still for {} s, and goes on", HOLD_LIMIT.as_secs());
        }
    }
}

impl Meta {
    /// Makes this member's state like the majority's; `None`: it is.
    ///
    /// # Errors
    /// [`ReplicaError::Refused`] when it leads, or when no majority of at least three says that it is wrong. Nothing was
    /// changed then.
    pub(crate) async fn resync(
        &self,
        mending: Mending,
        fence: Option<Fence>,
        tell: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<Option<Mended>, ReplicaError> {
        let inner = &self.inner;
        inner.must_not_lead()?;
        tell(Step::Comparing);
        let before = self.compare(true).await?;
        self.release(&before.at);
        let own = inner.links.own();
        let Some(from) = authority(&before.standings, &own, inner.leader_name().as_ref())? else { return Ok(None) };

        let mended = inner.mend(mending, fence, from, tell).await?;
        // A snapshot made before is of what was wrong: whoever is sent one from now on is sent another.
        inner.raft.trigger().snapshot().await.map_err(|fatal| MetaError::Stopped { reason: fatal.to_string() })?;
        tell(Step::Proving);
        let after = self.compare(true).await?;
        self.release(&after.at);
        match after.standings.iter().find(|standing| standing.node == own).map(|standing| standing.verdict) {
            Some(Verdict::Right) => Ok(Some(mended)),
            verdict => Err(ReplicaError::Refused(format!(
                "{} records were mended, and this member is {} again at entry {}: mending one by one does not cure it; bring \
                 it back by `resilver node rejoin`",
                mended.records,
                verdict.map_or("not heard", Verdict::as_str),
                after.at.index
            ))),
        }
    }
}

/// By whose state a member is mended; `None`: it is right.
fn authority(
    standings: &[Standing],
    own: &NodeName,
    leader: Option<&NodeName>,
) -> Result<Option<NodeName>, ReplicaError> {
    let heard = standings.iter().filter(|standing| standing.said.is_ok()).count();
    let right: Vec<&NodeName> =
        standings.iter().filter(|it| it.verdict == Verdict::Right && it.node != *own).map(|it| &it.node).collect();
    let verdict = standings.iter().find(|standing| standing.node == *own).map(|standing| standing.verdict);
    match verdict {
        Some(Verdict::Right) => Ok(None),
        Some(Verdict::Wrong) => {
            let chosen = leader.filter(|leader| right.contains(leader)).or_else(|| right.first().copied());
            let none = || ReplicaError::Refused("nobody who is right can be asked; nothing was changed".to_owned());
            chosen.cloned().map(Some).ok_or_else(none)
        }
        Some(Verdict::Undecided) => Err(ReplicaError::Refused(format!(
            "{heard} of {} members said how their state is, and no majority of at least three says the same: nobody can be \
             called wrong by that; nothing was changed",
            standings.len()
        ))),
        Some(Verdict::Silent) | None => {
            Err(ReplicaError::Refused("this member's own state cannot be read; nothing was changed".to_owned()))
        }
    }
}

impl Inner {
    fn must_not_lead(&self) -> Result<(), ReplicaError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader == Some(metrics.id) {
            true => Err(ReplicaError::Refused(
                "this member leads: all writes would wait while it is mended; step it down first; nothing was changed"
                    .to_owned(),
            )),
            false => Ok(()),
        }
    }

    fn leader_name(&self) -> Option<NodeName> {
        let leader = self.raft.metrics().borrow().current_leader?;
        self.state.map().node_by_raft(crate::types::RaftId(leader)).map(|node| node.name.clone())
    }

    /// Stops at a checkpoint, and makes one state like the other.
    async fn mend(
        &self,
        mending: Mending,
        fence: Option<Fence>,
        from: NodeName,
        tell: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<Mended, ReplicaError> {
        let id = self.checkpoint_id();
        let stop = self.replicas.stops.wish(id);
        let proposing = self.propose_checkpoint(id, fence);
        // Held until the end of this: who applies stands still as long.
        let _stopped = tokio::time::timeout(CHECKPOINT_DEADLINE, async {
            tokio::pin!(proposing, stop);
            tokio::select! {
                // Its outcome comes from the leader, perhaps before the entry is applied here.
                proposed = &mut proposing => {
                    proposed?;
                    stop.await
                }
                stopped = &mut stop => stopped,
            }
            .map_err(|_| {
                ReplicaError::Refused("another comparison took the place of this one; nothing was changed".to_owned())
            })
        })
        .await
        .map_err(|_| MetaError::NoLeader { doing: "a checkpoint", waited: CHECKPOINT_DEADLINE })??;
        self.must_not_lead()?;
        let held = self.state.held(id);
        let held =
            held.ok_or_else(|| ReplicaError::Refused("the moment was not kept; nothing was changed".to_owned()))?;
        let at = Checkpoint { id, index: held.applied.index };
        tell(Step::Stopped { index: at.index, from: from.clone() });
        let records = self.make_like(mending, &at, &held, &from, tell).await;
        self.state.release(id);
        Ok(Mended { from, index: at.index, records: records? })
    }

    async fn make_like(
        &self,
        mending: Mending,
        at: &Checkpoint,
        held: &Held,
        from: &NodeName,
        tell: &(dyn Fn(Step) + Send + Sync),
    ) -> Result<u64, ReplicaError> {
        let subject = Subject { at, stored: true };
        let standings = self.standings(subject, held).await;
        let own = self.links.own();
        let right = standings.iter().find(|it| it.node == *from && it.verdict == Verdict::Right);
        let wrong = standings.iter().any(|it| it.node == own && it.verdict == Verdict::Wrong);
        let Some(Standing { said: Ok(right), .. }) = right.filter(|_| wrong) else {
            return Err(ReplicaError::Refused(format!(
                "at entry {} it is not certain any more that {own} is wrong and {from} right; nothing was changed",
                at.index
            )));
        };
        if right.applied != held.applied.note {
            return Err(ReplicaError::Refused(format!(
                "at index {} this member applied another entry than {from}: its log differs, and not only its state; bring it \
                 back by `resilver node rejoin`; nothing was changed",
                at.index
            )));
        }
        let other = self.side(from, held)?;
        match mending {
            Mending::Whole => {
                tell(Step::Writing { records: 0 });
                self.transfer(at, &other, right).await.map(|()| 0)
            }
            Mending::Replay => {
                tell(Step::Writing { records: 0 });
                self.replay_own(at, right).await.map(|()| 0)
            }
            Mending::Differences => {
                let mut changes = self.changes(subject, held, &other).await?;
                if bug(Bug::ResyncSkipsRecord) {
                    changes.pop();
                }
                let records = changes.len() as u64;
                tell(Step::Writing { records });
                self.must_not_lead()?;
                match self.state.patch(at.index, changes, right.root).await {
                    Ok(()) => Ok(records),
                    Err(PatchError::State(error)) => Err(error.into()),
                    Err(unlike) => Err(ReplicaError::Refused(unlike.to_string())),
                }
            }
        }
    }

    /// What has to be written here to be like the other.
    async fn changes(
        &self,
        subject: Subject<'_>,
        held: &Held,
        other: &Side<'_>,
    ) -> Result<Vec<(Vec<u8>, Option<Vec<u8>>)>, ReplicaError> {
        let own = Side::Own(&self.state, held.clone());
        let (leaves, _) = unlike_leaves(&own, other, subject).await?;
        let mut changes = Vec::new();
        for leaf in leaves {
            let here = own.records(subject.at, &leaf, false, MAX_PATCH_RECORDS).await?.answer;
            let there = other.records(subject.at, &leaf, true, MAX_PATCH_RECORDS).await?.answer;
            let gone = here.iter().filter(|record| there.binary_search_by(|it| it.place.cmp(&record.place)).is_err());
            changes.extend(gone.map(|record| (record.place.clone(), None)));
            let same = |place: &[u8], digest| {
                here.binary_search_by(|it| it.place.as_slice().cmp(place)).is_ok_and(|at| here[at].digest == digest)
            };
            changes.extend(
                there.into_iter().filter(|it| !same(&it.place, it.digest)).map(|it| (it.place, Some(it.value))),
            );
            if changes.len() > MAX_PATCH_RECORDS {
                return Err(ReplicaError::TooMany { limit: MAX_PATCH_RECORDS });
            }
        }
        Ok(changes)
    }

    /// Fetches the other's whole state and takes it as this member's.
    async fn transfer(&self, at: &Checkpoint, other: &Side<'_>, right: &Said) -> Result<(), ReplicaError> {
        let Side::Other(links, member) = other else {
            return Err(ReplicaError::Refused(
                "this member cannot be mended by itself; nothing was changed".to_owned(),
            ));
        };
        let path = self.snapshots.incoming();
        let fetched = tokio::time::timeout(TRANSFER_DEADLINE, async {
            let mut client = side::client(links, *member)?;
            let request = StateRequest { envelope: Some(links.ids.envelope(*member)), checkpoint: Some(at.into()) };
            let mut stream = client.state(request).await.map_err(side::refused(*member))?.into_inner();
            let failed = |source| MetaError::Io { what: "writing", path: path.clone(), source };
            let file = links.host.disk.open(&path, OpenMode::CreateNew).await.map_err(failed)?;
            let mut offset = 0;
            while let Some(chunk) = stream.message().await.map_err(side::refused(*member))? {
                let len = chunk.data.len() as u64;
                file.write_at(offset, chunk.data).await.map_err(failed)?;
                offset += len;
            }
            file.sync().await.map_err(failed)?;
            Ok::<_, ReplicaError>(())
        });
        let late = |_| ReplicaError::Silent {
            member: *member,
            detail: format!("its state did not arrive within {} s", TRANSFER_DEADLINE.as_secs()),
        };
        let installed = async {
            fetched.await.map_err(late)??;
            self.must_not_lead()?;
            match self.state.replace(&path, at.index, right.root).await {
                Ok(()) => Ok(()),
                Err(PatchError::State(error)) => Err(error.into()),
                Err(unlike) => Err(ReplicaError::Refused(unlike.to_string())),
            }
        };
        let installed = installed.await;
        self.snapshots.discard(&path).await;
        installed
    }

    /// Makes the state anew from what this member has itself, and takes that if it comes to what the majority has.
    async fn replay_own(&self, at: &Checkpoint, right: &Said) -> Result<(), ReplicaError> {
        let ids = &self.links.ids;
        let owner = Owner { cluster: ids.cluster, raft_id: ids.raft_id };
        let snapshot = self.snapshots.current().map(|(_, file)| file.path);
        let scratch = self.snapshots.scratch();
        let whole = Replay { scratch: &scratch, owner, from: snapshot.as_deref(), up_to: Some(at.index) };
        let path = self.snapshots.incoming();
        let replayed = async {
            replay(&self.links.host, whole, |_| self.elections.log.clone(), &path).await?;
            self.must_not_lead()?;
            match self.state.replace(&path, at.index, right.root).await {
                Ok(()) => Ok(()),
                Err(PatchError::State(error)) => Err(error.into()),
                Err(unlike) => Err(ReplicaError::Refused(format!(
                    "this member's own snapshot and log do not give the majority's state either: {unlike}; transfer it instead"
                ))),
            }
        };
        let replayed = replayed.await;
        self.snapshots.discard(&path).await;
        replayed
    }
}

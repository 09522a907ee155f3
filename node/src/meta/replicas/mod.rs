//! Members compared at one moment, and one that is wrong mended.
//!
//! Owns: checkpoints, the comparison of all members, where two differ, (in [`resync`]) making one that is wrong like the
//! majority, and (in [`journal`]) comparing a member with what its own log comes to. Must never: change anything to compare; change a member that was not found wrong by a majority of at least
//! three ([`verdict`]); change the leader, which would stop everybody's writes meanwhile.
//!
//! The comparison goes from the top down, a level at a time, and only into ranges that differ: what travels grows with the
//! differences, not with the state.

mod answer;
mod journal;
mod resync;
mod side;
mod verdict;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngCore;
use resilver_host::Rng;

use self::side::{Side, Subject};
use super::{Inner, Meta, MetaError};
use crate::model::{Command, HostState, Outcome};
use crate::state::{Held, StateError, StateRecord, Stretch, TOP, unequal};
use crate::types::{Fence, NodeName, RaftId};

pub(super) use self::answer::Messages;
pub(crate) use self::journal::{Replayed, Replaying, difference_in_words};
pub(super) use self::resync::Stops;
pub(crate) use self::resync::{Mending, Step};
pub(crate) use self::verdict::{Standing, Verdict};

/// How long a checkpoint may take to be applied here.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(10);
/// Differences that are named. A member that differs in more is told how many there are at least.
pub(crate) const MAX_DIFFERENCES: usize = 1000;
/// Records in a leaf that are looked at: many times what a leaf has on average (128).
const MAX_LEAF_RECORDS: usize = 100_000;

/// What a member needs for it.
pub(super) struct Replicas {
    draws: Mutex<Rng>,
    pub(super) stops: Arc<Stops>,
    /// Held while this member's log is replayed: there is one folder for the copy.
    replaying: tokio::sync::Mutex<()>,
}

impl Replicas {
    pub(super) fn new(draws: Rng, stops: Arc<Stops>) -> Self {
        Self { draws: Mutex::new(draws), stops, replaying: tokio::sync::Mutex::default() }
    }
}

/// A moment that every member keeps for a while.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    id: u128,
    /// Of its entry.
    pub(crate) index: u64,
}

/// Where two members differ: the digests of one record, `None` where it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) place: Vec<u8>,
    pub(crate) left: Option<u128>,
    pub(crate) right: Option<u128>,
}

/// All of them, up to [`MAX_DIFFERENCES`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    pub(crate) found: Vec<Difference>,
    /// Whether there are more.
    pub(crate) more: bool,
    /// What travelled between the members for it.
    pub(crate) wire_bytes: u64,
}

/// What came of comparing all members.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) at: Checkpoint,
    /// Every member of the map that is not out, in the map's order.
    pub(crate) standings: Vec<Standing>,
}

/// Why members could not be compared, or one not be mended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    /// A member did not answer, or does not keep the moment.
    #[error("member {member}: {detail}")]
    Silent {
        /// Which.
        member: RaftId,
        /// Its words, or how long was waited.
        detail: String,
    },
    /// An answer that makes no sense.
    #[error("an answer that cannot be read: {detail}")]
    Unreadable {
        /// What.
        detail: String,
    },
    /// More records differ than are mended one by one.
    #[error(
        "more than {limit} records: too many to be looked at one by one; transfer the whole state instead (`resilver meta resync NODE --whole`)"
    )]
    TooMany {
        /// How many are.
        limit: usize,
    },
    /// By a guard.
    #[error("{0}")]
    Refused(String),
    /// What lies on this member's disk is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The metadata could not be had or changed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Meta {
    /// Compares the whole state of all members, at one moment. `stored`: by what they have stored, every record read,
    /// instead of by the digests that are kept in step.
    pub(crate) async fn compare(&self, stored: bool) -> Result<Comparison, ReplicaError> {
        let (at, held) = self.inner.checkpoint(None).await?;
        let standings = self.inner.standings(Subject { at: &at, stored }, &held).await;
        Ok(Comparison { at, standings })
    }

    /// Where two members differ, at the moment of a comparison.
    pub(crate) async fn differences(
        &self,
        at: &Checkpoint,
        stored: bool,
        left: &NodeName,
        right: &NodeName,
    ) -> Result<Differences, ReplicaError> {
        let held = self.inner.kept(at)?;
        let (left, right) = (self.inner.side(left, &held)?, self.inner.side(right, &held)?);
        differences(&left, &right, Subject { at, stored }).await
    }

    /// Lets a moment go before its time.
    pub(crate) fn release(&self, at: &Checkpoint) {
        self.inner.state.release(at.id);
    }
}

impl Inner {
    /// Makes every member keep one moment, and waits for this one to.
    async fn checkpoint(&self, fence: Option<Fence>) -> Result<(Checkpoint, Held), ReplicaError> {
        let id = self.checkpoint_id();
        self.propose_checkpoint(id, fence).await?;
        let late = |_| MetaError::NoLeader { doing: "a checkpoint", waited: CHECKPOINT_DEADLINE };
        let held = tokio::time::timeout(CHECKPOINT_DEADLINE, self.state.will_hold(id, None)).await.map_err(late)?;
        let gone = || MetaError::Stopped { reason: "the state machine is gone".to_owned() };
        let held = held.ok_or_else(gone)?;
        Ok((Checkpoint { id, index: held.applied.index }, held))
    }

    fn checkpoint_id(&self) -> u128 {
        let mut draws = self.replicas.draws.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(draws.next_u64()) << 64) | u128::from(draws.next_u64())
    }

    async fn propose_checkpoint(&self, id: u128, fence: Option<Fence>) -> Result<(), ReplicaError> {
        match self.propose(&Command::Checkpoint { id, fence }).await? {
            Outcome::Refused(refusal) => Err(ReplicaError::Refused(refusal.to_string())),
            _ => Ok(()),
        }
    }

    fn kept(&self, at: &Checkpoint) -> Result<Held, ReplicaError> {
        let gone = || ReplicaError::Refused("this moment is not kept any more: compare anew".to_owned());
        self.state.held(at.id).ok_or_else(gone)
    }

    fn side(&self, node: &NodeName, held: &Held) -> Result<Side<'_>, ReplicaError> {
        let map = self.state.map();
        let member = map.nodes.get(node).map(|node| node.raft_id);
        match member {
            Some(member) if member == self.links.ids.raft_id => Ok(Side::Own(&self.state, held.clone())),
            Some(member) => Ok(Side::Other(&self.links, member)),
            None => Err(ReplicaError::Refused(format!("there is no node {node}"))),
        }
    }

    /// What every member says of a moment, and how each stands.
    async fn standings(&self, subject: Subject<'_>, held: &Held) -> Vec<Standing> {
        let map = self.state.map();
        let nodes = map.nodes.values().filter(|node| node.state != HostState::Out);
        let said = nodes.map(|node| async {
            let said = match self.side(&node.name, held) {
                Ok(side) => side.said(subject).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (node.name.clone(), said)
        });
        verdict::judge(join_all(said).await)
    }
}

/// Leaves that differ, in order, found from the top down; and what travelled for it.
async fn unlike_leaves(
    left: &Side<'_>,
    right: &Side<'_>,
    subject: Subject<'_>,
) -> Result<(Vec<Stretch>, u64), ReplicaError> {
    let mut open: Vec<(u32, Stretch)> = vec![(TOP, (Vec::new(), None))];
    let (mut leaves, mut wire_bytes) = (Vec::new(), 0);
    while let Some((level, stretch)) = open.pop() {
        let (here, there) =
            tokio::try_join!(left.ranges(subject, level, &stretch), right.ranges(subject, level, &stretch))?;
        wire_bytes += here.bytes + there.bytes;
        let parts = unequal(&here.answer, &there.answer, &stretch);
        match level {
            0 => leaves.extend(parts),
            // The last is looked at first: so they are found in the order of their places.
            _ => open.extend(parts.into_iter().rev().map(|part| (level - 1, part))),
        }
    }
    Ok((leaves, wire_bytes))
}

/// The records that differ.
async fn differences(left: &Side<'_>, right: &Side<'_>, subject: Subject<'_>) -> Result<Differences, ReplicaError> {
    let (leaves, wire_bytes) = unlike_leaves(left, right, subject).await?;
    let mut all = Differences { wire_bytes, ..Differences::default() };
    for leaf in leaves {
        let (here, there) = tokio::try_join!(
            left.records(subject.at, &leaf, false, MAX_LEAF_RECORDS),
            right.records(subject.at, &leaf, false, MAX_LEAF_RECORDS)
        )?;
        all.wire_bytes += here.bytes + there.bytes;
        all.found.extend(unlike(here.answer, there.answer));
        if all.found.len() > MAX_DIFFERENCES {
            all.found.truncate(MAX_DIFFERENCES);
            all.more = true;
            break;
        }
    }
    Ok(all)
}

/// Records that are not the same on both sides, in order.
fn unlike(left: Vec<StateRecord>, right: Vec<StateRecord>) -> Vec<Difference> {
    let mut places: BTreeMap<Vec<u8>, (Option<u128>, Option<u128>)> = BTreeMap::new();
    for record in left {
        places.entry(record.place).or_default().0 = Some(record.digest);
    }
    for record in right {
        places.entry(record.place).or_default().1 = Some(record.digest);
    }
    let differs = places.into_iter().filter(|(_, (left, right))| left != right);
    differs.map(|(place, (left, right))| Difference { place, left, right }).collect()
}

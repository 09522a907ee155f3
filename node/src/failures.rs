//! Failures on the way of operations, remembered for a few minutes: what the agent reads cascades from.
//!
//! Owns: the record, its count for metrics, and how places are named for it. Must never: decide (what follows from what is
//! the agent's question), hold an operation up, or use wall time.
//!
//! Invariants: the sequence rises within one process and over all kinds; no more than [`MAX_PER_KIND`] failures of a
//! kind, none older than [`KEPT`], no more than [`MAX_PLACES`] places each: a flood of one kind drives out no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_proto::contract;
use tokio::time::Instant;

use crate::meta::Meta;
use crate::model::{ClusterMap, NodeRecord};
use crate::peers::Peers;
use crate::types::{DiskId, NodeName};

/// How long a failure is told. No pattern of a cascade looks back further.
pub const KEPT: Duration = Duration::from_secs(5 * 60);
/// Failures kept of one kind. The agent reads them once a second, and of a flood the newest say all.
pub const MAX_PER_KIND: usize = 128;
/// Failures of one kind in one answer to the agent.
const PER_ANSWER: usize = 64;
/// Places of one failure; more are left out. An upload has k+m homes, 16 at the most.
pub const MAX_PLACES: usize = 16;
/// Letters of a subject: it is for people, and a lock's path may be long.
const MAX_SUBJECT: usize = 200;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The circuit to a peer opened.
    PeerUnreachable,
    /// A lock was not had in time.
    LockTimeout,
    /// A disk did not say in time how it is.
    DiskStateCheckTimeout,
    /// Keys or configuration could not be read in time.
    AuthTimeout,
    /// An upload failed on the server's side.
    UploadFailure,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::PeerUnreachable, Self::LockTimeout, Self::DiskStateCheckTimeout, Self::AuthTimeout, Self::UploadFailure];

    /// The name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerUnreachable => "peer_unreachable",
            Self::LockTimeout => "lock_timeout",
            Self::DiskStateCheckTimeout => "disk_state_check_timeout",
            Self::AuthTimeout => "auth_timeout",
            Self::UploadFailure => "upload_failure",
        }
    }

    /// The part of the node that notices it. One each: the metric has as many series as there are kinds.
    pub fn component(self) -> &'static str {
        match self {
            Self::PeerUnreachable => "peers",
            Self::LockTimeout => "locks",
            Self::DiskStateCheckTimeout => "disks",
            Self::AuthTimeout => "keys",
            Self::UploadFailure => "gateway",
        }
    }
}

/// Where an operation was when it failed: what it waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A peer, by its address.
    Address(String),
    /// This node.
    Here,
    /// A node.
    Node(NodeName),
    /// A disk, of this node or another.
    Disk(DiskId),
}

/// A failure, as it is remembered.
#[derive(Clone, Debug)]
struct Failure {
    sequence: u64,
    at: Instant,
    subject: String,
    places: Vec<Place>,
}

/// How often something failed since the start, and what failed lately. Cheap to clone.
#[derive(Clone, Default)]
pub struct Failures {
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    next: u64,
    counts: BTreeMap<FailureKind, u64>,
    kept: BTreeMap<FailureKind, VecDeque<Failure>>,
}

impl Failures {
    /// The circuit to the peer at this address opened. `cut_off`: so are those to most others, and the fault may as well be
    /// here.
    pub fn peer_unreachable(&self, address: &str, cut_off: bool) {
        let mut places = vec![Place::Address(address.to_owned())];
        places.extend(cut_off.then_some(Place::Here));
        self.note(FailureKind::PeerUnreachable, address, places);
    }

    /// A lock on this path was not had in time, because of these: its owner, who leads the locks' metadata, who is silent.
    pub fn lock_timeout(&self, path: &str, places: Vec<Place>) {
        self.note(FailureKind::LockTimeout, path, places);
    }

    /// The check of a disk of this node takes longer than one may.
    pub fn disk_state_check_timeout(&self, disk: DiskId) {
        self.note(FailureKind::DiskStateCheckTimeout, &disk.to_string(), vec![Place::Disk(disk)]);
    }

    /// Keys or configuration could not be read in time, because of these.
    pub fn auth_timeout(&self, what: &str, places: Vec<Place>) {
        self.note(FailureKind::AuthTimeout, what, places);
    }

    /// An upload into this bucket failed, and not by the client's doing, because of these.
    pub fn upload_failure(&self, bucket: &str, places: Vec<Place>) {
        self.note(FailureKind::UploadFailure, bucket, places);
    }

    /// How often each kind failed since the start.
    pub fn counts(&self) -> Vec<(FailureKind, u64)> {
        let record = self.lock();
        FailureKind::ALL.into_iter().map(|kind| (kind, record.counts.get(&kind).copied().unwrap_or(0))).collect()
    }

    /// What failed lately, oldest first, with the names that the map has for it: the newest of each kind. `own` is this
    /// node, `is_own` tells its disks: they may not be in the map yet.
    pub fn told(
        &self,
        map: Option<&ClusterMap>,
        own: &NodeName,
        is_own: impl Fn(DiskId) -> bool,
    ) -> Vec<contract::FailureEvent> {
        let now = Instant::now();
        let record = self.lock();
        let mut told = Vec::new();
        for (kind, kept) in &record.kept {
            let young = kept.iter().rev().take_while(|failure| now.saturating_duration_since(failure.at) <= KEPT);
            told.extend(young.take(PER_ANSWER).map(|failure| contract::FailureEvent {
                sequence: failure.sequence,
                kind: kind.as_str().to_owned(),
                component: kind.component().to_owned(),
                subject: subject(map, failure),
                places: failure.places.iter().filter_map(|place| named(map, own, &is_own, place)).collect(),
                age_ms: u64::try_from(now.saturating_duration_since(failure.at).as_millis()).unwrap_or(u64::MAX),
            }));
        }
        told.sort_by_key(|event| event.sequence);
        told
    }

    fn note(&self, kind: FailureKind, subject: &str, mut places: Vec<Place>) {
        let now = Instant::now();
        places.truncate(MAX_PLACES);
        let subject = subject.chars().take(MAX_SUBJECT).collect();
        let record = &mut *self.lock();
        record.next += 1;
        *record.counts.entry(kind).or_default() += 1;
        let kept = record.kept.entry(kind).or_default();
        while kept.len() >= MAX_PER_KIND
            || kept.front().is_some_and(|oldest| now.saturating_duration_since(oldest.at) > KEPT)
        {
            kept.pop_front();
        }
        kept.push_back(Failure { sequence: record.next, at: now, subject, places });
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while holding it.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer is known by its name to people, and by its address to the part that dials it.
fn subject(map: Option<&ClusterMap>, failure: &Failure) -> String {
    let named =
        |address: &str| map?.nodes.values().find(|node| node.address == address).map(|node| node.name.to_string());
    named(&failure.subject).unwrap_or_else(|| failure.subject.clone())
}

/// `None`: not a member any more, so that nothing can be on one path with it.
fn named(
    map: Option<&ClusterMap>,
    own: &NodeName,
    is_own: &impl Fn(DiskId) -> bool,
    place: &Place,
) -> Option<contract::FailurePlace> {
    let host = |node: &NodeName| contract::FailurePlace { node: node.to_string(), disk_id: String::new() };
    match place {
        Place::Address(address) => {
            map?.nodes.values().find(|node| node.address == *address).map(|node| host(&node.name))
        }
        Place::Here => Some(host(own)),
        Place::Node(node) => Some(host(node)),
        Place::Disk(disk) => {
            let recorded = map.and_then(|map| map.disks.get(disk)).map(|record| record.node.clone());
            let node = recorded.or_else(|| is_own(*disk).then(|| own.clone()))?;
            Some(contract::FailurePlace { disk_id: disk.to_string(), ..host(&node) })
        }
    }
}

/// Whom an answer of the metadata depends on and who may have held it up: its leader, as far as this node knows one, and
/// the voters that are suspect.
pub(crate) fn places_of_metadata(meta: &Meta, peers: &Peers) -> Vec<Place> {
    let (map, status) = (meta.map(), meta.status());
    let held_up = |node: &&NodeRecord| {
        let leads = status.leader == Some(node.raft_id);
        leads || (status.voters.contains(&node.raft_id) && peers.is_suspect(&node.address))
    };
    map.nodes.values().filter(held_up).map(|node| Place::Node(node.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failures: &Failures) -> Vec<contract::FailureEvent> {
        failures.told(None, &"n1".into(), |_| false)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_told_for_five_minutes_with_their_age_and_a_rising_sequence() {
        let failures = Failures::default();
        failures.peer_unreachable("n2:7000", false);
        tokio::time::advance(Duration::from_secs(60)).await;
        failures.upload_failure("photos", vec![Place::Node("n2".into())]);
        let now = told(&failures);
        let seen: Vec<_> = now.iter().map(|event| (event.sequence, event.kind.as_str(), event.age_ms)).collect();
        assert_eq!(seen, [(1, "peer_unreachable", 60_000), (2, "upload_failure", 0)]);
        assert_eq!(now[0].subject, "n2:7000", "nobody in the map has that address");
        assert!(now[0].places.is_empty());
        assert_eq!(now[1].places[0].node, "n2");
        tokio::time::advance(KEPT).await;
        assert_eq!(told(&failures).len(), 1, "the first is too old");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(told(&failures).is_empty());
        assert_eq!(failures.counts()[0], (FailureKind::PeerUnreachable, 1), "but both count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_kind_drives_out_no_other_and_stays_bounded() {
        let failures = Failures::default();
        failures.peer_unreachable("n2:7000", false);
        let long = "ü".repeat(10_000);
        for _ in 0..10_000 {
            failures.upload_failure(&long, vec![Place::Node("n2".into()); 100]);
        }
        let now = told(&failures);
        assert_eq!(now.len(), 1 + PER_ANSWER);
        assert_eq!(now[0].kind, "peer_unreachable");
        assert_eq!(now.last().unwrap().sequence, 10_001, "the newest are told");
        assert!(now.iter().all(|event| event.subject.chars().count() <= MAX_SUBJECT));
        assert!(now.iter().all(|event| event.places.len() <= MAX_PLACES));
        assert_eq!(failures.lock().kept[&FailureKind::UploadFailure].len(), MAX_PER_KIND);
        assert_eq!(failures.counts().last(), Some(&(FailureKind::UploadFailure, 10_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_disk_is_named_before_the_map_has_it_and_a_foreign_one_is_not() {
        let failures = Failures::default();
        let (own, foreign) = (DiskId(1), DiskId(2));
        failures.disk_state_check_timeout(own);
        failures.disk_state_check_timeout(foreign);
        let now = failures.told(None, &"n1".into(), |disk| disk == own);
        assert_eq!((now[0].places[0].node.as_str(), &now[0].places[0].disk_id), ("n1", &own.to_string()));
        assert!(now[1].places.is_empty());
    }
}

//! From the node's answer to what its score is made from.
//!
//! Must never: judge. A word that is not known here is not known, not good.

use std::time::Duration;

use resilver_proto::contract::{DiskState, ObserveResponse, RaftState};
use resilver_strategies::health::{Condition, DiskInput, RaftInput, Rebuild, Service};

/// What is kept of an answer until the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    pub(super) phase: String,
    pub(super) rebuild: Option<Rebuild>,
    /// Shards that cannot be read, and all shards, of the whole cluster.
    pub(super) missing_shards: Option<u64>,
    pub(super) shards: Option<u64>,
    pub(super) disks: Vec<DiskFacts>,
    pub(super) raft: Option<RaftInput>,
    /// Inodes left on each file system that has a limit of them.
    pub(super) inodes: Vec<(String, u64)>,
    /// Descriptors that its process has open, and may have.
    pub(super) descriptors: Option<(u64, u64)>,
    /// Members without a vote, by the map.
    pub(super) learners: Vec<String>,
}

/// A disk, with what only trends look at.
#[derive(Clone, Debug)]
pub(super) struct DiskFacts {
    pub(super) id: String,
    pub(super) input: DiskInput,
    /// What the last check of its state took.
    pub(super) check: Option<Duration>,
    /// Operations that failed since its node started.
    pub(super) errors: u64,
}

/// What an answer says.
pub(super) fn facts(answer: &ObserveResponse) -> NodeFacts {
    let own = |disk: &&DiskState| disk.node == answer.node || disk.node.is_empty();
    let repair = answer.repair.as_ref();
    let limited = answer.volumes.iter().filter(|volume| volume.inodes_total > 0);
    let learner = |role: &str| role == "learner";
    NodeFacts {
        phase: answer.phase.clone(),
        rebuild: repair.map(|repair| Rebuild { waiting: repair.queue + repair.in_flight, held: answer.objects }),
        missing_shards: repair.map(|repair| repair.missing_shards),
        // An engine that does not count them says 0; then, too, the missing ones are some of them.
        shards: repair.map(|repair| repair.shards).filter(|shards| *shards > 0),
        disks: answer.disks.iter().filter(own).map(disk).collect(),
        raft: answer.raft.as_ref().map(raft),
        inodes: limited.map(|volume| (volume.name.clone(), volume.inodes_free)).collect(),
        descriptors: answer.descriptors.zip(answer.descriptors_limit),
        learners: answer.nodes.iter().filter(|node| learner(&node.role)).map(|node| node.node.clone()).collect(),
    }
}

fn disk(disk: &DiskState) -> DiskFacts {
    let condition = match disk.health.as_str() {
        "ok" => Some(Condition::Well),
        "suspect" => Some(Condition::Suspect),
        "gone" | "error" | "foreign" => Some(Condition::Failed),
        _ => None,
    };
    let service = match disk.state.as_str() {
        "up" => Some(Service::Full),
        "read_only" | "draining" => Some(Service::ReadOnly),
        "down" | "out" => Some(Service::None),
        _ => None,
    };
    let input = DiskInput {
        name: if disk.path.is_empty() { disk.disk_id.clone() } else { disk.path.clone() },
        condition,
        service,
        used_bytes: disk.used_bytes,
        available_bytes: disk.available_bytes,
        total_bytes: disk.total_bytes,
        recent_errors: None,
        announced: None,
    };
    let check = (disk.check_micros > 0).then(|| Duration::from_micros(disk.check_micros));
    DiskFacts { id: disk.disk_id.clone(), input, check, errors: disk.errors }
}

fn raft(raft: &RaftState) -> RaftInput {
    let leads = raft.role == "leader";
    RaftInput {
        role: raft.role.clone(),
        leader_known: leads || !raft.leader.is_empty(),
        behind: raft.committed.saturating_sub(raft.applied),
        quorum_ack_age: leads.then(|| Duration::from_millis(raft.millis_since_quorum_ack)),
    }
}

#[cfg(test)]
mod tests {
    use resilver_proto::contract::{NodeState, RepairState, VolumeState};

    use super::*;

    #[test]
    fn an_answer_is_read_and_words_that_are_not_known_stay_unknown() {
        let disk = |disk_id: &str, node: &str, state: &str, health: &str| DiskState {
            disk_id: disk_id.into(),
            node: node.into(),
            state: state.into(),
            health: health.into(),
            ..DiskState::default()
        };
        let member = NodeState { node: "n3".into(), role: "learner".into(), ..NodeState::default() };
        let answer = ObserveResponse {
            node: "n1".into(),
            phase: "healthy".into(),
            objects: 70,
            disks: vec![
                DiskState { check_micros: 1_500, ..disk("d1", "n1", "up", "ok") },
                disk("d2", "n1", "-", "puzzled"),
                disk("d9", "n2", "up", "ok"),
            ],
            repair: Some(RepairState { queue: 3, in_flight: 1, missing_shards: 9, ..RepairState::default() }),
            raft: Some(RaftState { role: "follower".into(), committed: 9, applied: 4, ..RaftState::default() }),
            nodes: vec![member],
            volumes: vec![
                VolumeState { name: "metadata".into(), inodes_total: 100, inodes_free: 40, ..VolumeState::default() },
                VolumeState { name: "d1".into(), ..VolumeState::default() },
            ],
            descriptors: Some(70),
            descriptors_limit: Some(1024),
            ..ObserveResponse::default()
        };
        let facts = facts(&answer);
        assert_eq!(facts.rebuild, Some(Rebuild { waiting: 4, held: 70 }));
        assert_eq!((facts.missing_shards, facts.shards), (Some(9), None), "an older node does not count all of them");
        assert_eq!(facts.disks.len(), 2, "another node's disk is not this one's");
        assert_eq!(
            (facts.disks[0].input.condition, facts.disks[0].check),
            (Some(Condition::Well), Some(Duration::from_micros(1_500)))
        );
        assert_eq!((facts.disks[1].input.condition, facts.disks[1].input.service), (None, None));
        let raft = facts.raft.expect("told");
        assert_eq!((raft.leader_known, raft.behind, raft.quorum_ack_age), (false, 5, None));
        assert_eq!(facts.inodes, [("metadata".to_owned(), 40)], "d1's file system has no limit of them");
        assert_eq!(facts.descriptors, Some((70, 1024)));
        assert_eq!(facts.learners, ["n3"]);
        let silent = super::facts(&ObserveResponse::default());
        assert!(silent.rebuild.is_none() && silent.raft.is_none() && silent.missing_shards.is_none());
    }
}

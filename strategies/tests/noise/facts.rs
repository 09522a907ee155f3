//! What the sensors of a modelled host tell.

use resilver_strategies::api::{
    CanaryFact, DiskFact, HostFact, MemberFact, NodeFact, PeerFact, RaftFact, ReplicaFact, ReplicasFact, SilenceFact,
    VolumeFact, VoteFact,
};

use crate::world::{Chance, NODES, VOTERS, World, name};

impl World {
    pub(crate) fn raft_fact(&self, at: usize) -> RaftFact {
        let host = &self.hosts[at];
        let role = match (host.leads, self.leader) {
            (true, _) => "leader",
            (false, None) if at < VOTERS => "candidate",
            (false, _) if at >= VOTERS => "learner",
            (false, _) => "follower",
        };
        let leader = if host.leads { Some(at) } else { self.leader };
        RaftFact {
            role: role.into(),
            term: host.term,
            leader: leader.map(name).unwrap_or_default(),
            committed: host.applied.max(if host.leads { self.committed } else { 0 }),
            applied: host.applied,
            voters: VOTERS as u64,
            last_log: host.applied,
            last_log_term: host.term,
            snapshot: 0,
            quorum_ack_ms: host.leads.then(|| (self.now - host.acknowledged.min(self.now)) * 1000 + 80),
            unheard_ms: (!host.leads).then(|| (self.now - host.heard) * 1000),
            vote: leader.map(|at| VoteFact { term: host.term, node: name(at), committed: true }),
        }
    }

    pub(crate) fn node_fact(&mut self, at: usize) -> NodeFact {
        let raft = self.raft_fact(at);
        let serves = self.serves(at);
        let busy = self.now < self.hosts[at].busy;
        let in_flight = if busy { self.chance.between(0, 400) } else { self.chance.between(0, 30) };
        let host = &self.hosts[at];
        let member = |at: usize| MemberFact {
            node: name(at),
            state: "up".into(),
            role: if at < VOTERS { "voter" } else { "learner" }.into(),
            ..MemberFact::default()
        };
        let disk = |id: &str| DiskFact {
            disk: id.into(),
            state: "up".into(),
            health: "ok".into(),
            available_bytes: 1 << 40,
            ..DiskFact::default()
        };
        NodeFact {
            pid: host.pid,
            phase: if serves { "healthy" } else { "recovering" }.into(),
            epoch: 1,
            raft: Some(raft),
            disks: vec![disk("d1"), disk("d2")],
            operations_in_flight: in_flight,
            members: (0..NODES).map(member).collect(),
            cluster: "c".into(),
            mode: host.mode.clone(),
            stands: Some(host.stands),
            oldest_operation_ms: host.upload.map_or(0, |(since, _)| (self.now - since) * 1000),
            oldest_operation: host.upload.map_or(String::new(), |(since, _)| format!("put-{since}")),
            ..NodeFact::default()
        }
    }

    /// What the agent of `at` is told by asking `of`.
    pub(crate) fn peer_fact(&mut self, at: usize, of: usize, silences: &[Option<Vec<SilenceFact>>]) -> PeerFact {
        let lost = |chance: &mut Chance| chance.once_in(100);
        let agent = self.now >= self.hosts[of].host_pauses && !lost(&mut self.chance);
        let node = self.answers(of) && !lost(&mut self.chance);
        if !agent {
            return PeerFact { node: name(of), node_answers: Some(node), ..PeerFact::default() };
        }
        let raft = self.runs(of).then(|| self.raft_fact(of));
        let offset = self.hosts[of].clock_ms - self.hosts[at].clock_ms;
        let error = self.chance.between(1, if self.now < self.hosts[of].busy { 400 } else { 10 });
        let wrong = i64::try_from(self.chance.between(0, error)).unwrap();
        PeerFact {
            node: name(of),
            agent_answers: true,
            node_alive: Some(self.runs(of)),
            node_phase: if self.serves(of) { "healthy" } else { "recovering" }.into(),
            node_answers: Some(node),
            domain: format!("host {}", name(of)),
            silent: silences[of].clone(),
            leader: raft.as_ref().map(|raft| raft.leader.clone()).unwrap_or_default(),
            raft,
            raft_age_ms: self.chance.between(0, 1500),
            cluster: "c".into(),
            epoch: 1,
            hears_us: Some(self.answers(at) && !lost(&mut self.chance)),
            clock_offset_ms: Some(offset + wrong),
            canary_ms: self.hosts[of].canary_ms,
            clock_error_ms: error,
            ..PeerFact::default()
        }
    }

    pub(crate) fn host_fact(&mut self, at: usize) -> HostFact {
        let busy = self.now < self.hosts[at].busy;
        let share = if busy { self.hosts[at].busy_share } else { 200 };
        let jitter = u32::try_from(self.chance.between(0, 100)).unwrap();
        let room = self.hosts[at].room;
        // What a process takes for an hour and gives back: caches, files of uploads, what is compacted then.
        let tooth = (self.now + 600 * at as u64) % 3600;
        let volume = |name: &str| VolumeFact {
            name: name.into(),
            path: format!("/{name}"),
            total_bytes: 100 << 30,
            available_bytes: room << 30,
            inodes_total: 1_000_000,
            inodes_free: 900_000 - tooth * 20,
        };
        HostFact {
            cpu_per_mille: Some((share + jitter).min(1000)),
            // One of the kernels tells no PSI.
            cpu_pressure_per_mille: (at != 5).then_some(if busy { (share / 2 + jitter).min(1000) } else { jitter }),
            memory_pressure_per_mille: Some(0),
            io_pressure_per_mille: Some(if busy { share / 3 } else { jitter }),
            memory_total_bytes: Some(64 << 30),
            memory_available_bytes: Some((20 << 30) + (u64::from(jitter) << 24) - (tooth << 19)),
            node_resident_bytes: Some((1 << 30) + (tooth << 19)),
            node_descriptors: Some(300 + u64::from(jitter) + tooth / 10),
            node_descriptors_limit: Some(65_536),
            volumes: vec![volume("metadata"), volume("d1"), volume("d2")],
        }
    }

    /// A canary needs a leader and a node that serves; on a busy host it takes up to twenty times as long.
    pub(crate) fn canary(&mut self, at: usize) -> CanaryFact {
        let quiet = self.chance.between(3, 12);
        if self.leader.is_none() || !self.serves(at) || self.chance.once_in(100) {
            return CanaryFact { millis: None, error: "deadline exceeded".into() };
        }
        let busy = self.now < self.hosts[at].busy;
        let times = if busy { self.chance.between(2, 20) } else { 1 };
        // And now and then one meets a pause on its way.
        let pause = if self.chance.once_in(50) { self.chance.between(500, 2500) } else { 0 };
        CanaryFact { millis: Some(quiet * times + pause), error: String::new() }
    }

    pub(crate) fn compare(&mut self) -> ReplicasFact {
        let members = (0..NODES)
            .map(|at| {
                let silent = !self.serves(at) || self.chance.once_in(100);
                let (verdict, digest) = if silent { ("silent", "") } else { ("right", "7d0c") };
                ReplicaFact { node: name(at), verdict: verdict.into(), digest: digest.into() }
            })
            .collect();
        ReplicasFact { index: self.committed, members }
    }
}

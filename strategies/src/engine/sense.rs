//! Feeds the watches with what nodes, hosts and peers say, and opens incidents for what they find.
//!
//! Owns: which observation goes to which watch. Must never: act. Looks around once with each heartbeat, answered or missed: that is
//! the rate at which times are judged, whatever else comes in.

use crate::api::{NodeFact, Observation, PeerFact, Subject};
use crate::engine::Engine;
use crate::engine::detect::leader::Around;
use crate::engine::detect::{State, Symptom};
use crate::engine::incidents::Incident;
use crate::types::{Mode, Moment, Now};
use std::time::Duration;

/// The modes that are judged by the watches, in the order in which they are looked at.
const JUDGED: &[(Mode, &str)] = &[
    (Mode::QuorumLoss, "the voters, asked one by one"),
    (Mode::SplitBrain, "claims of leadership"),
    (Mode::DatabaseCorruption, "the node's own word"),
    (Mode::LogCorruption, "the node's own word"),
    (Mode::TermDivergence, "terms of the voters"),
    (Mode::StateDivergence, "comparison of the members"),
    (Mode::Deadlock, "progress behind the heartbeats"),
    (Mode::ResourceExhaustion, "the host's figures"),
    (Mode::SlowFollower, "the leader's commit index"),
    (Mode::ClockSkew, "the peers' clocks"),
];

impl Engine {
    pub(crate) fn sense(&mut self, now: Now, observation: &Observation) {
        let at = now.mono;
        match observation {
            Observation::Heartbeat(fact) => self.sense_heartbeat(now, fact),
            Observation::HeartbeatMissed { .. } => {
                let runs = self.facts.running().is_some();
                self.watches.deadlock.missed(at, runs, &self.policy);
                self.look_around(now);
            }
            Observation::Peer(fact) => self.sense_peer(at, fact),
            Observation::Host(fact) => {
                self.watches.deadlock.host(at, fact, &self.policy.deadlock);
                let process = self.facts.running();
                self.watches.resources.observe(now, fact, process, &self.policy);
            }
            Observation::Canary(fact) => {
                self.watches.deadlock.canary(at, fact, &self.policy.deadlock);
                let free = self.watches.deadlock.host_is_free(at, &self.policy.deadlock);
                self.watches.lag.canary(at, fact, free, &self.peers, &self.policy.lag);
            }
            Observation::Replicas(fact) => self.watches.replicas.observe(at, &self.node, fact),
            Observation::ProcessState(fact) => self.watches.deadlock.process(at, fact),
            Observation::LogMatch(fact) => self.sense_line(now, fact),
            Observation::Process(_) | Observation::Watch(_) | Observation::Failures { .. } | Observation::Smart(_) => {}
        }
    }

    fn sense_heartbeat(&mut self, now: Now, fact: &NodeFact) {
        let (at, node) = (now.mono, self.node.as_str());
        self.watches.damage.heartbeat(fact);
        self.watches.leaders.heard(at, at, node, fact.epoch, fact.raft.as_ref());
        self.watches.terms.heartbeat(at, node, fact, &self.peers, &self.watches.leaders, &self.policy);
        self.watches.lag.heartbeat(at, node, fact, &self.peers, &self.policy);
        let led = self.around().own_sees(at, fact.raft.as_ref());
        self.watches.deadlock.heartbeat(at, fact, led, &self.policy);
        self.look_around(now);
    }

    fn around(&self) -> Around<'_> {
        let within = self.policy.detection.suspect_after;
        Around { own: &self.node, peers: &self.peers, liveness: &self.liveness, within }
    }

    fn sense_peer(&mut self, at: Moment, fact: &PeerFact) {
        let own = self.facts.node().map_or("", |fact| fact.cluster.as_str());
        // What a node of another cluster says of Raft says nothing of this one: neither who leads, nor what its terms are.
        let stranger = !own.is_empty() && !fact.cluster.is_empty() && fact.cluster != own;
        self.peers.observe(at, &self.node, fact, stranger);
        if fact.agent_answers {
            let as_of = Moment(at.0.saturating_sub(Duration::from_millis(fact.raft_age_ms)));
            let raft = fact.raft.as_ref().filter(|_| !stranger);
            self.watches.leaders.heard(at, as_of, &fact.node, fact.epoch, raft);
        }
    }

    /// What needs everybody's word at once.
    fn look_around(&mut self, now: Now) {
        let at = now.mono;
        let answers = self.facts.node_now().is_some();
        let node = self.facts.node();
        let within = self.policy.detection.suspect_after;
        let around = Around { own: &self.node, peers: &self.peers, liveness: &self.liveness, within };
        let epoch = node.map_or(0, |fact| fact.epoch);
        let led = self.watches.leaders.quorum_leader(at, self.policy.fresh_within() * 2, epoch);
        self.watches.partition.look(at, around, node.filter(|_| answers), led, &self.policy);
        self.watches.voters.look(at, around, node, answers, &self.policy);
        self.watches.clock.look(at, &self.peers, &self.policy.clock);
        let cluster = node.map_or("", |fact| fact.cluster.as_str());
        self.watches.leaders.look(at, cluster, &self.peers, &self.policy.split_brain);
        let own = node.filter(|_| answers).and_then(|fact| Some((fact.epoch, fact.raft.as_ref()?)));
        self.watches.leaders.compare_logs(at, own, &self.peers);
        self.detect_partition(now);
        for (mode, detected_by) in JUDGED {
            if self.incidents.open.values().any(|incident| incident.mode == *mode) {
                continue;
            }
            // Without the node's word what it said last says nothing.
            let of_node = !matches!(mode, Mode::QuorumLoss | Mode::SplitBrain | Mode::Deadlock | Mode::ClockSkew);
            if of_node && !answers {
                continue;
            }
            if let State::Ill(evidence) = self.state_of(at, *mode, &[]) {
                let subject = Subject::Node(self.node.clone());
                self.see(now, Symptom::of(*mode, subject, detected_by, evidence));
            }
        }
    }

    /// One incident for all hosts that are cut off from this one; another that follows belongs to it.
    fn detect_partition(&mut self, now: Now) {
        let mut cut = self.watches.partition.cut_off(&self.policy);
        let (minority, told) = self.watches.partition.minority(&self.policy);
        if self.watches.partition.hears_few(&self.policy) {
            cut.extend(self.liveness.silent(now.mono).map(|(host, _)| host.to_owned()));
            cut.sort();
            cut.dedup();
        }
        let unled = self.watches.partition.unled(&self.policy).map(|(hosts, told)| (hosts.to_vec(), told));
        if let Some((hosts, _)) = &unled {
            cut.extend(hosts.iter().cloned());
            cut.sort();
            cut.dedup();
        }
        if cut.is_empty() {
            return;
        }
        let open = |incident: &&mut Incident| incident.mode == Mode::NetworkPartition;
        if let Some(known) = self.incidents.open.values_mut().find(open) {
            let Subject::Hosts(hosts) = &mut known.subject else { return };
            let before = hosts.len();
            hosts.extend(cut);
            hosts.sort();
            hosts.dedup();
            if hosts.len() > before {
                let all = hosts.join(", ");
                known.event(now, format!("more belong to it: {all}"));
            }
            return;
        }
        let side = match (minority, unled) {
            (true, _) => format!("minority side: {told}"),
            (false, Some((_, told))) => told,
            (false, None) => "others hear them".to_owned(),
        };
        let judged: Vec<String> =
            cut.iter().map(|host| format!("{host}: {}", self.liveness.judge(now.mono, host))).collect();
        let evidence = format!("{side}; {}", judged.join("; "));
        self.see(now, Symptom::of(Mode::NetworkPartition, Subject::Hosts(cut), "connectivity of the agents", evidence));
    }
}

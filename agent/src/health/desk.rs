//! Where the sensors leave what they see, and where scores and predictions are made of it.
//!
//! Invariant: nothing here waits, and nothing grows but with the disks and the members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_host::ProcId;
use resilver_proto::contract::ObserveResponse;
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::Partial;
use resilver_strategies::health::{
    self, ClusterInput, Counted, DiskInput, Latency, MemberInput, NodeInput, Presence, Recent, Score, ScoreWatch,
    Standing, Usage,
};
use resilver_strategies::predict::{Kind, Prediction, Sample, Samples, SeriesId, Trends};
use resilver_strategies::record::Draft;
use serde::Serialize;

use super::input::{self, DiskFacts, NodeFacts};
use super::peers::{MemberView, Peers, Pinged};
use super::smart::{Smart, SmartView};
use crate::options::Options;
use crate::timebase::Timebase;

/// Minutes before a time counts as what is usual: fewer are the moments after a start.
const BASELINE_POINTS: usize = 10;
/// An answer to a heartbeat within this is good, whatever it was before: it is a fiftieth of its deadline.
const HEARTBEAT_FINE: Duration = Duration::from_millis(20);
/// A check of a disk within this is good: a spinning disk's sync takes tens of milliseconds.
const CHECK_FINE: Duration = Duration::from_millis(100);
/// Failed disk operations count for so long: an hour, so that a person who looks after the alarm still sees them.
const ERRORS_COUNT_FOR: Duration = Duration::from_secs(3600);

/// Whether the node's process runs, as its sensor saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Unknown,
    Runs,
    Dead,
}

struct State {
    answers: Recent,
    facts: Option<NodeFacts>,
    errors: BTreeMap<String, Counted>,
    /// What the disks say of themselves.
    smart: Smart,
    /// The heartbeat's time, minute by minute.
    pace: Samples,
    memory: Option<(ProcId, Usage)>,
    parity: Option<u32>,
    peers: Peers,
    /// How many of the others are asked, when not all are.
    partial: Option<Partial>,
    trends: Trends,
    node: Option<Score>,
    cluster: Option<Score>,
    node_watch: ScoreWatch,
    cluster_watch: ScoreWatch,
}

/// What is shown of scores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HealthView {
    /// Which agent sees it so.
    seen_by: String,
    /// Null before the first review.
    node: Option<Score>,
    /// As this agent sees it.
    cluster: Option<Score>,
    members: Vec<MemberView>,
    /// How many of the others this agent asks, when it does not ask all: the cluster's score and `members` are of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<Partial>,
}

/// The scores of a review.
pub(super) struct Reviewed {
    pub(super) node: u8,
    pub(super) cluster: u8,
    /// What is to be recorded of the own node.
    pub(super) records: Vec<Draft>,
    /// What is to be recorded of the cluster, by one agent.
    pub(super) of_cluster: Option<Draft>,
}

/// Where the sensors leave what they see.
pub(crate) struct HealthDesk {
    own: String,
    time: Timebase,
    policy: PolicyConfig,
    state: Mutex<State>,
}

impl HealthDesk {
    pub(crate) fn new(options: &Options, time: &Timebase) -> HealthDesk {
        let policy = options.policy.clone();
        let state = State {
            answers: Recent::default(),
            facts: None,
            errors: BTreeMap::new(),
            smart: Smart::default(),
            pace: Samples::new(policy.trends.sample_every),
            memory: None,
            parity: None,
            peers: Peers::new(options.others().map(|peer| peer.id.clone())),
            partial: None,
            trends: Trends::new(policy.trends.clone()),
            node: None,
            cluster: None,
            node_watch: ScoreWatch::default(),
            cluster_watch: ScoreWatch::default(),
        };
        HealthDesk { own: options.name.clone(), time: time.clone(), policy, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node answered after `took`.
    pub(crate) fn answered(&self, answer: &ObserveResponse, took: Duration) {
        let now = self.time.mono();
        let mut facts = input::facts(answer);
        let mut state = self.state();
        state.answers.push(Some(took));
        let known: Vec<&str> = answer.disks.iter().map(|disk| disk.disk_id.as_str()).collect();
        state.errors.retain(|disk, _| known.contains(&disk.as_str()));
        if !known.is_empty() {
            state.smart.keep(|disk| known.contains(&disk));
        }
        for disk in &mut facts.disks {
            let errors = state.errors.entry(disk.id.clone()).or_insert_with(|| Counted::over(ERRORS_COUNT_FOR));
            errors.read(now, disk.errors);
            disk.input.recent_errors = errors.grown();
        }
        state.facts = Some(facts);
    }

    /// The node did not answer.
    pub(crate) fn missed(&self) {
        self.state().answers.push(None);
    }

    /// A disk's own word was looked for.
    pub(crate) fn smart(&self, view: SmartView) {
        let now = self.time.mono();
        self.state().smart.set(now, view);
    }

    /// What the own disks say of themselves, by id.
    pub(crate) fn smart_views(&self) -> Vec<SmartView> {
        let now = self.time.mono();
        self.state().smart.views(now)
    }

    /// A member was asked.
    pub(crate) fn pinged(&self, peer: &str, ping: &Pinged) {
        self.state().peers.pinged(peer, ping);
    }

    /// Only these of so many others are asked from now on.
    pub(crate) fn keep(&self, asked: &BTreeSet<String>, of: usize) {
        let mut state = self.state();
        state.peers.keep(asked);
        state.partial = Partial::new(asked.len(), of);
    }

    /// The own node's score; `None` before the first review.
    pub(crate) fn score(&self) -> Option<u8> {
        self.state().node.as_ref().map(|score| score.score)
    }

    /// Scores with their reasons.
    pub(crate) fn view(&self) -> HealthView {
        let state = self.state();
        let own = MemberView::of(&self.own, own_standing(state.node.as_ref()));
        let members = std::iter::once(own).chain(state.peers.views()).collect();
        HealthView {
            seen_by: self.own.clone(),
            node: state.node.clone(),
            cluster: state.cluster.clone(),
            members,
            partial: state.partial,
        }
    }

    /// What is expected, the nearest first.
    pub(crate) fn predictions(&self) -> Vec<Prediction> {
        self.state().trends.predictions().to_vec()
    }

    /// A sample of everything that is slow; once in [`sample_every`](resilver_strategies::predict::TrendPolicy).
    pub(super) fn sample(&self, memory: Option<(ProcId, Usage)>, parity: Option<u32>) {
        let now = self.time.mono();
        let of_process = |kind| SeriesId { kind, subject: self.own.clone() };
        let (leak, kept) = (of_process(Kind::MemoryLeak), of_process(Kind::DescriptorLeak));
        let mut state = self.state();
        if let (Some((before, _)), Some((process, _))) = (state.memory, memory)
            && before != process
        {
            state.trends.forget(&leak);
            state.trends.forget(&kept);
        }
        let State { trends, facts, answers, pace, .. } = &mut *state;
        // An answer from before its silence says nothing about now.
        if let Some(facts) = facts.as_ref().filter(|_| answers.silent_for() == 0) {
            for disk in &facts.disks {
                let id = |kind| SeriesId { kind, subject: disk.id.clone() };
                if disk.input.total_bytes > 0 {
                    let sample = Sample { value: disk.input.available_bytes as f64, end: 0.0 };
                    trends.feed(now, id(Kind::DiskFull), sample);
                }
                if let Some(check) = disk.check {
                    let end = self.policy.trends.latency_limit.as_secs_f64();
                    trends.feed(now, id(Kind::LatencyDrift), Sample { value: check.as_secs_f64(), end });
                }
            }
            for (volume, free) in &facts.inodes {
                let id = SeriesId { kind: Kind::InodesFull, subject: volume.clone() };
                trends.feed(now, id, Sample { value: *free as f64, end: 0.0 });
            }
            if let Some((open, limit)) = facts.descriptors {
                trends.feed(now, kept, Sample { value: open as f64, end: limit as f64 });
            }
            if let Some(median) = answers.median() {
                pace.push(now, median.as_secs_f64());
            }
        }
        for (subject, value, end) in state.smart.drifts(now, &self.policy.smart) {
            state.trends.feed(now, SeriesId { kind: Kind::CounterDrift, subject }, Sample { value, end });
        }
        if let Some((_, usage)) = memory {
            state.trends.feed(now, leak, Sample { value: usage.used as f64, end: usage.limit as f64 });
        }
        state.memory = memory;
        state.parity = parity;
    }

    /// Looks at all trends anew; answers what is to be recorded.
    pub(super) fn foresee(&self) -> Vec<Draft> {
        let crossed = self.state().trends.review(self.time.now());
        crossed.iter().map(|prediction| prediction.draft(&self.own)).collect()
    }

    /// Makes the scores anew.
    pub(super) fn review(&self, process: Process) -> Reviewed {
        let now = self.time.mono();
        let mut state = self.state();
        if process == Process::Dead {
            // What it said is not so any more.
            state.facts = None;
        }
        let node = health::node(&self.node_input(&state, process), &self.policy.health.weights);
        let cluster_input = self.cluster_input(&state, Standing::Scored(node.score), process);
        let cluster = health::cluster(&cluster_input, &self.policy.health.cluster_weights);
        let policy = &self.policy.health;
        let alert = state.node_watch.see(now, node.score, policy);
        let records = alert.map(|alert| alert.draft("node", &self.own, &node)).into_iter().collect();
        let alert = state.cluster_watch.see(now, cluster.score, policy);
        let of_cluster = alert.map(|alert| alert.draft("cluster", &self.own, &cluster));
        let reviewed = Reviewed { node: node.score, cluster: cluster.score, records, of_cluster };
        (state.node, state.cluster) = (Some(node), Some(cluster));
        reviewed
    }

    fn node_input(&self, state: &State, process: Process) -> NodeInput {
        let silent = state.answers.silent_for();
        let convicting = self.policy.detection.missed_heartbeats as usize;
        let presence = match (process, &state.facts) {
            (Process::Dead, _) => Presence::Dead,
            _ if silent >= convicting => Presence::Silent(silent),
            (_, None) => Presence::Unknown,
            (_, Some(facts)) if facts.phase == "healthy" => Presence::Serving,
            (_, Some(facts)) => Presence::NotServing(facts.phase.clone()),
        };
        let facts = state.facts.as_ref().filter(|_| silent < convicting);
        NodeInput {
            presence,
            rebuild: facts.and_then(|facts| facts.rebuild),
            disks: facts.map(|facts| facts.disks.iter().map(|disk| self.disk_input(state, disk)).collect()),
            questions: state.answers.rate(),
            latencies: latencies(state, facts),
            memory: state.memory.map(|(_, usage)| usage),
            // The agent may not look into the node's table of descriptors: it can be another user's.
            descriptors: None,
            raft: facts.and_then(|facts| facts.raft.clone()),
        }
    }

    fn disk_input(&self, state: &State, disk: &DiskFacts) -> DiskInput {
        DiskInput { announced: state.smart.announced(self.time.mono(), &disk.id), ..disk.input.clone() }
    }

    fn cluster_input(&self, state: &State, own: Standing, process: Process) -> ClusterInput {
        let facts = state.facts.as_ref();
        let votes = |node: &str| facts.is_none_or(|facts| !facts.learners.iter().any(|learner| learner == node));
        let own = if process == Process::Dead { Standing::Dead } else { own };
        let own = MemberInput { node: self.own.clone(), votes: votes(&self.own), standing: own, pings: None };
        let led = facts.and_then(|facts| facts.raft.as_ref()).map(|raft| raft.leader_known);
        ClusterInput {
            members: std::iter::once(own).chain(state.peers.inputs(votes)).collect(),
            parity: state.parity,
            missing_shards: facts.and_then(|facts| facts.missing_shards),
            shards: facts.and_then(|facts| facts.shards),
            leader_known: if state.peers.know_a_leader() { Some(true) } else { led },
        }
    }
}

fn own_standing(score: Option<&Score>) -> Standing {
    score.map_or(Standing::Unknown, |score| Standing::Scored(score.score))
}

/// The heartbeat, and the slowest disk's check against what is usual for that disk.
fn latencies(state: &State, facts: Option<&NodeFacts>) -> Vec<Latency> {
    let usual = (state.pace.len() >= BASELINE_POINTS).then(|| state.pace.median()).flatten();
    let heartbeat = state.answers.median().map(|now| Latency {
        what: "an answer to the heartbeat",
        now,
        baseline: usual.map(Duration::from_secs_f64),
        fine: HEARTBEAT_FINE,
    });
    let checks = facts.map(|facts| facts.disks.as_slice()).unwrap_or_default().iter();
    let slowest = checks.filter_map(|disk| disk.check.map(|check| (check, &disk.id))).max();
    let check = slowest.map(|(now, disk)| {
        let id = SeriesId { kind: Kind::LatencyDrift, subject: disk.clone() };
        let baseline = state.trends.usual(&id, BASELINE_POINTS).map(Duration::from_secs_f64);
        Latency { what: "the slowest disk's check", now, baseline, fine: CHECK_FINE }
    });
    heartbeat.into_iter().chain(check).collect()
}

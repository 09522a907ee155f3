//! `slow_follower`: the own node follows, and applies what was committed too late: many entries, and long ago; or it answers
//! its canary many times as slowly as the others' nodes answer theirs.
//!
//! Never: takes the vote of one that is only slow to answer; acts on a common cause (two and a third of the nodes are slow); takes a burst of entries, or a quiet cluster's one late
//! entry, for it; looks at a leader or a learner.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{CanaryFact, NodeFact};
use crate::config::{LagPolicy, PolicyConfig};
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::detect::leader::hears_leader;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// What the leader had committed is remembered so long, one sample a heartbeat: further behind is far enough.
const MAX_SAMPLES: usize = 256;

/// How old the leader's word may be.
const WORD_FRESH: Duration = Duration::from_secs(5);

/// Others whose canaries are compared with, at least: of two nobody knows which is slow.
const LEAST_OTHERS: usize = 2;

/// Longer than this there is never between two canaries of interest: their period is configured by a person.
const MAX_PERIOD: Duration = Duration::from_secs(3600);

/// How the own node's answers compare with the others'.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Answers {
    own_ms: u64,
    median_ms: u64,
    others: usize,
    /// When they were last compared; `None`: never.
    compared: Option<Moment>,
    /// When the own canary came last, and how long after the one before.
    asked: Option<Moment>,
    period: Duration,
    late: Held,
    prompt: Held,
    /// Nodes that are slow to answer, this one among them, of how many that are known.
    #[serde(default)]
    together: (usize, usize),
}

impl Answers {
    /// How long a comparison counts, and two in a row belong together.
    fn good_for(&self, policy: &LagPolicy) -> Duration {
        policy.answers_good_for.max(self.period * 3)
    }

    /// Whether anything is known of the present.
    fn are_known(&self, now: Moment, policy: &LagPolicy) -> bool {
        self.compared.is_some_and(|at| now.since(at) <= self.good_for(policy))
    }

    fn look(&mut self, now: Moment, own_ms: Option<u64>, mut others: Vec<u64>, counts: bool, policy: &LagPolicy) {
        self.period = self.asked.map_or(self.period, |asked| now.since(asked)).min(MAX_PERIOD);
        self.asked = Some(now);
        let (Some(own_ms), true) = (own_ms, others.len() >= LEAST_OTHERS) else { return };
        others.sort_unstable();
        let median_ms = others[others.len() / 2];
        (self.own_ms, self.median_ms, self.others, self.compared) = (own_ms, median_ms, others.len(), Some(now));
        let floor = u64::try_from(policy.answers_floor.as_millis()).unwrap_or(u64::MAX);
        let limit = median_ms.saturating_mul(u64::from(policy.answers_factor)).max(floor);
        let gap = self.good_for(policy);
        let slow = others.iter().filter(|millis| **millis > limit).count();
        self.together = (slow + usize::from(own_ms > limit), others.len() + 1);
        self.late.look(now, counts && own_ms > limit, gap);
        self.prompt.look(now, own_ms <= limit, gap);
    }
}

/// What was seen of the lag.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    committed: VecDeque<(Moment, u64)>,
    /// Entries behind, and since when the oldest of them is committed.
    entries: u64,
    behind: Duration,
    slow: Held,
    caught_up: Held,
    /// It follows, and is healthy, by its last heartbeat.
    follows: bool,
    answers: Answers,
    /// When that was, or when the last canary came: the present, for whoever asks how it is.
    seen: Moment,
    /// Nodes that are slow, this one among them, of how many that are known.
    together: (usize, usize),
}

impl Watch {
    pub(crate) fn heartbeat(&mut self, now: Moment, own: &str, fact: &NodeFact, peers: &Peers, policy: &PolicyConfig) {
        let (figures, gap) = (&policy.lag, policy.detection.heartbeat * 10);
        self.seen = now;
        let Some(raft) = &fact.raft else {
            self.caught_up.look(now, false, gap);
            return;
        };
        let leader = peers.raft_of(now, WORD_FRESH, &raft.leader).filter(|_| raft.leader != own);
        let committed = leader.map_or(raft.committed, |leader| leader.committed.max(raft.committed));
        while self.committed.len() >= MAX_SAMPLES
            || self.committed.front().is_some_and(|(_, index)| *index <= raft.applied)
        {
            self.committed.pop_front();
        }
        if committed > raft.applied {
            self.committed.push_back((now, committed));
        }
        self.entries = committed.saturating_sub(raft.applied);
        self.behind = self.committed.front().map_or(Duration::ZERO, |(at, _)| now.since(*at));
        let many = |entries: u64| entries >= u64::from(figures.entries);
        // What no leader reaches has nothing to apply: that is its network's (`network_partition`).
        self.follows = raft.role == "follower" && fact.phase == "healthy" && hears_leader(raft);
        self.slow.look(now, self.follows && many(self.entries) && self.behind >= figures.behind, gap);
        // One that leads has caught up.
        let leads = raft.role == "leader" && raft.leader == own;
        self.caught_up.look(now, leads || leader.is_some() && self.behind < figures.caught_up, gap);
        let (mut slow, mut known) = (usize::from(many(self.entries)), 1);
        for (_, _, other) in peers.raft(now, WORD_FRESH) {
            known += 1;
            slow += usize::from(other.role != "leader" && many(committed.saturating_sub(other.applied)));
        }
        self.together = (slow, known);
    }

    /// The own node's canary came back, or did not; that it did not is `deadlock`'s. On a host that is saturated, or of which nothing
    /// is known, all is slow, and it is not the node.
    pub(crate) fn canary(&mut self, now: Moment, fact: &CanaryFact, free: bool, peers: &Peers, policy: &LagPolicy) {
        self.seen = now;
        let others = peers.canaries(now, self.answers.good_for(policy)).collect();
        self.answers.look(now, fact.millis, others, free && self.follows, policy);
    }

    /// What was committed is applied too late: more than being slow to answer.
    pub(crate) fn lags(&self, policy: &LagPolicy) -> bool {
        self.slow.lasts(policy.confirm_after, 3)
    }

    /// Others are slow as well: the cause is not this node's.
    pub(crate) fn common_cause(&self, policy: &LagPolicy) -> Option<String> {
        let answers = if self.answers.are_known(self.seen, policy) { self.answers.together } else { (0, 0) };
        let of = [(self.together, "slow"), (answers, "slow to answer")];
        let common = of.into_iter().find(|((slow, known), _)| *slow >= 2 && slow * 3 >= *known);
        common.map(|((slow, known), how)| format!("{slow} of {known} nodes are {how}: a common cause"))
    }

    pub(crate) fn state(&self, policy: &LagPolicy, caught_up_for: Duration) -> State {
        if self.lags(policy) {
            let (entries, behind, time) = (self.entries, self.behind.as_secs_f64(), self.slow.time().as_secs_f64());
            let (slow, known) = self.together;
            return State::Ill(format!(
                "{entries} entries behind (limit {}), the oldest for {behind:.0} s (limit {:.0}), for {time:.0} s; {slow} of {known} \
                 nodes are slow",
                policy.entries,
                policy.behind.as_secs_f64()
            ));
        }
        let Answers { own_ms, median_ms, others, late, prompt, .. } = &self.answers;
        let known = self.answers.are_known(self.seen, policy);
        if known && late.lasts(policy.answers_after, 3) {
            let (time, factor, floor) =
                (late.time().as_secs_f64(), policy.answers_factor, policy.answers_floor.as_millis());
            return State::Ill(format!(
                "a write and a read through this node take {own_ms} ms, through {others} others {median_ms} ms at the median (limit: {factor} \
                 times that, and {floor} ms), for {time:.0} s; what is committed is applied in time"
            ));
        }
        // Without others' canaries nothing is known of answers, and nothing is held against it.
        let answers = !known || prompt.lasts(caught_up_for, 3);
        match (self.caught_up.lasts(caught_up_for, 3), answers) {
            (true, true) => State::Well,
            (true, false) => State::Unknown("answers as quick as the others' for long enough"),
            (false, _) => State::Unknown("less than a second of lag for long enough"),
        }
    }
}

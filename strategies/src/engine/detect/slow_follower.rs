//! `slow_follower`: the own node follows, and applies what was committed too late: many entries, and long ago.
//!
//! Never: acts on a common cause (two and a third of the nodes are slow); takes a burst of entries, or a quiet cluster's one late
//! entry, for it; looks at a leader or a learner.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::NodeFact;
use crate::config::{LagPolicy, PolicyConfig};
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// What the leader had committed is remembered so long, one sample a heartbeat: further behind is far enough.
const MAX_SAMPLES: usize = 256;

/// How old the leader's word may be.
const WORD_FRESH: Duration = Duration::from_secs(5);

/// What was seen of the lag.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    committed: VecDeque<(Moment, u64)>,
    /// Entries behind, and since when the oldest of them is committed.
    entries: u64,
    behind: Duration,
    slow: Held,
    caught_up: Held,
    /// Nodes that are slow, this one among them, of how many that are known.
    together: (usize, usize),
}

impl Watch {
    pub(crate) fn heartbeat(&mut self, now: Moment, own: &str, fact: &NodeFact, peers: &Peers, policy: &PolicyConfig) {
        let (figures, gap) = (&policy.lag, policy.detection.heartbeat * 10);
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
        let follows = raft.role == "follower" && fact.phase == "healthy";
        self.slow.look(now, follows && many(self.entries) && self.behind >= figures.behind, gap);
        self.caught_up.look(now, leader.is_some() && self.behind < figures.caught_up, gap);
        let (mut slow, mut known) = (usize::from(many(self.entries)), 1);
        for (_, _, other) in peers.raft(now, WORD_FRESH) {
            known += 1;
            slow += usize::from(other.role != "leader" && many(committed.saturating_sub(other.applied)));
        }
        self.together = (slow, known);
    }

    /// Others are slow as well: the cause is not this node's.
    pub(crate) fn common_cause(&self) -> Option<String> {
        let (slow, known) = self.together;
        (slow >= 2 && slow * 3 >= known).then(|| format!("{slow} of {known} nodes are slow: a common cause"))
    }

    pub(crate) fn state(&self, policy: &LagPolicy, caught_up_for: Duration) -> State {
        if self.slow.lasts(policy.confirm_after, 3) {
            let (entries, behind, time) = (self.entries, self.behind.as_secs_f64(), self.slow.time().as_secs_f64());
            let (slow, known) = self.together;
            return State::Ill(format!(
                "{entries} entries behind (limit {}), the oldest for {behind:.0} s (limit {:.0}), for {time:.0} s; {slow} of {known} \
                 nodes are slow",
                policy.entries,
                policy.behind.as_secs_f64()
            ));
        }
        match self.caught_up.lasts(caught_up_for, 3) {
            true => State::Well,
            false => State::Unknown("less than a second of lag for long enough"),
        }
    }
}

//! How long the cluster is known: what holds the risky half of the ladder in shadow for a new cluster's first day.
//!
//! Counted, not read off a clock: the time in which this agent's node answered as a member of that cluster, by the agent's
//! monotonic clock, over all of the agent's lives (the journal carries it from one to the next). A clock that is set
//! forward makes no cluster old. An agent that is new in an old cluster waits for a day of its own, which only holds back.
//!
//! Must never: count time in which nothing was seen, or another cluster was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::NodeFact;
use crate::config::PolicyConfig;
use crate::engine::Engine;
use crate::record::RecordKind;
use crate::types::{Action, Moment, Now};

/// The most that counts between two answers of the node: a longer silence was seen by nobody.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// How much more must have been seen until the journal says so again, as a part of a new cluster's time: what a crash of the
/// agent forgets.
const TELL_DIVISOR: u32 = 24;

/// What was seen of which cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Age {
    cluster: String,
    seen: Duration,
    last: Option<Moment>,
    /// How much of it the journal knows.
    told: Duration,
}

impl Age {
    /// For how long the cluster is known.
    pub(crate) fn known_for(&self) -> Duration {
        self.seen
    }

    /// Takes over what the journal tells.
    pub(crate) fn restore(&mut self, cluster: String, seen: Duration) {
        *self = Age { cluster, seen, last: None, told: seen };
    }

    /// One answer of the node; `true`: the journal should hear of it.
    fn observe(&mut self, now: Moment, fact: &NodeFact, policy: &PolicyConfig) -> bool {
        if fact.cluster.is_empty() {
            // It starts, or waits: no word about another cluster.
            self.last = None;
            return false;
        }
        if fact.cluster != self.cluster {
            *self = Age { cluster: fact.cluster.clone(), last: Some(now), ..Age::default() };
            return false;
        }
        let gap = self.last.map_or(Duration::ZERO, |last| now.since(last).min(LONGEST_GAP));
        self.last = Some(now);
        self.seen += gap;
        let new = policy.scaled(policy.authority.new_cluster);
        let (step, over) = (new / TELL_DIVISOR, self.seen >= new && self.told < new);
        // Afterwards once in that time: old segments of the journal go.
        let due = self.told + if self.told < new { step } else { new };
        if !over && self.seen < due {
            return false;
        }
        self.told = self.seen;
        true
    }
}

impl Engine {
    /// Counts on.
    pub(crate) fn read_age(&mut self, now: Now, fact: &NodeFact) {
        if !self.age.observe(now.mono, fact, &self.policy) {
            return;
        }
        let seen = self.age.seen;
        let new = self.policy.scaled(self.policy.authority.new_cluster);
        let over = if seen < new { "grade 4 stays in shadow until then" } else { "grade 4 acts by itself" };
        let evidence = format!("this cluster is known for {} s of {} s: {over}", seen.as_secs(), new.as_secs());
        let seen_ms = u64::try_from(seen.as_millis()).unwrap_or(u64::MAX);
        let draft = self
            .draft(RecordKind::Note, Action::Skip)
            .with("cluster", fact.cluster.as_str())
            .with("observed_ms", seen_ms)
            .with("evidence", evidence);
        self.record(draft, false);
    }
}

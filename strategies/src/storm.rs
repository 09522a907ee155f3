//! The storm brake: too many targets ill at once means that the cause is not theirs, and that cure would be harm.
//!
//! Owns: which targets fell ill when. Must never: be asked about starting what is dead, or about undo.
//!
//! Invariants: once tripped it holds until two thirds of the nodes have been well for the whole time, without a gap; a factor
//! shortens that time, and never the one within which nodes fall ill together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Storm;
use crate::types::Moment;

/// Nodes remembered. An agent that asks only some of a large cluster's knows fewer.
const MAX_TARGETS: usize = 1024;

/// Watches how many targets share a symptom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StormBrake {
    /// Who fell ill within so long of each other fell ill together. Of detection: no factor shortens it.
    window: Duration,
    /// How long two thirds must have been well. Of policy.
    #[serde(default)]
    calm: Duration,
    targets: usize,
    /// Since when each known node is ill; `None`: it is well.
    nodes: BTreeMap<String, Option<Moment>>,
    tripped: bool,
    well_since: Option<Moment>,
    /// Why it holds although not too many are ill: a cascade drags targets down one after the other.
    held: Option<String>,
}

impl StormBrake {
    /// A brake that knows of no node yet. `calm` is the window as it is for policy: scaled.
    pub fn new(config: &Storm, calm: Duration) -> Self {
        let (window, targets) = (config.window, config.targets as usize);
        Self { window, calm, targets, nodes: BTreeMap::new(), tripped: false, well_since: None, held: None }
    }

    /// Goes on by other figures, with what was seen so far. `calm` is already scaled.
    pub fn adopt(&mut self, config: &Storm, calm: Duration) {
        (self.window, self.calm, self.targets) = (config.window, calm, config.targets as usize);
    }

    /// A node was seen well or ill.
    pub fn observe(&mut self, now: Moment, node: &str, ill: bool) {
        if !self.nodes.contains_key(node) && self.nodes.len() >= MAX_TARGETS {
            return;
        }
        let entry = self.nodes.entry(node.to_owned()).or_default();
        match (ill, &entry) {
            (true, None) => *entry = Some(now),
            (false, _) => *entry = None,
            (true, Some(_)) => {}
        }
        self.judge(now);
    }

    /// Nobody asks it any more: it is one of the nodes no longer, neither well nor ill.
    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// Judges the present; call it as time passes.
    pub fn judge(&mut self, now: Moment) {
        let (ill, together, nodes) = self.count(now);
        // "At least two that are over a third of the nodes or half the peers".
        let many = together >= 2 && (together * 3 > nodes || together * 2 >= nodes.saturating_sub(1).max(1));
        if together >= self.targets || many {
            self.tripped = true;
            self.well_since = None;
        }
        if !self.tripped {
            return;
        }
        if (nodes - ill) * 3 < nodes * 2 {
            self.well_since = None;
            return;
        }
        let since = *self.well_since.get_or_insert(now);
        if now.since(since) >= self.calm {
            self.tripped = false;
            self.well_since = None;
        }
    }

    /// Holds for as long as there is such a reason, however few are ill.
    pub fn hold(&mut self, why: Option<String>) {
        self.held = why;
    }

    /// Whether disruptive steps are frozen, with the numbers.
    pub fn state(&self, now: Moment) -> (bool, String) {
        let (ill, together, nodes) = self.count(now);
        if let Some(why) = &self.held {
            return (true, format!("{why}; {ill} of {nodes} nodes ill"));
        }
        let state = match self.tripped {
            true => format!("frozen until two thirds are well for {:?}", self.calm),
            false => "calm".to_owned(),
        };
        let text = format!("{ill} of {nodes} nodes ill, {together} of them within {:?}: {state}", self.window);
        (self.tripped, text)
    }

    /// The nodes that are ill now.
    pub fn ill(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, since)| since.is_some()).map(|(node, _)| node.clone()).collect()
    }

    /// Whether this node is known to be ill.
    pub fn is_ill(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(Option::is_some)
    }

    /// (ill, the most that fell ill within one window ending at the latest of them and still recent, all).
    fn count(&self, now: Moment) -> (usize, usize, usize) {
        let ill: Vec<Moment> = self.nodes.values().flatten().copied().collect();
        let together = ill.iter().filter(|since| now.since(**since) <= self.window).count();
        (ill.len(), together, self.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn brake(nodes: usize) -> StormBrake {
        let mut brake = StormBrake::new(&Storm::default(), Duration::from_secs(60));
        (0..nodes).for_each(|node| brake.observe(at(0), &format!("n{node}"), false));
        brake
    }

    #[test]
    fn three_targets_freeze_any_cluster_and_two_a_small_one() {
        let mut large = brake(12);
        large.observe(at(10), "n1", true);
        large.observe(at(20), "n2", true);
        assert!(!large.state(at(20)).0);
        large.observe(at(30), "n3", true);
        assert!(large.state(at(30)).0);
        let mut small = brake(5);
        small.observe(at(10), "n1", true);
        assert!(!small.state(at(10)).0, "one is never a storm");
        small.observe(at(11), "n2", true);
        assert!(small.state(at(11)).0);
    }

    #[test]
    fn targets_that_fall_ill_far_apart_are_no_storm() {
        let mut brake = brake(12);
        for (node, second) in [("n1", 0), ("n2", 100), ("n3", 200)] {
            brake.observe(at(second), node, true);
        }
        assert!(!brake.state(at(200)).0);
    }

    /// Found by a reviewer: by the profile `fast` three nodes that fell ill within 20 s of each other were no storm.
    #[test]
    fn a_factor_shortens_how_long_it_holds_and_not_within_what_time_nodes_fall_ill_together() {
        let mut brake = StormBrake::new(&Storm::default(), Duration::from_secs(1));
        (0..6).for_each(|node| brake.observe(at(0), &format!("n{node}"), false));
        for (node, second) in [("n1", 10), ("n2", 20), ("n3", 30)] {
            brake.observe(at(second), node, true);
        }
        assert!(brake.state(at(30)).0);
        for node in ["n1", "n2", "n3"] {
            brake.observe(at(40), node, false);
        }
        assert!(brake.state(at(40)).0);
        brake.judge(at(41));
        assert!(!brake.state(at(41)).0);
    }

    #[test]
    fn it_holds_until_two_thirds_were_well_for_the_whole_window() {
        let mut brake = brake(6);
        for node in ["n1", "n2", "n3"] {
            brake.observe(at(10), node, true);
        }
        brake.observe(at(20), "n1", false);
        brake.judge(at(70));
        assert!(brake.state(at(70)).0, "well for 50 s only");
        brake.observe(at(75), "n1", true);
        brake.observe(at(76), "n1", false);
        brake.judge(at(100));
        assert!(brake.state(at(100)).0, "the gap began the window anew");
        brake.judge(at(136));
        assert!(!brake.state(at(136)).0);
    }
}

//! A step that takes a voter away leaves a majority of voters that can take part.
//!
//! Judged by what is true, not by what agents believe: but a voter that went down moments ago may not be known to be
//! down yet. Targets of other steps under way are known at once.

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_host::audit::{Fact, StepFact};

use super::{Broken, Invariant, Limits, broken};
use crate::event::{Event, Happening};
use crate::world::{MemberId, World};

/// The rule.
pub struct QuorumKept {
    known_down_after: Duration,
    /// Targets of disruptive steps under way, by machine and process of the agent.
    under_way: BTreeMap<(String, u32, u64), String>,
}

impl QuorumKept {
    /// The rule, with these figures.
    pub fn new(limits: &Limits) -> Self {
        Self { known_down_after: limits.known_down_after, under_way: BTreeMap::new() }
    }

    fn begins(&self, now: Duration, step: &StepFact, world: &World) -> Result<(), Broken> {
        // Detaching a disk leaves the process where it is.
        if step.action == "detach_disk" {
            return Ok(());
        }
        let Some((cluster, voters)) = world.voters() else { return Ok(()) };
        let healthy = |raft_id: &&u64| {
            let id = MemberId { cluster: cluster.clone(), raft_id: **raft_id };
            let Some(member) = world.member(&id) else { return false };
            let taken =
                member.machine == step.target || self.under_way.values().any(|target| *target == member.machine);
            let down = world.down_since(&id).is_some_and(|since| now >= since + self.known_down_after);
            !taken && !down
        };
        for set in &voters {
            let left = set.iter().filter(healthy).count();
            if left <= set.len() / 2 {
                let what = format!("{} of {}", step.action, step.target);
                return broken(format!("{what} began, which leaves {left} healthy voters of {set:?}"));
            }
        }
        Ok(())
    }
}

impl Invariant for QuorumKept {
    fn name(&self) -> &'static str {
        "quorum_kept"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 9: quorum kept"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let stamped = match event {
            Event::Fact(stamped) => stamped,
            Event::Kernel { what: Happening::ProcessEnded { machine, pid, .. }, .. } => {
                self.under_way.retain(|(on, by, _), _| on != machine || by != pid);
                return Ok(());
            }
            Event::Kernel { .. } => return Ok(()),
        };
        let key = |step: u64| (stamped.machine.clone(), stamped.pid, step);
        match &stamped.fact {
            Fact::StepBegan(step) if step.disruptive => {
                self.begins(stamped.at, step, world)?;
                self.under_way.insert(key(step.step), step.target.clone());
            }
            Fact::StepEnded { step, .. } => {
                self.under_way.remove(&key(*step));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, fence, opened, restart};

    fn three() -> Story {
        let mut story = Story::default();
        for (machine, number) in [("n1", 1), ("n2", 2), ("n3", 3)] {
            story
                .node(machine, number)
                .says(machine, opened(u64::from(number), None, None))
                .agent(machine, number + 10);
        }
        story
    }

    fn rule() -> QuorumKept {
        QuorumKept::new(&Limits::default())
    }

    fn begins(step: u64, target: &str) -> Fact {
        Fact::StepBegan(restart(step, target, Some(fence(1, "n1"))))
    }

    #[test]
    fn one_of_three_may_be_restarted() {
        three().agent_says("n2", begins(1, "n2")).passes(rule());
    }

    #[test]
    fn not_while_another_is_known_to_be_down() {
        three().ends("n3", "node").later(20).agent_says("n2", begins(1, "n2")).breaks(rule(), "leaves 1 healthy");
        three().ends("n3", "node").later(20).agent_says("n3", begins(1, "n3")).passes(rule());
    }

    #[test]
    fn what_went_down_a_moment_ago_cannot_be_known() {
        three().ends("n3", "node").later(2).agent_says("n2", begins(1, "n2")).passes(rule());
    }

    #[test]
    fn the_target_of_another_step_counts_at_once_until_it_ends() {
        let mut story = three();
        story.agent_says("n3", begins(1, "n3")).agent_says("n2", begins(2, "n2")).breaks(rule(), "leaves 1 healthy");
        let mut story = three();
        story.agent_says("n3", begins(1, "n3")).agent_says("n3", Fact::StepEnded { step: 1, result: "done" });
        story.agent_says("n2", begins(2, "n2")).passes(rule());
    }

    #[test]
    fn a_disk_is_no_voter() {
        let mut step = restart(1, "n2", Some(fence(1, "n1")));
        step.action = "detach_disk".to_owned();
        three().ends("n3", "node").later(20).agent_says("n2", Fact::StepBegan(step)).passes(rule());
    }
}

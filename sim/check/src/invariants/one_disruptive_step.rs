//! At most one disruptive step is under way in the cluster, and each under a slot of somebody who held the lease.
//!
//! The one exception is the design's own: a step whose target the holder cannot reach any more, or whose gate a
//! successor has raised, holds nobody back. Its target counts as down then (`quorum_kept` judges by what is true).

use std::collections::{BTreeMap, BTreeSet};

use resilver_host::audit::{Fact, Fence, StepFact};

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening, Stamped};
use crate::world::World;

/// A disruptive step under way.
#[derive(Debug)]
struct UnderWay {
    machine: String,
    pid: u32,
    step: StepFact,
    /// It holds nobody back any more.
    excused: bool,
}

/// The rule.
#[derive(Default)]
pub struct OneDisruptiveStep {
    leases: BTreeSet<Fence>,
    /// Slots by target and fence, and whether they hold nobody back any more.
    slots: BTreeMap<(String, Fence), bool>,
    under_way: Vec<UnderWay>,
}

impl OneDisruptiveStep {
    fn begins(&mut self, stamped: &Stamped, step: &StepFact) -> Result<(), Broken> {
        let what = format!("step {} ({} of {})", step.step, step.action, step.target);
        let Some(fence) = &step.fence else { return broken(format!("{what} began without a fence")) };
        if !self.leases.contains(fence) {
            return broken(format!("{what} began under {fence:?}, and nobody ever held the lease so"));
        }
        let Some(excused) = self.slots.get(&(step.target.clone(), fence.clone())).copied() else {
            return broken(format!("{what} began under {fence:?} without a slot"));
        };
        let other = self.under_way.iter().find(|other| !other.excused && !excused);
        if let Some(UnderWay { step: other, .. }) = other {
            return broken(format!("{what} began while {} of {} is under way", other.action, other.target));
        }
        let Stamped { machine, pid, .. } = stamped;
        self.under_way.push(UnderWay { machine: machine.clone(), pid: *pid, step: step.clone(), excused });
        Ok(())
    }

    fn excuse(&mut self, target: &str, below: Option<&Fence>) {
        let older = |fence: &Fence| below.is_none_or(|below| fence < below);
        for ((_, _), excused) in self.slots.iter_mut().filter(|((of, fence), _)| of == target && older(fence)) {
            *excused = true;
        }
        for other in self.under_way.iter_mut().filter(|other| other.step.target == target) {
            other.excused |= other.step.fence.as_ref().is_some_and(older);
        }
    }
}

impl Invariant for OneDisruptiveStep {
    fn name(&self) -> &'static str {
        "one_disruptive_step"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 8: one at a time; docs/lease.md"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let stamped = match event {
            Event::Fact(stamped) => stamped,
            Event::Kernel { what: Happening::ProcessEnded { machine, pid, .. }, .. } => {
                // What became of it is found out by whoever settles its slot.
                self.under_way.retain(|other| other.machine != *machine || other.pid != *pid);
                return Ok(());
            }
            Event::Kernel { .. } => return Ok(()),
        };
        match &stamped.fact {
            Fact::LeaseAcquired { fence } => {
                self.leases.insert(fence.clone());
            }
            Fact::SlotGranted { target, fence, .. } => {
                self.slots.insert((target.clone(), fence.clone()), false);
            }
            Fact::TargetDown { target } => self.excuse(target, None),
            Fact::FencePassed { fence } => self.excuse(&stamped.machine, Some(fence)),
            Fact::StepBegan(step) if step.disruptive => return self.begins(stamped, step),
            Fact::StepEnded { step, .. } => {
                let ended = |other: &UnderWay| other.machine == stamped.machine && other.step.step == *step;
                self.under_way.retain(|other| !ended(other));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, fence, restart};

    /// Agent 1 holds the lease and has let n2 be restarted.
    fn one() -> Story {
        let mut story = Story::default();
        story.agent("n1", 1).agent("n2", 2).agent("n3", 3);
        story.agent_says("n1", Fact::LeaseAcquired { fence: fence(4, "n1") });
        grant(&mut story, "n2", 4, "n1");
        story.agent_says("n2", Fact::StepBegan(restart(7, "n2", Some(fence(4, "n1")))));
        story
    }

    fn grant<'a>(story: &'a mut Story, target: &str, round: u64, holder: &str) -> &'a mut Story {
        let (target, step) = (target.to_owned(), "restart_node".to_owned());
        story.agent_says(holder, Fact::SlotGranted { target, step, fence: fence(round, holder) })
    }

    fn begin_at_n3(story: &mut Story, round: u64, holder: &str) -> Fact {
        grant(story, "n3", round, holder);
        Fact::StepBegan(restart(9, "n3", Some(fence(round, holder))))
    }

    #[test]
    fn one_after_the_other_passes() {
        let mut story = one();
        story.agent_says("n2", Fact::StepEnded { step: 7, result: "done" });
        let second = begin_at_n3(&mut story, 4, "n1");
        story.agent_says("n3", second).passes(OneDisruptiveStep::default());
    }

    #[test]
    fn two_at_a_time_do_not_even_under_a_later_fence() {
        let mut story = one();
        let second = begin_at_n3(&mut story, 4, "n1");
        story.agent_says("n3", second).breaks(OneDisruptiveStep::default(), "while restart_node of n2 is under way");
        let mut story = one();
        story.agent_says("n3", Fact::LeaseAcquired { fence: fence(5, "n3") });
        let second = begin_at_n3(&mut story, 5, "n3");
        story.agent_says("n3", second).breaks(OneDisruptiveStep::default(), "is under way");
    }

    #[test]
    fn a_target_that_is_out_of_reach_or_fenced_holds_nobody_back() {
        let mut story = one();
        story.agent_says("n3", Fact::LeaseAcquired { fence: fence(5, "n3") });
        story.agent_says("n3", Fact::TargetDown { target: "n2".to_owned() });
        let second = begin_at_n3(&mut story, 5, "n3");
        story.agent_says("n3", second).passes(OneDisruptiveStep::default());
        let mut story = one();
        story.agent_says("n3", Fact::LeaseAcquired { fence: fence(5, "n3") });
        story.agent_says("n2", Fact::FencePassed { fence: fence(5, "n3") });
        let second = begin_at_n3(&mut story, 5, "n3");
        story.agent_says("n3", second).passes(OneDisruptiveStep::default());
    }

    #[test]
    fn no_step_without_fence_lease_and_slot() {
        let rule = OneDisruptiveStep::default;
        let begins = |fence| Fact::StepBegan(restart(9, "n3", fence));
        one().agent_says("n3", begins(None)).breaks(rule(), "without a fence");
        one().agent_says("n3", begins(Some(fence(9, "n3")))).breaks(rule(), "nobody ever held");
        one().agent_says("n3", begins(Some(fence(4, "n1")))).breaks(rule(), "without a slot");
        let mut story = one();
        story.ends("n2", "agent");
        let second = begin_at_n3(&mut story, 4, "n1");
        story.agent_says("n3", second).passes(rule());
    }
}

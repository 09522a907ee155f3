//! No step under an old fence takes effect: the gate of a host lets fences pass that only rise, over restarts too, and
//! a step passes the gate, in the same life of its agent, before it begins.

use std::collections::{BTreeMap, BTreeSet};

use resilver_host::audit::{Fact, Fence};

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct FenceRespected {
    highest: BTreeMap<String, Fence>,
    passed: BTreeSet<(String, u32, Fence)>,
}

impl Invariant for FenceRespected {
    fn name(&self) -> &'static str {
        "fence_respected"
    }

    fn origin(&self) -> &'static str {
        "design.md, Who acts: the target's agent persists the highest fence it has seen and refuses lower ones"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        let machine = &stamped.machine;
        match &stamped.fact {
            Fact::FencePassed { fence } => {
                let highest = self.highest.entry(machine.clone()).or_default();
                if *fence < *highest {
                    return broken(format!("{machine} let {fence:?} pass after {highest:?}"));
                }
                *highest = fence.clone();
                self.passed.insert((machine.clone(), stamped.pid, fence.clone()));
            }
            Fact::StepBegan(step) => {
                if let Some(fence) = &step.fence
                    && !self.passed.contains(&(machine.clone(), stamped.pid, fence.clone()))
                {
                    return broken(format!("step {} began on {machine} and never passed its gate", step.step));
                }
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

    fn gate(rounds: &[u64]) -> Story {
        let mut story = Story::default();
        story.agent("n1", 1);
        for round in rounds {
            story.agent_says("n1", Fact::FencePassed { fence: fence(*round, "n2") });
        }
        story
    }

    #[test]
    fn rising_fences_pass() {
        let mut story = gate(&[3, 3, 5]);
        story.agent_says("n1", Fact::StepBegan(restart(1, "n1", Some(fence(5, "n2")))));
        story.passes(FenceRespected::default());
    }

    #[test]
    fn an_old_fence_that_passes_is_found_also_after_a_restart() {
        gate(&[3, 5, 4]).breaks(FenceRespected::default(), "n1 let");
        let mut story = gate(&[5]);
        story.ends("n1", "agent").agent("n1", 2).agent_says("n1", Fact::FencePassed { fence: fence(4, "n2") });
        story.breaks(FenceRespected::default(), "n1 let");
    }

    #[test]
    fn a_step_that_did_not_pass_the_gate_is_found() {
        let began = Fact::StepBegan(restart(1, "n1", Some(fence(4, "n2"))));
        gate(&[3]).agent_says("n1", began).breaks(FenceRespected::default(), "never passed");
    }
}

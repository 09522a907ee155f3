//! Where nothing fails, nothing is recovered: in a run without faults no step is taken, but for the first start of a
//! node and for what an operator asks.

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::journal::FirstStarts;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct NoFaultNoStep {
    first: FirstStarts,
}

impl Invariant for NoFaultNoStep {
    fn name(&self) -> &'static str {
        "no_fault_no_step"
    }

    fn origin(&self) -> &'static str {
        "design.md, first promise: it never makes things worse"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        self.first.take(event);
        let Event::Fact(stamped) = event else { return Ok(()) };
        match &stamped.fact {
            Fact::StepBegan(step)
                if !world.faults_ever() && step.incident.is_some() && !self.first.has(stamped, step) =>
            {
                broken(format!("{} of {} began, and nothing had failed", step.action, step.target))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use resilver_strategies::record::RecordKind;

    use super::*;
    use crate::event::Happening;
    use crate::testing::{Story, draft_of, fence, restart, start};

    fn one() -> Story {
        let mut story = Story::default();
        story.agent("n1", 1);
        story
    }

    #[test]
    fn first_starts_and_operators_pass() {
        let mut story = one();
        story.writes("n1", draft_of(RecordKind::Intent, &start(1, "n1")).with("initial", true));
        story.agent_says("n1", Fact::StepBegan(start(1, "n1")));
        story.begins("n1", restart(2, "n1", Some(fence(1, "n1")))).passes(NoFaultNoStep::default());
    }

    #[test]
    fn a_recovery_of_nothing_is_found() {
        one().begins("n1", start(1, "n1")).breaks(NoFaultNoStep::default(), "nothing had failed");
        one().kernel(Happening::FaultsOn).begins("n1", start(1, "n1")).passes(NoFaultNoStep::default());
    }
}

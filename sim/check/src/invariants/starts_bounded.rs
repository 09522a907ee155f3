//! A node is not started in a loop: at most so many starts within the budget's window.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use resilver_host::audit::Fact;

use super::{Broken, Invariant, Limits, broken};
use crate::event::{Event, Happening};
use crate::journal::FirstStarts;
use crate::world::World;

/// The rule.
pub struct StartsBounded {
    starts: usize,
    window: Duration,
    first: FirstStarts,
    began: BTreeMap<String, VecDeque<Duration>>,
    /// Two lives of an agent are linked by wall time only: where that was set, no count can be asked for.
    jumped: BTreeSet<String>,
}

impl StartsBounded {
    /// The rule, with these figures.
    pub fn new(limits: &Limits) -> Self {
        // An agent's clock may run a little faster than the simulator's.
        let window = limits.starts_window.mul_f64(0.9);
        let (first, began, jumped) = (FirstStarts::default(), BTreeMap::new(), BTreeSet::new());
        Self { starts: limits.starts, window, first, began, jumped }
    }
}

impl Invariant for StartsBounded {
    fn name(&self) -> &'static str {
        "starts_bounded"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, process_crash: 0, 2, 8 s, then a cool-down of 60 s; 5 in 30 min"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        self.first.take(event);
        let stamped = match event {
            Event::Fact(stamped) => stamped,
            Event::Kernel { what: Happening::ClockJumped { machine }, .. } => {
                self.jumped.insert(machine.clone());
                return Ok(());
            }
            Event::Kernel { .. } => return Ok(()),
        };
        let Fact::StepBegan(step) = &stamped.fact else { return Ok(()) };
        // A person who asks for a start is not restrained by the budget.
        let automatic = step.action == "start_node" && step.incident.is_some();
        let counted = automatic && !self.first.has(stamped, step);
        if !counted || self.jumped.contains(&stamped.machine) {
            return Ok(());
        }
        let began = self.began.entry(step.target.clone()).or_default();
        began.push_back(stamped.at);
        while began.front().is_some_and(|at| *at + self.window < stamped.at) {
            began.pop_front();
        }
        if began.len() > self.starts {
            let (starts, within) = (began.len(), self.window.as_secs());
            return broken(format!("{} was started {starts} times within {within} s", step.target));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, start};

    fn starts(count: u64, every: u64) -> Story {
        let mut story = Story::default();
        story.agent("n1", 1);
        for number in 1..=count {
            story.begins("n1", start(number, "n1")).ends_step("n1", start(number, "n1")).later(every);
        }
        story
    }

    #[test]
    fn five_starts_pass_and_a_sixth_does_not() {
        let rule = || StartsBounded::new(&Limits::default());
        starts(5, 1).passes(rule());
        starts(6, 1).breaks(rule(), "started 6 times");
        starts(20, 400).passes(rule());
    }
}

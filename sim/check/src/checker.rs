//! Tells every event to every rule.

use crate::event::Event;
use crate::invariants::{self, Invariant, Limits, Violation};
use crate::world::World;

/// All rules, and the world they share.
pub struct Checker {
    world: World,
    rules: Vec<Box<dyn Invariant>>,
}

impl Checker {
    /// A checker that has seen nothing.
    pub fn new(limits: &Limits) -> Self {
        Self { world: World::default(), rules: invariants::all(limits) }
    }

    /// A checker of these rules only.
    pub fn of(rules: Vec<Box<dyn Invariant>>) -> Self {
        Self { world: World::default(), rules }
    }

    /// Judges the next event, then takes it in.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        for rule in &mut self.rules {
            rule.observe(event, &self.world).map_err(|broken| broken.told_by(rule.as_ref(), event.at()))?;
        }
        self.world.take(event);
        Ok(())
    }

    /// Judges the end of a run.
    ///
    /// # Errors
    /// The first rule that is not kept at the end.
    pub fn finish(&mut self) -> Result<(), Violation> {
        for rule in &mut self.rules {
            rule.finish(&self.world).map_err(|broken| broken.told_by(rule.as_ref(), self.world.now()))?;
        }
        Ok(())
    }

    /// The cluster, as far as it was told.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Every rule's name and where it comes from.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.rules.iter().map(|rule| (rule.name(), rule.origin()))
    }
}

//! The holder's book of slots: at most one disruptive step at a time, and none forgotten that a former holder allowed.
//!
//! Owns: which slots are open and what is known of their targets. Must never: allow a second step while one is open
//! whose target is not settled.
//!
//! An inherited slot is settled by raising its target's fence; a target that cannot be reached is counted as down. Both
//! stop blocking, and both count as down in the quorum guard until the target is seen well: the old step may have begun
//! before the fence was raised. Then the slot is closed.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{Ballot, Slot};
use crate::types::{Action, Fence};

/// What is known of an open slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Being opened, or open: its step may run.
    Open,
    /// A former holder opened it; its target was not reached yet.
    Inherited,
    /// The target refuses the former holder's fence now; the step may have begun before.
    Raised,
    /// The target cannot be reached.
    Unreachable,
}

/// Why there is no slot now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a step on {target} is not verified yet (step {step}, fence {fence})")]
pub struct Busy {
    /// The target of the slot in the way.
    pub target: String,
    /// Its step.
    pub step: String,
    /// Its fence.
    pub fence: Fence,
}

/// The slots of one holder, from when it got the lease to when it lost it.
#[derive(Clone, Debug)]
pub struct SlotBook {
    ballot: Ballot,
    fence: Fence,
    slots: BTreeMap<(String, String, Fence), (Slot, SlotState)>,
}

impl SlotBook {
    /// Begins with what the acceptors told while the lease was acquired.
    pub fn inherit(fence: Fence, slots: Vec<Slot>) -> Self {
        let ballot = Ballot { round: fence.round, agent: fence.holder.clone() };
        let entries = slots.into_iter().map(|slot| (key(&slot), (slot, SlotState::Inherited)));
        Self { ballot, fence, slots: entries.collect() }
    }

    /// The fence that all slots of this book are opened under.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// What to sign requests to the acceptors with.
    pub fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// All slots, with what is known of them.
    pub fn all(&self) -> impl Iterator<Item = (&Slot, SlotState)> {
        self.slots.values().map(|(slot, state)| (slot, *state))
    }

    /// Slots whose targets' fences must be raised before anything else.
    pub fn unsettled(&self) -> Vec<Slot> {
        self.all().filter(|(_, state)| *state == SlotState::Inherited).map(|(slot, _)| slot.clone()).collect()
    }

    /// The target answered that its gate is at our fence (or above).
    pub fn raised(&mut self, target: &str) {
        self.each(target, |state| match state {
            SlotState::Inherited | SlotState::Unreachable => SlotState::Raised,
            other => other,
        });
    }

    /// The target cannot be reached: its slots stop blocking, and it counts as down.
    pub fn unreachable(&mut self, target: &str) {
        self.each(target, |state| if state == SlotState::Raised { state } else { SlotState::Unreachable });
    }

    /// Targets that count as down in the quorum guard.
    pub fn down(&self) -> Vec<String> {
        let mut down: Vec<String> = self.all().map(|(slot, _)| slot.target.clone()).collect();
        down.dedup();
        down
    }

    /// The slot that keeps every other step from beginning.
    pub fn blocking(&self) -> Option<Busy> {
        let blocks = |state: &SlotState| matches!(state, SlotState::Open | SlotState::Inherited);
        let (slot, _) = self.slots.values().find(|(_, state)| blocks(state))?;
        Some(Busy { target: slot.target.clone(), step: slot.step.clone(), fence: slot.fence.clone() })
    }

    /// Takes the one place there is. The slot is open once a majority of the acceptors has answered so *and*
    /// [`Proposer::fence`](super::Proposer::fence) still is this book's fence after the last of these answers: one that
    /// comes after the term may be for a slot that a successor has settled and closed. If they do not answer, or
    /// nobody can tell, [`Self::closed`] takes it back after it was closed at a majority, and not before.
    pub fn open(&mut self, target: &str, step: &str, incident: &str, wall_ms: u64) -> Result<Slot, Busy> {
        let slot = Slot {
            target: target.to_owned(),
            step: step.to_owned(),
            fence: self.fence.clone(),
            incident: incident.to_owned(),
            opened_ms: wall_ms,
        };
        // A repeated request for the same step gets the same slot: its answer may have been lost.
        if let Some((known, SlotState::Open)) = self.slots.get(&key(&slot)) {
            return Ok(known.clone());
        }
        match self.blocking() {
            Some(busy) => Err(busy),
            None => {
                self.slots.insert(key(&slot), (slot.clone(), SlotState::Open));
                Ok(slot)
            }
        }
    }

    /// The open slots of a target that may be closed, now that the target was seen well again.
    pub fn settled(&self, target: &str) -> Vec<Slot> {
        let done = |state: SlotState| matches!(state, SlotState::Raised | SlotState::Unreachable);
        let of = self.all().filter(|(slot, state)| slot.target == target && done(*state));
        of.map(|(slot, _)| slot.clone()).collect()
    }

    /// Open slots that the target's own agent got for earlier steps and knows nothing of any more, now that it asks for
    /// `step` and says which others are `under_way`: it was killed between the grant and its own record. Later ones are
    /// not among them: then this request is the one that was held up on its way.
    pub fn forgotten(&self, target: &str, step: &str, under_way: &BTreeSet<String>) -> Vec<Slot> {
        let Some(asking) = number_of(step) else { return Vec::new() };
        let forgotten = |slot: &Slot| {
            // An operator's step has no incident: it is the holder's to remember.
            let own = slot.target == target && !slot.incident.is_empty() && !under_way.contains(&slot.step);
            own && number_of(&slot.step).is_some_and(|number| number < asking)
        };
        let open = self.all().filter(|(slot, state)| *state == SlotState::Open && forgotten(slot));
        open.map(|(slot, _)| slot.clone()).collect()
    }

    /// The slot was closed at a majority of the acceptors.
    pub fn closed(&mut self, slot: &Slot) -> bool {
        self.slots.remove(&key(slot)).is_some()
    }

    fn each(&mut self, target: &str, change: impl Fn(SlotState) -> SlotState) {
        for (slot, state) in self.slots.values_mut() {
            if slot.target == target {
                *state = change(*state);
            }
        }
    }
}

/// Names a step over all agents. Numbers of one agent's steps rise.
pub fn step_name(action: Action, node: &str, number: u64) -> String {
    format!("{action}:{node}-{number}")
}

fn number_of(step: &str) -> Option<u64> {
    step.rsplit_once('-')?.1.parse().ok()
}

fn key(slot: &Slot) -> (String, String, Fence) {
    (slot.target.clone(), slot.step.clone(), slot.fence.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(round: u64) -> Fence {
        Fence { epoch: 1, round, holder: "n1".to_owned() }
    }

    fn inherited() -> Slot {
        Slot { target: "n4".into(), step: "n4-7".into(), fence: fence(2), incident: String::new(), opened_ms: 1 }
    }

    #[test]
    fn one_step_at_a_time() {
        let mut book = SlotBook::inherit(fence(3), vec![]);
        let slot = book.open("n2", "n2-1", "", 5).expect("free");
        assert_eq!(book.open("n2", "n2-1", "", 9).expect("asked again"), slot);
        assert_eq!(book.open("n3", "n3-1", "", 6).expect_err("taken").target, "n2");
        assert_eq!(book.down(), ["n2"]);
        assert!(book.closed(&slot));
        assert!(book.open("n3", "n3-1", "", 7).is_ok());
    }

    /// Found by the simulator (`mixed`, seed 143): the agent lost power between the grant and its own record, and its slot
    /// held every disruptive step of the cluster back for ten minutes.
    #[test]
    fn a_slot_that_its_agent_has_forgotten_is_found_when_that_agent_asks_again() {
        let name = |number| step_name(Action::DetachDisk, "n2", number);
        let none = BTreeSet::new();
        let mut book = SlotBook::inherit(fence(3), vec![]);
        let slot = book.open("n2", &name(5), "n2-3", 5).expect("free");
        assert_eq!(book.forgotten("n2", &name(11), &none), [slot]);
        assert!(book.forgotten("n2", &name(11), &BTreeSet::from([name(5)])).is_empty(), "it is still at it");
        assert!(book.forgotten("n2", &name(4), &none).is_empty(), "a request that was held up on its way");
        assert!(book.forgotten("n2", &name(5), &none).is_empty(), "a request that was repeated");
        assert!(book.forgotten("n3", &step_name(Action::DetachDisk, "n3", 11), &none).is_empty(), "another's");

        let mut book = SlotBook::inherit(fence(3), vec![]);
        book.open("n2", &name(5), "", 5).expect("free");
        assert!(book.forgotten("n2", &name(11), &none).is_empty(), "an operator's");
    }

    #[test]
    fn an_inherited_slot_blocks_until_its_target_is_fenced_or_counted_as_down() {
        let mut book = SlotBook::inherit(fence(3), vec![inherited()]);
        assert!(book.open("n2", "n2-1", "", 5).is_err());
        assert_eq!(book.unsettled(), vec![inherited()]);
        book.raised("n4");
        assert!(book.open("n2", "n2-1", "", 5).is_ok());
        assert_eq!(book.down(), ["n2", "n4"], "the old step may have begun before the fence was raised");
        assert_eq!(book.settled("n4"), vec![inherited()]);

        let mut book = SlotBook::inherit(fence(3), vec![inherited()]);
        book.unreachable("n4");
        assert!(book.open("n2", "n2-1", "", 5).is_ok());
        assert!(book.down().contains(&"n4".to_owned()));
    }
}

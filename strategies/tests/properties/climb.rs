//! Where an incident is on its ladder, by the journal alone: every step of the ladder that comes before one that is begun was done,
//! tried, or passed over with a reason, in this very climb.
//!
//! A climb begins anew whenever the ladder is gone back on: what was tried above then says nothing about the way up again.

use std::collections::{BTreeMap, BTreeSet};

use resilver_strategies::api::{Step, StepId, Subject};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{Rung, ladder};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Mode};

/// One incident's.
#[derive(Clone, Debug, Default)]
pub struct Climb {
    /// Steps of the ladder that there is a word about: an outcome, or why they were passed over.
    accounted: BTreeSet<usize>,
    /// Which step of the ladder each step was.
    rungs: BTreeMap<StepId, usize>,
    /// Those of them that were passed over, at once or after attempts that did not help.
    passed: BTreeSet<usize>,
    /// What was begun, whatever became of it.
    begun: BTreeSet<(Action, String)>,
}

/// Whether a step takes back what the agents did, whatever its place.
pub fn takes_back(step: &Step) -> bool {
    match step.action {
        Action::MarkUp | Action::Promote => true,
        Action::SetMode => matches!(step.with.as_str(), "" | "read_write" | "standing"),
        Action::Throttle => step.with == "off",
        _ => false,
    }
}

/// What a step that takes something back takes back: one of these was begun before.
fn taken_back(step: &Step) -> &'static [(Action, &'static str)] {
    match (step.action, step.with.as_str()) {
        (Action::Promote, _) => &[(Action::Demote, "")],
        (Action::Throttle, _) => &[(Action::Throttle, "on")],
        (Action::SetMode, "standing") => &[(Action::SetMode, "quiet")],
        (Action::SetMode, "read_write") => &[(Action::SetMode, "read_only"), (Action::SetMode, "isolated")],
        (Action::SetMode, _) => &[(Action::Throttle, "")],
        // A mark may be a former holder's.
        _ => &[],
    }
}

impl Climb {
    /// A step begins. Says which step of its ladder it is, if it is one.
    ///
    /// # Panics
    /// When it has no place on its ladder, or something before it was left out.
    pub fn begins(&mut self, policy: &PolicyConfig, mode: Mode, step: &Step) -> Option<Rung> {
        let of = (step.action, step.with.clone());
        if takes_back(step) {
            let wanted = taken_back(step);
            let known = wanted.iter().any(|(action, with)| self.begun.contains(&(*action, (*with).to_owned())));
            assert!(wanted.is_empty() || known, "{step:?} takes back what was never done");
            return None;
        }
        if step.again {
            assert!(self.begun.contains(&of), "{step:?} is done again, and was never done");
            return None;
        }
        self.begun.insert(of);
        let rungs = ladder(mode, policy);
        let Some(at) = self.place(&rungs, step) else { panic!("{step:?} is on no step of its ladder") };
        for (before, rung) in rungs[..at].iter().enumerate().filter(|(_, rung)| rung.attempts > 0) {
            let (action, grade) = (rung.action, rung.grade.0);
            assert!(
                self.accounted.contains(&before),
                "{action} (grade {grade}, step {} of the ladder) was left out before {step:?}; known: {self:?}",
                before + 1
            );
        }
        self.stands_on(at);
        self.rungs.insert(step.id, at);
        rungs.into_iter().nth(at)
    }

    /// Whatever is above is to be climbed again.
    fn stands_on(&mut self, at: usize) {
        self.accounted.retain(|known| *known <= at);
        self.passed.retain(|known| *known < at);
    }

    fn place(&self, rungs: &[Rung], step: &Step) -> Option<usize> {
        let fits = |rung: &Rung| {
            let same = (rung.action, rung.grade, rung.disruptive) == (step.action, step.grade, step.disruptive);
            // What is always the same stands in the ladder; what depends on the present does not.
            same && (rung.with.is_empty() || rung.with == step.with)
        };
        let mut places = rungs.iter().enumerate().filter(|(_, rung)| fits(rung)).map(|(at, _)| at);
        let (first, second) = (places.next()?, places.next());
        let Some(second) = second else { return Some(first) };
        // Two steps that differ in what they are for: of an object and of a disk; of a dead owner's lock and of a living one's.
        let on_second = match (step.action, &step.subject) {
            (Action::RepairShards, subject) => matches!(subject, Subject::Disk { .. }),
            _ => self.passed.contains(&first),
        };
        Some(if on_second { second } else { first })
    }

    /// A record about the incident.
    pub fn hears(&mut self, policy: &PolicyConfig, mode: Mode, draft: &Draft) {
        match draft.kind {
            RecordKind::Outcome | RecordKind::Reconciled => {
                let step = draft.step.map(StepId);
                if let Some(at) = step.and_then(|step| self.rungs.get(&step)) {
                    self.accounted.insert(*at);
                }
            }
            RecordKind::Note => {
                let Some(skipped) = draft.text("skipped") else { return };
                assert!(
                    draft.text("evidence").is_some_and(|why| !why.is_empty()),
                    "passed over for no reason: {draft:?}"
                );
                let rungs = ladder(mode, policy);
                let fits = |rung: &Rung| rung.action.as_str() == skipped && Some(rung.grade) == draft.grade;
                let places: Vec<usize> =
                    rungs.iter().enumerate().filter(|(_, rung)| fits(rung)).map(|(at, _)| at).collect();
                let at = places.iter().find(|at| !self.passed.contains(*at)).or(places.last());
                let at = *at.unwrap_or_else(|| panic!("{draft:?} passes over what is no step of the ladder"));
                self.stands_on(at);
                self.accounted.insert(at);
                self.passed.insert(at);
            }
            _ => {}
        }
    }
}

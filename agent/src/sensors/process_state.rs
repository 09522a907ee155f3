//! How the kernel says that the node's process is: a live one may be stopped, or wait for a disk in the kernel, and answers
//! nobody then.
//!
//! Costs one read of one small file for each look.

use std::time::Duration;

use resilver_host::{Host, ProcId, RunState};
use resilver_strategies::api::{Input, Observation, ProcessStateFact};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{running, stopped};
use crate::state::View;

/// How often a process that is well is told of, so that the last word never grows old; one that is not well, at every look.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Looks at the node's process.
pub(crate) struct ProcessStateSensor {
    /// The machine.
    pub(crate) host: Host,
    /// How often.
    pub(crate) every: Duration,
    /// Which process it is.
    pub(crate) view: watch::Receiver<View>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

/// What was seen at each look since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spell {
    id: ProcId,
    state: RunState,
    since: Instant,
    told: Option<Instant>,
}

impl ProcessStateSensor {
    /// Looks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.look_on() => {}
        }
    }

    async fn look_on(&self) {
        let mut turn = interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut spell: Option<Spell> = None;
        loop {
            turn.tick().await;
            let node = running(&self.view.borrow());
            let Some(id) = node else {
                spell = None;
                continue;
            };
            // Gone, or not to be read: its exit is another sensor's to see.
            let Ok(Some(state)) = self.host.proc.state(id) else { continue };
            let mut now = next(spell, id, state, Instant::now());
            if is_due(&now, Instant::now()) {
                now.told = Some(Instant::now());
                let for_ms = u64::try_from(now.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                let fact = ProcessStateFact { pid: id.pid, state: state.as_str().to_owned(), for_ms };
                // Only a stopping agent has dropped the receiver.
                let _ = self.out.send(Input::Observed(Observation::ProcessState(fact))).await;
            }
            spell = Some(now);
        }
    }
}

/// A process that works sleeps and runs by turns: both are one.
fn is_well(state: RunState) -> bool {
    matches!(state, RunState::Running | RunState::Sleeping)
}

fn next(before: Option<Spell>, id: ProcId, state: RunState, now: Instant) -> Spell {
    let same = |spell: &Spell| spell.id == id && (spell.state == state || (is_well(spell.state) && is_well(state)));
    match before.filter(same) {
        Some(spell) => Spell { state, ..spell },
        None => Spell { id, state, since: now, told: None },
    }
}

fn is_due(spell: &Spell, now: Instant) -> bool {
    !is_well(spell.state) || spell.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_lasts_while_every_look_sees_the_same() {
        let (id, start) = (ProcId { pid: 7, start_ticks: 1 }, Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = next(None, id, RunState::Sleeping, at(0));
        assert!(is_due(&first, at(0)), "the first word comes at once");
        let told = Spell { told: Some(at(0)), ..first };
        let busy = next(Some(told), id, RunState::Running, at(3));
        assert_eq!((busy.since, is_due(&busy, at(3)), is_due(&busy, at(10))), (at(0), false, true));
        let stopped = next(Some(busy), id, RunState::Stopped, at(4));
        assert_eq!((stopped.since, is_due(&stopped, at(4))), (at(4), true));
        let still = next(Some(Spell { told: Some(at(4)), ..stopped }), id, RunState::Stopped, at(9));
        assert_eq!((still.since, is_due(&still, at(9))), (at(4), true));
        let other = next(Some(still), ProcId { pid: 8, start_ticks: 2 }, RunState::Stopped, at(10));
        assert_eq!(other.since, at(10), "another process has stood for no time");
    }
}

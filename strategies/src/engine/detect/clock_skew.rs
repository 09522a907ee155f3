//! `clock_skew`: most peers find this host's clock off, beyond the error of their questions.
//!
//! Never: blames this host for one peer's clock, or a peer at all (its own agent does); decides anything by wall time.

use serde::{Deserialize, Serialize};

use crate::config::ClockPolicy;
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// What was seen of the clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    off: Held,
    far: Held,
    near: Held,
    evidence: String,
}

/// The least that a majority of the answers agrees on, in milliseconds: positive when this clock is behind.
fn agreed(offsets: &mut [i64]) -> Option<i64> {
    // Two at least: of two clocks that differ nobody knows which is wrong.
    if offsets.len() < 2 {
        return None;
    }
    offsets.sort_unstable();
    let most = offsets.len() / 2 + 1;
    let (behind, ahead) = (offsets[offsets.len() - most], offsets[most - 1]);
    Some(if behind > 0 { behind } else { ahead.min(0) })
}

impl Watch {
    pub(crate) fn look(&mut self, now: Moment, peers: &Peers, policy: &ClockPolicy) {
        // What too few could be asked about for so long is not known any more: neither that it is off, nor that it is back.
        for held in [&mut self.off, &mut self.far, &mut self.near] {
            held.fade(now, policy.good_for);
        }
        let beyond = |(offset, error): (i64, u64)| {
            let error = i64::try_from(error).unwrap_or(i64::MAX);
            offset.signum() * offset.saturating_abs().saturating_sub(error).max(0)
        };
        let mut offsets: Vec<i64> = peers.clocks(now, policy.good_for).map(beyond).collect();
        // Of those that are heard at all, most must have been asked.
        if offsets.len() * 2 <= peers.answering(now, policy.good_for) {
            return;
        }
        let Some(off) = agreed(&mut offsets) else { return };
        let distance = off.unsigned_abs();
        self.off.look(now, distance >= u64::from(policy.warn_ms), policy.good_for);
        self.far.look(now, distance >= u64::from(policy.give_up_ms), policy.good_for);
        self.near.look(now, distance < u64::from(policy.warn_ms), policy.good_for);
        if distance >= u64::from(policy.warn_ms) {
            let way = if off > 0 { "behind" } else { "ahead of" };
            let (peers, limit, far) = (offsets.len(), policy.warn_ms, policy.give_up_ms);
            self.evidence = format!(
                "this clock is at least {distance} ms {way} most of {peers} peers', beyond the error; told from {limit} ms, no lease from {far} ms"
            );
        }
    }

    /// So far off that this host should not hold the lease.
    pub(crate) fn is_far(&self, policy: &ClockPolicy) -> bool {
        self.far.lasts(policy.confirm_after, 2)
    }

    pub(crate) fn state(&self, policy: &ClockPolicy, back_for: std::time::Duration) -> State {
        if self.off.lasts(policy.confirm_after, 2) {
            return State::Ill(self.evidence.clone());
        }
        match self.near.lasts(back_for, 2) {
            true => State::Well,
            false => State::Unknown("the clock to be back for long enough, by most peers' clocks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::agreed;

    #[test]
    fn a_majority_says_how_far_this_clock_is_off_at_least() {
        assert_eq!(agreed(&mut [600]), None, "of two clocks nobody knows which is wrong");
        assert_eq!(agreed(&mut [600, 0]), Some(0));
        assert_eq!(agreed(&mut [600, 590]), Some(590));
        assert_eq!(agreed(&mut [600, 590, 0]), Some(590));
        assert_eq!(agreed(&mut [600, 0, 0]), Some(0), "one peer's clock is that peer's");
        assert_eq!(agreed(&mut [-70, -60, 500]), Some(-60));
        assert_eq!(agreed(&mut [-70, 0, 500]), Some(0));
    }
}

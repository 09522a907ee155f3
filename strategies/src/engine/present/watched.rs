//! How the subject of an incident is by what the watches have seen.

use std::time::Duration;

use crate::api::Subject;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::detect::{State, damage};
use crate::engine::incidents::Incident;
use crate::types::{Mode, Moment};

/// However a factor scales: shorter than this is a moment, and no state.
const SHORTEST: Duration = Duration::from_secs(3);

/// Modes that the watches judge.
pub(crate) fn is_watched(mode: Mode) -> bool {
    matches!(
        mode,
        Mode::NetworkPartition
            | Mode::DatabaseCorruption
            | Mode::LogCorruption
            | Mode::SplitBrain
            | Mode::TermDivergence
            | Mode::StateDivergence
            | Mode::Deadlock
            | Mode::ResourceExhaustion
            | Mode::SlowFollower
            | Mode::ClockSkew
            | Mode::QuorumLoss
    )
}

impl Engine {
    /// How it is by its watch. `hosts`: of a partition.
    pub(crate) fn state_of(&self, now: Moment, mode: Mode, hosts: &[String]) -> State {
        let (policy, watches) = (&self.policy, &self.watches);
        let for_long = |time: Duration| policy.scaled(time).max(SHORTEST);
        match mode {
            Mode::NetworkPartition => watches.partition.state(now, hosts, &self.liveness, policy),
            Mode::DatabaseCorruption | Mode::LogCorruption => watches.damage.state(mode, &policy.damage),
            Mode::SplitBrain => watches.leaders.state(&policy.split_brain, for_long(policy.split_brain.settled_after)),
            Mode::TermDivergence => watches.terms.state(now, &policy.terms, for_long(policy.terms.stable_for)),
            Mode::StateDivergence => watches.replicas.state(now, &policy.replicas),
            Mode::Deadlock => watches.deadlock.state(now, &policy.deadlock, for_long(policy.deadlock.calm_for)),
            Mode::ResourceExhaustion => {
                watches.resources.state(now, &policy.resources, for_long(policy.resources.back_for))
            }
            Mode::SlowFollower => watches.lag.state(&policy.lag, for_long(policy.lag.caught_up_for)),
            Mode::ClockSkew => watches.clock.state(&policy.clock, for_long(policy.clock.back_for)),
            Mode::QuorumLoss => watches.voters.state(policy, for_long(policy.quorum.back_for)),
            _ => State::Unknown("it has no watch"),
        }
    }

    pub(crate) fn present_watched(&self, now: Moment, incident: &Incident) -> Present {
        let of_cluster =
            matches!(incident.mode, Mode::NetworkPartition | Mode::QuorumLoss | Mode::ClockSkew | Mode::Deadlock);
        if !of_cluster && self.facts.node_now().is_none() {
            return Present::Unknown("the node does not answer");
        }
        let hosts = match &incident.subject {
            Subject::Hosts(hosts) => hosts.as_slice(),
            _ => &[],
        };
        let undo_or = |present| if incident.applied.is_empty() { present } else { Present::Undo };
        let mended = incident.mode == Mode::StateDivergence && !incident.steps.is_empty() && !incident.unproven;
        match self.state_of(now, incident.mode, hosts) {
            State::Ill(_)
                if incident.mode == Mode::SplitBrain
                    && self.watches.leaders.is_of_clusters(&self.policy.split_brain) =>
            {
                Present::Beyond(
                    "two clusters under one configuration: which of them stays, a person decides".to_owned(),
                )
            }
            State::Ill(_) => match self.watches.lag.common_cause(&self.policy.lag) {
                Some(_) if incident.mode == Mode::SlowFollower => {
                    Present::Unknown("fewer nodes to be slow: two and a third of them have a common cause")
                }
                _ => Present::Ill,
            },
            // It was mended, and is compared by the proof; a proof that did not hold leaves it ill.
            State::Unknown(_) if mended => Present::Prove("mended: compared anew".to_owned()),
            // Its proof reads what the watch cannot see.
            State::Unknown(_) | State::Well if incident.unproven && incident.mode == Mode::StateDivergence => {
                Present::Ill
            }
            // Neither ill nor well by its own word: the proof would tell, and whom it tells nothing hears of it in the end.
            State::Unknown(_) if incident.unproven && damage::is_damage(incident.mode) => {
                Present::Prove("it does not say any more that it lost its vote".to_owned())
            }
            State::Unknown(what) => Present::Unknown(what),
            State::Over(why) => undo_or(Present::Over(why)),
            State::Well => undo_or(Present::Prove("well for long enough".to_owned())),
        }
    }
}

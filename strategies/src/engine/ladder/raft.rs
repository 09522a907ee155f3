//! Ladders about the metadata: its copies, its leaders, its terms.
//!
//! Must never: name a step that lowers a term, edits a vote, starts a voter on data that is in doubt, or forces anything.

use std::time::Duration;

use super::{Effect, Otherwise, RESTART_DEADLINE, Rung, SEEN_DEADLINE, Shows, disruptive, person, relief, told};
use crate::config::PolicyConfig;
use crate::types::{Action, Grade};

fn fence(policy: &PolicyConfig, does: &'static str, shows: Shows) -> Rung {
    let effect = Effect::NodeState { shows, deadline: SEEN_DEADLINE };
    Rung { effect, ..relief(policy, Action::SetMode, does, "isolated", Duration::ZERO) }
}

fn quiet(policy: &PolicyConfig) -> Rung {
    let effect = Effect::NodeState { shows: Shows::Stands(false), deadline: SEEN_DEADLINE };
    Rung { effect, ..relief(policy, Action::SetMode, "let it stand for no election", "quiet", Duration::ZERO) }
}

/// A step that takes as long as fetching the whole state does, and is over when the node is healthy again.
fn mend(policy: &PolicyConfig, action: Action, grade: Grade, does: &'static str) -> Rung {
    let deadline = policy.deadline(policy.replicas.mend_deadline);
    let effect = Effect::NodeState { shows: Shows::Healthy, deadline: policy.deadline(policy.recovery.proof_deadline) };
    Rung { deadline, effect, ..disruptive(policy, action, grade, does, Shows::Healthy) }
}

pub(super) fn rejoin(policy: &PolicyConfig) -> Rung {
    let does = "give its membership up, keep what is left aside, come back as a learner";
    Rung {
        deadline: policy.deadline(policy.damage.rejoin_deadline),
        otherwise: Otherwise::NextRung,
        ..mend(policy, Action::RejoinLearner, Grade::REALIGN, does)
    }
}

/// Two attempts: the ranges that differ are few, or it is not they.
pub(super) fn resync(policy: &PolicyConfig) -> Rung {
    let does = "fetch the ranges that differ from the majority";
    Rung { attempts: policy.budget.attempts.min(2), ..mend(policy, Action::Resync, Grade::RESYNC, does) }
}

pub(super) fn database_corruption(policy: &PolicyConfig) -> Vec<Rung> {
    vec![
        fence(policy, "fence it from clients", Shows::ServesNobody),
        rejoin(policy),
        person(
            Action::RestoreBackup,
            "restore from a backup: `resilver meta restore`, see docs/quorum-loss.md",
            Duration::ZERO,
        ),
    ]
}

/// What was never synced the node cuts off by itself when it opens its log; anything else it keeps.
pub(super) fn log_corruption(policy: &PolicyConfig) -> Vec<Rung> {
    let does = "tell a person: a torn tail is cut at open, this is none, and is kept as it is";
    let mut ladder = vec![told(does, Grade::OBSERVE, Otherwise::NextRung)];
    ladder.extend(database_corruption(policy));
    ladder
}

pub(super) fn split_brain(policy: &PolicyConfig) -> Vec<Rung> {
    let settle = policy.scaled(policy.split_brain.settled_after);
    vec![
        fence(policy, "fence the own node, whose term is the lower one, without a lease", Shows::Mode("isolated")),
        // Once: a node that takes itself for the leader whatever it is told does so until its process ends.
        Rung {
            wait: settle,
            attempts: 1,
            otherwise: Otherwise::NextRung,
            ..disruptive(policy, Action::StepDown, Grade::RESTART, "step down, one after the other", Shows::Follows)
        },
        Rung {
            wait: settle,
            deadline: RESTART_DEADLINE,
            ..mend(policy, Action::RestartNode, Grade::RESTART, "restart, one after the other")
        },
        mend(policy, Action::Resync, Grade::RESYNC, "bring it back to what the majority has"),
        person(
            Action::RecoverSplitBrain,
            "choose the side that stays (no side is merged or wiped unasked): compare `resilver meta status` and `resilver meta compare` of both, \
             then `resilver node rejoin` the others",
            policy.scaled(policy.split_brain.human_after),
        ),
    ]
}

pub(super) fn term_divergence(policy: &PolicyConfig) -> Vec<Rung> {
    let figures = &policy.terms;
    vec![
        quiet(policy),
        disruptive(policy, Action::StepDown, Grade::RESTART, "step down: no quorum acknowledges it", Shows::Follows),
        Rung {
            wait: policy.scaled(figures.align_after),
            effect: Effect::Relief { within: policy.scaled(figures.stable_for) },
            ..disruptive(
                policy,
                Action::AlignTerm,
                Grade::REALIGN,
                "elect on the best log, above the highest term seen",
                Shows::Healthy,
            )
        },
        Rung { wait: policy.scaled(figures.rejoin_after), otherwise: Otherwise::Escalate, ..rejoin(policy) },
        told("wait for the term to stay as it is", Grade::OBSERVE, Otherwise::Wait),
    ]
}

pub(super) fn state_divergence(policy: &PolicyConfig) -> Vec<Rung> {
    let again = policy.budget.attempts.min(2);
    vec![
        disruptive(
            policy,
            Action::StepDown,
            Grade::RESTART,
            "move leadership away: a leader is not mended",
            Shows::Follows,
        ),
        resync(policy),
        Rung {
            attempts: again,
            ..mend(policy, Action::InstallSnapshot, Grade::REALIGN, "fetch the whole state from the majority")
        },
        Rung { otherwise: Otherwise::Escalate, ..rejoin(policy) },
    ]
}

pub(super) fn slow_follower(policy: &PolicyConfig) -> Vec<Rung> {
    let helps = policy.scaled(policy.lag.relief_wait);
    vec![
        Rung { attempts: 1, ..relief(policy, Action::Throttle, "pause scrub and repair", "on", helps) },
        quiet(policy),
        Rung { attempts: 1, ..mend(policy, Action::InstallSnapshot, Grade::RESYNC, "catch up from a snapshot") },
        Rung {
            wait: helps,
            effect: Effect::NodeState { shows: Shows::Votes(false), deadline: SEEN_DEADLINE },
            ..disruptive(
                policy,
                Action::Demote,
                Grade::REALIGN,
                "give its vote up until it has caught up",
                Shows::Votes(false),
            )
        },
        told("wait for it to catch up", Grade::OBSERVE, Otherwise::Wait),
    ]
}

pub(super) fn quorum_loss(policy: &PolicyConfig) -> Vec<Rung> {
    vec![
        told("page, and freeze what is disruptive", Grade::OBSERVE, Otherwise::NextRung),
        told("each dead member's own agent starts it", Grade::RELIEVE, Otherwise::NextRung),
        person(
            Action::RecoverQuorum,
            "decide whether the lost members can come back; if none ever will: on the survivor with the highest (term, index) \
             `resilver meta recover-quorum`, which shows first what would be lost (docs/quorum-loss.md)",
            policy.scaled(policy.quorum.human_after),
        ),
    ]
}

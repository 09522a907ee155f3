//! Ladders about other hosts: what the holder of the lease says of them, and what is only told.

use std::time::Duration;

use super::{Effect, Otherwise, Rung, SEEN_DEADLINE, Shows, VERB_DEADLINE, relief, told};
use crate::config::PolicyConfig;
use crate::types::GuardName::{Authority, Budget, Corroborated, Fresh, IntentFirst, OneAtATime, Pause, StormBrake};
use crate::types::{Action, Grade, GuardName};

/// Saying in the map what the evidence says takes nothing away.
const MARK: &[GuardName] = &[Pause, Fresh, Corroborated, OneAtATime, Authority, IntentFirst];
const UNMARK: &[GuardName] = &[Pause, Fresh, OneAtATime, Authority, IntentFirst];
const GIVE_UP: &[GuardName] = &[Pause, Fresh, Corroborated, OneAtATime, Authority, Budget, StormBrake, IntentFirst];

/// Attempts at a mark: with the waits between them long enough for an election, which the host's end may have caused.
const MARK_ATTEMPTS: u32 = 10;

/// The states of a host that the cluster's work is planned with. `member`: a node that knows no marks yet.
pub(crate) const IN_SERVICE: &[&str] = &["up", "member"];

pub(super) fn host_down(policy: &PolicyConfig) -> Vec<Rung> {
    vec![
        Rung {
            action: Action::MarkDown,
            does: "mark the host down in the cluster map: everybody routes around it",
            with: "",
            approval: false,
            grade: Grade::OBSERVE,
            disruptive: false,
            wait: Duration::ZERO,
            attempts: MARK_ATTEMPTS,
            guards: MARK,
            deadline: VERB_DEADLINE,
            effect: Effect::HostState { states: &["down", "out"], deadline: SEEN_DEADLINE },
            otherwise: Otherwise::Escalate,
        },
        Rung {
            action: Action::EvacuateHost,
            does: "mark the host out: its shards are rebuilt on the others",
            with: "",
            approval: false,
            grade: Grade::REPAIR,
            disruptive: false,
            wait: policy.scaled(policy.host.out_after),
            attempts: policy.budget.attempts,
            guards: GIVE_UP,
            deadline: VERB_DEADLINE,
            // Then the proof: redundancy. It takes as long as rebuilding takes.
            effect: Effect::HostState { states: &["out"], deadline: SEEN_DEADLINE },
            otherwise: Otherwise::Escalate,
        },
    ]
}

/// Takes the agents' own mark back when the host is there again. An operator's mark is an operator's to take back.
pub(super) fn mark_up() -> Rung {
    Rung {
        action: Action::MarkUp,
        does: "take the mark back: the host is there again",
        with: "",
        approval: false,
        grade: Grade::OBSERVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: MARK_ATTEMPTS,
        guards: UNMARK,
        deadline: VERB_DEADLINE,
        effect: Effect::HostState { states: IN_SERVICE, deadline: SEEN_DEADLINE },
        otherwise: Otherwise::Escalate,
    }
}

/// Grade 0 alone: what a cascade needs is that nobody treats each symptom with its own ladder. It is told when it is
/// found; no attempt is ever made.
pub(super) fn cascading_failure() -> Vec<Rung> {
    vec![Rung {
        action: Action::Alert,
        does: "tell a person, fold what follows under it, freeze disruptive steps",
        with: "",
        approval: false,
        grade: Grade::OBSERVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: 0,
        guards: &[],
        deadline: Duration::ZERO,
        effect: Effect::Quiet,
        otherwise: Otherwise::Escalate,
    }]
}

/// The node routes around by itself; this host makes sure that it is not its own connections, and, on the minority side, takes no
/// writes that it cannot commit. Nothing is ever restarted because of the network.
pub(super) fn network_partition(policy: &PolicyConfig) -> Vec<Rung> {
    let figures = &policy.partition;
    vec![
        told("route around them: circuits open, reads are hedged", Grade::OBSERVE, Otherwise::NextRung),
        relief(
            policy,
            Action::Reclaim,
            "dial the other hosts anew, over every interface that is configured",
            "connections",
            policy.scaled(figures.reconnect_wait),
        ),
        Rung {
            effect: Effect::NodeState { shows: Shows::Mode("read_only"), deadline: SEEN_DEADLINE },
            ..relief(
                policy,
                Action::SetMode,
                "on the minority side: take no writes until a leader is seen",
                "read_only",
                Duration::ZERO,
            )
        },
        told("wait for the network to heal", Grade::OBSERVE, Otherwise::Wait),
    ]
}

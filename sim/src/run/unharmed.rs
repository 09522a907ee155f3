//! The rule `clients_unharmed`: losing a peer costs clients nothing.
//!
//! Origin: issue 5, "How it is shown". Clients of machines that no fault strikes see no error when another machine loses its
//! power, hangs or is cut off, and wait no longer than [`STALL`], or [`LEADER_STALL`] when the struck machine led. Through
//! links that lose packets, or cut in one direction, a request may fail: with a clear answer, before its client gives up.
//!
//! Accounted for, and no further: a voter that ran and could not hear its leader comes back with a higher term and deposes
//! it, because openraft 0.9 has no pre-vote (seed 10: two elections, 1.7 s). The longer bound holds for that, too.
//!
//! Judged for scenarios that promise it, whose plans hold one fault. Clients of the struck machine itself are not asked.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{Cut, Event, Fault, Plan, Role, VOTERS};
use crate::workload::{Answered, CLIENT_DEADLINE};

/// The longest wait when what was lost did not lead.
const STALL: Duration = Duration::from_secs(1);
/// When it led, or deposes the leader: an election lies in between.
const LEADER_STALL: Duration = Duration::from_secs(3);

/// What was struck, in the names of a run.
pub(super) struct Struck {
    /// Machines.
    pub(super) machines: BTreeSet<String>,
    /// The leader of Raft was among them when the plan began.
    pub(super) leader: bool,
}

/// The first answer that a client of a healthy machine should not have got.
pub(super) fn harmed(answers: &[Answered], plan: &Plan, struck: &Struck) -> Option<String> {
    let clear_errors = plan.events.iter().any(|event| may_fail(event.fault));
    let bound = if struck.leader || plan.events.iter().any(deposes) { LEADER_STALL } else { STALL };
    answers.iter().filter(|answer| !struck.machines.contains(&answer.node)).find_map(|answer| {
        let took = answer.end.saturating_sub(answer.begin);
        let words = &answer.words;
        match answer.served {
            true if took > bound => Some(format!("more than {} ms: {words}", bound.as_millis())),
            // A refusal that is allowed is allowed to come late, too, but not as late as the client's patience.
            false if !clear_errors || took >= CLIENT_DEADLINE => {
                Some(format!("a client of a healthy machine got an error: {words}"))
            }
            _ => None,
        }
    })
}

/// A network that is ill, and not gone.
fn may_fail(fault: Fault) -> bool {
    matches!(fault, Fault::LossyLinks { .. } | Fault::Partition(Cut::Inbound | Cut::Outbound | Cut::Flapping { .. }))
}

/// A voter that goes on running without its leader.
fn deposes(event: &Event) -> bool {
    let deaf = matches!(
        event.fault,
        Fault::Partition(_) | Fault::LossyLinks { .. } | Fault::SlowLinks { .. } | Fault::Freeze(Role::Node)
    );
    deaf && event.machine().is_some_and(|machine| machine <= VOTERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    fn plan(fault: Fault) -> Plan {
        plan_at(4, fault)
    }

    fn plan_at(machine: usize, fault: Fault) -> Plan {
        let event = Event { number: 1, at_ms: 3_000, fault, target: Target::Machine(machine), for_ms: 5_000 };
        Plan { seed: 1, scenario: "lost-peer".to_owned(), safety_ms: 30_000, events: vec![event] }
    }

    fn answer(node: &str, took_ms: u64, served: bool) -> Answered {
        let begin = Duration::from_secs(4);
        let end = begin + Duration::from_millis(took_ms);
        Answered { node: node.to_owned(), begin, end, served, words: format!("get k via {node}") }
    }

    fn struck(leader: bool) -> Struck {
        Struck { machines: BTreeSet::from(["n4".to_owned()]), leader }
    }

    #[test]
    fn an_error_of_a_healthy_machine_is_harm_and_one_of_the_struck_is_not() {
        let plan = plan(Fault::PowerOff);
        assert_eq!(harmed(&[answer("n4", 5_000, false), answer("n1", 900, true)], &plan, &struck(false)), None);
        let told = harmed(&[answer("n1", 10, false)], &plan, &struck(false)).expect("an error");
        assert!(told.contains("via n1"), "{told}");
    }

    #[test]
    fn a_stall_is_harm_and_an_election_takes_longer() {
        let plan = plan(Fault::PowerOff);
        let waited = [answer("n2", 1_500, true)];
        assert!(harmed(&waited, &plan, &struck(false)).is_some());
        assert_eq!(harmed(&waited, &plan, &struck(true)), None);
        assert!(harmed(&[answer("n2", 3_500, true)], &plan, &struck(true)).is_some());
    }

    #[test]
    fn a_voter_that_was_cut_off_deposes_its_leader_and_one_that_lost_power_does_not() {
        let waited = [answer("n1", 1_500, true)];
        assert_eq!(harmed(&waited, &plan_at(2, Fault::Partition(Cut::Both)), &struck(false)), None);
        assert!(harmed(&waited, &plan_at(5, Fault::Partition(Cut::Both)), &struck(false)).is_some());
        assert!(harmed(&waited, &plan_at(2, Fault::PowerOff), &struck(false)).is_some());
    }

    #[test]
    fn through_an_ill_network_a_clear_error_in_time_is_allowed() {
        let plan = plan(Fault::Partition(Cut::Outbound));
        assert_eq!(harmed(&[answer("n1", 2_000, false)], &plan, &struck(false)), None);
        assert!(harmed(&[answer("n1", 5_000, false)], &plan, &struck(false)).is_some(), "its client gave up");
        assert!(harmed(&[answer("n1", 1_500, true)], &plan, &struck(false)).is_some(), "and no stall");
    }
}

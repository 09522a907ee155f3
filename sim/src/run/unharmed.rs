//! The rule `clients_unharmed`: losing a peer costs clients nothing.
//!
//! Origin: issue 5, "How it is shown". Clients of machines that no fault strikes see no error when another machine loses its
//! power, hangs or is cut off, and wait no longer than [`STALL`], or [`LEADER_STALL`] when the struck machine led. Through
//! links that lose packets, or cut in one direction, a request may fail: with a clear answer, before its client gives up.
//!
//! Judged for scenarios that promise it, whose plans strike one machine. Clients of that machine itself are not asked,
//! unless it is merely slow: then they, too, are served, as long as it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{Cut, Fault, Plan};
use crate::workload::{Answered, CLIENT_DEADLINE};

/// The longest wait when what was lost did not lead.
const STALL: Duration = Duration::from_secs(1);
/// When it led: an election lies in between.
const LEADER_STALL: Duration = Duration::from_secs(3);

/// What was struck, in the names of a run.
pub(super) struct Struck {
    /// Machines.
    pub(super) machines: BTreeSet<String>,
    /// The leader of Raft was among them when the plan began.
    pub(super) leader: bool,
}

/// The first answer that a client should not have got, whatever machine it asked.
pub(super) fn unserved(answers: &[Answered]) -> Option<String> {
    let failed = answers.iter().find(|answer| !answer.served)?;
    Some(format!("a client got an error, and nothing was gone: {}", failed.words))
}

/// The first answer that a client of a healthy machine should not have got.
pub(super) fn harmed(answers: &[Answered], plan: &Plan, struck: &Struck) -> Option<String> {
    let clear_errors = plan.events.iter().any(|event| may_fail(event.fault));
    let bound = if struck.leader { LEADER_STALL } else { STALL };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Event, Target};

    fn plan(fault: Fault) -> Plan {
        let event = Event { number: 1, at_ms: 3_000, fault, target: Target::Machine(4), for_ms: 5_000 };
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
    fn where_nothing_is_gone_everybody_is_served_as_long_as_it_takes() {
        assert_eq!(unserved(&[answer("n4", 4_900, true), answer("n1", 900, true)]), None);
        assert!(unserved(&[answer("n4", 10, false)]).is_some(), "the slow machine's own, too");
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
    fn through_an_ill_network_a_clear_error_in_time_is_allowed() {
        let plan = plan(Fault::Partition(Cut::Outbound));
        assert_eq!(harmed(&[answer("n1", 2_000, false)], &plan, &struck(false)), None);
        assert!(harmed(&[answer("n1", 5_000, false)], &plan, &struck(false)).is_some(), "its client gave up");
        assert!(harmed(&[answer("n1", 1_500, true)], &plan, &struck(false)).is_some(), "and no stall");
    }
}

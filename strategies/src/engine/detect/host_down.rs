//! `host_down`: a host that the evidence convicts ([`crate::liveness`]), and hosts that the cluster map has as down or out
//! by an agent's mark. Read by the agent that holds the lease, and by nobody else.
//!
//! Never: takes an operator's mark for an incident; convicts a host that is not in the cluster map.

use crate::api::{IncidentId, MemberFact, Subject};
use crate::engine::detect::Symptom;
use crate::engine::ladder::IN_SERVICE;
use crate::liveness::{Judgement, Verdict};
use crate::types::Mode;

/// A mark's reason: it names the incident, so that whoever gains the lease goes on with that one and opens none of its own.
pub(crate) fn reason_of_mark(id: &IncidentId, evidence: &str) -> String {
    format!("[{id}] {evidence}")
}

/// The incident that a mark belongs to, and the rest of its reason. An older agent named none.
pub(crate) fn read_mark(reason: &str) -> (Option<IncidentId>, &str) {
    let named = reason.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match named {
        Some((id, rest)) if IncidentId(id.to_owned()).number().is_some() => (Some(IncidentId(id.to_owned())), rest),
        _ => (None, reason),
    }
}

/// What is to be looked after, and why.
pub(crate) fn read(member: &MemberFact, judged: &Judgement) -> Option<Symptom> {
    let MemberFact { node, state, reason, automatic, .. } = member;
    let (_, reason) = read_mark(reason);
    let marked = !IN_SERVICE.contains(&state.as_str());
    let (detected_by, evidence) = match (marked, judged.verdict) {
        (false, Verdict::Convicted) => ("probes of the agents", judged.evidence.clone()),
        (false, _) => return None,
        (true, _) if !automatic => return None,
        (true, Verdict::Heard) => ("cluster map", format!("marked {state} by an agent ({reason}), and heard again")),
        // Given up, and proven to be no loss: nothing is left to do until it comes back.
        (true, _) if state == "out" => return None,
        (true, _) => ("cluster map", format!("marked {state} by an agent ({reason}); {judged}")),
    };
    Some(Symptom {
        mode: Mode::HostDown,
        subject: Subject::Hosts(vec![node.clone()]),
        detected_by: detected_by.to_owned(),
        evidence,
        initial: false,
        life: None,
        signature: None,
        mended: false,
    })
}

//! `incident list|show|explain`: what went wrong, and what was done about it.

use std::fmt::Write;
use std::time::Duration;

use clap::Subcommand;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::context::Context;
use crate::agents::{Agent, Agents};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, with_rfc3339};

/// How long an agent may take to judge an approval and write that down.
const APPROVE_DEADLINE: Duration = Duration::from_secs(10);

/// The status of an answer by an agent that is not able to do as asked for now.
const UNAVAILABLE: u16 = 503;

/// How the resolution of an incident begins with which another agent goes on.
const HANDED_OVER: &str = "handed over";

/// Verbs of incidents.
#[derive(Debug, Subcommand)]
pub(crate) enum IncidentVerb {
    /// Incidents of all agents, newest first
    List {
        /// Only those that are not over
        #[arg(long)]
        open: bool,
    },
    /// One incident in full
    Show {
        /// Its id: `NODE-SEQUENCE`
        incident: String,
    },
    /// Approve the step that the incident waits with: once, under the evidence shown; exits 5 when it is refused
    Approve {
        /// Its id: `NODE-SEQUENCE`
        incident: String,
        /// The token that `incident show` printed with what you have read; without it, what is offered at this moment is
        /// printed and approved
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
        /// Who; your user name by default
        #[arg(long)]
        owner: Option<String>,
    },
    /// Why each step was taken or refused: evidence, rule, guards
    Explain {
        /// Its id: `NODE-SEQUENCE`
        incident: String,
    },
}

impl IncidentVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            IncidentVerb::List { open } => list(cx, open).await,
            IncidentVerb::Show { incident } => {
                let (_, found) = fetch(cx, &cx.agents().await?, &incident).await?;
                cx.out.show(&found, |found| lines(found, 0))?;
                Ok(Code::Ok)
            }
            IncidentVerb::Approve { incident, token, owner } => approve(cx, &incident, token, owner).await,
            IncidentVerb::Explain { incident } => explain(cx, &incident).await,
        }
    }
}

async fn list(cx: &Context, only_open: bool) -> Result<Code, Failure> {
    let answers = cx.agents().await?.get_all("/api/v1/incidents").await?;
    let mut incidents: Vec<Value> = Vec::new();
    let mut unanswered = 0;
    for (agent, answer) in answers {
        match answer {
            Ok(body) => {
                for incident in body.get("incidents").and_then(Value::as_array).into_iter().flatten() {
                    let mut incident = with_rfc3339(incident.clone());
                    if let Some(fields) = incident.as_object_mut() {
                        fields.entry("agent").or_insert_with(|| json!(agent));
                    }
                    incidents.push(incident);
                }
            }
            Err(error) => {
                unanswered += 1;
                cx.out.say(format!("the agent of {agent} did not answer: {error}"));
            }
        }
    }
    if only_open {
        incidents.retain(|incident| text(incident, "state") != "resolved");
    }
    incidents.sort_by_key(|incident| std::cmp::Reverse(opened(incident)));
    cx.out.show(&incidents, |incidents| {
        let mut table = Table::new(["INCIDENT", "MODE", "SUBJECT", "STATE", "OPENED", "STEPS", "AGENT"]);
        for incident in incidents {
            let steps = incident.get("steps").and_then(Value::as_array).map(Vec::len);
            table.row([
                text(incident, "id"),
                text(incident, "mode"),
                subject(incident.get("subject")),
                text(incident, "state"),
                opened(incident),
                steps.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()),
                text(incident, "agent"),
            ]);
        }
        table.render()
    })?;
    Ok(if unanswered == 0 { Code::Ok } else { Code::Degraded })
}

async fn explain(cx: &Context, id: &str) -> Result<Code, Failure> {
    let (_, found) = fetch(cx, &cx.agents().await?, id).await?;
    cx.out.show(&found, explanation)?;
    Ok(Code::Ok)
}

/// A person's word for the step that waits. The agent at which the incident is open judges it.
async fn approve(cx: &Context, id: &str, token: Option<String>, owner: Option<String>) -> Result<Code, Failure> {
    let agents = cx.agents().await?;
    let (agent, found) = fetch(cx, &agents, id).await?;
    let token = match token {
        Some(token) => token,
        None => offered(cx, id, &found)?,
    };
    let body = json!({ "owner": super::context::owner(owner), "token": token });
    let answer = agent.post(&format!("/api/v1/incidents/{id}/approve"), &body, APPROVE_DEADLINE).await;
    let answer = answer.map_err(|error| {
        Failure::new(Code::Degraded, format!("it is not known whether {id} was approved: {error}"))
            .next(format!("look first: `resilver incident explain {id}`"))
    })?;
    // It may have been taken, and is not on disk.
    if answer.status == UNAVAILABLE {
        return Err(Failure::new(Code::Degraded, format!("{id}: {}", answer.reason()))
            .next("`resilver agent status` tells whether the agent's journal can be written"));
    }
    if !answer.is_success() {
        let code = if answer.body.get("guard").is_some_and(Value::is_string) { Code::Refused } else { Code::Failed };
        return Err(Failure::new(code, format!("{id} was not approved: {}", answer.reason()))
            .next(format!("see what it waits for: `resilver incident explain {id}`")));
    }
    cx.out.show(&answer.body, |body| format!("{id}: {}\n", text(body, "approved")))?;
    Ok(Code::Ok)
}

/// The token of what is offered now, after saying what that is.
fn offered(cx: &Context, id: &str, found: &Value) -> Result<String, Failure> {
    let incident = found.pointer("/explanation/incident").unwrap_or(&Value::Null);
    let offer = incident.get("approval").unwrap_or(&Value::Null);
    let Some(token) = offer.get("token").and_then(Value::as_str) else {
        return Err(Failure::new(
            Code::Refused,
            format!("guard authority: {id} waits for no approval; nothing was done"),
        )
        .next(format!("see what it waits for: `resilver incident explain {id}`")));
    };
    cx.out.say(format!("{}: {} of {}", text(incident, "mode"), text(offer, "action"), text(offer, "of")));
    cx.out.say(format!("evidence: {}", text(incident, "evidence")));
    Ok(token.to_owned())
}

/// The incident, what happened to it and the rule that applies in a few lines, then each record in order: what was decided, by which guards,
/// and at the end what comes next.
fn explanation(found: &Value) -> String {
    let known = found.get("explanation").unwrap_or(&Value::Null);
    let incident = known.get("incident").unwrap_or(&Value::Null);
    let mut out = String::new();
    // Writing into a String cannot fail. An incident that only the journal remembers has no head.
    if incident.is_object() {
        let subject = subject(incident.get("subject"));
        let at = found.get("agent").map_or_else(String::new, |agent| format!(", at the agent of {}", scalar(agent)));
        let _ = writeln!(out, "{} of {subject}, {}{at}", text(incident, "mode"), text(incident, "state"));
        for (name, key) in [("severity", "severity"), ("folded under", "folded_under")] {
            if incident.get(key).is_some_and(Value::is_string) {
                let _ = writeln!(out, "{name}: {}", text(incident, key));
            }
        }
        for (name, key) in [("detected by", "detected_by"), ("evidence", "evidence"), ("outcome", "resolution")] {
            let _ = writeln!(out, "{name}: {}", text(incident, key));
        }
        if let Some(offer) = incident.get("approval") {
            let _ = writeln!(out, "{}", approval(&text(incident, "id"), offer));
        }
        let _ = writeln!(out, "next: {}", text(known, "next"));
        for guard in known.get("guards").and_then(Value::as_array).into_iter().flatten() {
            let passed = guard.get("passed").and_then(Value::as_bool) == Some(true);
            let verdict = if passed { "passes" } else { "refuses" };
            let _ = writeln!(out, "now: guard {} {verdict}: {}", text(guard, "guard"), text(guard, "evidence"));
        }
        for event in known.get("timeline").and_then(Value::as_array).into_iter().flatten() {
            let _ = writeln!(out, "timeline: {} {}", text(event, "at"), text(event, "what"));
        }
        for rule in known.get("rule").and_then(Value::as_array).into_iter().flatten() {
            let _ = writeln!(out, "rule: {}", scalar(rule));
        }
    }
    for record in found.get("records").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(out, "\n{}  {} {}", text(record, "timestamp"), text(record, "kind"), text(record, "action"));
        if let Some(grade) = record.get("grade").and_then(Value::as_u64) {
            let _ = write!(out, "  (grade {grade})");
        }
        // Only where more than one agent wrote of it.
        if let Some(agent) = record.get("agent").and_then(Value::as_str) {
            let _ = write!(out, "  by the agent of {agent}");
        }
        out.push('\n');
        if let Some(details) = record.get("details").and_then(Value::as_object) {
            details.iter().for_each(|(key, value)| {
                let _ = writeln!(out, "  {key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            });
        }
        for guard in record.get("guards").and_then(Value::as_array).into_iter().flatten() {
            let passed = guard.get("passed").and_then(Value::as_bool) == Some(true);
            let verdict = if passed { "passes" } else { "refuses" };
            let _ = writeln!(out, "  guard {} {verdict}: {}", text(guard, "guard"), text(guard, "evidence"));
        }
    }
    if let Some(count) = found.get("left_out").and_then(Value::as_u64) {
        let _ =
            writeln!(out, "\n{count} records between the first and the newest are not shown: `resilver journal list`");
    }
    out
}

/// What a person may approve, and how.
fn approval(id: &str, offer: &Value) -> String {
    let what = format!("{} (grade {})", text(offer, "action"), text(offer, "grade"));
    match (offer.get("given_by").and_then(Value::as_str), offer.get("token").and_then(Value::as_str)) {
        (Some(by), _) => format!("approval: {what} was approved by {by}, and has not begun yet"),
        (None, Some(token)) => {
            let until = text(offer, "expires");
            format!("approval: {what} waits until {until} for: resilver incident approve {id} --token {token}")
        }
        (None, None) => format!("approval: {what} is about to be offered"),
    }
}

/// An incident is known to the agent that opened it: the id begins with its node's name. One of other hosts goes to whoever
/// holds the lease, and keeps its id: so the others are asked as well, unless it is open where it began and cannot move.
async fn fetch<'a>(cx: &Context, agents: &'a Agents, id: &str) -> Result<(&'a Agent, Value), Failure> {
    let opened_by = |name: &str| id.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let (first, others): (Vec<_>, Vec<_>) = agents.all().iter().partition(|agent| opened_by(&agent.name));
    let path = format!("/api/v1/incidents/{id}");
    let (mut known, mut silent) = (Vec::new(), Vec::new());
    for group in [first, others] {
        for (agent, answer) in join_all(group.into_iter().map(async |agent| (agent, agent.get(&path).await))).await {
            match answer {
                Ok(answer) if answer.is_success() => known.push((agent, with_rfc3339(answer.body))),
                Ok(_) => {}
                Err(error) => silent.push(format!("{}: {error}", agent.name)),
            }
        }
        if known.iter().any(|(_, found)| is_open(found) && !may_move(found)) {
            break;
        }
    }
    let answers: Vec<_> = known.iter().map(|(agent, found)| (agent.name.as_str(), found)).collect();
    if let Some((at, found)) = gathered(&answers) {
        if !silent.is_empty() && !is_open(&found) {
            cx.out.say(format!("not all agents answered; {id} may be open at one of them: {}", silent.join("; ")));
        }
        return Ok((known[at].0, found));
    }
    if silent.is_empty() {
        return Err(Failure::failed(format!("no agent knows an incident {id}")).next("see `resilver incident list`"));
    }
    Err(Failure::new(Code::Unreachable, format!("incident {id} was not found, but not all agents answered"))
        .next(silent.join("; ")))
}

fn is_open(found: &Value) -> bool {
    found.pointer("/explanation/incident/state").and_then(Value::as_str).is_some_and(|state| state != "resolved")
}

/// Whether another agent may go on with it: that is so with incidents of other hosts.
fn may_move(found: &Value) -> bool {
    found.pointer("/explanation/incident/subject/hosts").is_some()
}

/// Of what agents (by name) say of one incident: whose word counts, with the records of all in order. The one at which it is
/// open goes before one that handed it over, and that before one that has only records of it; among equals the one that wrote
/// last.
fn gathered(answers: &[(&str, &Value)]) -> Option<(usize, Value)> {
    let records = |found: &Value| found.get("records").and_then(Value::as_array).cloned().unwrap_or_default();
    let newest = |found: &Value| records(found).last().map(|record| text(record, "timestamp"));
    let weight = |found: &Value| {
        let ended = found.pointer("/explanation/incident/resolution").and_then(Value::as_str);
        let ended_here = ended.is_some_and(|how| !how.starts_with(HANDED_OVER));
        let is_known = found.get("explanation").is_some_and(Value::is_object);
        (is_open(found), ended_here, is_known, newest(found))
    };
    let (at, (agent, found)) = answers.iter().enumerate().rev().max_by_key(|(_, (_, found))| weight(found))?;
    let mut found = (*found).clone();
    let tell = answers.iter().filter(|(_, found)| !records(found).is_empty()).count() > 1;
    let mut all: Vec<Value> = Vec::new();
    for (agent, found) in answers {
        all.extend(records(found).into_iter().map(|mut record| {
            if let Some(fields) = record.as_object_mut().filter(|_| tell) {
                fields.insert("agent".to_owned(), json!(agent));
            }
            record
        }));
    }
    // Stable: each agent's own lines stay in their order when the clock says the same of two.
    all.sort_by_key(|record| text(record, "timestamp"));
    let left_out: u64 = answers.iter().filter_map(|(_, found)| found.pointer("/left_out/count")?.as_u64()).sum();
    let fields = found.as_object_mut()?;
    fields.insert("agent".to_owned(), json!(agent));
    fields.insert("records".to_owned(), Value::Array(all));
    fields.insert("left_out".to_owned(), if left_out > 0 { json!(left_out) } else { Value::Null });
    Some((at, found))
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => UNKNOWN.to_owned(),
        Some(other) => other.to_string(),
    }
}

/// When it was opened, RFC 3339.
fn opened(incident: &Value) -> String {
    text(incident, "opened")
}

/// `{"node": "n1"}` as `node n1`, `{"object": {"bucket": b, "key": k}}` as `object b/k`.
pub(crate) fn subject(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) => {
            let of = |inner: &Value| match inner {
                Value::String(text) => text.clone(),
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                Value::Object(parts) => {
                    let get = |key: &str| parts.get(key).and_then(Value::as_str);
                    match (get("bucket"), get("key"), get("disk"), get("node")) {
                        (Some(bucket), Some(key), ..) => format!("{bucket}/{key}"),
                        (.., Some(disk), Some(node)) => format!("{disk} of {node}"),
                        _ => inner.to_string(),
                    }
                }
                other => other.to_string(),
            };
            fields.iter().map(|(kind, inner)| format!("{kind} {}", of(inner))).collect::<Vec<_>>().join(", ")
        }
        _ => UNKNOWN.to_owned(),
    }
}

/// A document as indented lines `key: value`.
pub(crate) fn lines(value: &Value, indent: usize) -> String {
    let margin = "  ".repeat(indent);
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::Object(inner) if !inner.is_empty() => format!("{margin}{key}:\n{}", lines(value, indent + 1)),
                Value::Array(inner) if !inner.is_empty() => format!("{margin}{key}:\n{}", lines(value, indent + 1)),
                _ => format!("{margin}{key}: {}\n", scalar(value)),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(_) | Value::Array(_) => format!("{margin}-\n{}", lines(item, indent + 1)),
                _ => format!("{margin}- {}\n", scalar(item)),
            })
            .collect(),
        other => format!("{margin}{}\n", scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => UNKNOWN.to_owned(),
        Value::Array(_) | Value::Object(_) => UNKNOWN.to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_urgent_a_cascade_is_and_what_is_folded_under_it_is_explained() {
        let incident = |more: Value| {
            let mut incident = json!({ "mode": "cascading_failure", "state": "open", "subject": { "node": "n3" } });
            incident.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
            explanation(&json!({ "explanation": { "incident": incident } }))
        };
        assert!(incident(json!({ "severity": "emergency" })).contains("severity: emergency\n"));
        assert!(incident(json!({ "folded_under": "n1-7" })).contains("folded under: n1-7\n"));
        assert!(!incident(json!({})).contains("severity"));
    }

    #[test]
    fn what_may_be_approved_is_explained_with_the_command_that_does_it() {
        let explained = |approval: Value| {
            let incident = json!({ "id": "n1-7", "mode": "disk_failure", "state": "open", "approval": approval });
            let guards = json!([{ "guard": "authority", "passed": false, "evidence": "ask first" }]);
            let timeline = json!([{ "at": "2026-01-01T00:00:00.000Z", "what": "not proven yet: too early" }]);
            let known = json!({ "incident": incident, "guards": guards, "next": "waits", "timeline": timeline });
            explanation(&json!({ "explanation": known }))
        };
        let offer =
            json!({ "action": "detach_disk", "grade": 2, "expires": "2026-01-01T00:00:00.000Z", "token": "ab12" });
        let text = explained(offer);
        assert!(text.contains("detach_disk (grade 2) waits until 2026-01-01T00:00:00.000Z for: "), "{text}");
        assert!(text.contains("resilver incident approve n1-7 --token ab12\n"), "{text}");
        assert!(text.contains("now: guard authority refuses: ask first\n"), "{text}");
        assert!(text.contains("timeline: 2026-01-01T00:00:00.000Z not proven yet: too early\n"), "{text}");
        let text = explained(json!({ "action": "detach_disk", "grade": 2, "given_by": "ada" }));
        assert!(text.contains("was approved by ada, and has not begun yet"), "{text}");
    }

    fn answer(state: &str, resolution: Value, records: &[(&str, &str)]) -> Value {
        let incident = json!({ "state": state, "resolution": resolution, "subject": { "hosts": ["n3"] } });
        let record = |(at, kind): &(&str, &str)| json!({ "timestamp": at, "kind": kind });
        json!({ "explanation": { "incident": incident }, "records": records.iter().map(record).collect::<Vec<_>>() })
    }

    /// Found on review: the agent that opened it was asked first, and its "resolved" was taken, though another one had gone on.
    #[test]
    fn an_incident_that_changed_hands_is_shown_where_it_is_open_with_the_records_of_all() {
        let began =
            answer("resolved", json!("handed over: x"), &[("T1", "opened"), ("T2", "intent"), ("T5", "resolved")]);
        let went_on = answer("recovering", Value::Null, &[("T3", "opened"), ("T4", "intent")]);
        let told = |answers: &[(&str, &Value)]| gathered(answers).expect("it is known");
        let (at, found) = told(&[("n2", &began), ("n1", &went_on)]);
        assert_eq!((at, &found["agent"]), (1, &json!("n1")));
        let kinds: Vec<_> = found["records"].as_array().expect("records").iter().map(|at| text(at, "kind")).collect();
        assert_eq!(kinds, ["opened", "intent", "opened", "intent", "resolved"]);
        assert!(explanation(&found).contains("T3  opened -  by the agent of n1\n"), "{}", explanation(&found));
        assert!(is_open(&found) && may_move(&began));

        // Over everywhere: the end counts, not the handing over.
        let over = answer("resolved", json!("hosts are back"), &[("T4", "resolved")]);
        assert_eq!(told(&[("n2", &began), ("n1", &over)]).0, 1);
        // One that only remembers lines of it says nothing of how it stands.
        let lines = json!({ "explanation": null, "records": [{ "timestamp": "T9" }] });
        assert_eq!(told(&[("n2", &over), ("n1", &lines)]).0, 0);
        assert_eq!(
            told(&[("n2", &went_on)]).1["records"],
            went_on["records"],
            "nothing is added where one agent wrote"
        );
        assert!(gathered(&[]).is_none());
    }

    #[test]
    fn each_guard_is_explained_with_its_numbers_and_what_is_not_shown_is_told() {
        let guards = json!([
            { "guard": "fresh", "passed": true, "evidence": "240 ms old" },
            { "guard": "budget", "passed": false, "evidence": "3 of 3 attempts in 30 min" },
        ]);
        let record = json!({ "timestamp": "T1", "kind": "refused", "action": "restart_node", "guards": guards });
        let text = explanation(&json!({ "explanation": null, "records": [record], "left_out": 7 }));
        assert!(text.contains("T1  refused restart_node\n  guard fresh passes: 240 ms old\n"), "{text}");
        assert!(text.contains("  guard budget refuses: 3 of 3 attempts in 30 min\n"), "{text}");
        assert!(text.contains("7 records between the first and the newest are not shown"), "{text}");
    }

    #[test]
    fn subjects_read_as_words() {
        assert_eq!(subject(Some(&json!({ "node": "n1" }))), "node n1");
        assert_eq!(subject(Some(&json!({ "object": { "bucket": "b", "key": "k" } }))), "object b/k");
        assert_eq!(subject(Some(&json!({ "disk": { "disk": "d1", "node": "n1" } }))), "disk d1 of n1");
        assert_eq!(subject(Some(&json!({ "hosts": ["n5", "n6"] }))), "hosts n5, n6");
    }
}

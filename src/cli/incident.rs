//! `incident list|show|explain`: what went wrong, and what was done about it.

use std::fmt::Write;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use crate::agents::{Agent, Agents};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, with_rfc3339};

/// How long an agent may take to judge an approval and write that down.
const APPROVE_DEADLINE: Duration = Duration::from_secs(10);

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
                let (_, found) = fetch(&cx.agents().await?, &incident).await?;
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
    let (_, found) = fetch(&cx.agents().await?, id).await?;
    cx.out.show(&found, explanation)?;
    Ok(Code::Ok)
}

/// A person's word for the step that waits. The agent that opened the incident judges it.
async fn approve(cx: &Context, id: &str, token: Option<String>, owner: Option<String>) -> Result<Code, Failure> {
    let agents = cx.agents().await?;
    let (agent, found) = fetch(&agents, id).await?;
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

/// The incident and the rule that applies in a few lines, then each record in order: what was decided, by which guards,
/// and at the end what comes next.
fn explanation(found: &Value) -> String {
    let known = found.get("explanation").unwrap_or(&Value::Null);
    let incident = known.get("incident").unwrap_or(&Value::Null);
    let mut out = String::new();
    // Writing into a String cannot fail. An incident that only the journal remembers has no head.
    if incident.is_object() {
        let subject = subject(incident.get("subject"));
        let _ = writeln!(out, "{} of {subject}, {}", text(incident, "mode"), text(incident, "state"));
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
        for rule in known.get("rule").and_then(Value::as_array).into_iter().flatten() {
            let _ = writeln!(out, "rule: {}", scalar(rule));
        }
    }
    for record in found.get("records").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(out, "\n{}  {} {}", text(record, "timestamp"), text(record, "kind"), text(record, "action"));
        if let Some(grade) = record.get("grade").and_then(Value::as_u64) {
            let _ = write!(out, "  (grade {grade})");
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

/// An incident is known to the agent that opened it: the id begins with its node's name.
async fn fetch<'a>(agents: &'a Agents, id: &str) -> Result<(&'a Agent, Value), Failure> {
    let opened_by = |name: &str| id.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let mut order: Vec<_> = agents.all().iter().collect();
    order.sort_by_key(|agent| !opened_by(&agent.name));
    let mut silent = Vec::new();
    for agent in order {
        match agent.get(&format!("/api/v1/incidents/{id}")).await {
            Ok(answer) if answer.is_success() => return Ok((agent, with_rfc3339(answer.body))),
            Ok(_) => {}
            Err(error) => silent.push(format!("{}: {error}", agent.name)),
        }
    }
    if silent.is_empty() {
        return Err(Failure::failed(format!("no agent knows an incident {id}")).next("see `resilver incident list`"));
    }
    Err(Failure::new(Code::Unreachable, format!("incident {id} was not found, but not all agents answered"))
        .next(silent.join("; ")))
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
            explanation(&json!({ "explanation": { "incident": incident, "guards": guards, "next": "waits" } }))
        };
        let offer =
            json!({ "action": "detach_disk", "grade": 2, "expires": "2026-01-01T00:00:00.000Z", "token": "ab12" });
        let text = explained(offer);
        assert!(text.contains("detach_disk (grade 2) waits until 2026-01-01T00:00:00.000Z for: "), "{text}");
        assert!(text.contains("resilver incident approve n1-7 --token ab12\n"), "{text}");
        assert!(text.contains("now: guard authority refuses: ask first\n"), "{text}");
        let text = explained(json!({ "action": "detach_disk", "grade": 2, "given_by": "ada" }));
        assert!(text.contains("was approved by ada, and has not begun yet"), "{text}");
    }

    #[test]
    fn subjects_read_as_words() {
        assert_eq!(subject(Some(&json!({ "node": "n1" }))), "node n1");
        assert_eq!(subject(Some(&json!({ "object": { "bucket": "b", "key": "k" } }))), "object b/k");
        assert_eq!(subject(Some(&json!({ "disk": { "disk": "d1", "node": "n1" } }))), "disk d1 of n1");
        assert_eq!(subject(Some(&json!({ "hosts": ["n5", "n6"] }))), "hosts n5, n6");
    }
}

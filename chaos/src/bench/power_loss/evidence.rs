//! What the agents made of an outage: incidents, steps, convictions, cascades.
//!
//! Owns: reading it from where operators read it (journals, the agents' HTTP API, the cluster's status), and adding it up.
//! Must never: depend on a part that a cluster may not have. What nobody tells is `None`, not zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use resilver_host::Host;
use resilver_proto::web;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::target::{HostInfo, Target};
use crate::watch::{Cursor, Line};

/// How long an agent may take to show its journal after an outage: it has just been started.
const JOURNAL_TIME: Duration = Duration::from_secs(20);
/// One question to an agent.
const ASK: Duration = Duration::from_secs(3);
/// Between two attempts.
const LOOK: Duration = Duration::from_millis(200);
/// What a node that was convicted is called in the cluster's status.
const CONVICTED: [&str; 2] = ["down", "out"];

/// What was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Incidents that agents opened, by mode.
    pub incidents: BTreeMap<String, usize>,
    /// Steps that agents began, by action.
    pub steps: BTreeMap<String, usize>,
    /// Nodes that the cluster called down or out.
    pub convicted: BTreeSet<String>,
    /// Patterns of cascades that agents know of; `None`: no agent tells.
    pub cascades: Option<BTreeMap<String, Cascade>>,
}

/// A pattern of failures that drag each other along, as the agent that knows most of it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cascade {
    /// Times it was found within the last hour.
    pub in_hour: u64,
    /// How urgent; `None`: not found.
    pub severity: Option<String>,
}

/// Where the journals end, before something is done.
pub(super) struct Before(Cursor);

impl Before {
    pub(super) async fn now(host: &Host, target: &Target) -> Self {
        Self(Cursor::at_end(host, target).await)
    }

    /// What has been made of it since.
    pub(super) async fn evidence(mut self, host: &Host, target: &Target) -> anyhow::Result<Evidence> {
        let mut evidence = Evidence::default();
        for info in &target.hosts {
            for line in rest(&mut self.0, host, info).await? {
                evidence.note(&line);
            }
            if let Some(told) = cascades(host, info).await {
                evidence.note_cascades(told);
            }
        }
        Ok(evidence)
    }
}

impl Evidence {
    /// Whether the cluster called the node down or out.
    pub(super) fn convicts(state: &str) -> bool {
        CONVICTED.contains(&state)
    }

    /// How many hosts were taken for dead.
    pub(super) fn convictions(&self) -> usize {
        self.convicted.len().max(self.incidents.get("host_down").copied().unwrap_or(0))
    }

    /// Adds another outage's.
    pub(super) fn add(&mut self, other: Self) {
        for (mode, count) in other.incidents {
            *self.incidents.entry(mode).or_default() += count;
        }
        for (action, count) in other.steps {
            *self.steps.entry(action).or_default() += count;
        }
        self.convicted.extend(other.convicted);
        if let Some(told) = other.cascades {
            self.note_cascades(told);
        }
    }

    fn note(&mut self, line: &Line) {
        match line.kind.as_str() {
            "opened" => *self.incidents.entry(line.mode.clone()).or_default() += 1,
            "intent" => *self.steps.entry(line.action.clone()).or_default() += 1,
            _ => {}
        }
    }

    /// Of each pattern, what the agent that found it most often says.
    fn note_cascades(&mut self, told: BTreeMap<String, Cascade>) {
        let known = self.cascades.get_or_insert_default();
        for (name, cascade) in told {
            let best = known.entry(name).or_default();
            if cascade.in_hour >= best.in_hour {
                *best = cascade;
            }
        }
    }

    /// For people, after the table.
    pub(super) fn line(&self) -> String {
        let counts = |counts: &BTreeMap<String, usize>| {
            let shown: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        };
        let cascades = match &self.cascades {
            None => "-".to_owned(),
            Some(patterns) => {
                let found = patterns.iter().filter(|(_, cascade)| cascade.in_hour > 0);
                let shown: Vec<String> = found
                    .map(|(name, cascade)| {
                        let severity = cascade.severity.as_deref().unwrap_or("-");
                        format!("{name} {} times ({severity})", cascade.in_hour)
                    })
                    .collect();
                if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
            }
        };
        format!(
            "incidents: {}; steps: {}; taken for dead: {}; cascades: {cascades}",
            counts(&self.incidents),
            counts(&self.steps),
            self.convictions()
        )
    }
}

/// All that a journal has beyond the cursor. An agent that does not answer is asked again: a journal that was not read must
/// not pass for an empty one.
async fn rest(cursor: &mut Cursor, host: &Host, info: &HostInfo) -> anyhow::Result<Vec<Line>> {
    let until = Instant::now() + JOURNAL_TIME;
    let mut all = Vec::new();
    loop {
        match cursor.read(host, info).await {
            Ok(lines) if lines.is_empty() => return Ok(all),
            Ok(lines) => all.extend(lines),
            Err(error) if Instant::now() >= until => {
                bail!("the journal of {} cannot be read for {} s: {error:#}", info.name, JOURNAL_TIME.as_secs())
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn cascades(host: &Host, info: &HostInfo) -> Option<BTreeMap<String, Cascade>> {
    let (status, body) = web::call(&host.net, &info.api, "/api/v1/cascades", None, ASK).await.ok()?;
    if status != 200 {
        return None;
    }
    patterns(&serde_json::from_slice(&body).ok()?)
}

/// The patterns of an answer about cascades, whatever else it says.
fn patterns(answer: &Value) -> Option<BTreeMap<String, Cascade>> {
    let pattern = |pattern: &Value| {
        let name = pattern.get("name")?.as_str()?.to_owned();
        let count = pattern.get("in_hour").or_else(|| pattern.get("count_in_hour"));
        let in_hour = count.and_then(Value::as_u64).unwrap_or(0);
        let severity = pattern.get("severity").and_then(Value::as_str).map(str::to_owned);
        Some((name, Cascade { in_hour, severity }))
    };
    Some(answer.get("patterns")?.as_array()?.iter().filter_map(pattern).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(kind: &str, mode: &str, action: &str) -> Line {
        Line {
            host: "n1".to_owned(),
            seq: 1,
            at_ms: 0,
            kind: kind.to_owned(),
            action: action.to_owned(),
            incident: "n1-1".to_owned(),
            mode: mode.to_owned(),
            details: Value::Null,
        }
    }

    #[test]
    fn an_intent_is_a_step_and_what_came_of_it_is_not_another() {
        let mut evidence = Evidence::default();
        for line in [
            line("opened", "process_crash", "alert"),
            line("intent", "process_crash", "start_node"),
            line("outcome", "process_crash", "start_node"),
            line("resolved", "process_crash", "alert"),
        ] {
            evidence.note(&line);
        }
        assert_eq!(evidence.line(), "incidents: process_crash 1; steps: start_node 1; taken for dead: 0; cascades: -");
    }

    #[test]
    fn of_several_agents_the_one_that_knows_most_of_a_pattern_is_believed() {
        let told = |count: u64, severity: Value| {
            patterns(
                &json!({"total_events": 9, "patterns": [{"name": "peer", "in_hour": count, "severity": severity}]}),
            )
        };
        let mut evidence = Evidence::default();
        for told in [told(3, json!("emergency")), told(0, Value::Null), told(1, json!("critical"))] {
            evidence.note_cascades(told.unwrap());
        }
        assert!(evidence.line().ends_with("cascades: peer 3 times (emergency)"), "{}", evidence.line());
    }

    #[test]
    fn an_answer_without_patterns_tells_nothing() {
        assert_eq!(patterns(&json!({"error": "no such path"})), None);
    }

    #[test]
    fn outages_add_up_and_a_host_taken_for_dead_twice_by_incident_counts_twice() {
        let outage = || {
            let mut evidence = Evidence { convicted: BTreeSet::from(["n2".to_owned()]), ..Evidence::default() };
            evidence.note(&line("opened", "host_down", "alert"));
            evidence
        };
        let mut all = outage();
        all.add(outage());
        assert_eq!(all.convictions(), 2);
        assert!(Evidence::convicts("down") && !Evidence::convicts("unreachable"), "silence is no verdict");
    }
}

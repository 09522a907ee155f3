//! `pause`, `resume`, `plan`: an operator's word to all agents.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::{Context, owner};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN};

/// `pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Why, for the journal and for whoever wonders
    #[arg(long)]
    reason: String,
    /// How long: `30m`, `2h`. A pause always ends
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    duration: std::time::Duration,
    /// Who; your user name by default
    #[arg(long)]
    owner: Option<String>,
}

/// `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Who; your user name by default
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Serialize)]
struct AgentAnswer {
    agent: String,
    done: bool,
    error: Option<String>,
}

/// `pause`.
pub(crate) async fn pause(cx: &Context, args: PauseArgs) -> Result<Code, Failure> {
    if args.duration.is_zero() {
        return Err(Failure::usage("a pause of no length").next("say how long: --for 1h"));
    }
    let length = humantime::format_duration(args.duration).to_string();
    let body = json!({ "owner": owner(args.owner), "reason": args.reason, "for": length });
    tell(cx, "/api/v1/pause", &body, "paused").await
}

/// `resume`.
pub(crate) async fn resume(cx: &Context, args: ResumeArgs) -> Result<Code, Failure> {
    tell(cx, "/api/v1/resume", &json!({ "owner": owner(args.owner) }), "resumed").await
}

/// Tells all agents; exits 3 when some did not hear it.
async fn tell(cx: &Context, path: &str, body: &Value, done: &str) -> Result<Code, Failure> {
    let answers = cx.agents().await?.post_all(path, body).await?;
    let rows: Vec<AgentAnswer> = answers
        .into_iter()
        .map(|(agent, answer)| AgentAnswer { agent, done: answer.is_ok(), error: answer.err() })
        .collect();
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["AGENT", "RESULT"]);
        for row in rows {
            table.row([row.agent.clone(), row.error.clone().unwrap_or_else(|| done.to_owned())]);
        }
        table.render()
    })?;
    let missed = rows.iter().filter(|row| !row.done).count();
    if missed > 0 {
        cx.out.say(format!("{missed} of {} agents did not; say it again when they answer", rows.len()));
    }
    Ok(if missed == 0 { Code::Ok } else { Code::Degraded })
}

#[derive(Serialize)]
struct AgentPlan {
    agent: String,
    plan: Option<Value>,
    error: Option<String>,
}

/// `plan`: what each agent would do now. Exits 3 when anything is planned or somebody did not answer.
pub(crate) async fn plan(cx: &Context) -> Result<Code, Failure> {
    let answers = cx.agents().await?.get_all("/api/v1/plan").await?;
    let plans: Vec<AgentPlan> = answers
        .into_iter()
        .map(|(agent, answer)| match answer {
            Ok(plan) => AgentPlan { agent, plan: Some(plan), error: None },
            Err(error) => AgentPlan { agent, plan: None, error: Some(error) },
        })
        .collect();
    cx.out.show(&plans, |plans| plans.iter().map(AgentPlan::text).collect())?;
    let quiet = plans.iter().all(|plan| plan.plan.as_ref().is_some_and(|plan| entries(plan).is_empty()));
    Ok(if quiet { Code::Ok } else { Code::Degraded })
}

/// What a plan holds: one entry per open incident.
pub(crate) fn entries(plan: &Value) -> &[Value] {
    plan.get("entries").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A plan as lines for people: what comes next for each incident, and which guard holds it back by which numbers.
pub(crate) fn plan_text(plan: &Value) -> String {
    if entries(plan).is_empty() {
        return "nothing to do\n".to_owned();
    }
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
    let mut out = String::new();
    for entry in entries(plan) {
        let subject = super::incident::subject(entry.get("subject"));
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{}: {} of {subject}", text(entry, "incident"), text(entry, "mode"));
        let _ = writeln!(out, "  evidence: {}", text(entry, "evidence"));
        let _ = writeln!(out, "  next: {}", text(entry, "next"));
        for guard in entry.get("guards").and_then(Value::as_array).into_iter().flatten() {
            let passed = guard.get("passed").and_then(Value::as_bool) == Some(true);
            let verdict = if passed { "passes" } else { "refuses" };
            let _ = writeln!(out, "  guard {} {verdict}: {}", text(guard, "guard"), text(guard, "evidence"));
        }
    }
    out
}

impl AgentPlan {
    fn text(&self) -> String {
        match (&self.plan, &self.error) {
            (Some(plan), _) => format!("{}: {}", self.agent, plan_text(plan)),
            (None, error) => format!("{}: {}\n", self.agent, error.as_deref().unwrap_or("does not answer")),
        }
    }
}

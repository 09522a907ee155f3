//! `policy replay`: what was decided, decided again: by the policy of the time, or by another.
//!
//! Must never: act. It reads files, and an engine that nothing is connected to.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use resilver_agent::flight::{self, FlightError};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::flight::{Decision, IncidentReport, Report, Verdict};

use super::context::Context;
use crate::config;
use crate::exit::{Code, Failure, chain};
use crate::output::{UNKNOWN, rfc3339};

/// Verbs of policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Decide a flight recorder's inputs again; exits 0 when all decisions are the same, 3 where they differ
    Replay {
        /// The `flight` folder of an agent, the agent's folder, or one segment of it
        recording: PathBuf,
        /// Another policy: a configuration file, of which only the policy counts, or `production` (or `builtin`) or `fast` for the figures
        /// that ship; without it, the policy that the agent had at the time
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

impl PolicyVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        let PolicyVerb::Replay { recording, policy } = self;
        let policy = match &policy {
            Some(policy) => Some(policy_of(cx, policy).await?),
            None => None,
        };
        let report = flight::replay(&cx.host, &recording, policy).await.map_err(failed)?;
        cx.out.show(&report, text)?;
        Ok(if report.same { Code::Ok } else { Code::Degraded })
    }
}

/// A profile by its name, or what a configuration file says.
async fn policy_of(cx: &Context, name: &Path) -> Result<PolicyConfig, Failure> {
    match name.to_str() {
        Some("production" | "builtin") => Ok(PolicyConfig::of(Profile::Production)),
        Some("fast") => Ok(PolicyConfig::of(Profile::Fast)),
        _ => Ok(config::load(&cx.host, name).await?.policy()),
    }
}

fn failed(error: FlightError) -> Failure {
    let code = match &error {
        FlightError::Io { .. } | FlightError::Nothing { .. } => Code::Usage,
        FlightError::Replay(_) | FlightError::Unreadable(_) => Code::Failed,
    };
    Failure::new(code, chain(&error)).next("an agent keeps its recording in the folder `flight` beside its journal")
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let at = |ms: Option<u64>| ms.and_then(rfc3339).unwrap_or_else(|| UNKNOWN.to_owned());
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {} inputs in {} segments, {} to {}; by {} policy",
        report.node,
        report.inputs,
        report.segments,
        at(report.from_ms),
        at(report.to_ms),
        if report.policy == "recorded" { "the recorded" } else { "another" },
    );
    if report.lost > 0 {
        let _ = writeln!(out, "the recorder lost {} inputs: what came after is decided from a checkpoint", report.lost);
    }
    report.notes.iter().for_each(|note| {
        let _ = writeln!(out, "note: {note}");
    });
    for incident in &report.incidents {
        one(&mut out, incident);
    }
    if report.inputs_decided_otherwise + report.checkpoints_off > 0 {
        let _ = writeln!(
            out,
            "{} inputs led to other commands, {} checkpoints are not what the replay had come to: this version decides \
             otherwise than the one that recorded",
            report.inputs_decided_otherwise, report.checkpoints_off
        );
    }
    if report.answers_left_out > 0 {
        let _ = writeln!(
            out,
            "{} recorded answers were to what this policy did not ask: what follows a first difference is a guess",
            report.answers_left_out
        );
    }
    let (then, now) = (report.recorded_decisions, report.replayed_decisions);
    let verdict = if report.same { "all decisions are the same" } else { "the decisions differ" };
    let _ = writeln!(out, "{then} decisions then, {now} now: {verdict}");
    out
}

fn one(out: &mut String, report: &IncidentReport) {
    let verdict = match report.verdict {
        Verdict::Same => format!("the same ({} decisions)", report.alike),
        Verdict::Differs => format!("differs after {} decisions", report.alike),
        Verdict::NotOpened => "is not opened".to_owned(),
        Verdict::New => "is opened by this policy alone".to_owned(),
    };
    let _ = writeln!(out, "{} of {}: {verdict}", report.mode, report.subject);
    if let Some(first) = &report.first {
        let _ = writeln!(out, "  then: {}", line(first.recorded.as_ref()));
        let _ = writeln!(out, "  now:  {}", line(first.replayed.as_ref()));
    }
}

fn line(decision: Option<&Decision>) -> String {
    let Some(Decision { at, what, action, grade, guard, evidence }) = decision else { return "nothing".to_owned() };
    let grade = grade.map(|grade| format!(" (grade {})", grade.0)).unwrap_or_default();
    let guard = guard.as_ref().map(|guard| format!(" by {guard}")).unwrap_or_default();
    let evidence = if evidence.is_empty() { String::new() } else { format!(": {evidence}") };
    format!("{at} {what} {action}{grade}{guard}{evidence}")
}

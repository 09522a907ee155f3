//! `journal list|verify|follow`: the agents' record of every decision, from their folders on this host where there are
//! any, else through their HTTP.
//!
//! Must never: write to a journal, or hide a line that does not hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use resilver_host::{Host, OpenMode};
use resilver_strategies::chain::{Line, verify as verify_chain};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use crate::agents::{Agent, Agents};
use crate::discover::Found;
use crate::exit::{Code, Failure, chain};
use crate::output::{Table, UNKNOWN, cell};

/// Lines asked for at once; the agent's own limit of a page.
const PAGE: usize = 1000;
/// How often a followed journal is looked at. It is written by another process: there is no event to await.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);
/// Segments end in this.
const SEGMENT_SUFFIX: &str = ".jsonl";
/// The largest segment that is read at once: the agent makes them of 8 MiB.
const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Verbs of the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalVerb {
    /// What was decided and done, oldest first
    List {
        #[command(flatten)]
        which: Which,
        /// Only the newest lines
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Check the hash chain of every journal; exits 1 at the first line that does not hold
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// Print new lines as they are written, until Ctrl-C
    Follow {
        #[command(flatten)]
        which: Which,
    },
}

/// Whose journal.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this node's agent
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// A journal's folder, or the state folder of an agent, wherever it came from
    #[arg(long, value_name = "DIR", conflicts_with = "node")]
    journal: Option<PathBuf>,
}

/// One journal and how it is read.
struct Journal {
    name: String,
    at: At,
}

enum At {
    Folder(PathBuf),
    Http(Agent),
}

impl JournalVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            JournalVerb::List { which, limit } => list(cx, &which, limit).await,
            JournalVerb::Verify { which } => verify(cx, &which).await,
            JournalVerb::Follow { which } => follow(cx, &which).await,
        }
    }
}

/// A line and whose it is.
#[derive(Serialize)]
struct Shown {
    agent: String,
    #[serde(flatten)]
    line: Line,
}

async fn list(cx: &Context, which: &Which, limit: usize) -> Result<Code, Failure> {
    let mut shown = Vec::new();
    let mut unread = 0;
    for journal in journals(cx, which).await? {
        match journal.after(&cx.host, 0).await {
            Ok(lines) => shown.extend(lines.into_iter().map(|line| Shown { agent: journal.name.clone(), line })),
            Err(error) => {
                unread += 1;
                cx.out.say(format!("the journal of {} cannot be read: {error}", journal.name));
            }
        }
    }
    // Sequences order one journal; between journals only wall time can.
    shown.sort_by(|a, b| {
        (&a.line.timestamp, &a.agent, a.line.sequence).cmp(&(&b.line.timestamp, &b.agent, b.line.sequence))
    });
    let newest = shown.split_off(shown.len().saturating_sub(limit));
    if newest.is_empty() && unread > 0 {
        return Err(Failure::new(Code::Unreachable, "no journal could be read"));
    }
    cx.out.show(&newest, |lines| {
        let mut table = Table::new(["TIME", "AGENT", "SEQ", "KIND", "ACTION", "INCIDENT", "DETAILS"]);
        for Shown { agent, line } in lines {
            table.row(cells(agent, line));
        }
        table.render()
    })?;
    Ok(if unread == 0 { Code::Ok } else { Code::Degraded })
}

fn cells(agent: &str, line: &Line) -> [String; 7] {
    let draft = &line.draft;
    [
        line.timestamp.clone(),
        agent.to_owned(),
        line.sequence.to_string(),
        name_of(&draft.kind),
        draft.action.to_string(),
        cell(draft.incident.as_ref().map(|incident| incident.0.clone())),
        details(&draft.details),
    ]
}

/// An enum's name as it is written in the journal.
fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => UNKNOWN.to_owned(),
    }
}

fn details(details: &BTreeMap<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    details.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
struct Checked {
    agent: String,
    intact: bool,
    records: Option<u64>,
    first: Option<u64>,
    last: Option<u64>,
    torn_bytes: Option<u64>,
    error: Option<String>,
    #[serde(skip)]
    read: bool,
}

async fn verify(cx: &Context, which: &Which) -> Result<Code, Failure> {
    let mut rows = Vec::new();
    for journal in journals(cx, which).await? {
        rows.push(journal.check(&cx.host).await);
    }
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["AGENT", "RECORDS", "FIRST", "LAST", "VERDICT"]);
        for row in rows {
            let verdict = row.error.clone().unwrap_or_else(|| "OK".to_owned());
            table.row([row.agent.clone(), cell(row.records), cell(row.first), cell(row.last), verdict]);
        }
        table.render()
    })?;
    Ok(match (rows.iter().all(|row| row.intact), rows.iter().any(|row| row.read && !row.intact)) {
        (true, _) => Code::Ok,
        (false, true) => Code::Failed,
        (false, false) => Code::Unreachable,
    })
}

async fn follow(cx: &Context, which: &Which) -> Result<Code, Failure> {
    let journals = journals(cx, which).await?;
    let mut seen = Vec::new();
    for journal in &journals {
        // What is there already is `list`'s.
        let lines = journal.after(&cx.host, 0).await.unwrap_or_default();
        seen.push(lines.last().map_or(0, |line| line.sequence));
    }
    let shutdown = crate::daemon::shutdown_signal();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(Code::Ok),
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
        }
        for (journal, seen) in journals.iter().zip(&mut seen) {
            // An agent that is being restarted comes back: what it wrote meanwhile is read then.
            let Ok(lines) = journal.after(&cx.host, *seen).await else { continue };
            for line in lines {
                *seen = line.sequence;
                let shown = Shown { agent: journal.name.clone(), line };
                if cx.out.is_json() {
                    cx.out.json_line(&shown)?;
                } else {
                    cx.out.text(&(cells(&shown.agent, &shown.line).join("  ") + "\n"))?;
                }
            }
        }
    }
}

/// The journals asked for.
async fn journals(cx: &Context, which: &Which) -> Result<Vec<Journal>, Failure> {
    if let Some(folder) = &which.journal {
        let inner = folder.join("journal");
        let at = if cx.host.disk.metadata(&inner).await.is_ok() { inner } else { folder.clone() };
        cx.host.disk.metadata(&at).await.map_err(|error| Failure::usage(format!("{}: {error}", at.display())))?;
        return Ok(vec![Journal { name: folder.display().to_string(), at: At::Folder(at) }]);
    }
    let found = cx.found().await?;
    if let Some(node) = &which.node {
        found.member(node)?;
    }
    let wanted = |name: &str| which.node.as_deref().is_none_or(|node| node == name);
    let agents = Agents::new(&cx.host, &found).ok();
    let mut journals = Vec::new();
    for member in found.members.iter().filter(|member| wanted(&member.name)) {
        let local = local_folder(&cx.host, member.agent_dir.as_deref()).await;
        let http = || agents.as_ref().and_then(|agents| agents.beside(&member.name).ok().cloned());
        if let Some(at) = local.map(At::Folder).or_else(|| http().map(At::Http)) {
            journals.push(Journal { name: member.name.clone(), at });
        }
    }
    if journals.is_empty() { Err(none(&found)) } else { Ok(journals) }
}

fn none(found: &Found) -> Failure {
    Failure::usage(format!("{} names no agent whose journal could be read", found.source.display()))
        .next("name a folder: --journal DIR, or give the entries of `nodes:` an `api:`")
}

async fn local_folder(host: &Host, agent_dir: Option<&Path>) -> Option<PathBuf> {
    let folder = agent_dir?.join("journal");
    host.disk.metadata(&folder).await.is_ok().then_some(folder)
}

impl Journal {
    /// All lines after a sequence.
    async fn after(&self, host: &Host, after: u64) -> Result<Vec<Line>, String> {
        let lines = match &self.at {
            At::Folder(folder) => read_folder(host, folder).await.map_err(|error| error.to_string())?,
            At::Http(agent) => read_http(agent, after).await?,
        };
        Ok(lines.into_iter().filter(|line| line.sequence > after).collect())
    }

    async fn check(&self, host: &Host) -> Checked {
        let (outcome, read) = match &self.at {
            At::Folder(folder) => {
                let outcome = resilver_agent::journal::verify(host, folder).await;
                let read = !matches!(outcome, Err(resilver_agent::journal::JournalError::Io { .. }));
                let verified = outcome.map(|found| (found.records, found.first, found.last, found.torn_bytes));
                (verified.map_err(|error| chain(&error)), read)
            }
            At::Http(agent) => match read_http(agent, 0).await {
                Ok(lines) => {
                    let outcome = verify_chain(lines.iter().map(Line::to_text)).map_err(|broken| broken.to_string());
                    (outcome.map(|found| (found.records, found.first, found.last, 0)), true)
                }
                Err(error) => (Err(error), false),
            },
        };
        let agent = self.name.clone();
        match outcome {
            Ok((records, first, last, torn)) => Checked {
                agent,
                intact: true,
                records: Some(records),
                first,
                last,
                torn_bytes: Some(torn),
                error: None,
                read,
            },
            Err(error) => Checked {
                agent,
                intact: false,
                records: None,
                first: None,
                last: None,
                torn_bytes: None,
                error: Some(error),
                read,
            },
        }
    }
}

/// The lines of all segments. One that does not hold is left out here: `verify` names it.
async fn read_folder(host: &Host, folder: &Path) -> std::io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    // Segments are named by their first sequence with leading zeros: their order by name is their order.
    for entry in host.disk.list(folder).await?.iter().filter(|entry| entry.name.ends_with(SEGMENT_SUFFIX)) {
        let file = host.disk.open(&folder.join(&entry.name), OpenMode::Read).await?;
        let len = file.len().await?.min(MAX_SEGMENT_BYTES);
        let data = file.read_at(0, usize::try_from(len).unwrap_or(usize::MAX)).await?;
        let whole = data.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let text = whole.filter_map(|line| std::str::from_utf8(line).ok());
        lines.extend(text.filter_map(|line| Line::parse(line.trim_end_matches('\n')).ok()));
    }
    Ok(lines)
}

async fn read_http(agent: &Agent, mut after: u64) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let answer = agent.get(&format!("/api/v1/journal?after={after}&limit={PAGE}")).await?;
        if !answer.is_success() {
            return Err(answer.reason());
        }
        let page =
            answer.body.get("records").and_then(Value::as_array).cloned().ok_or("its answer is no list of records")?;
        let count = page.len();
        for record in page {
            lines.push(serde_json::from_value(record).map_err(|error| format!("a record cannot be read: {error}"))?);
        }
        match lines.last() {
            Some(last) if count == PAGE && last.sequence > after => after = last.sequence,
            _ => return Ok(lines),
        }
    }
}

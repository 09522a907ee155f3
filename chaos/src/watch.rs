//! What the agents say and do, read from their journals through their HTTP API: when a failure was detected, by what, which
//! steps followed, and when it was resolved.

use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use resilver_proto::web;
use serde_json::Value;

use crate::target::{HostInfo, Target};

/// How often a journal is asked again while something is awaited. What is reported are the journal's own timestamps, not
/// the moment we looked.
const POLL: Duration = Duration::from_millis(50);

/// How long an agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// One line of a journal, with the parts a report needs.
#[derive(Clone, Debug)]
pub struct Line {
    /// Host whose agent wrote it.
    pub host: String,
    /// Sequence in that journal.
    pub seq: u64,
    /// Wall time in milliseconds.
    pub at_ms: u64,
    /// opened, intent, outcome, resolved, …
    pub kind: String,
    /// The action's name.
    pub action: String,
    /// The incident's id, empty when none.
    pub incident: String,
    /// The mode, empty when none.
    pub mode: String,
    /// The rest.
    pub details: Value,
}

/// How far each journal has been read.
#[derive(Clone, Debug, Default)]
pub struct Cursor(std::collections::BTreeMap<String, u64>);

impl Cursor {
    /// A cursor at the present end of every journal that answers.
    pub async fn at_end(host: &Host, target: &Target) -> Self {
        let mut cursor = Self::default();
        for info in &target.hosts {
            while let Ok(lines) = cursor.read(host, info).await {
                if lines.is_empty() {
                    break;
                }
            }
        }
        cursor
    }

    /// The next lines of one journal.
    ///
    /// # Errors
    /// When the agent does not answer, or answers nonsense.
    pub async fn read(&mut self, host: &Host, info: &HostInfo) -> anyhow::Result<Vec<Line>> {
        let after = self.0.get(&info.name).copied().unwrap_or(0);
        let path = format!("/api/v1/journal?after={after}&limit=500");
        let (status, body) = web::call(&host.net, &info.api, &path, None, DEADLINE).await?;
        anyhow::ensure!(status == 200, "{} answers {status} for its journal", info.api);
        let page: Value = serde_json::from_slice(&body).with_context(|| format!("{}: no JSON", info.api))?;
        let records = page.get("records").unwrap_or(&page).as_array().context("a journal page without records")?;
        let lines: Vec<Line> = records.iter().filter_map(|record| line(&info.name, record)).collect();
        if let Some(last) = lines.last() {
            self.0.insert(info.name.clone(), last.seq);
        }
        Ok(lines)
    }

    /// Reads all journals until a line fits, or the deadline passes. Everything read on the way goes into `seen`.
    pub async fn await_line(
        &mut self,
        host: &Host,
        target: &Target,
        seen: &mut Vec<Line>,
        deadline: Duration,
        fits: impl Fn(&Line) -> bool,
    ) -> Option<Line> {
        let waiting = async {
            loop {
                for info in &target.hosts {
                    // An agent that does not answer now may answer in a moment: the deadline judges.
                    seen.extend(self.read(host, info).await.unwrap_or_default());
                }
                if let Some(line) = seen.iter().find(|line| fits(line)) {
                    return line.clone();
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(deadline, waiting).await.ok()
    }
}

fn line(host: &str, record: &Value) -> Option<Line> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let timestamp = humantime::parse_rfc3339(record.get("timestamp")?.as_str()?).ok()?;
    let at_ms = timestamp.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    Some(Line {
        host: host.to_owned(),
        seq: record.get("sequence")?.as_u64()?,
        at_ms: u64::try_from(at_ms).ok()?,
        kind: text("kind"),
        action: text("action"),
        incident: text("incident"),
        mode: text("mode"),
        details: record.get("details").cloned().unwrap_or(Value::Null),
    })
}

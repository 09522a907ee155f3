//! The journal of a unit, by `journalctl -f -o json` as a child that writes into a file of the agent's.
//!
//! Owns: the child, over restarts of the agent: one that an earlier life left behind is ended before another is started. Must
//! never: leave one running when the agent stops; start one more often than [`AGAIN`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resilver_host::disk::{create_dir_durably, read_file};
use resilver_host::{Host, OpenMode, ProcId, Process, Signal, SpawnSpec};
use serde_json::Value;
use tokio::time::Instant;

/// The program.
const PROGRAM: &str = "/usr/bin/journalctl";

/// How soon one that ended is started again.
const AGAIN: Duration = Duration::from_secs(10);

/// The longest record of a child.
const MAX_RECORD_BYTES: u64 = 256;

/// A child that follows a unit's journal.
pub(super) struct Journal {
    host: Host,
    unit: String,
    output: PathBuf,
    record: PathBuf,
    child: Option<Arc<dyn Process>>,
    ended: Option<tokio::task::JoinHandle<()>>,
    started: Option<Instant>,
    /// Why the last start failed.
    failed: Option<String>,
}

impl Journal {
    pub(super) fn new(host: &Host, dir: &Path, unit: &str) -> Self {
        let name: String = unit.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Self {
            host: host.clone(),
            unit: unit.to_owned(),
            output: dir.join(format!("{name}.json")),
            record: dir.join(format!("{name}.process")),
            child: None,
            ended: None,
            started: None,
            failed: None,
        }
    }

    /// The file it writes to.
    pub(super) fn output(&self) -> &Path {
        &self.output
    }

    /// Sees to it that one runs.
    ///
    /// # Errors
    /// Why none could be started last.
    pub(super) async fn keep(&mut self) -> Result<(), String> {
        let runs = self.ended.as_ref().is_some_and(|ended| !ended.is_finished());
        let waits = self.started.is_some_and(|started| started.elapsed() < AGAIN);
        if !runs && !waits {
            self.started = Some(Instant::now());
            let started = self.start().await;
            self.failed = started.err().map(|error| format!("{PROGRAM} cannot be run: {error}"));
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    async fn start(&mut self) -> std::io::Result<()> {
        let dir = self.output.parent().unwrap_or(Path::new("/"));
        create_dir_durably(&*self.host.disk, dir).await?;
        self.end_earlier().await;
        // From its beginning, and with nothing of an earlier child.
        self.host.disk.open(&self.output, OpenMode::Create).await?.set_len(0).await?;
        let args = ["--follow", "--lines=0", "--output=json", "--unit", &self.unit].map(str::to_owned).to_vec();
        let child = self
            .host
            .proc
            .spawn(SpawnSpec {
                program: PathBuf::from(PROGRAM),
                args,
                env: Vec::new(),
                log: Some(self.output.clone()),
                new_session: false,
            })
            .await?;
        let record = self.host.disk.open(&self.record, OpenMode::Create).await?;
        record.set_len(0).await?;
        record.write_at(0, serde_json::to_vec(&child.id())?.into()).await?;
        let watched = child.clone();
        self.ended = Some(tokio::spawn(async move {
            // Either way it is not followed any more.
            let _ = watched.exited().await;
        }));
        self.child = Some(child);
        Ok(())
    }

    /// Ends the child of an earlier life of the agent, if it runs still.
    async fn end_earlier(&self) {
        let Ok(record) = read_file(&*self.host.disk, &self.record, MAX_RECORD_BYTES).await else { return };
        let Ok(id) = serde_json::from_slice::<ProcId>(&record) else { return };
        if let Ok(Some(process)) = self.host.proc.adopt(id).await {
            // It may have ended by now.
            let _ = process.signal(Signal::Terminate);
        }
    }

    /// Ends the child.
    pub(super) fn end(self) {
        if let Some(child) = self.child {
            // It may have ended by now.
            let _ = child.signal(Signal::Terminate);
        }
    }
}

/// The message of a record: a text, or the bytes of one that is none. `None`: it has no message, or is no record.
pub(super) fn message(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    match record.get("MESSAGE")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_text_or_the_bytes_of_one() {
        assert_eq!(message(r#"{"MESSAGE":"I/O error","PRIORITY":"3"}"#).as_deref(), Some("I/O error"));
        assert_eq!(message(r#"{"MESSAGE":[73,47,79]}"#).as_deref(), Some("I/O"));
        assert_eq!(message(r#"{"MESSAGE":null}"#), None);
        assert_eq!(message("no record"), None);
        assert_eq!(message("{}"), None);
    }
}

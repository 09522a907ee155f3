//! The last error a process printed: half of its crash signature.
//!
//! Owns: finding that line and making it comparable between runs. Must never: hold more of a log than its tail.

use std::path::Path;

use resilver_host::{Host, OpenMode};

/// How much of the end of a log is searched. A process that dies says why in its last lines; 64 KiB holds hundreds.
const TAIL_BYTES: u64 = 64 * 1024;

/// The longest line that is kept: enough for a message and its cause, and it lands in every journal record of the mode.
const MAX_LINE_BYTES: usize = 400;

/// The last error line of `log` behind `from` (where this run began to write). Empty when there is none, or no log.
pub(crate) async fn last_error(host: &Host, log: &Path, from: u64) -> String {
    match tail(host, log, from).await {
        Ok(text) => pick(&text),
        // The log is a witness, not a condition: an exit without a last error is still an exit.
        Err(error) => {
            tracing::debug!(log = %log.display(), %error, "the log's end could not be read");
            String::new()
        }
    }
}

async fn tail(host: &Host, log: &Path, from: u64) -> std::io::Result<String> {
    let file = host.disk.open(log, OpenMode::Read).await?;
    let len = file.len().await?;
    // A log that shrank was rotated by copy and truncate: all of it is of this run.
    let from = if from > len { 0 } else { from };
    let start = from.max(len.saturating_sub(TAIL_BYTES));
    let data = file.read_at(start, usize::try_from(len - start).unwrap_or(0)).await?;
    Ok(String::from_utf8_lossy(&data).into_owned())
}

/// The last error line of a text. Empty when there is none.
pub(crate) fn pick(text: &str) -> String {
    text.lines().rev().find_map(error_of).unwrap_or_default()
}

/// The comparable part of an error line, `None` for any other line.
fn error_of(line: &str) -> Option<String> {
    let line = plain(line);
    let line = line.trim();
    if line.starts_with('{') {
        return json_error(line);
    }
    let lower = line.to_ascii_lowercase();
    let is_error = line.contains("ERROR") || lower.starts_with("error") || lower.contains("panicked at");
    is_error.then(|| bounded(without_timestamp(line)))
}

/// A line of the JSON log format: level, and the fields with the message.
fn json_error(line: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    if !value.get("level")?.as_str()?.eq_ignore_ascii_case("error") {
        return None;
    }
    let fields = value.get("fields").unwrap_or(&value);
    let message = fields.get("message")?.as_str()?;
    let cause = fields.get("error").and_then(|cause| cause.as_str());
    Some(bounded(&cause.map_or_else(|| message.to_owned(), |cause| format!("{message}: {cause}"))))
}

/// Without the colours a terminal wants: `ESC [ … letter`.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    out
}

/// Two runs that die of one cause differ in the time they say it.
fn without_timestamp(line: &str) -> &str {
    match line.split_once(' ') {
        Some((first, rest)) if first.len() >= 20 && first.ends_with('Z') && first.contains('T') => rest.trim_start(),
        _ => line,
    }
}

fn bounded(line: &str) -> String {
    let mut end = line.len().min(MAX_LINE_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_counts_and_loses_its_timestamp_and_colours() {
        let log = "2026-11-20T10:00:00.000000Z ERROR resilver: first\n\
                   \u{1b}[2m2026-11-20T10:00:01.123456Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m resilver: port in use\n\
                   2026-11-20T10:00:02.000000Z  INFO resilver: bye\n";
        assert_eq!(pick(log), "ERROR resilver: port in use");
    }

    #[test]
    fn json_lines_and_panics_are_errors_too() {
        let json = r#"{"timestamp":"x","level":"ERROR","fields":{"message":"cannot open","error":"no room"}}"#;
        assert_eq!(pick(json), "cannot open: no room");
        assert_eq!(pick("thread 'main' panicked at src/main.rs:1:1:\n"), "thread 'main' panicked at src/main.rs:1:1:");
        assert_eq!(pick("all is well\n"), "");
    }
}

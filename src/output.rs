//! What a verb says: data on standard output, talk on standard error.
//!
//! Owns: the formats, the one table writer, how sizes, ages and times look. Must never: mix talk into data.
//!
//! Invariants: JSON is one document per verb, times in it are RFC 3339; what is not known is `-` in a table and null in
//! JSON, never 0. A closed pipe (`| head`) ends quietly.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::exit::Failure;

/// What is printed where a value is not known.
pub(crate) const UNKNOWN: &str = "-";

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Where a verb's words go.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    color: bool,
}

impl Output {
    /// Decides about colour once: a terminal, and nobody said NO_COLOR (<https://no-color.org>: any non-empty value).
    pub(crate) fn new(format: Format) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, color: !no_color && std::io::stdout().is_terminal() }
    }

    /// The chosen format.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints `value` as JSON, or what `table` makes of it for people.
    pub(crate) fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.text(&self.paint(&table(value))),
        }
    }

    /// Prints one JSON document, indented, whatever the format.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
        self.text(&(text + "\n"))
    }

    /// Prints one JSON document on one line.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
        self.text(&(text + "\n"))
    }

    /// Prints data as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        write_stdout(text.as_bytes())
    }

    /// Says something to the person, on standard error.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        // Nobody listens: no reason to stop.
        let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
    }

    /// Colours the words that name a state. Comes last: it adds no visible width.
    fn paint(&self, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        text.split_inclusive('\n').map(paint_line).collect()
    }
}

/// Writes to standard output. A reader that went away is no failure of ours.
pub(crate) fn write_stdout(data: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("could not write to standard output: {error}"))),
    }
}

const GOOD: &[&str] = &["healthy", "up", "ok", "OK", "resolved", "yes", "running"];
const DOUBTFUL: &[&str] = &[
    "degraded",
    "degrading",
    "starting",
    "waiting",
    "recovering",
    "verifying",
    "read_only",
    "draining",
    "drained",
    "suspect",
    "paused",
    "open",
    "unknown",
];
const BAD: &[&str] =
    &["down", "out", "gone", "error", "failing", "CORRUPT", "MISSING", "UNREACHABLE", "unreachable", "lost_voter"];

fn paint_line(line: &str) -> String {
    line.split_inclusive(' ')
        .map(|piece| {
            let word = piece.trim_end();
            let color = match word {
                word if GOOD.contains(&word) => "32",
                word if DOUBTFUL.contains(&word) => "33",
                word if BAD.contains(&word) => "31",
                _ => return piece.to_owned(),
            };
            format!("\x1b[{color}m{word}\x1b[0m{}", &piece[word.len()..])
        })
        .collect()
}

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; an empty cell is shown as unknown.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.map(|cell| if cell.is_empty() { UNKNOWN.to_owned() } else { one_line(&cell) });
        self.rows.push(cells.to_vec());
    }

    /// The text, one line per row, without trailing blanks.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ", width = *width)).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell never breaks its row: control characters come from keys and file names that other people chose.
fn one_line(cell: &str) -> String {
    cell.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A size for people: `17.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// An age for people: whole seconds from one second on, or `now`.
pub(crate) fn age(millis: u64) -> String {
    match millis {
        0..1000 => "now".to_owned(),
        _ => humantime::format_duration(Duration::from_secs(millis / 1000)).to_string().replace(' ', "") + " ago",
    }
}

/// A wall time as RFC 3339 with milliseconds; `None` for the zero that the wire uses for "not known".
pub(crate) fn rfc3339(millis: u64) -> Option<String> {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    // Beyond the year 9999 there is no RFC 3339; humantime panics there, and a node's word must not.
    (millis > 0 && millis < 253_402_300_800_000).then(|| humantime::format_rfc3339_millis(time).to_string())
}

/// Wall times in an agent's document; its other `_ms` are ages and durations, which stay numbers.
const WALL_TIMES: [&str; 9] = [
    "at_ms",
    "began_ms",
    "closed_ms",
    "ended_ms",
    "expected_ms",
    "expires_ms",
    "first_step_ms",
    "opened_ms",
    "started_ms",
];

/// An agent's document as this command prints it: `opened_ms: 17…` becomes `opened: 2026-…`. Journal records are left as
/// they are: they carry RFC 3339 already, and a hash over their own words.
pub(crate) fn with_rfc3339(document: Value) -> Value {
    match document {
        Value::Array(items) => items.into_iter().map(with_rfc3339).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| match key.strip_suffix("_ms") {
                _ if key == "records" => (key, value),
                Some(name) if WALL_TIMES.contains(&key.as_str()) => {
                    (name.to_owned(), value.as_u64().and_then(rfc3339).map_or(Value::Null, Value::String))
                }
                _ => (key, with_rfc3339(value)),
            };
            fields.into_iter().map(field).collect()
        }
        other => other,
    }
}

/// A text, or `None` where the wire's empty string means "not known".
pub(crate) fn known(text: &str) -> Option<String> {
    (!text.is_empty() && text != UNKNOWN).then(|| text.to_owned())
}

/// A table cell of what may be unknown.
pub(crate) fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_of_agents_are_rfc_3339_and_durations_stay_numbers() {
        let said = serde_json::json!({
            "opened_ms": 1_700_000_000_000_u64, "closed_ms": null, "age_ms": 5,
            "steps": [{ "began_ms": 1_700_000_000_001_u64 }], "records": [{ "at_ms": 1 }],
        });
        let expected = serde_json::json!({
            "opened": "2023-11-14T22:13:20.000Z", "closed": null, "age_ms": 5,
            "steps": [{ "began": "2023-11-14T22:13:20.001Z" }], "records": [{ "at_ms": 1 }],
        });
        assert_eq!(with_rfc3339(said), expected);
    }

    #[test]
    fn columns_are_aligned_and_unknown_is_a_dash() {
        let mut table = Table::new(["NODE", "STATE"]);
        table.row(["n1".to_owned(), "healthy".to_owned()]);
        table.row(["node-12".to_owned(), String::new()]);
        assert_eq!(table.render(), "NODE     STATE\nn1       healthy\nnode-12  -\n");
    }

    #[test]
    fn a_key_with_a_line_break_stays_in_its_row() {
        let mut table = Table::new(["KEY"]);
        table.row(["a\nb".to_owned()]);
        assert_eq!(table.render(), "KEY\na\\nb\n");
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_700_000_000_123).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(age(999), "now");
        assert_eq!(age(61_500), "1m1s ago");
    }
}

//! The journal's hash chain: every line carries the hash of the one before, so that none can be changed or taken out.
//!
//! Owns: how a draft becomes a line, and how lines are checked. Must never: read or write a file; know the time.
//!
//! Invariants: the last field of a line is `hash`: the SHA-256, in hexadecimal, over the line's own text with
//! `,"hash":"…"` taken out. The check is over bytes, not over what they mean: one changed byte breaks it. Sequences
//! rise by one.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::record::{Draft, SCHEMA};
use crate::when::{Uptime, When};

/// What the first line of a journal names as the hash before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Length of `,"hash":"<64 digits>"}`, which ends every line.
const TAIL: usize = 9 + 64 + 2;

/// One line of the journal, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Line {
    /// Version of the record's schema.
    pub schema: u32,
    /// Rises by one with every line.
    pub sequence: u64,
    /// When, RFC 3339 with milliseconds, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: String,
    /// In which boot of its host it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// How long after that boot's begin, milliseconds, by a clock that nobody sets: what tells how long ago it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub draft: Draft,
    /// The hash of the line before; [`GENESIS`] in the first.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub prev: String,
    /// The hash of this line without this field.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub hash: String,
}

/// The end of a journal: what the next line is chained to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// The sequence that the next line gets.
    pub next_sequence: u64,
    /// The hash of the last line; [`GENESIS`] when there is none.
    pub hash: String,
}

impl Default for Tip {
    fn default() -> Self {
        Self { next_sequence: 1, hash: GENESIS.to_owned() }
    }
}

/// What a check of a journal found, when it found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines read.
    pub records: u64,
    /// Sequence of the first; `None` when there is none.
    pub first: Option<u64>,
    /// Sequence of the last.
    pub last: Option<u64>,
    /// What the next line is chained to.
    pub tip: Tip,
}

/// Where a journal's chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal broken at line {line}{}: {why}", sequence.map(|number| format!(" (sequence {number})")).unwrap_or_default())]
pub struct Broken {
    /// Which line, from 1.
    pub line: u64,
    /// Its sequence, when it could be read.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    pub why: String,
}

/// The line without its hash: what is hashed. Field for field the order of [`Line`].
#[derive(Serialize)]
struct Body<'a> {
    schema: u32,
    sequence: u64,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
    #[serde(flatten)]
    draft: &'a Draft,
    prev: &'a str,
}

/// Makes a draft the next line after `tip`.
pub fn seal(tip: &Tip, when: impl Into<When>, draft: Draft) -> Line {
    let When { wall_ms, uptime } = when.into();
    let (boot, uptime_ms) = uptime.map(|Uptime { boot, millis }| (boot, millis)).unzip();
    let mut line = Line {
        schema: SCHEMA,
        sequence: tip.next_sequence,
        timestamp: rfc3339(wall_ms),
        boot,
        uptime_ms,
        draft,
        prev: tip.hash.clone(),
        hash: String::new(),
    };
    line.hash = hash_of(&line.body());
    line
}

impl Line {
    /// The line's text, without a line end.
    pub fn to_text(&self) -> String {
        let mut text = self.body();
        text.pop();
        text.push_str(",\"hash\":\"");
        text.push_str(&self.hash);
        text.push_str("\"}");
        text
    }

    /// What the line after this one is chained to.
    pub fn tip(&self) -> Tip {
        Tip { next_sequence: self.sequence + 1, hash: self.hash.clone() }
    }

    /// The timestamp in milliseconds since the Unix epoch; 0 when it is not one.
    pub fn wall_ms(&self) -> u64 {
        let at = humantime::parse_rfc3339(&self.timestamp).ok();
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// When it was written.
    pub fn when(&self) -> When {
        let uptime = self.boot.clone().zip(self.uptime_ms).map(|(boot, millis)| Uptime { boot, millis });
        When { wall_ms: self.wall_ms(), uptime }
    }

    /// Reads one line and checks its own hash; the chain is [`verify`]'s.
    pub fn parse(text: &str) -> Result<Line, String> {
        let body_end = text.len().checked_sub(TAIL).ok_or("too short for a record")?;
        let (body, tail) = text.split_at_checked(body_end).ok_or("does not end in a hash")?;
        let told = tail.strip_prefix(",\"hash\":\"").and_then(|rest| rest.strip_suffix("\"}"));
        let told = told.ok_or("does not end in a hash")?;
        let found = hash_of(&format!("{body}}}"));
        if told != found {
            return Err(format!("its hash is {told}, its text hashes to {found}: the line was changed"));
        }
        let line: Line = serde_json::from_str(text).map_err(|error| format!("not a record: {error}"))?;
        if line.schema > SCHEMA {
            return Err(format!("schema {} is newer than this program knows ({SCHEMA})", line.schema));
        }
        Ok(line)
    }

    fn body(&self) -> String {
        let Line { schema, sequence, timestamp, boot, uptime_ms, draft, prev, .. } = self;
        let (boot, uptime_ms) = (boot.as_deref(), *uptime_ms);
        let body = Body { schema: *schema, sequence: *sequence, timestamp, boot, uptime_ms, draft, prev };
        serde_json::to_string(&body).expect("texts, numbers and maps with text keys always serialize")
    }
}

/// Checks lines from the journal's beginning (or from where its oldest kept segment begins).
pub fn verify<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> Result<Summary, Broken> {
    let mut summary = Summary { records: 0, first: None, last: None, tip: Tip::default() };
    for (index, text) in lines.into_iter().enumerate() {
        let number = index as u64 + 1;
        let line = Line::parse(text.as_ref()).map_err(|why| Broken { line: number, sequence: None, why })?;
        let broken = |why: String| Broken { line: number, sequence: Some(line.sequence), why };
        if summary.first.is_some() || line.sequence == 1 {
            if line.sequence != summary.tip.next_sequence {
                return Err(broken(format!("sequence {} expected: a line is missing", summary.tip.next_sequence)));
            }
            if line.prev != summary.tip.hash {
                return Err(broken(format!("it follows {}, but the line before is {}", line.prev, summary.tip.hash)));
            }
        }
        summary.records += 1;
        summary.first = summary.first.or(Some(line.sequence));
        summary.last = Some(line.sequence);
        summary.tip = line.tip();
    }
    Ok(summary)
}

/// The JSON schema of one line.
pub fn journal_schema() -> serde_json::Value {
    schemars::schema_for!(Line).to_value()
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC.
pub fn rfc3339(wall_ms: u64) -> String {
    // Year 9999 is where the format ends; a clock beyond it is shown as that.
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(wall_ms.min(LAST))).to_string()
}

fn hash_of(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;
    use crate::types::Action;

    fn journal(lines: u64) -> Vec<String> {
        let mut tip = Tip::default();
        (0..lines)
            .map(|number| {
                let draft =
                    Draft::new(RecordKind::Note, Action::Skip).with("evidence", format!("line \"{number}\", é"));
                let line = seal(&tip, 1_700_000_000_123 + number, draft);
                tip = line.tip();
                line.to_text()
            })
            .collect()
    }

    #[test]
    fn a_sealed_journal_verifies_and_reads_back() {
        let lines = journal(5);
        let summary = verify(&lines).expect("nothing was touched");
        assert_eq!((summary.records, summary.first, summary.last), (5, Some(1), Some(5)));
        let line = Line::parse(&lines[2]).expect("a record");
        assert_eq!(line.timestamp, "2023-11-14T22:13:20.125Z");
        assert_eq!(line.wall_ms(), 1_700_000_000_125);
        assert_eq!(line.to_text(), lines[2]);
        assert!(verify(&lines[2..]).is_ok(), "older segments may be gone");
        assert_eq!(verify(Vec::<String>::new()).expect("empty").tip, Tip::default());
    }

    #[test]
    fn any_changed_byte_and_any_missing_line_is_found() {
        let lines = journal(3);
        for at in 0..lines[1].len() {
            let mut bytes = lines[1].clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let broken = verify([&lines[0], &changed, &lines[2]]).expect_err("a byte was flipped");
            assert!(broken.line == 2, "flip at {at}: {broken}");
        }
        let gap = verify([&lines[0], &lines[2]]).expect_err("one is missing");
        assert_eq!((gap.line, gap.sequence), (2, Some(3)));
        assert!(gap.to_string().contains("a line is missing"), "{gap}");
    }

    #[test]
    fn a_line_that_was_resealed_after_a_change_breaks_the_chain_after_it() {
        let lines = journal(3);
        let first = Line::parse(&lines[0]).expect("a record");
        let forged = seal(&first.tip(), 5, Draft::new(RecordKind::Note, Action::Alert)).to_text();
        let broken = verify([&lines[0], &forged, &lines[2]]).expect_err("a forged line");
        assert_eq!(broken.line, 3);
    }

    #[test]
    fn the_schema_names_every_field() {
        let schema = journal_schema().to_string();
        for field in ["schema", "sequence", "timestamp", "kind", "action", "guards", "details", "prev", "hash"] {
            assert!(schema.contains(&format!("\"{field}\"")), "{field} is missing in {schema}");
        }
    }
}

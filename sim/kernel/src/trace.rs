//! What happened, line by line: the same seed makes the same bytes.
//!
//! Owns: the running hash, the last lines (for a failure's report), and where all lines go when somebody wants them.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

/// Lines kept for the report of a failure: what fits a screen and still shows the cause.
const KEPT_LINES: usize = 60;

/// The trace of one run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    lines: u64,
    last: VecDeque<String>,
    sink: Option<Box<dyn Write + Send>>,
}

impl Trace {
    /// Sends every line to `sink`, too.
    pub fn send_to(&mut self, sink: Box<dyn Write + Send>) {
        self.sink = Some(sink);
    }

    /// Adds one line about `who` at `at`.
    pub fn add(&mut self, at: Duration, who: &str, what: &str) {
        let line = format!("{:>4}.{:03} {who:<10} {what}", at.as_secs(), at.subsec_millis());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(sink) = &mut self.sink {
            // A reader that went away (`| head`) is no error of the run.
            let _ = writeln!(sink, "{line}");
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// A hash over all lines so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

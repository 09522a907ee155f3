//! Lines of logs that match a pattern of the configuration: a file that is followed, or the journal of a unit.
//!
//! Owns: which lines are news, and the patterns. Must never: hold more of a log than one line and one piece; tell a line
//! twice; tell what was written before the agent began to look (its incident, if there was one, is over or open already).
//!
//! Costs one read of what was written since the look before, at most [`PIECES_PER_LOOK`] pieces of [`PIECE_BYTES`]; more
//! waits for the next look, and what is too far behind is skipped, which is said in the agent's own log. One fact for each
//! pattern and look, with how many lines matched.

mod follow;
mod journal;
mod lines;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::api::{Input, LogMatchFact, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::follow::Follower;
use self::journal::Journal;
use self::lines::Lines;
use super::stopped;
use crate::options::{LogPattern, LogSource};

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces of one look: what a log that runs wild may cost in a period.
const PIECES_PER_LOOK: usize = 4;

/// The longest text of a line that is told: it stands in records and evidence.
const MAX_LINE_CHARS: usize = 400;

/// Follows one log.
pub(crate) struct LogSensor {
    /// The machine.
    pub(crate) host: Host,
    /// Which log, and what is looked for.
    pub(crate) source: LogSource,
    /// How often.
    pub(crate) every: Duration,
    /// Where the output of journalctl is kept while it is read.
    pub(crate) dir: PathBuf,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl LogSensor {
    /// Follows until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut journal = self.source.unit.as_ref().map(|unit| Journal::new(&self.host, &self.dir, unit));
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.follow_on(journal.as_mut()) => {}
        }
        if let Some(journal) = journal {
            journal.end();
        }
    }

    async fn follow_on(&self, mut journal: Option<&mut Journal>) {
        let path = match (&self.source.file, &journal) {
            (Some(file), _) => file.clone(),
            (None, Some(journal)) => journal.output().to_owned(),
            // The configuration names one of them.
            (None, None) => return,
        };
        // What journalctl writes is all of now.
        let mut follower = Follower::new(&self.host, path, journal.is_none());
        let mut lines = Lines::default();
        let mut turn = interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if let Some(journal) = &mut journal {
                journal.keep().await;
            }
            let mut matches = Matches::default();
            for _ in 0..PIECES_PER_LOOK {
                let piece = match follower.next(PIECE_BYTES).await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(log = %follower.path().display(), %error, "a log cannot be read now");
                        break;
                    }
                };
                if piece.anew {
                    lines.forget();
                }
                for line in lines.take(&piece.data) {
                    let text = if journal.is_some() { journal::message(&line) } else { Some(line) };
                    text.iter().for_each(|text| matches.look(&self.source.patterns, text));
                }
            }
            for fact in matches.facts(&self.source.patterns) {
                // Only a stopping agent has dropped the receiver.
                let _ = self.out.send(Input::Observed(Observation::LogMatch(fact))).await;
            }
            if journal.is_some() {
                follower.empty_when_read().await;
            }
        }
    }
}

/// What one look found, by pattern: the last line, and how many.
#[derive(Default)]
struct Matches(BTreeMap<usize, (String, u64)>);

impl Matches {
    fn look(&mut self, patterns: &[LogPattern], line: &str) {
        for (at, pattern) in patterns.iter().enumerate().filter(|(_, pattern)| matches(pattern, line)) {
            let (text, count) = self.0.entry(at).or_default();
            *text = line.chars().take(MAX_LINE_CHARS).collect();
            *count += 1;
            tracing::debug!(pattern = pattern.name, line = text, "a line of a log matches");
        }
    }

    fn facts(self, patterns: &[LogPattern]) -> impl Iterator<Item = LogMatchFact> {
        self.0.into_iter().filter_map(|(at, (line, count))| {
            let pattern = patterns.get(at)?;
            Some(LogMatchFact { pattern: pattern.name.clone(), mode: pattern.mode, line, count })
        })
    }
}

fn matches(pattern: &LogPattern, line: &str) -> bool {
    pattern.contains.iter().all(|text| line.contains(text)) && !pattern.without.iter().any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use resilver_strategies::types::Mode;

    use super::*;

    fn pattern(contains: &[&str], without: &[&str]) -> LogPattern {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        LogPattern {
            name: "ext4".to_owned(),
            contains: words(contains),
            without: words(without),
            mode: Some(Mode::DiskFailure),
        }
    }

    #[test]
    fn all_texts_must_be_in_the_line_and_none_of_the_others() {
        let ext4 = pattern(&["EXT4-fs error", "sdb1"], &["recovery complete"]);
        assert!(matches(&ext4, "kernel: EXT4-fs error (device sdb1): ext4_find_entry"));
        assert!(!matches(&ext4, "kernel: EXT4-fs error (device sdc1): ext4_find_entry"));
        assert!(!matches(&ext4, "EXT4-fs error sdb1: recovery complete"));
    }

    #[test]
    fn a_look_tells_the_last_line_and_how_many_there_were() {
        let patterns = [pattern(&["error"], &[]), pattern(&["warning"], &[])];
        let mut found = Matches::default();
        ["error 1", "fine", "error 2"].iter().for_each(|line| found.look(&patterns, line));
        found.look(&patterns, &format!("error {}", "x".repeat(2 * MAX_LINE_CHARS)));
        let facts: Vec<_> = found.facts(&patterns).collect();
        assert_eq!((facts.len(), facts[0].count, facts[0].line.chars().count()), (1, 3, MAX_LINE_CHARS));
    }
}

//! Lines of logs that match a pattern of the configuration: a file that is followed, or the journal of a unit.
//!
//! Owns: which lines are news, and the patterns. Must never: hold more of a log than one line and one piece; tell a line
//! twice; tell what was written before the agent began to look (its incident, if there was one, is over or open already).
//!
//! Costs one read of what was written since the look before, at most [`PIECES_PER_LOOK`] pieces of [`PIECE_BYTES`]; more
//! waits for the next look, and what is too far behind is skipped, which is said in the agent's own log. One fact for each
//! pattern and look, with how many lines matched.

mod desk;
mod follow;
mod journal;
mod lines;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::api::{Input, LogMatchFact, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::desk::Look;
pub(crate) use self::desk::{LogDesk, UnreadLog};
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
    /// Told what cannot be read.
    pub(crate) desk: Arc<LogDesk>,
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
        let name = self.source.unit.clone().unwrap_or_else(|| follower.path().display().to_string());
        let mut lines = Lines::default();
        let mut turn = interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let kept = match &mut journal {
                Some(journal) => journal.keep().await,
                None => Ok(()),
            };
            let (matches, look) = self.look(&mut follower, &mut lines, journal.is_some()).await;
            let look = kept.map_or_else(Look::Unreadable, |()| look);
            self.desk.looked(self.host.clock.now().as_millis(), &name, look);
            for fact in matches.facts(&self.source.patterns) {
                // Only a stopping agent has dropped the receiver.
                let _ = self.out.send(Input::Observed(Observation::LogMatch(fact))).await;
            }
            if journal.is_some() {
                follower.empty_when_read().await;
            }
        }
    }

    /// Reads what is new, as far as one look goes.
    async fn look(&self, follower: &mut Follower, lines: &mut Lines, records: bool) -> (Matches, Look) {
        let mut matches = Matches::default();
        for _ in 0..PIECES_PER_LOOK {
            let piece = match follower.next(PIECE_BYTES).await {
                Ok(Some(piece)) => piece,
                Ok(None) if follower.is_open() => break,
                Ok(None) => return (matches, Look::Absent),
                Err(error) => return (matches, Look::Unreadable(error.to_string())),
            };
            if piece.anew {
                lines.forget();
            }
            for line in lines.take(&piece.data) {
                let text = if records { journal::message(&line) } else { Some(line) };
                text.iter().for_each(|text| matches.look(&self.source.patterns, text));
            }
        }
        (matches, Look::Read)
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
#[allow(clippy::disallowed_methods)] // tests are the outside world
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

    /// A folder in the place of a file: whoever runs this test, it cannot be read.
    #[tokio::test]
    async fn a_log_that_cannot_be_read_is_told_until_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::create_dir(&path).unwrap();
        let (out, mut facts) = mpsc::channel(8);
        let desk = Arc::new(LogDesk::default());
        let source = LogSource { file: Some(path.clone()), unit: None, patterns: vec![pattern(&["error"], &[])] };
        let every = Duration::from_millis(10);
        let host = resilver_host::real::host();
        let sensor = LogSensor { host, source, every, dir: dir.path().to_owned(), desk: desk.clone(), out };
        let (stop, shutdown) = watch::channel(false);
        let running = tokio::spawn(sensor.run(shutdown));
        let until = async |wanted: Option<&str>| {
            let state = || desk.unread().first().map(|unread| (unread.log.clone(), unread.state));
            while state().as_ref().map(|(_, state)| *state) != wanted {
                tokio::task::yield_now().await;
            }
            state()
        };
        let patience = Duration::from_secs(30);
        let told = tokio::time::timeout(patience, until(Some("unreadable"))).await.unwrap();
        assert_eq!(told, Some((path.display().to_string(), "unreadable")));
        std::fs::remove_dir(&path).unwrap();
        tokio::time::timeout(patience, until(Some("absent"))).await.unwrap();
        std::fs::write(&path, "an error\n").unwrap();
        tokio::time::timeout(patience, until(None)).await.unwrap();
        let fact = tokio::time::timeout(patience, facts.recv()).await.unwrap();
        assert!(matches!(fact, Some(Input::Observed(Observation::LogMatch(fact))) if fact.line == "an error"));
        stop.send_replace(true);
        running.await.unwrap();
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

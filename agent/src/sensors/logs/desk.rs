//! Which logs are not read now, for people.
//!
//! Owns: when that is told. Must never: tell one state twice: a log that cannot be read is looked for each second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// How a log is, as of the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It was read, to its end or as far as one look goes.
    Read,
    /// It is not there, which it need not be yet.
    Absent,
    /// It is, and cannot be read: why.
    Unreadable(String),
}

/// A log that is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UnreadLog {
    /// Its file, or its unit.
    pub(crate) log: String,
    /// absent | unreadable
    pub(crate) state: &'static str,
    /// Why, and what to do about it.
    pub(crate) reason: String,
    /// Since when, wall time.
    pub(crate) since_ms: u64,
}

/// What to do about one that cannot be read.
const NEXT: &str =
    "let the agent's user read it, or take it out of `agent.sensors.logs`; it is tried again with every look";

/// The logs that are not read, by name.
#[derive(Debug, Default)]
pub(crate) struct LogDesk(Mutex<BTreeMap<String, UnreadLog>>);

impl LogDesk {
    /// A log was looked at.
    pub(crate) fn looked(&self, now_ms: u64, log: &str, look: Look) {
        let mut unread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unread.get(log).map(|known| known.state);
        let (state, reason) = match look {
            Look::Read => {
                let known = unread.remove(log);
                if let Some(known) = known.filter(|known| known.state == "unreadable") {
                    let for_s = now_ms.saturating_sub(known.since_ms) / 1000;
                    tracing::info!(log, for_s, "a log is read again");
                }
                return;
            }
            Look::Absent => ("absent", "it is not there (yet)".to_owned()),
            Look::Unreadable(why) => ("unreadable", format!("{why}; next: {NEXT}")),
        };
        if before == Some(state) {
            return;
        }
        if state == "unreadable" {
            tracing::warn!(log, reason, "a log cannot be read: its patterns tell nothing");
        }
        unread.insert(log.to_owned(), UnreadLog { log: log.to_owned(), state, reason, since_ms: now_ms });
    }

    /// For people: what is not read now.
    pub(crate) fn unread(&self) -> Vec<UnreadLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Look {
        Look::Unreadable("permission denied".to_owned())
    }

    #[test]
    fn a_log_that_cannot_be_read_is_known_since_it_could_not_and_until_it_can() {
        let desk = LogDesk::default();
        desk.looked(1_000, "/var/log/kern.log", denied());
        desk.looked(9_000, "/var/log/kern.log", denied());
        desk.looked(9_000, "/var/log/other.log", Look::Read);
        let unread = desk.unread();
        assert_eq!((unread.len(), unread[0].since_ms, unread[0].state), (1, 1_000, "unreadable"), "{unread:?}");
        assert!(unread[0].reason.starts_with("permission denied; next: let the agent's user read it"), "{unread:?}");
        desk.looked(10_000, "/var/log/kern.log", Look::Read);
        assert!(desk.unread().is_empty());
    }

    #[test]
    fn one_that_is_not_there_is_told_apart_from_one_that_may_not_be_read() {
        let desk = LogDesk::default();
        desk.looked(1_000, "a", Look::Absent);
        assert_eq!(desk.unread()[0].state, "absent");
        desk.looked(2_000, "a", denied());
        assert_eq!((desk.unread()[0].state, desk.unread()[0].since_ms), ("unreadable", 2_000));
    }
}

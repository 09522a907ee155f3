//! What clients asked and were told, for the oracle.
//!
//! Owns: the one history of a run. Its times are the run's, not the clients': the stage sets them before each tick.
//!
//! Invariant: a call that has not ended when the run is judged counts as one with an unknown outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_sim_check::oracle::{self, Answer, Call, History, Operation, Outcome};
use tokio::sync::watch;

use super::client::{Changed, Condition, Seen};
use super::content::Value;
use super::standing::{Ended, Standings};

/// How often an operation ended in which way.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Rules that the oracle judges by, with their origin.
pub(crate) const ORACLE_RULES: &[(&str, &str)] = &[
    ("oracle.corrupt", "issue 3: a client is never given bytes that nobody wrote"),
    ("oracle.phantom", "issue 3: nor a content that was refused, not yet put, or put under another key"),
    ("oracle.lost", "issue 3: no acknowledged object is lost"),
    ("oracle.stale", "issue 3: no answer is older than one that was given before (linearizable)"),
    ("oracle.resurrected", "issue 3: what was deleted does not come back"),
    ("oracle.contradiction", "issue 3: conditions are judged by the content as it was"),
    ("oracle.undecided", "a history too tangled to be judged proves nothing"),
];

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

/// An answer as its client saw it, for the rule about what clients notice.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// The node that was asked.
    pub(crate) node: String,
    /// When, in the run's time.
    pub(crate) begin: Duration,
    /// And when it was answered, or given up.
    pub(crate) end: Duration,
    /// The client got what it asked for, or a condition's verdict.
    pub(crate) served: bool,
    /// All of it in words.
    pub(crate) words: String,
}

/// A call that was sent.
struct Pending {
    client: u32,
    node: String,
    begin: Duration,
    call: Call,
}

#[derive(Default)]
struct Inner {
    now: Duration,
    quiet_until: Duration,
    next: u64,
    pending: BTreeMap<CallId, Pending>,
    history: History,
    standings: Standings,
    counts: Counts,
    lines: Vec<(String, String)>,
    answered: Vec<Answered>,
}

/// A handle to the history.
#[derive(Clone)]
pub(crate) struct Notes {
    inner: Arc<Mutex<Inner>>,
    stop: watch::Sender<bool>,
}

impl Notes {
    /// An empty history.
    pub(crate) fn new() -> Notes {
        Notes { inner: Arc::default(), stop: watch::Sender::new(false) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The run's time during the next tick.
    pub(crate) fn set_now(&self, now: Duration) {
        self.with(|inner| inner.now = now);
    }

    /// Clients begin nothing for so long.
    pub(crate) fn be_quiet(&self, length: Duration) {
        self.with(|inner| inner.quiet_until = inner.now + length);
    }

    /// Whether clients are to begin nothing now.
    pub(super) fn is_quiet(&self) -> bool {
        self.with(|inner| inner.now < inner.quiet_until)
    }

    /// Asks the clients to end after their present operation.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Turns true when clients are to end.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// What was said since the last look, for the trace.
    pub(crate) fn take_lines(&self) -> Vec<(String, String)> {
        self.with(|inner| std::mem::take(&mut inner.lines))
    }

    /// Every answer so far.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        self.with(|inner| inner.answered.clone())
    }

    /// How often operations ended in which way.
    pub(crate) fn counts(&self) -> Counts {
        self.with(|inner| inner.counts.clone())
    }

    /// The versions that certainly are the present ones of their keys.
    pub(crate) fn settled(&self) -> BTreeSet<String> {
        self.with(|inner| inner.standings.settled())
    }

    /// What the oracle says of all of it: the rule and what is wrong.
    ///
    /// # Errors
    /// The first answer that no sound store gives.
    pub(crate) fn judge(&self) -> Result<(), (String, String)> {
        self.with(|inner| {
            let now = inner.now;
            for (_, pending) in std::mem::take(&mut inner.pending) {
                let Pending { client, begin, call, .. } = pending;
                inner.history.add(Operation { client, begin, end: now, call, outcome: Outcome::Unknown });
            }
            oracle::judge(&inner.history).map_err(|anomaly| {
                let rule = format!("oracle.{}", format!("{:?}", anomaly.kind).to_lowercase());
                (rule, anomaly.to_string())
            })
        })
    }

    fn begin(&self, client: u64, node: &str, call: Call) -> CallId {
        self.with(|inner| {
            inner.next += 1;
            let id = CallId(inner.next);
            let client = u32::try_from(client).unwrap_or(u32::MAX);
            if let Call::Put { key, .. } | Call::Delete { key } = &call {
                inner.standings.begin(key);
            }
            inner.pending.insert(id, Pending { client, node: node.to_owned(), begin: inner.now, call });
            id
        })
    }

    fn end(&self, id: CallId, what: &str, outcome: Outcome, detail: &str) {
        self.with(|inner| {
            let Some(Pending { client, node, begin, call }) = inner.pending.remove(&id) else { return };
            let end = inner.now;
            match (&call, &outcome) {
                (Call::Put { key, .. }, Outcome::Ok(Answer::Done)) => {
                    inner.standings.end(key, Ended::Stored(detail.to_owned()));
                }
                (Call::Delete { key }, Outcome::Ok(Answer::Done)) => inner.standings.end(key, Ended::Deleted),
                (Call::Put { key, .. } | Call::Delete { key }, Outcome::Unknown) => {
                    inner.standings.end(key, Ended::Unknown);
                }
                (Call::Put { key, .. } | Call::Delete { key }, _) => inner.standings.end(key, Ended::Nothing),
                _ => {}
            }
            *inner.counts.entry(what.to_owned()).or_default() += 1;
            let took = end.saturating_sub(begin).as_millis();
            let line = format!("{} via {node}: {what} after {took} ms {detail}", asked(&call));
            let words = line.trim_end().to_owned();
            inner.lines.push((format!("client{client}"), words.clone()));
            let served = matches!(outcome, Outcome::Ok(_));
            inner.answered.push(Answered { node, begin, end, served, words });
            inner.history.add(Operation { client, begin, end, call, outcome });
        });
    }

    /// A put is about to be sent.
    pub(super) fn put(&self, client: u64, node: &str, key: &str, value: Value, condition: &Condition) -> CallId {
        let condition = match condition {
            Condition::Always => oracle::Condition::Always,
            Condition::IfAbsent => oracle::Condition::Absent,
            Condition::IfVersion { value, .. } => oracle::Condition::Is(value.0),
        };
        self.begin(client, node, Call::Put { key: key.to_owned(), value: value.0, condition })
    }

    /// It has ended.
    pub(super) fn put_ended(&self, id: CallId, changed: &Changed<String>) {
        match changed {
            Changed::Done(version) => self.end(id, "put_ok", Outcome::Ok(Answer::Done), version),
            Changed::ConditionFailed => self.end(id, "put_condition", Outcome::Ok(Answer::Refused), ""),
            Changed::Not(why) => self.end(id, "put_refused", Outcome::Failed, why),
            Changed::Unknown(why) => self.end(id, "put_unknown", Outcome::Unknown, why),
        }
    }

    /// A delete is about to be sent.
    pub(super) fn delete(&self, client: u64, node: &str, key: &str) -> CallId {
        self.begin(client, node, Call::Delete { key: key.to_owned() })
    }

    /// It has ended.
    pub(super) fn delete_ended(&self, id: CallId, changed: &Changed<bool>) {
        match changed {
            Changed::Done(existed) => {
                let detail = if *existed { "it existed" } else { "" };
                self.end(id, "delete_ok", Outcome::Ok(Answer::Done), detail);
            }
            // It had no condition: a node that says so says nothing about what it did.
            Changed::ConditionFailed => {
                self.end(id, "delete_unknown", Outcome::Unknown, "a condition that was not set")
            }
            Changed::Not(why) => self.end(id, "delete_refused", Outcome::Failed, why),
            Changed::Unknown(why) => self.end(id, "delete_unknown", Outcome::Unknown, why),
        }
    }

    /// A read is about to be sent.
    pub(super) fn get(&self, client: u64, node: &str, key: &str) -> CallId {
        self.begin(client, node, Call::Get { key: key.to_owned() })
    }

    /// It has ended.
    pub(super) fn get_ended(&self, id: CallId, seen: &Seen<(Value, String)>) {
        match seen {
            Seen::Found((value, version)) => {
                let answer = Answer::Found { value: Some(value.0) };
                self.end(id, "get_ok", Outcome::Ok(answer), &format!("{:x} {version}", value.0));
            }
            Seen::Absent => self.end(id, "get_absent", Outcome::Ok(Answer::Found { value: None }), ""),
            Seen::Corrupt(why) => self.end(id, "get_corrupt", Outcome::Ok(Answer::Corrupt), why),
            Seen::Refused(why) => self.end(id, "get_refused", Outcome::Unknown, why),
        }
    }

    /// A read has been refused by a cluster that says that all is well.
    pub(super) fn get_failed(&self, id: CallId, why: &str) {
        self.end(id, "get_unreadable", Outcome::Ok(Answer::Unreadable), why);
    }

    /// A listing is about to be asked for.
    pub(super) fn list(&self, client: u64, node: &str, prefix: &str) -> CallId {
        self.begin(client, node, Call::List { prefix: prefix.to_owned() })
    }

    /// It has ended.
    pub(super) fn list_ended(&self, id: CallId, seen: &Seen<Vec<String>>) {
        match seen {
            Seen::Found(keys) => {
                let listed: BTreeMap<String, Option<u64>> = keys.iter().map(|key| (key.clone(), None)).collect();
                let detail = format!("{} keys", keys.len());
                self.end(id, "list_ok", Outcome::Ok(Answer::Listed { keys: listed }), &detail);
            }
            // The bucket is there: it was made before the first client began.
            Seen::Absent => self.end(id, "list_corrupt", Outcome::Ok(Answer::Corrupt), "no such bucket"),
            Seen::Corrupt(why) => self.end(id, "list_corrupt", Outcome::Ok(Answer::Corrupt), why),
            Seen::Refused(why) => self.end(id, "list_refused", Outcome::Unknown, why),
        }
    }
}

/// A call on one line.
fn asked(call: &Call) -> String {
    match call {
        Call::Put { key, value, condition: oracle::Condition::Always } => format!("put {key} {value:x}"),
        Call::Put { key, value, condition } => format!("put {key} {value:x} if {condition:?}"),
        Call::Get { key } => format!("get {key}"),
        Call::Delete { key } => format!("delete {key}"),
        Call::List { prefix } => format!("list {prefix}"),
    }
}

//! The history itself: operations with the time between which each took effect, if it did.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A key of the bucket.
pub type Key = String;

/// A content, by name: no two puts have the same.
pub type Value = u64;

/// What must hold for a put to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such object (`If-None-Match: *`).
    Absent,
    /// The object holds this value (`If-Match` with its ETag).
    Is(Value),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Store a value. Completing a multipart upload is one, too.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// If what holds.
        condition: Condition,
    },
    /// Read a value.
    Get {
        /// Where.
        key: Key,
    },
    /// Remove the object, if there is one.
    Delete {
        /// Where.
        key: Key,
    },
    /// Read all values under a prefix at once.
    List {
        /// What their keys begin with.
        prefix: String,
    },
}

impl Call {
    /// Whether it touches or shows this key.
    pub fn concerns(&self, other: &str) -> bool {
        match self {
            Self::Put { key, .. } | Self::Get { key } | Self::Delete { key } => key == other,
            Self::List { prefix } => other.starts_with(prefix),
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The put or delete is done.
    Done,
    /// The put's condition did not hold.
    Refused,
    /// The value read; `None`: no such object.
    Found(Option<Value>),
    /// The values listed. What is missing is absent.
    Listed(BTreeMap<Key, Value>),
}

/// How an operation ended, as its client can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Ok(Answer),
    /// It certainly did nothing, for a reason that says nothing about the objects: it was never sent, say.
    Failed,
    /// Nobody can say: it may have taken effect at any time after it began, or may yet, or never.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub client: usize,
    /// When it was sent.
    pub begin: Duration,
    /// When its answer was there, or was given up.
    pub end: Duration,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The keys it names: asked for, or found in a listing.
    pub(super) fn names(&self) -> Vec<&Key> {
        match (&self.call, &self.outcome) {
            (Call::Put { key, .. } | Call::Get { key } | Call::Delete { key }, _) => vec![key],
            (Call::List { .. }, Outcome::Ok(Answer::Listed(found))) => found.keys().collect(),
            (Call::List { .. }, _) => Vec::new(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:>8.4} {:>8.4}] c{}: ", self.begin.as_secs_f64(), self.end.as_secs_f64(), self.client)?;
        match &self.call {
            Call::Put { key, value, condition: Condition::Always } => write!(f, "put {key} = {value}")?,
            Call::Put { key, value, condition: Condition::Absent } => write!(f, "put {key} = {value} if absent")?,
            Call::Put { key, value, condition: Condition::Is(seen) } => write!(f, "put {key} = {value} if {seen}")?,
            Call::Get { key } => write!(f, "get {key}")?,
            Call::Delete { key } => write!(f, "delete {key}")?,
            Call::List { prefix } => write!(f, "list {prefix}")?,
        }
        match &self.outcome {
            Outcome::Ok(Answer::Done) => f.write_str(" -> done"),
            Outcome::Ok(Answer::Refused) => f.write_str(" -> condition does not hold"),
            Outcome::Ok(Answer::Found(Some(value))) => write!(f, " -> {value}"),
            Outcome::Ok(Answer::Found(None)) => f.write_str(" -> absent"),
            Outcome::Ok(Answer::Listed(found)) => write!(f, " -> {found:?}"),
            Outcome::Failed => f.write_str(" -> not done"),
            Outcome::Unknown => f.write_str(" -> unknown"),
        }
    }
}

/// Operations in any order: their times say what came before what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All of them.
    pub operations: Vec<Operation>,
}

/// Takes down what many clients do at once, on one clock.
#[derive(Debug)]
pub struct Recorder {
    epoch: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { epoch: Instant::now(), operations: Mutex::default() }
    }
}

impl Recorder {
    /// Since the recorder was made: to be asked right before a request is sent.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Takes down an operation that has just ended.
    pub fn ended(&self, client: usize, begin: Duration, call: Call, outcome: Outcome) {
        let operation = Operation { client, begin, end: self.now(), call, outcome };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Everything so far.
    pub fn history(&self) -> History {
        History { operations: self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

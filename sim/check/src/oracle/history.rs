//! What clients did, in their own words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

/// An object's name: bucket and key, as the client writes it.
pub type Key = String;

/// Stands for an object's content. Unique to one put.
pub type Value = u64;

/// What must be true for a put to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no object (If-None-Match: *).
    Absent,
    /// The object has this content (If-Match).
    Is(Value),
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "call")]
#[allow(missing_docs)] // The fields are keys and values.
pub enum Call {
    /// Write an object.
    Put { key: Key, value: Value, condition: Condition },
    /// Read an object.
    Get { key: Key },
    /// Delete an object.
    Delete { key: Key },
    /// List all objects whose key begins so.
    List { prefix: String },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
#[allow(missing_docs)] // As above.
pub enum Answer {
    /// The put or delete is done.
    Done,
    /// The put's condition did not hold; nothing was done.
    Refused,
    /// The object's content; `None`: there is no object.
    Found { value: Option<Value> },
    /// Bytes that no client ever wrote under any key.
    Corrupt,
    /// The object is there, and cannot be read. Only ever an answer of a cluster that had the time to heal.
    Unreadable,
    /// Keys with their contents, where the listing tells them.
    Listed { keys: BTreeMap<Key, Option<Value>> },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Ok(Answer),
    /// Certainly without any effect.
    Failed,
    /// Nobody knows. It may take effect later, too.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Whose.
    pub client: u32,
    /// When it was sent.
    pub begin: Duration,
    /// When its answer came.
    pub end: Duration,
    /// What was asked.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
}

/// All operations of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// An operation is over.
    pub fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// What an object was found to be when all was over, by one client that waited for every answer.
    pub fn read_back(&mut self, at: Duration, key: &str, answer: Answer) {
        let call = Call::Get { key: key.to_owned() };
        self.add(Operation { client: u32::MAX, begin: at, end: at, call, outcome: Outcome::Ok(answer) });
    }

    /// All of them, in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Every key that a client ever wrote, deleted or read: what has to be read back in the end.
    pub fn keys(&self) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for operation in &self.operations {
            match &operation.call {
                Call::Put { key, .. } | Call::Get { key } | Call::Delete { key } => {
                    keys.insert(key.clone());
                }
                Call::List { .. } => {}
            }
            if let Outcome::Ok(Answer::Listed { keys: listed }) = &operation.outcome {
                keys.extend(listed.keys().cloned());
            }
        }
        keys
    }
}

//! The journal's records: their shape, and the hash chain over them.
//!
//! Owns: what a line of the journal says. Must never: write one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{IncidentId, Subject};
use crate::types::{Action, Grade, GuardName, Mode};

/// Version of the record's schema.
pub const SCHEMA: u32 = 1;

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A step is about to be done.
    Intent,
    /// A step ended.
    Outcome,
    /// After a crash: what became of a step that had an intent and no outcome.
    Reconciled,
    /// A guard held a step back.
    Refused,
    /// An incident was opened.
    Opened,
    /// An incident's proof held.
    Resolved,
    /// An incident needs a person.
    Escalated,
    /// Anything else worth a line (a pause, the agent's start).
    Note,
}

/// A guard's answer with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GuardResult {
    /// Which.
    pub guard: GuardName,
    /// Whether it let the step pass.
    pub passed: bool,
    /// The numbers it judged by.
    pub evidence: String,
}

/// A record as the engine drafts it; the journal adds sequence, time and chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Draft {
    /// Kind of line.
    pub kind: RecordKind,
    /// What is done or was decided.
    pub action: Action,
    /// Of which incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub incident: Option<IncidentId>,
    /// Its mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How invasive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grade: Option<Grade>,
    /// The step's id, pairing intent and outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// All guards that were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardResult>,
    /// Raft term and index as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_term: Option<u64>,
    /// Raft index as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The epoch of the metadata that the term is of: another one begins its own count of terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How long the step took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What applies of: node_id, node_ids, disk_id, reason (the mode), pid, resolution, from, to, guard, evidence,
    /// fence, backup_path. And of those that the agent needs to go on after its own restart: bucket, key, signature,
    /// initial, again, attempt, disruptive, with (what the action needs beside its subject), owner, expires_ms. Of a cascade: pattern (in the record that counts it),
    /// initial_failure, severity; of what is folded under one: folded_under. Of a step that is passed over: skipped (its action).
    /// Of an approval: to, owner, token_sha256.
    #[serde(default)]
    #[schemars(schema_with = "details_schema")]
    pub details: BTreeMap<String, serde_json::Value>,
}

/// The details that operators of the field know by name, with their types. Others may come with any version: readers leave
/// alone what they do not know.
fn details_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let texts = [
        ("node_id", "The node it is about"),
        ("disk_id", "The disk"),
        ("bucket", "The bucket"),
        ("key", "The object's key"),
        ("reason", "The failure mode; of a pause, and of an operator's step: why"),
        ("resolution", "How it ended: done, failed, refused, would have, …"),
        ("from", "What it was before, or who asked"),
        ("to", "What it is to be, or what is asked for"),
        ("guard", "The guard that refused"),
        ("evidence", "What was seen, with numbers"),
        ("fence", "EPOCH.ROUND.HOLDER: under which the step is done"),
        ("backup_path", "Where what the step moved aside is kept"),
        ("hangs", "Of a deadlock that is found: process, operations and locks as they were"),
        ("owner", "The person"),
        ("signature", "What a crash is known by"),
        ("with", "What the action needs beside its subject"),
        ("pattern", "The pattern of a cascade"),
        ("severity", "critical or emergency"),
        ("folded_under", "The incident that it is part of"),
        ("token_sha256", "The hash of an approval's token; the token itself is nowhere"),
        ("cluster", "The cluster's id"),
    ];
    let numbers = [
        ("pid", "The process"),
        ("attempt", "Which attempt, from 1"),
        ("expires_ms", "Until when, milliseconds since the Unix epoch"),
        ("observed_ms", "For how long the cluster is known"),
    ];
    let flags = [
        ("initial", "The node's first start, no crash"),
        ("disruptive", "It can take something away"),
        ("again", "It was done before, and is done anew because the node shows it no more"),
    ];
    let mut known = serde_json::Map::new();
    let mut add = |name: &str, kind: &str, says: &str| {
        known.insert(name.to_owned(), serde_json::json!({ "type": kind, "description": says }));
    };
    texts.iter().for_each(|(name, says)| add(name, "string", says));
    numbers.iter().for_each(|(name, says)| add(name, "integer", says));
    flags.iter().for_each(|(name, says)| add(name, "boolean", says));
    known.insert(
        "node_ids".to_owned(),
        serde_json::json!({ "type": "array", "items": { "type": "string" }, "description": "Several nodes" }),
    );
    schemars::json_schema!({ "type": "object", "properties": known, "additionalProperties": true })
}

/// How the resolution of an incident begins whose proof held.
pub const PROVEN: &str = "proven: ";

impl Draft {
    /// A draft that says only what kind of line it is and what is done.
    pub fn new(kind: RecordKind, action: Action) -> Self {
        Self {
            kind,
            action,
            incident: None,
            mode: None,
            grade: None,
            step: None,
            guards: Vec::new(),
            raft_term: None,
            raft_index: None,
            epoch: None,
            duration_ms: None,
            details: BTreeMap::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Adds what names a subject: `node_id`, `disk_id`, `bucket` and `key`.
    #[must_use]
    pub fn about(self, subject: &Subject) -> Self {
        match subject {
            Subject::Node(node) => self.with("node_id", node.as_str()),
            Subject::Disk { disk, node } => self.with("node_id", node.as_str()).with("disk_id", disk.as_str()),
            Subject::Object { bucket, key } => self.with("bucket", bucket.as_str()).with("key", key.as_str()),
            Subject::Hosts(hosts) => self.with("node_ids", hosts.clone()),
        }
    }

    /// The subject that the details name, if they name one.
    pub fn subject(&self) -> Option<Subject> {
        let text = |name: &str| self.text(name).map(str::to_owned);
        if let Some(hosts) = self.details.get("node_ids").and_then(serde_json::Value::as_array) {
            return Some(Subject::Hosts(hosts.iter().filter_map(|host| host.as_str().map(str::to_owned)).collect()));
        }
        match (text("bucket"), text("key"), text("disk_id"), text("node_id")) {
            (Some(bucket), Some(key), _, _) => Some(Subject::Object { bucket, key }),
            (_, _, Some(disk), Some(node)) => Some(Subject::Disk { disk, node }),
            (_, _, None, Some(node)) => Some(Subject::Node(node)),
            _ => None,
        }
    }

    /// A detail that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.details.get(name).and_then(serde_json::Value::as_str)
    }
}

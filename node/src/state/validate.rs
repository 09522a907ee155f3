//! Looks through the whole state for what should not be so.
//!
//! Owns: the rules, judged in one read transaction, as of one applied index. Must never: change anything; take a total for
//! granted: whatever is counted is counted anew. It looks at the metadata only: what lies on disks is `verify`'s.

use std::collections::BTreeSet;

use redb::ReadTransaction;

use super::counts::Counts;
use super::tables::{CLUSTER, FORBIDDEN, LOCKS, OBJECTS, VERSIONS, split_object_key, unseal, version_key};
use super::{State, StateError, read_memory};
use crate::model::{ClusterMap, ObjectRecord, UPLOADS_BUCKET};
use crate::types::DiskId;

/// Findings told in full; more are counted.
const MAX_FINDINGS: usize = 1_000;

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFinding {
    /// Which rule: `map`, `unreadable`, `under_replicated`, `placement`, `reference`, `forbidden`, `totals`.
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// What was found.
    pub detail: String,
    /// What a person does about it.
    pub next: &'static str,
    /// The metadata contradicts itself; otherwise it says truly that something is missing.
    pub contradiction: bool,
}

/// What a look through the state came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// As of which entry.
    pub applied: u64,
    /// Objects and parts looked at.
    pub objects: u64,
    /// Shards they have.
    pub shards: u64,
    /// What was found, the first of them.
    pub findings: Vec<StateFinding>,
    /// How many more there are.
    pub more: u64,
}

impl Validation {
    fn found(&mut self, kind: &'static str, subject: impl Into<String>, detail: String) {
        if self.findings.len() >= MAX_FINDINGS {
            self.more += 1;
            return;
        }
        let (next, contradiction) = match kind {
            "unreadable" => {
                ("bring back the disks or nodes that hold it: `resilver disk list`, `resilver node list`", false)
            }
            "under_replicated" => ("repair brings it back: `resilver repair status`, `resilver repair start`", false),
            "placement" => ("`resilver object repair` places it anew", false),
            _ => (
                "metadata that contradicts itself: compare `resilver meta backup --local` of each voter, and report it",
                true,
            ),
        };
        self.findings.push(StateFinding { kind, subject: subject.into(), detail, next, contradiction });
    }
}

impl State {
    /// Looks through everything. Takes as long as reading every record once.
    ///
    /// # Errors
    /// When a record cannot be read at all.
    pub async fn validate(&self) -> Result<Validation, StateError> {
        self.read(validate).await
    }
}

fn validate(txn: &ReadTransaction) -> Result<Validation, StateError> {
    let memory = read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)?;
    let mut found =
        Validation { applied: memory.applied.as_ref().map_or(0, |applied| applied.index), ..Validation::default() };
    judge_map(&memory.map, memory.next_raft_id, &mut found);
    let objects = txn.open_table(OBJECTS)?;
    let (versions, forbidden) = (txn.open_table(VERSIONS)?, txn.open_table(FORBIDDEN)?);
    let mut counted = Counts::default();
    for entry in objects.range::<&[u8]>(..)? {
        let (key, value) = entry?;
        let record: ObjectRecord = unseal("objects", value.value())?;
        let (bucket, name) = split_object_key(key.value())?;
        let subject = format!("{bucket}/{name}");
        found.objects += 1;
        found.shards += record.extents.iter().map(|extent| extent.homes.len() as u64).sum::<u64>();
        match bucket {
            UPLOADS_BUCKET => counted.parts += 1,
            _ => counted.add_object(),
        }
        counted.add_shards(&record);
        judge_object(&memory.map, &subject, &record, &mut found);
        for version in record.versions() {
            let owner = versions.get(version_key(version).as_slice())?;
            if owner.as_ref().map(|owner| owner.value()) != Some(key.value()) {
                found.found("reference", &subject, format!("version {version} is not known as one of this object's"));
            }
            if forbidden.get(version_key(version).as_slice())?.is_some() {
                found.found("forbidden", &subject, format!("version {version} is live, and was given up"));
            }
        }
    }
    for entry in versions.range::<&[u8]>(..)? {
        let owner = entry?.1;
        if objects.get(owner.value())?.is_none() {
            let (bucket, name) = split_object_key(owner.value())?;
            found.found(
                "reference",
                format!("{bucket}/{name}"),
                "a version points to this object, and it is not there".to_owned(),
            );
        }
    }
    if counted != memory.totals.counts {
        let detail = format!("counted {counted:?}, and the totals say {:?}", memory.totals.counts);
        found.found("totals", "the totals", detail);
    }
    Ok(found)
}

fn judge_map(map: &ClusterMap, next_raft_id: u64, found: &mut Validation) {
    let mut ids = BTreeSet::new();
    for node in map.nodes.values() {
        let subject = format!("node {}", node.name);
        if !ids.insert(node.raft_id) {
            found.found("map", &subject, format!("member {} is another node as well", node.raft_id));
        }
        if node.raft_id.0 >= next_raft_id {
            found.found(
                "map",
                &subject,
                format!("member {} was never given out: the next is {next_raft_id}", node.raft_id),
            );
        }
    }
    for (id, removed) in map.removed.iter().filter(|(id, _)| ids.contains(*id)) {
        found.found("map", format!("member {id}"), format!("it is a node, and was removed as node {}", removed.name));
    }
    for disk in map.disks.values().filter(|disk| !map.nodes.contains_key(&disk.node)) {
        found.found("map", format!("disk {}", disk.id), format!("its node {} is not in the cluster", disk.node));
    }
}

fn judge_object(map: &ClusterMap, subject: &str, record: &ObjectRecord, found: &mut Validation) {
    let (k, total) = (usize::from(record.coding.k), record.coding.total());
    for extent in &record.extents {
        let at: Vec<DiskId> = extent.homes.iter().filter_map(|home| home.at).collect();
        if extent.homes.len() != total {
            let detail = format!("extent {} has {} places for {total} shards", extent.id, extent.homes.len());
            found.found("reference", subject, detail);
        }
        for disk in at.iter().filter(|disk| !map.disks.contains_key(disk)) {
            found.found(
                "reference",
                subject,
                format!("extent {} has a shard on disk {disk}, which nobody has", extent.id),
            );
        }
        if at.iter().collect::<BTreeSet<_>>().len() != at.len() {
            found.found("placement", subject, format!("extent {} has two shards on one disk", extent.id));
        }
        let readable = at.iter().filter(|disk| map.readable(**disk)).count();
        if readable < k {
            let detail = format!("extent {} has {readable} shards that can be read, and needs {k}", extent.id);
            found.found("unreadable", subject, detail);
        } else if readable < total {
            let detail = format!("extent {} has {readable} of {total} shards that can be read", extent.id);
            found.found("under_replicated", subject, detail);
        }
    }
}

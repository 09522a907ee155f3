//! `disk list|status|fail|drain|add|replace|remove|smart`.

use std::collections::BTreeMap;

use clap::Subcommand;
use resilver_proto::contract::DiskState;
use resilver_proto::store::DiskStatus;
use serde::Serialize;

use super::context::Context;
use super::{disk_change, smart};
use crate::agents::DiskWord;
use crate::exit::{Code, Failure};
use crate::output::{Table, bytes, cell, known, rfc3339};

/// Verbs of disks.
#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// All disks
    List {
        /// Also: node, folder and reason
        #[arg(long)]
        wide: bool,
    },
    /// The disks of one node; exits 3 when one is not well
    Status {
        /// The node's name
        node: String,
        /// Also: node, folder and reason
        #[arg(long)]
        wide: bool,
    },
    /// Give a disk up that fails: its shards are rebuilt elsewhere, and it is not read any more
    Fail(disk_change::FailArgs),
    /// Empty a disk that works: its shards move elsewhere, are read back there, and only then it is given up
    Drain(disk_change::DrainArgs),
    /// Take a folder into service as a disk, without a restart; an empty one becomes a new disk, one with data is refused
    #[command(visible_alias = "init")]
    Add(disk_change::AddArgs),
    /// Put a new disk in the place of one that is gone
    Replace(disk_change::ReplaceArgs),
    /// Forget a disk that is out and empty
    Remove(disk_change::RemoveArgs),
    /// What the output of `smartctl` says of a disk; exits 0 for whatever that can print
    Smart(smart::SmartArgs),
}

/// A line of `disk list`.
#[derive(Debug, Serialize)]
pub(crate) struct DiskRow {
    disk: String,
    node: String,
    path: String,
    state: String,
    health: Option<String>,
    pub(crate) used_bytes: u64,
    total_bytes: Option<u64>,
    objects: u64,
    errors: u64,
    /// The disk's own word, as its agent says; none when it does not.
    smart: Option<String>,
    smart_reasons: Vec<String>,
    smart_sampled: Option<String>,
    reason: Option<String>,
    #[serde(skip)]
    shown: String,
}

impl DiskRow {
    /// From the cluster's status.
    pub(crate) fn of(disk: &DiskStatus) -> Self {
        Self {
            disk: disk.disk_id.clone(),
            node: disk.node.clone(),
            path: disk.path.clone(),
            state: disk.state.clone(),
            health: known(&disk.health),
            used_bytes: disk.used_bytes,
            total_bytes: (disk.total_bytes > 0).then_some(disk.total_bytes),
            objects: disk.objects,
            errors: disk.errors,
            smart: None,
            smart_reasons: Vec::new(),
            smart_sampled: None,
            reason: known(&disk.reason),
            shown: state_of(disk),
        }
    }

    /// From a node's look at its own.
    pub(crate) fn of_own(disk: &DiskState) -> Self {
        let status = DiskStatus {
            disk_id: disk.disk_id.clone(),
            path: disk.path.clone(),
            node: disk.node.clone(),
            state: disk.state.clone(),
            health: disk.health.clone(),
            used_bytes: disk.used_bytes,
            total_bytes: disk.used_bytes + disk.available_bytes,
            objects: disk.objects,
            errors: disk.errors,
            reason: disk.reason.clone(),
        };
        Self::of(&status)
    }
}

/// Fills in what the agents say; a disk of which they say nothing keeps none.
pub(crate) fn add_smart(rows: &mut [DiskRow], words: &BTreeMap<String, DiskWord>) {
    for row in rows {
        let Some(word) = words.get(&row.disk) else { continue };
        row.smart = Some(word.verdict.clone());
        row.smart_reasons.clone_from(&word.reasons);
        row.smart_sampled = word.sampled_ms.and_then(rfc3339);
    }
}

/// What the agents say of all disks; nothing where no agent is named or none answers in time.
pub(crate) async fn smart_words(cx: &Context) -> BTreeMap<String, DiskWord> {
    match cx.agents().await {
        Ok(agents) => agents.smart().await,
        Err(_) => BTreeMap::new(),
    }
}

/// What the cluster lets a disk do, or what is wrong with it when that is more: a disk that is `up` in the map and gone
/// in the machine is gone.
pub(crate) fn state_of(disk: &DiskStatus) -> String {
    match (disk.state.as_str(), disk.health.as_str()) {
        ("up", "" | "ok" | "-") | (_, "" | "ok" | "-") => disk.state.clone(),
        ("up", health) => health.to_owned(),
        (state, _) => state.to_owned(),
    }
}

/// Whether nothing is to be said about a disk. One that is out was dealt with: its shards live elsewhere.
pub(crate) fn is_well(disk: &DiskStatus) -> bool {
    matches!(state_of(disk).as_str(), "up" | "out")
}

/// The columns of `disk list`.
pub(crate) fn table(rows: &[DiskRow], wide: bool) -> String {
    let common = |row: &DiskRow| {
        [
            row.disk.clone(),
            row.shown.clone(),
            bytes(row.used_bytes),
            row.objects.to_string(),
            row.errors.to_string(),
            cell(row.smart.clone()),
        ]
    };
    if !wide {
        let mut table = Table::new(["DISK", "STATE", "USED", "OBJECTS", "ERRORS", "SMART"]);
        rows.iter().for_each(|row| table.row(common(row)));
        return table.render();
    }
    let mut table = Table::new(["DISK", "STATE", "USED", "OBJECTS", "ERRORS", "SMART", "NODE", "PATH", "REASON"]);
    for row in rows {
        let [disk, state, used, objects, errors, smart] = common(row);
        let reason = cell(row.reason.clone());
        table.row([disk, state, used, objects, errors, smart, row.node.clone(), row.path.clone(), reason]);
    }
    table.render()
}

impl DiskVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            DiskVerb::List { wide } => list(cx, None, wide).await,
            DiskVerb::Status { node, wide } => {
                cx.found().await?.member(&node)?;
                list(cx, Some(&node), wide).await
            }
            DiskVerb::Fail(args) => disk_change::fail(cx, args).await,
            DiskVerb::Drain(args) => disk_change::drain(cx, args).await,
            DiskVerb::Add(args) => disk_change::add(cx, args).await,
            DiskVerb::Replace(args) => disk_change::replace(cx, args).await,
            DiskVerb::Remove(args) => disk_change::remove(cx, args).await,
            DiskVerb::Smart(args) => smart::run(cx, args).await,
        }
    }
}

async fn list(cx: &Context, only: Option<&str>, wide: bool) -> Result<Code, Failure> {
    // Side by side: an agent that is silent takes no time from a list that its node does not need.
    let (status, words) = tokio::join!(async { cx.nodes().await?.status().await }, smart_words(cx));
    let status = status?;
    let mut disks: Vec<&DiskStatus> =
        status.disks.iter().filter(|disk| only.is_none_or(|node| disk.node == node)).collect();
    disks.sort_by(|a, b| (&a.node, &a.path).cmp(&(&b.node, &b.path)));
    let well = disks.iter().all(|disk| is_well(disk));
    let mut rows: Vec<DiskRow> = disks.into_iter().map(DiskRow::of).collect();
    add_smart(&mut rows, &words);
    cx.out.show(&rows, |rows| table(rows, wide))?;
    Ok(if well || only.is_none() { Code::Ok } else { Code::Degraded })
}

//! `object put|get|list|delete|verify|repair`.

use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use resilver_node::model::MAX_KEY_BYTES;
use resilver_proto::store::{
    DeleteRequest, ListRequest, ListResponse, ObjectInfo, RepairRequest, RepairResponse, ShardStatus, VerifyRequest,
    VerifyResponse,
};
use serde::Serialize;

use super::context::Context;
use super::transfer;
use crate::client::{CHANGE_DEADLINE, Node, Nodes, within};
use crate::exit::{Code, Failure};
use crate::output::{Format, Table, bytes, cell, known, rfc3339};

/// How long one object may take to be read from its disks: the largest at a slow disk's speed.
pub(crate) const VERIFY_DEADLINE: Duration = Duration::from_secs(600);
/// How long a repair of one object may take: reading, decoding and writing it.
const REPAIR_DEADLINE: Duration = Duration::from_secs(1800);
/// Objects per page of a listing: S3's own limit.
pub(crate) const PAGE: u32 = 1000;

/// `BUCKET/KEY`: a bucket's name has no slash, a key may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectPath {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

impl FromStr for ObjectPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                if key.len() > MAX_KEY_BYTES {
                    return Err(format!("the key has {} bytes, at most {MAX_KEY_BYTES} are allowed", key.len()));
                }
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(format!("`{text}` names no object: write BUCKET/KEY, for example photos/2024/cat.jpg")),
        }
    }
}

impl std::fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// Verbs of objects.
#[derive(Debug, Subcommand)]
pub(crate) enum ObjectVerb {
    /// Store a file, or standard input
    Put {
        #[arg(value_name = "BUCKET/KEY")]
        object: ObjectPath,
        /// The file; `-` is standard input
        #[arg(value_name = "FILE")]
        from: String,
        /// Only when there is no such object yet
        #[arg(long)]
        if_absent: bool,
    },
    /// Fetch an object into a file, or onto standard output
    Get {
        #[arg(value_name = "BUCKET/KEY")]
        object: ObjectPath,
        /// The file; `-` is standard output
        #[arg(value_name = "FILE")]
        to: String,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Objects of a bucket, by key
    List {
        #[arg(value_name = "BUCKET[/PREFIX]")]
        place: String,
        /// At most this many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Delete an object
    Delete {
        #[arg(value_name = "BUCKET/KEY")]
        object: ObjectPath,
    },
    /// Read an object from its disks, shard by shard; exits 3 when damaged but recoverable, 1 when not
    Verify {
        #[arg(value_name = "BUCKET/KEY")]
        object: ObjectPath,
    },
    /// Rebuild an object's damaged and missing shards now
    Repair {
        #[arg(value_name = "BUCKET/KEY")]
        object: ObjectPath,
        /// Also replace shards that are as they were written and not what the object's content demands (`verify --full` finds
        /// them); refused where the content's checksum does not tell which are right
        #[arg(long)]
        full: bool,
    },
}

impl ObjectVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            ObjectVerb::Put { object, from, if_absent } => transfer::put(cx, object, &from, if_absent).await,
            ObjectVerb::Get { object, to, force } => transfer::get(cx, object, &to, force).await,
            ObjectVerb::List { place, limit } => list(cx, &place, limit.unwrap_or(usize::MAX)).await,
            ObjectVerb::Delete { object } => delete(cx, object).await,
            ObjectVerb::Verify { object } => verify(cx, object).await,
            ObjectVerb::Repair { object, full } => repair_object(cx, object, full).await,
        }
    }
}

/// An object as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct ObjectRow {
    bucket: String,
    key: String,
    size_bytes: u64,
    version: String,
    crc32c: String,
    modified: Option<String>,
    coding: Option<String>,
    extents: u32,
    shards_missing: u32,
}

impl ObjectRow {
    fn of(info: ObjectInfo) -> Self {
        Self {
            bucket: info.bucket,
            key: info.key,
            size_bytes: info.size_bytes,
            version: info.version,
            crc32c: format!("{:08x}", info.crc32c),
            modified: rfc3339(info.modified_ms),
            coding: info.coding.map(|coding| format!("{}+{}", coding.k, coding.m)),
            extents: info.extents,
            shards_missing: info.shards_missing,
        }
    }
}

/// One page of a bucket, after the key `after`.
pub(crate) async fn page(nodes: &Nodes, bucket: &str, prefix: &str, after: &str) -> Result<ListResponse, Failure> {
    nodes
        .ask("list the objects", async |node: Node| {
            let (bucket, prefix, after) = (bucket.to_owned(), prefix.to_owned(), after.to_owned());
            node.store().list(ListRequest { bucket, prefix, after, limit: PAGE }).await
        })
        .await
}

async fn list(cx: &Context, place: &str, limit: usize) -> Result<Code, Failure> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let nodes = cx.nodes().await?;
    let mut rows: Vec<ObjectRow> = Vec::new();
    let mut after = String::new();
    loop {
        let page = page(&nodes, bucket, prefix, &after).await?;
        let Some(last) = page.objects.last() else { break };
        after.clone_from(&last.key);
        rows.extend(page.objects.into_iter().map(ObjectRow::of));
        if !page.truncated || rows.len() >= limit {
            break;
        }
    }
    rows.truncate(limit);
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["KEY", "SIZE", "MODIFIED", "CODING", "MISSING"]);
        for row in rows {
            table.row([
                row.key.clone(),
                bytes(row.size_bytes),
                cell(row.modified.clone()),
                cell(row.coding.clone()),
                row.shards_missing.to_string(),
            ]);
        }
        table.render()
    })?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct Deleted {
    bucket: String,
    key: String,
    existed: bool,
}

async fn delete(cx: &Context, object: ObjectPath) -> Result<Code, Failure> {
    // Once, to one node: a delete repeated blindly could take away what somebody put in between.
    let node = cx.nodes().await?.serving("delete the object").await?;
    let request = DeleteRequest { bucket: object.bucket.clone(), key: object.key.clone(), if_version: String::new() };
    let answer = within(CHANGE_DEADLINE, async { node.store().delete(request).await })
        .await
        .map_err(|status| Failure::from_status("delete the object", &node.name, &status))?;
    let deleted = Deleted { bucket: object.bucket, key: object.key, existed: answer.existed };
    cx.out.show(&deleted, |deleted| {
        let what = if deleted.existed { "deleted" } else { "there was no such object" };
        format!("{}/{}: {what}\n", deleted.bucket, deleted.key)
    })?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct ShardRow {
    extent: u32,
    shard: u32,
    node: Option<String>,
    disk: Option<String>,
    state: String,
    crc_expected: Option<String>,
    crc_got: Option<String>,
    detail: Option<String>,
}

#[derive(Serialize)]
struct VerifyView {
    object: Option<ObjectRow>,
    shards: Vec<ShardRow>,
    intact: bool,
    recoverable: bool,
}

/// Reads one object back, shard by shard, from its disks.
pub(crate) async fn verify_object(nodes: &Nodes, object: &ObjectPath, full: bool) -> Result<VerifyResponse, Failure> {
    let request = || VerifyRequest { bucket: object.bucket.clone(), key: object.key.clone(), full };
    nodes
        .ask_within(VERIFY_DEADLINE, "verify the object", async |node: Node| node.store().verify(request()).await)
        .await
}

async fn verify(cx: &Context, object: ObjectPath) -> Result<Code, Failure> {
    let answer = verify_object(&cx.nodes().await?, &object, false).await?;
    let view = VerifyView {
        intact: answer.intact,
        recoverable: answer.recoverable,
        object: answer.object.map(ObjectRow::of),
        shards: answer.shards.iter().map(ShardRow::of).collect(),
    };
    cx.out.show(&view, VerifyView::text)?;
    Ok(match (view.intact, view.recoverable) {
        (true, _) => Code::Ok,
        (false, true) => Code::Degraded,
        (false, false) => Code::Failed,
    })
}

impl ShardRow {
    fn of(shard: &ShardStatus) -> Self {
        // A checksum says something only about bytes that were read; for a good shard a node may not name it.
        let corrupt = shard.state == "corrupt";
        let named = (corrupt && (shard.crc_expected, shard.crc_got) != (0, 0))
            || (shard.state == "ok" && shard.crc_expected != 0);
        let crc = |crc: u32| named.then(|| format!("{crc:08x}"));
        Self {
            extent: shard.extent,
            shard: shard.shard,
            node: known(&shard.node),
            disk: known(&shard.disk_id),
            state: shard.state.clone(),
            crc_expected: crc(shard.crc_expected),
            crc_got: crc(if corrupt { shard.crc_got } else { shard.crc_expected }),
            detail: known(&shard.detail),
        }
    }

    fn verdict(&self) -> String {
        let crc = |crc: &Option<String>| cell(crc.clone());
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        match self.state.as_str() {
            // Without a value: every block's checksum held.
            "ok" => format!("OK ({})", self.crc_expected.as_deref().unwrap_or("crc")),
            // No checksum at all: it could not be read, and the reason says why.
            "corrupt" if self.crc_expected.is_none() => format!("CORRUPT{detail}"),
            "corrupt" => format!("CORRUPT (expected {}, got {})", crc(&self.crc_expected), crc(&self.crc_got)),
            other => format!("{}{detail}", other.to_uppercase()),
        }
    }
}

impl VerifyView {
    fn text(&self) -> String {
        let mut table = Table::new(["EXTENT", "SHARD", "NODE", "DISK", "STATE"]);
        for row in &self.shards {
            let (node, disk) = (cell(row.node.clone()), cell(row.disk.clone()));
            table.row([row.extent.to_string(), row.shard.to_string(), node, disk, row.verdict()]);
        }
        let mut out = table.render();
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        // Writing into a String cannot fail.
        let _ = writeln!(out, "\nintact: {}\nrecoverable: {}", yes(self.intact), yes(self.recoverable));
        out
    }
}

#[derive(Serialize)]
struct RepairedRow {
    extent: u32,
    shard: u32,
    rebuilt_from: Vec<u32>,
    placed_on: Option<String>,
    node: Option<String>,
    state: String,
    detail: Option<String>,
}

#[derive(Serialize)]
struct RepairView {
    shards: Vec<RepairedRow>,
    intact: bool,
}

pub(crate) async fn repair_object(cx: &Context, object: ObjectPath, full: bool) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("repair the object").await?;
    let request = RepairRequest { bucket: object.bucket.clone(), key: object.key.clone(), full };
    let answer = within(REPAIR_DEADLINE, async { node.store().repair(request).await })
        .await
        .map_err(|status| Failure::from_status("repair the object", &node.name, &status))?;
    let view = RepairView::of(answer);
    if view.shards.is_empty() && cx.out.format() == Format::Table {
        cx.out.say(format!("{object}: nothing to repair"));
    }
    cx.out.show(&view, RepairView::text)?;
    Ok(if view.intact { Code::Ok } else { Code::Failed })
}

impl RepairView {
    fn of(answer: RepairResponse) -> Self {
        let row = |shard: resilver_proto::store::RepairedShard| RepairedRow {
            extent: shard.extent,
            shard: shard.shard,
            rebuilt_from: shard.rebuilt_from,
            placed_on: known(&shard.placed_on),
            node: known(&shard.node),
            state: shard.state,
            detail: known(&shard.detail),
        };
        Self { shards: answer.shards.into_iter().map(row).collect(), intact: answer.intact }
    }

    fn text(&self) -> String {
        let mut table = Table::new(["EXTENT", "SHARD", "REBUILT_FROM", "PLACED_ON", "NODE", "STATE"]);
        for row in &self.shards {
            let from: Vec<String> = row.rebuilt_from.iter().map(ToString::to_string).collect();
            let state = match &row.detail {
                Some(detail) => format!("{} ({detail})", row.state),
                None => row.state.clone(),
            };
            table.row([
                row.extent.to_string(),
                row.shard.to_string(),
                from.join(","),
                cell(row.placed_on.clone()),
                cell(row.node.clone()),
                state,
            ]);
        }
        format!("{}\nintact: {}\n", table.render(), if self.intact { "yes" } else { "no" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_bucket_and_key() {
        let path: ObjectPath = "photos/2024/cat.jpg".parse().expect("a path");
        assert_eq!((path.bucket.as_str(), path.key.as_str()), ("photos", "2024/cat.jpg"));
        assert!("photos".parse::<ObjectPath>().is_err());
        assert!("photos/".parse::<ObjectPath>().is_err());
        assert!(format!("b/{}", "k".repeat(1025)).parse::<ObjectPath>().is_err());
    }

    #[test]
    fn shards_read_as_the_specification_writes_them() {
        let shard = |state: &str, expected, got| ShardStatus {
            state: state.to_owned(),
            crc_expected: expected,
            crc_got: got,
            ..ShardStatus::default()
        };
        let verdict = |shard: &ShardStatus| ShardRow::of(shard).verdict();
        assert_eq!(verdict(&shard("ok", 0x1a2b, 0)), "OK (00001a2b)");
        assert_eq!(verdict(&shard("ok", 0, 0)), "OK (crc)");
        assert_eq!(verdict(&shard("corrupt", 1, 2)), "CORRUPT (expected 00000001, got 00000002)");
        assert_eq!(verdict(&shard("missing", 0, 0)), "MISSING");
        let unread = ShardStatus { detail: "it could not be read: EIO".to_owned(), ..shard("corrupt", 0, 0) };
        assert_eq!(verdict(&unread), "CORRUPT (it could not be read: EIO)");
    }
}

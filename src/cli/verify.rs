//! `verify`: every object of every bucket, read back from its disks.
//!
//! Invariants: what could not be looked at is skipped, and skipped is never success. A report is written only of what was
//! counted here, from what the disks hold: nothing of it is asked of repair.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use resilver_host::disk::replace_file;
use resilver_proto::store::{ListBucketsRequest, VerifyResponse};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::context::{Context, owner};
use super::object::{ObjectPath, page, verify_object};
use crate::client::{Node, Nodes};
use crate::exit::{Code, Failure};
use crate::output::{bytes, rfc3339};

/// Where the parts of unfinished uploads are: a bucket of the product's own, in no list of buckets.
const UPLOADS_BUCKET: &str = "resilver.uploads";
/// Objects read side by side: enough to keep several disks busy, few enough to leave them to the clients.
const SIDE_BY_SIDE: usize = 4;
/// Problems listed in full; the counts are always complete.
const LISTED: usize = 1000;
/// How many objects pass between two words on standard error.
const PROGRESS_EVERY: u64 = 100;

/// `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Only this bucket
    #[arg(long)]
    bucket: Option<String>,
    /// Also read each object's content, compute its parity anew, and compare every shard on disk with that; writes a report
    #[arg(long)]
    full: bool,
    /// Where the report of --full is written
    #[arg(long, requires = "full", default_value = "verify-report.json", value_name = "FILE")]
    report: PathBuf,
    /// Who signs the report; your user name by default
    #[arg(long, requires = "full")]
    owner: Option<String>,
}

#[derive(Default, Serialize)]
struct Summary {
    objects: u64,
    /// Parts of unfinished uploads among them.
    parts: u64,
    intact: u64,
    /// Not intact: damaged but recoverable, or lost.
    failed: u64,
    lost: u64,
    /// Not looked at, or not wholly.
    skipped: u64,
    /// Good shards, and their bytes on disk.
    shards: u64,
    shard_bytes: u64,
    problems: Vec<Problem>,
    /// Over every object and shard, in the order of names.
    #[serde(skip)]
    digest: Sha256,
}

#[derive(Serialize)]
struct Problem {
    object: String,
    state: &'static str,
    detail: String,
}

/// What `--full` leaves behind.
#[derive(Serialize)]
struct Report<'a> {
    /// `pass` only when nothing failed and nothing was skipped.
    verdict: &'static str,
    cluster_id: String,
    cluster_name: String,
    scope: String,
    by: String,
    program: String,
    began: Option<String>,
    ended: Option<String>,
    #[serde(flatten)]
    summary: &'a Summary,
    /// SHA-256 over one line for each object (bucket, key, version, length, CRC32C) and each of its shards (extent, shard,
    /// disk, state, CRC32C, bytes): two runs over the same state give the same.
    digest: String,
}

/// The report with what shows that nobody changed it afterwards.
#[derive(Serialize)]
struct Sealed<'a> {
    report: &'a Report<'a>,
    /// SHA-256 of `report` as compact JSON.
    seal: String,
}

pub(crate) async fn run(cx: &Context, args: VerifyArgs) -> Result<Code, Failure> {
    let nodes = cx.nodes().await?;
    let began = rfc3339(cx.host.clock.now().as_millis());
    let buckets = match &args.bucket {
        Some(bucket) => vec![bucket.clone()],
        None => {
            let list = async |node: Node| node.store().list_buckets(ListBucketsRequest {}).await;
            let answer = nodes.ask("list the buckets", list).await?;
            answer.buckets.into_iter().map(|bucket| bucket.name).collect()
        }
    };
    let mut summary = Summary::default();
    if args.full {
        // First: what becomes an object meanwhile is found with the objects.
        let of = args.bucket.as_ref().map(|bucket| format!("{bucket}/")).unwrap_or_default();
        verify_bucket(cx, &nodes, (UPLOADS_BUCKET, &of), true, &mut summary).await?;
        summary.parts = summary.objects;
    }
    for bucket in &buckets {
        verify_bucket(cx, &nodes, (bucket, ""), args.full, &mut summary).await?;
    }
    cx.out.show(&summary, Summary::text)?;
    let code = match &summary {
        Summary { lost: 1.., .. } => Code::Failed,
        Summary { failed: 0, skipped: 0, .. } => Code::Ok,
        _ => Code::Degraded,
    };
    if args.full {
        let status = nodes.status().await?;
        let report = Report {
            verdict: if code == Code::Ok { "pass" } else { "fail" },
            cluster_id: status.cluster_id,
            cluster_name: status.cluster_name,
            scope: args.bucket.clone().unwrap_or_else(|| "every bucket".to_owned()),
            by: owner(args.owner.clone()),
            program: format!("resilver {}", env!("CARGO_PKG_VERSION")),
            began,
            ended: rfc3339(cx.host.clock.now().as_millis()),
            summary: &summary,
            digest: hex(&summary.digest.clone().finalize()),
        };
        write(cx, &args, &report).await?;
    }
    Ok(code)
}

async fn write(cx: &Context, args: &VerifyArgs, report: &Report<'_>) -> Result<(), Failure> {
    let broken = |error: serde_json::Error| Failure::new(Code::Internal, format!("a report that is no JSON: {error}"));
    let seal = hex(&Sha256::digest(serde_json::to_vec(report).map_err(broken)?));
    let text = serde_json::to_vec_pretty(&Sealed { report, seal }).map_err(broken)?;
    let path = &args.report;
    replace_file(cx.host.disk.as_ref(), path, Bytes::from(text)).await.map_err(|error| {
        Failure::failed(format!("the report could not be written to {}: {error}", path.display()))
            .next("name another place with --report FILE; what was found is printed above")
    })?;
    cx.out.say(format!("{}: {} ({})", report.verdict, path.display(), report.digest));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn verify_bucket(
    cx: &Context,
    nodes: &Nodes,
    (bucket, prefix): (&str, &str),
    full: bool,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = page(nodes, bucket, prefix, &after).await?;
        let Some(last) = page.objects.last() else { return Ok(()) };
        after.clone_from(&last.key);
        let objects = page.objects.into_iter().map(|info| ObjectPath { bucket: info.bucket, key: info.key });
        // In order, so that the digest is the same each time.
        let mut answers = stream::iter(objects)
            .map(async |object| {
                let answer = verify_object(nodes, &object, full).await;
                (object, answer)
            })
            .buffered(SIDE_BY_SIDE);
        while let Some((object, answer)) = answers.next().await {
            summary.count(&object, answer);
            if summary.objects.is_multiple_of(PROGRESS_EVERY) {
                cx.out.say(format!("{} objects verified", summary.objects));
            }
        }
        if !page.truncated {
            return Ok(());
        }
    }
}

impl Summary {
    fn count(&mut self, object: &ObjectPath, answer: Result<VerifyResponse, Failure>) {
        let answer = match answer {
            // Deleted since the page was read: nothing is missing.
            Err(failure) if failure.message.contains("there is no object") => return,
            Err(failure) => {
                self.objects += 1;
                self.skipped += 1;
                return self.problem(object, "skipped", failure.message);
            }
            Ok(answer) => answer,
        };
        self.objects += 1;
        self.seal(object, &answer);
        let good = answer.shards.iter().filter(|shard| shard.state == "ok");
        self.shards += good.clone().count() as u64;
        self.shard_bytes += good.map(|shard| shard.bytes).sum::<u64>();
        if answer.intact {
            self.intact += 1;
            return;
        }
        let bad = |state: &str| answer.shards.iter().filter(|shard| shard.state == state).count();
        let (corrupt, missing, unreachable) = (bad("corrupt"), bad("missing"), bad("unreachable"));
        let detail = match corrupt + missing + unreachable {
            0 => "every shard is as it was written, and the content is not what was stored".to_owned(),
            _ => format!("{corrupt} corrupt, {missing} missing, {unreachable} unreachable shards"),
        };
        let state = match (answer.recoverable, corrupt + missing) {
            // Only unreachable shards: what they hold is not known.
            (true, 0) if unreachable > 0 => {
                self.skipped += 1;
                "skipped"
            }
            (true, _) => {
                self.failed += 1;
                "damaged"
            }
            (false, _) => {
                self.failed += 1;
                self.lost += 1;
                "lost"
            }
        };
        self.problem(object, state, detail);
    }

    fn problem(&mut self, object: &ObjectPath, state: &'static str, detail: String) {
        if self.problems.len() < LISTED {
            self.problems.push(Problem { object: object.to_string(), state, detail });
        }
    }

    fn seal(&mut self, object: &ObjectPath, answer: &VerifyResponse) {
        let info = answer.object.clone().unwrap_or_default();
        let line = format!("{object}\t{}\t{}\t{:08x}\n", info.version, info.size_bytes, info.crc32c);
        self.digest.update(line);
        for shard in &answer.shards {
            let (place, found) =
                ((shard.extent, shard.shard, &shard.disk_id), (&shard.state, shard.crc_got, shard.bytes));
            self.digest.update(format!("\t{place:?}\t{found:?}\n"));
        }
    }

    fn text(&self) -> String {
        let mut out: String = self
            .problems
            .iter()
            .map(|problem| format!("{}: {} ({})\n", problem.object, problem.state, problem.detail))
            .collect();
        let Summary { objects, parts, intact, failed, lost, skipped, shards, shard_bytes, .. } = self;
        let of_uploads =
            if *parts > 0 { format!(" ({parts} of them parts of unfinished uploads)") } else { String::new() };
        out.push_str(&format!(
            "{objects} objects{of_uploads}: {intact} intact, {failed} failed ({lost} lost), {skipped} skipped; {shards} shards, {} read \
             back\n",
            bytes(*shard_bytes)
        ));
        out
    }
}

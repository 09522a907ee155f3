//! `verify`: every object of every bucket, read back from its disks.
//!
//! Invariant: what could not be looked at is skipped, and skipped is never success.

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use resilver_proto::store::{ListBucketsRequest, VerifyResponse};
use serde::Serialize;

use super::context::Context;
use super::object::{ObjectPath, page, verify_object};
use crate::client::{Node, Nodes};
use crate::exit::{Code, Failure};

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
}

#[derive(Default, Serialize)]
struct Summary {
    objects: u64,
    intact: u64,
    /// Not intact: damaged but recoverable, or lost.
    failed: u64,
    lost: u64,
    /// Not looked at, or not wholly.
    skipped: u64,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    object: String,
    state: &'static str,
    detail: String,
}

pub(crate) async fn run(cx: &Context, args: VerifyArgs) -> Result<Code, Failure> {
    let nodes = cx.nodes().await?;
    let buckets = match args.bucket {
        Some(bucket) => vec![bucket],
        None => {
            let list = async |node: Node| node.store().list_buckets(ListBucketsRequest {}).await;
            let answer = nodes.ask("list the buckets", list).await?;
            answer.buckets.into_iter().map(|bucket| bucket.name).collect()
        }
    };
    let mut summary = Summary::default();
    for bucket in &buckets {
        verify_bucket(cx, &nodes, bucket, &mut summary).await?;
    }
    cx.out.show(&summary, Summary::text)?;
    Ok(match &summary {
        Summary { lost: 1.., .. } => Code::Failed,
        Summary { failed: 0, skipped: 0, .. } => Code::Ok,
        _ => Code::Degraded,
    })
}

async fn verify_bucket(cx: &Context, nodes: &Nodes, bucket: &str, summary: &mut Summary) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = page(nodes, bucket, "", &after).await?;
        let Some(last) = page.objects.last() else { return Ok(()) };
        after.clone_from(&last.key);
        let objects = page.objects.into_iter().map(|info| ObjectPath { bucket: info.bucket, key: info.key });
        let mut answers = stream::iter(objects)
            .map(async |object| {
                let answer = verify_object(nodes, &object).await;
                (object, answer)
            })
            .buffer_unordered(SIDE_BY_SIDE);
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
        let (state, detail) = match answer {
            Ok(answer) if answer.intact => {
                self.objects += 1;
                self.intact += 1;
                return;
            }
            // Deleted since the page was read: nothing is missing.
            Err(failure) if failure.message.contains("no such object") => return,
            Err(failure) => {
                self.skipped += 1;
                ("skipped", failure.message)
            }
            Ok(answer) => {
                let bad = |state: &str| answer.shards.iter().filter(|shard| shard.state == state).count();
                let (corrupt, missing, unreachable) = (bad("corrupt"), bad("missing"), bad("unreachable"));
                let detail = format!("{corrupt} corrupt, {missing} missing, {unreachable} unreachable shards");
                match (answer.recoverable, corrupt + missing) {
                    // Only unreachable shards: what they hold is not known.
                    (true, 0) => {
                        self.skipped += 1;
                        ("skipped", detail)
                    }
                    (true, _) => {
                        self.failed += 1;
                        ("damaged", detail)
                    }
                    (false, _) => {
                        self.failed += 1;
                        self.lost += 1;
                        ("lost", detail)
                    }
                }
            }
        };
        self.objects += 1;
        if self.problems.len() < LISTED {
            self.problems.push(Problem { object: object.to_string(), state, detail });
        }
    }

    fn text(&self) -> String {
        let mut out: String = self
            .problems
            .iter()
            .map(|problem| format!("{}: {} ({})\n", problem.object, problem.state, problem.detail))
            .collect();
        let Summary { objects, intact, failed, lost, skipped, .. } = self;
        out.push_str(&format!(
            "{objects} objects: {intact} intact, {failed} failed ({lost} lost), {skipped} skipped\n"
        ));
        out
    }
}

//! `bucket create|list|set|delete`.

use std::fmt::Write;
use std::str::FromStr;

use clap::{Args, Subcommand};
use resilver_node::model::MAX_SHARDS;
use resilver_proto::store::{
    Bucket, Coding, CreateBucketRequest, DeleteBucketRequest, ListBucketsRequest, SetBucketRequest, set_bucket_request,
};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::Context;
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, bytes, cell, known, rfc3339};
use crate::size::Size;

/// Verbs of buckets.
#[derive(Debug, Subcommand)]
pub(crate) enum BucketVerb {
    /// Make a bucket
    Create {
        /// Its name
        bucket: String,
        /// Reed-Solomon parameters `K+M`: any M of K+M shards may be lost. The cluster's size decides by default
        #[arg(long, value_name = "K+M")]
        coding: Option<CodingArg>,
        /// The most it may hold, parts of unfinished uploads included: `10GiB`. Without one the disks are the limit
        #[arg(long, value_name = "SIZE")]
        quota: Option<Size>,
        /// What is repaired first among shards in equal danger: 0 (first) to 255 (last); 128 by default
        #[arg(long, value_name = "N")]
        repair_priority: Option<u8>,
        /// An existing bucket of that name is no error, and stays as it is
        #[arg(long)]
        if_absent: bool,
    },
    /// All buckets, and what they hold
    List,
    /// Change a bucket's settings; what is not named stays
    Set {
        /// Its name
        bucket: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete an empty bucket, its unfinished uploads with it
    Delete {
        /// Its name
        bucket: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// What can be changed of a bucket.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Settings {
    /// Reed-Solomon parameters `K+M` of objects put from now on; what is stored keeps its own
    #[arg(long, value_name = "K+M")]
    coding: Option<CodingArg>,
    /// The most it may hold, or `none`. Less than it holds now is allowed: puts are refused until enough is deleted
    #[arg(long, value_name = "SIZE")]
    quota: Option<QuotaArg>,
    /// What is repaired first among shards in equal danger: 0 (first) to 255 (last)
    #[arg(long, value_name = "N")]
    repair_priority: Option<u8>,
}

/// `K+M` as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodingArg {
    k: u32,
    m: u32,
}

impl FromStr for CodingArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("`{text}` is no coding: write K+M, for example 4+2");
        let (k, m) = text.split_once('+').ok_or_else(shape)?;
        let (k, m): (u32, u32) = (k.trim().parse().map_err(|_| shape())?, m.trim().parse().map_err(|_| shape())?);
        if k == 0 || m == 0 {
            return Err(format!("{text}: K and M must both be 1 or more"));
        }
        if u64::from(k) + u64::from(m) > u64::from(MAX_SHARDS) {
            return Err(format!("{text}: K+M may be at most {MAX_SHARDS}"));
        }
        Ok(Self { k, m })
    }
}

impl From<CodingArg> for Coding {
    fn from(arg: CodingArg) -> Self {
        Coding { k: arg.k, m: arg.m }
    }
}

/// A quota, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaArg {
    /// No limit but the disks.
    None,
    /// At most this.
    Of(Size),
}

impl FromStr for QuotaArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            size => size.parse().map(Self::Of).map_err(|error| format!("{error}; or `none`")),
        }
    }
}

#[derive(Serialize)]
struct BucketRow {
    bucket: String,
    coding: Option<String>,
    quota_bytes: Option<u64>,
    repair_priority: u32,
    objects: u64,
    used_bytes: u64,
    owner: Option<String>,
    created: Option<String>,
    warning: Option<String>,
}

impl BucketRow {
    fn of(bucket: Bucket) -> Self {
        Self {
            coding: bucket.coding.map(|coding| format!("{}+{}", coding.k, coding.m)),
            quota_bytes: bucket.quota_bytes,
            repair_priority: bucket.repair_priority,
            objects: bucket.objects,
            used_bytes: bucket.used_bytes,
            owner: known(&bucket.owner),
            created: rfc3339(bucket.created_ms),
            warning: known(&bucket.warning),
            bucket: bucket.name,
        }
    }

    fn line(&self) -> String {
        let mut text = format!("bucket {} with coding {}", self.bucket, cell(self.coding.clone()));
        if let Some(quota) = self.quota_bytes {
            // Writing into a String cannot fail.
            let _ = write!(text, ", quota {}", bytes(quota));
        }
        let _ = writeln!(text, ", repair priority {}", self.repair_priority);
        text
    }

    /// What a person should know who set a quota below what is there.
    fn over_quota(&self) -> Option<String> {
        let quota = self.quota_bytes.filter(|quota| self.used_bytes > *quota)?;
        Some(format!(
            "{} holds {}, more than its quota of {}: puts are refused until enough is deleted",
            self.bucket,
            bytes(self.used_bytes),
            bytes(quota)
        ))
    }
}

impl BucketVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            BucketVerb::Create { bucket, coding, quota, repair_priority, if_absent } => {
                let request = CreateBucketRequest {
                    bucket,
                    coding: coding.map(Coding::from),
                    if_absent,
                    quota_bytes: quota.map(|size| size.0),
                    repair_priority: repair_priority.map(u32::from),
                };
                create(cx, request).await
            }
            BucketVerb::List => list(cx).await,
            BucketVerb::Set { bucket, settings: Settings { coding, quota, repair_priority } } => {
                let request = SetBucketRequest {
                    bucket,
                    coding: coding.map(Coding::from),
                    quota: quota.map(|quota| match quota {
                        QuotaArg::None => set_bucket_request::Quota::NoQuota(true),
                        QuotaArg::Of(size) => set_bucket_request::Quota::QuotaBytes(size.0),
                    }),
                    repair_priority: repair_priority.map(u32::from),
                };
                set(cx, request).await
            }
            BucketVerb::Delete { bucket, confirm } => delete(cx, bucket, &confirm).await,
        }
    }
}

async fn create(cx: &Context, request: CreateBucketRequest) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("create the bucket").await?;
    let made = within(CHANGE_DEADLINE, async { node.store().create_bucket(request).await })
        .await
        .map_err(|status| Failure::from_status("create the bucket", &node.name, &status))?;
    let row = BucketRow::of(made);
    if let Some(warning) = &row.warning {
        cx.out.say(format!("warning: {warning}"));
    }
    cx.out.show(&row, BucketRow::line)?;
    Ok(Code::Ok)
}

async fn set(cx: &Context, request: SetBucketRequest) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("change the bucket").await?;
    let changed = within(CHANGE_DEADLINE, async { node.store().set_bucket(request).await })
        .await
        .map_err(|status| Failure::from_status("change the bucket", &node.name, &status))?;
    let row = BucketRow::of(changed);
    for warning in row.warning.iter().chain(&row.over_quota()) {
        cx.out.say(format!("warning: {warning}"));
    }
    cx.out.show(&row, BucketRow::line)?;
    Ok(Code::Ok)
}

async fn list(cx: &Context) -> Result<Code, Failure> {
    let rows = rows(cx).await?;
    cx.out.show(&rows, |rows| {
        let mut table =
            Table::new(["BUCKET", "CODING", "OBJECTS", "USED", "QUOTA", "REPAIR_PRIORITY", "OWNER", "CREATED"]);
        for row in rows {
            table.row([
                row.bucket.clone(),
                cell(row.coding.clone()),
                row.objects.to_string(),
                bytes(row.used_bytes),
                cell(row.quota_bytes.map(bytes)),
                row.repair_priority.to_string(),
                cell(row.owner.clone()),
                cell(row.created.clone()),
            ]);
        }
        table.render()
    })?;
    Ok(Code::Ok)
}

async fn rows(cx: &Context) -> Result<Vec<BucketRow>, Failure> {
    let answer = cx
        .nodes()
        .await?
        .ask("list the buckets", async |node: Node| node.store().list_buckets(ListBucketsRequest {}).await)
        .await?;
    Ok(answer.buckets.into_iter().map(BucketRow::of).collect())
}

#[derive(Serialize)]
struct DeletedBucket {
    bucket: String,
    deleted: bool,
}

async fn delete(cx: &Context, bucket: String, confirm: &Confirm) -> Result<Code, Failure> {
    confirm
        .check(cx, "bucket delete", &bucket, async || {
            let rows = rows(cx).await?;
            Ok(match rows.iter().find(|row| row.bucket == bucket) {
                None => format!("there is no bucket {bucket}"),
                Some(row) => format!("bucket {bucket} holds {} objects, {}", row.objects, bytes(row.used_bytes)),
            })
        })
        .await?;
    let node = cx.nodes().await?.serving("delete the bucket").await?;
    let request = DeleteBucketRequest { bucket: bucket.clone() };
    within(CHANGE_DEADLINE, async { node.store().delete_bucket(request).await })
        .await
        .map_err(|status| Failure::from_status("delete the bucket", &node.name, &status))?;
    let deleted = DeletedBucket { bucket, deleted: true };
    cx.out.show(&deleted, |deleted| format!("bucket {} deleted\n", deleted.bucket))?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_out_of_range_say_what_is_allowed() {
        assert_eq!("4+2".parse(), Ok(CodingArg { k: 4, m: 2 }));
        assert!("4".parse::<CodingArg>().unwrap_err().contains("write K+M"));
        assert!("0+2".parse::<CodingArg>().unwrap_err().contains("1 or more"));
        assert!("30+3".parse::<CodingArg>().unwrap_err().contains("at most 32"));
        assert!("4000000000+4000000000".parse::<CodingArg>().unwrap_err().contains("at most 32"));
    }

    #[test]
    fn a_quota_is_a_size_or_none() {
        assert_eq!("none".parse(), Ok(QuotaArg::None));
        assert_eq!("1KiB".parse(), Ok(QuotaArg::Of(Size(1024))));
        assert!("some".parse::<QuotaArg>().unwrap_err().ends_with("; or `none`"));
    }

    #[test]
    fn a_quota_below_what_is_there_is_said() {
        let bucket =
            |used_bytes| Bucket { name: "b".to_owned(), quota_bytes: Some(100), used_bytes, ..Bucket::default() };
        assert_eq!(BucketRow::of(bucket(100)).over_quota(), None);
        let said = BucketRow::of(bucket(2048)).over_quota().expect("said");
        assert_eq!(said, "b holds 2.0 KiB, more than its quota of 100 B: puts are refused until enough is deleted");
    }
}

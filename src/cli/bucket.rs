//! `bucket create|list`.

use std::str::FromStr;

use clap::Subcommand;
use resilver_node::model::MAX_SHARDS;
use resilver_proto::store::{Bucket, Coding, CreateBucketRequest, ListBucketsRequest};
use serde::Serialize;

use super::context::Context;
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, cell, rfc3339};

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
        /// An existing bucket of that name is no error
        #[arg(long)]
        if_absent: bool,
    },
    /// All buckets
    List,
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

#[derive(Serialize)]
struct BucketRow {
    bucket: String,
    coding: Option<String>,
    created: Option<String>,
    warning: Option<String>,
}

impl BucketRow {
    fn of(bucket: Bucket) -> Self {
        Self {
            coding: bucket.coding.map(|coding| format!("{}+{}", coding.k, coding.m)),
            created: rfc3339(bucket.created_ms),
            warning: (!bucket.warning.is_empty()).then_some(bucket.warning),
            bucket: bucket.name,
        }
    }
}

impl BucketVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            BucketVerb::Create { bucket, coding, if_absent } => create(cx, bucket, coding, if_absent).await,
            BucketVerb::List => list(cx).await,
        }
    }
}

async fn create(cx: &Context, bucket: String, coding: Option<CodingArg>, if_absent: bool) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("create the bucket").await?;
    let coding = coding.map(|CodingArg { k, m }| Coding { k, m });
    let request = CreateBucketRequest { bucket, coding, if_absent };
    let made = within(CHANGE_DEADLINE, async { node.store().create_bucket(request).await })
        .await
        .map_err(|status| Failure::from_status("create the bucket", &node.name, &status))?;
    let row = BucketRow::of(made);
    if let Some(warning) = &row.warning {
        cx.out.say(format!("warning: {warning}"));
    }
    cx.out.show(&row, |row| format!("bucket {} with coding {}\n", row.bucket, cell(row.coding.clone())))?;
    Ok(Code::Ok)
}

async fn list(cx: &Context) -> Result<Code, Failure> {
    let answer = cx
        .nodes()
        .await?
        .ask("list the buckets", async |node: Node| node.store().list_buckets(ListBucketsRequest {}).await)
        .await?;
    let rows: Vec<BucketRow> = answer.buckets.into_iter().map(BucketRow::of).collect();
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["BUCKET", "CODING", "CREATED"]);
        for row in rows {
            table.row([row.bucket.clone(), cell(row.coding.clone()), cell(row.created.clone())]);
        }
        table.render()
    })?;
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
}

//! The benchmark's buckets: opened empty, removed with everything in them.
//!
//! Must never: remove what the benchmark did not put there. So nothing may be in them when it begins.

use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;

use super::DEADLINE;
use crate::s3::{Access, From, Store};
use crate::target::Target as Cluster;

/// The bucket of contents.
const BUCKET: &str = "resilver-bench-s3";
/// That of the listing.
pub const LISTING_BUCKET: &str = "resilver-bench-s3-listing";

/// How long a door may take to open: it follows its node.
const DOOR_TIME: Duration = Duration::from_secs(30);

/// Keys per request that removes many.
const DELETE_KEYS: usize = 1000;

/// Each bucket through every door, in the order of the nodes.
pub(super) struct Buckets {
    pub(super) stores: Vec<Store>,
    pub(super) listing: Vec<Store>,
}

impl Buckets {
    pub(super) async fn open(host: &Host, cluster: &Cluster) -> anyhow::Result<Self> {
        let access = Access::read(host, &cluster.dir).await?;
        let (stores, listing) = (access.stores(host, BUCKET)?, access.stores(host, LISTING_BUCKET)?);
        anyhow::ensure!(
            stores.len() == cluster.hosts.len(),
            "{} doors for {} nodes",
            stores.len(),
            cluster.hosts.len()
        );
        open(&stores).await?;
        listing[0].ensure_bucket(DEADLINE).await?;
        for (store, bucket) in [(&stores[0], BUCKET), (&listing[0], LISTING_BUCKET)] {
            let page = store.list("", From::Start, 1, DEADLINE).await?;
            anyhow::ensure!(page.objects.is_empty(), "the bucket {bucket} is not empty: empty it if it is not needed");
        }
        Ok(Self { stores, listing })
    }
}

/// The bucket of the listing through every door, whatever is in it.
pub(super) async fn filled(host: &Host, cluster: &Cluster) -> anyhow::Result<Vec<Store>> {
    let listing = Access::read(host, &cluster.dir).await?.stores(host, LISTING_BUCKET)?;
    open(&listing).await?;
    Ok(listing)
}

/// Removes buckets with everything in them.
pub(super) async fn remove(buckets: &[&[Store]]) -> anyhow::Result<()> {
    for stores in buckets {
        empty(&stores[0]).await?;
        stores[0].delete_bucket(DEADLINE).await?;
    }
    Ok(())
}

/// Waits until every door answers for the bucket.
async fn open(stores: &[Store]) -> anyhow::Result<()> {
    for store in stores {
        let opening = async {
            loop {
                match store.ensure_bucket(DEADLINE).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "the door is not open yet"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let opened = tokio::time::timeout(DOOR_TIME, opening).await;
        opened.with_context(|| format!("the S3 door at {} did not open", store.address()))?;
    }
    Ok(())
}

/// Removes everything in a bucket.
async fn empty(store: &Store) -> anyhow::Result<()> {
    loop {
        let page = store.list("", From::Start, DELETE_KEYS, DEADLINE).await?;
        if page.objects.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = page.objects.into_iter().map(|object| object.key).collect();
        store.delete_many(&keys, DEADLINE).await?;
    }
}

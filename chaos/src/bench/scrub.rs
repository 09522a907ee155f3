//! What scrub and anti-entropy cost clients: the same load on clusters with and without them, in pairs.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::Host;
use serde::Serialize;

use super::clients::{Busy, Seen};
use crate::client::{Client, Written};
use crate::target::Target;

/// The bucket that is filled.
const BUCKET: &str = "bench-scrub";

/// Size of an object.
const OBJECT_BYTES: usize = 256 * 1024;

/// Objects written side by side.
const SIDE_BY_SIDE: usize = 16;

/// Clients: what keeps two cores full.
const CLIENTS: u64 = 8;

/// How long one object may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Before it is measured: caches are warm, and what a start brings along is over.
const WARM_UP: Duration = Duration::from_secs(5);

/// One cluster's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What clients saw.
    pub seen: Seen,
    /// Bytes that scrubs read meanwhile, all nodes.
    pub scrubbed_bytes: u64,
    /// Processor seconds of all nodes per request.
    pub node_seconds: f64,
}

/// A pair of clusters, one with scrub and anti-entropy, one without, under the same load.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// With.
    pub on: Run,
    /// Without.
    pub off: Run,
}

impl Pair {
    /// What they cost, in percent of the throughput without.
    pub fn cost_percent(&self) -> f64 {
        100.0 * (1.0 - self.on.seen.per_second / self.off.seen.per_second.max(f64::MIN_POSITIVE))
    }

    /// In percent of the nodes' processor time per request without.
    pub fn processor_percent(&self) -> f64 {
        100.0 * (self.on.node_seconds / self.off.node_seconds.max(f64::MIN_POSITIVE) - 1.0)
    }
}

/// Fills a cluster that is up with `objects` of 256 KiB, and has clients work on it for `span`.
///
/// # Errors
/// When the cluster does not answer.
pub async fn run(host: &Host, target: &Target, objects: u64, span: Duration) -> anyhow::Result<Run> {
    let client = Client::new(host, target)?;
    client.ensure_bucket(BUCKET, None).await?;
    let writes = (0..objects).map(|at| {
        let client = &client;
        async move {
            let mut content = vec![0; OBJECT_BYTES];
            StdRng::seed_from_u64(at).fill_bytes(&mut content);
            client.put(BUCKET, &format!("{at:06}"), Bytes::from(content), WRITE_DEADLINE).await
        }
    });
    let mut writes = stream::iter(writes).buffer_unordered(SIDE_BY_SIDE);
    while let Some(written) = writes.next().await {
        anyhow::ensure!(written == Written::Acknowledged, "an object could not be written: {written:?}");
    }
    let busy = Busy { bucket: BUCKET, objects, object_bytes: OBJECT_BYTES, clients: CLIENTS };
    let ((), _) = busy.during(&client, 1, tokio::time::sleep(WARM_UP)).await;
    let before = totals(host, target, &client).await?;
    let ((), seen) = busy.during(&client, 2, tokio::time::sleep(span)).await;
    let after = totals(host, target, &client).await?;
    let requests = (seen.per_second * seen.seconds).max(1.0);
    Ok(Run { seen, scrubbed_bytes: after.0 - before.0, node_seconds: (after.1 - before.1) / requests })
}

/// Bytes scrubbed and processor seconds spent so far, of all nodes.
async fn totals(host: &Host, target: &Target, client: &Client) -> anyhow::Result<(u64, f64)> {
    let (mut scrubbed, mut seconds) = (0, 0.0);
    for info in &target.hosts {
        let seen = client.observe(&info.name).await;
        let seen = seen.ok_or_else(|| anyhow::anyhow!("{} does not answer", info.name))?;
        scrubbed += seen.repair.map_or(0, |repair| repair.scrubbed_bytes);
        let cpu = super::procfs::cpu(host, seen.pid).await?;
        seconds += cpu.user + cpu.system;
    }
    Ok((scrubbed, seconds))
}

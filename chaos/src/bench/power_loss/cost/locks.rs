//! What taking a lock and giving it back takes: the operation whose health is watched.

use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::locks::{AcquireRequest, ReleaseRequest};
use resilver_proto::transport::{self, Profile};
use tokio::time::{Instant, timeout};

use crate::target::HostInfo;

/// Locks taken one after the other: enough for a median to a hundredth of a millisecond.
const LOCKS: u32 = 400;
/// Of these, unmeasured ones first.
const WARM_UP: u32 = 50;
/// How long one of them may take in a healthy cluster.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long each is held at most, should the benchmark end in between.
const LEASE_MS: u64 = 10_000;

/// The median of taking a lock and giving it back, through one node, in milliseconds: two commands of the metadata.
pub(super) async fn median_ms(host: &Host, node: &HostInfo) -> anyhow::Result<f64> {
    let mut client = LocksClient::new(transport::channel(&host.net, &node.address, Profile::Control)?);
    let mut taken = Vec::with_capacity(LOCKS as usize);
    for number in 0..WARM_UP + LOCKS {
        let path = format!("bench/{}", number % 8);
        let request = AcquireRequest {
            path: path.clone(),
            label: "bench".to_owned(),
            life: format!("{:032x}", 1),
            lease_ms: LEASE_MS,
            wait_ms: 0,
        };
        let begun = Instant::now();
        let had = timeout(DEADLINE, client.acquire(request)).await.context("taking a lock")??.into_inner();
        let release = ReleaseRequest { path, owner: had.owner, token: had.token };
        timeout(DEADLINE, client.release(release)).await.context("giving a lock back")??;
        if number >= WARM_UP {
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    taken.sort_by(f64::total_cmp);
    Ok(taken[taken.len() / 2])
}

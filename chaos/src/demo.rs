//! The demonstration: store, break, watch the agents heal, read everything back.
//!
//! Every figure is taken from outside: the fault's moment is ours, the detection's moment is the journal's, service is what
//! a client gets, and redundancy counts only after the shards were read back from disk.

mod scenario;
mod store;

use std::time::Duration;

use resilver_host::Host;
use tokio::time::Instant;

use crate::client::Client;
use crate::dataset::{self, Item};
use crate::load::Load;
use crate::report::Report;
use crate::target::Target;

/// The bucket of the demonstration.
pub(crate) const BUCKET: &str = "demo";

/// Writers of the load.
const WRITERS: u64 = 2;

/// What a demonstration is given.
pub struct DemoOptions {
    /// Seed of data and load; printed, so that a run can be repeated.
    pub seed: u64,
    /// The files of this folder instead of generated objects.
    pub input: Option<std::path::PathBuf>,
    /// The profile the cluster runs with, for the report.
    pub profile: String,
}

/// Runs it on a cluster that is up. `say` gets a line of progress at a time.
///
/// # Errors
/// When it could not be carried out: a bug of the harness, or a cluster that is not up. A failed recovery is no error but
/// a verdict.
pub async fn run(
    host: &Host,
    target: &Target,
    options: &DemoOptions,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let client = Client::new(host, target)?;
    let items = match &options.input {
        Some(folder) => dataset::from_folder(host, folder).await?,
        None => dataset::generated(options.seed),
    };
    client.ensure_bucket(BUCKET, None).await?;
    let stage = Stage { host, target, client: &client, items: &items, say };
    let stored_ms = stage.store_all().await?;
    let mut load = Load::start(&client, BUCKET, options.seed, WRITERS);
    let mut scenarios = Vec::new();
    for fault in scenario::Fault::ALL {
        scenarios.push(stage.play(*fault, &load).await?);
    }
    load.stop().await;
    say("reading every object back");
    let mut lost_objects = stage.read_all_back().await?;
    lost_objects.extend(load.lost(&client, BUCKET, store::READ_DEADLINE).await);
    Ok(Report {
        seed: options.seed,
        profile: options.profile.clone(),
        nodes: target.hosts.len(),
        objects: items.len(),
        bytes: items.iter().map(|item| item.size_bytes).sum(),
        stored_ms,
        scenarios,
        read_back: items.len(),
        lost_objects,
        load_acknowledged: load.acknowledged(),
        total_ms: millis(begun.elapsed()),
    })
}

/// What every scene needs.
struct Stage<'a> {
    host: &'a Host,
    target: &'a Target,
    client: &'a Client,
    items: &'a [Item],
    say: &'a (dyn Fn(&str) + Send + Sync),
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

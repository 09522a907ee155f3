//! `demo` and `bench`: a cluster of their own in a new folder, what the crate `chaos` does to it, and its end.
//!
//! Owns: the life of that cluster. Must never: touch a cluster it did not make, or leave its processes behind.

mod fault_fs;
mod metadata;
mod modes;
mod power_loss;
mod restart;
mod scrub;
mod swim;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use resilver_chaos::bench::{Figures, crash, idle, rebuild, s3};
use resilver_chaos::demo::{self, DemoOptions};
use resilver_chaos::target::{HostInfo, Target};
use resilver_host::FileKind;
use resilver_node::meta::quantity;
use tokio::time::Instant;

use crate::cli::context::Context;
use crate::daemon::shutdown_signal;
use crate::discover;
use crate::exit::{Code, Failure};
use crate::local::{DEFAULT_DISKS, DEFAULT_NODES, LocalCluster, LocalOptions, Upkeep};

pub(crate) use fault_fs::{FaultFsArgs, fault_fs};

/// How long the cluster may take to be whole.
const START_TIME: Duration = Duration::from_secs(90);

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Store the files of this folder instead of generated objects
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Seed of data and load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the cluster's folder afterwards
    #[arg(long)]
    keep: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Keep the cluster's folder afterwards
    #[arg(long, global = true)]
    keep: bool,
    #[command(subcommand)]
    what: Bench,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Bench {
    /// How soon a killed node is noticed and serves again; what a killed leader costs clients
    Crash {
        /// Kills of a node, and of the leader
        #[arg(long, default_value_t = 10)]
        runs: usize,
    },
    /// How fast a lost disk is rebuilt, and where the time goes
    Rebuild {
        /// Objects of 256 KiB that are stored before
        #[arg(long, default_value_t = 20_000, value_name = "COUNT")]
        small: u64,
        /// Objects of 16 MiB
        #[arg(long, default_value_t = 64, value_name = "COUNT")]
        large: u64,
        /// How long a second rebuild is watched while clients are busy; `0s`: there is none
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
        busy_for: Duration,
    },
    /// What scrub and anti-entropy cost clients, on clusters with and without them in turn
    Scrub(scrub::ScrubArgs),
    /// How soon members whose metadata differs are told apart, and how soon a backup of it is written
    Merkle(metadata::MerkleArgs),
    /// How soon a node with a long log serves again, and with a snapshot
    Restart(restart::RestartArgs),
    /// How soon the metadata is back from a backup when nobody has it any more
    Restore(restart::RestoreArgs),
    /// What gossip costs a host and how soon it tells, by size of the cluster. Modelled in this process
    Swim(swim::SwimArgs),
    /// How soon agents detect and mend each failure that can be brought about on one machine
    Modes(modes::ModesArgs),
    /// What agents and nodes cost in an idle cluster
    Idle {
        /// How long is looked
        #[arg(long = "for", default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
        span: Duration,
    },
    /// What the S3 door gives clients: throughput, latency, memory, and where the time goes
    S3(S3Args),
    /// What clients notice when a host loses its power. Makes hosts of its own in network namespaces: needs root
    PowerLoss(power_loss::PowerLossArgs),
}

/// `bench s3`.
#[derive(Debug, Args)]
struct S3Args {
    /// Measure the cluster that runs in --dir DIR (or RESILVER_DIR), instead of a new one
    #[arg(long)]
    running: bool,
    /// How long each run of a workload is
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Runs of each workload
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Keys to list; 0: no listing. Into the metadata of a cluster of its own they are written while it does not run
    #[arg(long, default_value_t = 1_000_000, value_name = "KEYS")]
    listing_keys: u64,
    /// With --running: how long putting those keys may take; what is there by then is listed
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
    fill_time: Duration,
    /// Uploads at a time through one node, to see what memory it takes; 0: none
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=1024))]
    uploads: u64,
    /// Length of each
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    upload_size: u64,
}

/// `demo`.
pub(crate) async fn demo(cx: &Context, args: DemoArgs) -> Result<Code, Failure> {
    let options = DemoOptions { seed: args.seed, input: args.input, profile: "fast (policy times / 60)".to_owned() };
    let report = in_a_cluster(cx, "demo", Upkeep::Playful, args.keep, async |_, target| {
        let say = |text: &str| cx.out.say(text);
        demo::run(&cx.host, target, &options, &say).await.map_err(|error| harness(&error))
    })
    .await?;
    cx.out.show(&report, |report| report.table())?;
    Ok(if report.passed() { Code::Ok } else { Code::Failed })
}

/// `bench`.
pub(crate) async fn bench(cx: &Context, args: BenchArgs) -> Result<Code, Failure> {
    if let Bench::S3(s3) = &args.what
        && s3.running
    {
        let target = running_target(cx).await?;
        return tokio::select! {
            shown = bench_s3(cx, &target, s3, None) => shown.map(|()| Code::Ok),
            () = shutdown_signal() => Err(Failure::new(Code::Internal, "interrupted: its buckets stay")),
        };
    }
    if let Bench::PowerLoss(power) = &args.what {
        return power_loss::bench(cx, power, args.keep).await;
    }
    match &args.what {
        Bench::Swim(swim) => return swim::bench(cx, swim),
        Bench::Merkle(merkle) => return metadata::merkle(cx, merkle, args.keep).await,
        Bench::Restart(restart) => return restart::restart(cx, restart, args.keep).await,
        Bench::Restore(restore) => return restart::restore(cx, restore, args.keep).await,
        Bench::Scrub(scrub) => return scrub::scrub(cx, scrub, args.keep).await,
        Bench::Modes(modes) => return modes::bench(cx, modes, args.keep).await,
        _ => {}
    }
    // Reading all disks through every 20 s, as `up` has it, would be most of what is measured.
    let upkeep = match args.what {
        Bench::S3(_) | Bench::Rebuild { .. } => Upkeep::Production,
        _ => Upkeep::Playful,
    };
    in_a_cluster(cx, "bench", upkeep, args.keep, async |cluster, target| match &args.what {
        Bench::Crash { runs } => {
            figures(cx, crash::run(&cx.host, target, *runs).await.map_err(|error| harness(&error))?)
        }
        Bench::Idle { span } => {
            let mut agents = Vec::new();
            for node in cluster.nodes() {
                let pids = cluster.pids(&node.name).await.map_err(|error| Failure::failed(error.to_string()))?;
                agents.extend(pids.agent.map(|id| id.pid));
            }
            cx.out.say(format!("looking for {}", humantime::format_duration(*span)));
            figures(cx, idle::run(&cx.host, target, &agents, *span).await.map_err(|error| harness(&error))?)
        }
        // They have made their own clusters above.
        Bench::PowerLoss(_)
        | Bench::Merkle(_)
        | Bench::Restart(_)
        | Bench::Restore(_)
        | Bench::Scrub(_)
        | Bench::Modes(_)
        | Bench::Swim(_) => Ok(()),
        Bench::S3(s3) => {
            // It leaves the key where the benchmark looks for it: in the cluster's folder.
            cluster.s3_access().await?;
            bench_s3(cx, target, s3, Some(cluster)).await
        }
        Bench::Rebuild { small, large, busy_for } => {
            let say = |text: &str| cx.out.say(text);
            let options = rebuild::RebuildOptions { small: *small, large: *large, busy_for: *busy_for };
            let found = rebuild::run(&cx.host, target, options, &say).await.map_err(|error| harness(&error))?;
            cx.out.show(&found, |found| {
                let shares = found.time_goes.iter().map(|(part, share)| format!("  {part}: {share:.1} %\n"));
                let busy = found.busy.as_ref().map(|busy| {
                    format!(
                        "with clients busy: {:.1}% of {} shards in {:.1} s, {:.1} MB/s; some disk gave way {:.0}% of that time\n  before: \
                         {}\n  during: {}\n  99 of 100: puts {:.2} times as long, gets {:.2} times\n",
                        busy.rebuilt_percent,
                        busy.lost_shards,
                        busy.during.seconds,
                        busy.megabytes_per_second,
                        busy.gave_way_percent,
                        busy.before.line(),
                        busy.during.line(),
                        busy.put_p99_times,
                        busy.get_p99_times,
                    )
                });
                format!(
                    "{} in {} shards rebuilt in {} ms after {} ms of waiting: {:.1} MB/s, {:.0} shards/s\n{}{}",
                    crate::output::bytes(found.lost_bytes),
                    found.lost_shards,
                    found.rebuild_ms,
                    found.until_start_ms,
                    found.megabytes_per_second,
                    found.shards_per_second,
                    shares.collect::<String>(),
                    busy.unwrap_or_default(),
                )
            })
        }
    })
    .await?;
    Ok(Code::Ok)
}

async fn bench_s3(cx: &Context, target: &Target, args: &S3Args, own: Option<&LocalCluster>) -> Result<(), Failure> {
    let options = s3::S3Options {
        span: Duration::from_secs(args.seconds),
        runs: usize::try_from(args.runs).unwrap_or(usize::MAX),
        listing_keys: if own.is_some() { 0 } else { args.listing_keys },
        fill_time: args.fill_time,
        uploads: usize::try_from(args.uploads).unwrap_or(usize::MAX),
        upload_mib: args.upload_size,
        // A cluster of our own goes as a whole.
        tidy: args.running,
    };
    let say = |text: &str| cx.out.say(text);
    let mut report = s3::run(&cx.host, target, &options, &say).await.map_err(|error| harness(&error))?;
    if let Some(cluster) = own.filter(|_| args.listing_keys > 0) {
        // Put through the doors, a million would take an hour on two cores, and nothing is learned about listing.
        let begun = Instant::now();
        metadata::filled(cx, cluster, s3::LISTING_BUCKET, args.listing_keys, true, 0).await?;
        cluster.start().await?;
        cluster.wait_healthy(START_TIME + metadata::LIMIT).await?;
        let (seconds, prefix) = (begun.elapsed().as_secs_f64(), quantity::KEY_PREFIX);
        let listed = s3::list_filled(&cx.host, target, &options, prefix, args.listing_keys, &say).await;
        report.list(listed.map_err(|error| harness(&error))?, args.listing_keys, seconds);
    }
    cx.out.show(&report, s3::Report::table)
}

/// The cluster that somebody else runs in the folder of --dir.
async fn running_target(cx: &Context) -> Result<Target, Failure> {
    let dir = cx.place.dir.clone().ok_or_else(|| {
        Failure::usage("no folder named").next("name that of a running `resilver up`: --dir DIR (or RESILVER_DIR)")
    })?;
    let file = discover::read_cluster_file(&cx.host, &dir).await?;
    let host = |member: discover::Member| {
        let own = dir.join("nodes").join(&member.name);
        HostInfo {
            disks: (1..=file.disks).map(|disk| own.join(format!("disk{disk}"))).collect(),
            name: member.name,
            address: member.address,
            http: member.http.unwrap_or_default(),
            api: member.api.unwrap_or_default(),
        }
    };
    Ok(Target { hosts: file.nodes.into_iter().map(host).collect(), dir })
}

fn figures(cx: &Context, figures: Vec<Figures>) -> Result<(), Failure> {
    cx.out.show(&figures, |figures| figures.iter().map(|figure| figure.line() + "\n").collect())
}

fn harness(error: &anyhow::Error) -> Failure {
    Failure::new(Code::Internal, format!("the experiment itself broke down: {error:#}"))
}

/// Makes a cluster in a folder of its own, does `work` on it, and ends it, however the work ended.
async fn in_a_cluster<T>(
    cx: &Context,
    what: &str,
    upkeep: Upkeep,
    keep: bool,
    work: impl AsyncFnOnce(&LocalCluster, &Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let shape = Shape { nodes: DEFAULT_NODES, disks: DEFAULT_DISKS, upkeep };
    in_a_prepared_cluster(cx, what, shape, keep, async |_: &LocalCluster| Ok(()), work).await
}

/// What kind of cluster an experiment wants.
#[derive(Clone, Copy)]
struct Shape {
    nodes: u32,
    disks: u32,
    upkeep: Upkeep,
}

/// The same, of so many nodes with so many disks each.
async fn in_a_cluster_of<T>(
    cx: &Context,
    what: &str,
    size: (u32, u32),
    keep: bool,
    work: impl AsyncFnOnce(&LocalCluster, &Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let shape = Shape { nodes: size.0, disks: size.1, upkeep: Upkeep::Playful };
    in_a_prepared_cluster(cx, what, shape, keep, async |_: &LocalCluster| Ok(()), work).await
}

/// The same, with something done to it before it is started.
async fn in_a_prepared_cluster<T>(
    cx: &Context,
    what: &str,
    Shape { nodes, disks, upkeep }: Shape,
    keep: bool,
    prepare: impl AsyncFnOnce(&LocalCluster) -> Result<(), Failure>,
    work: impl AsyncFnOnce(&LocalCluster, &Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let dir = new_folder(cx, what);
    let options = LocalOptions {
        dir: dir.clone(),
        nodes: Some(nodes),
        disks: Some(disks),
        binary: cx.binary()?,
        name: what.to_owned(),
        upkeep,
    };
    let cluster = LocalCluster::create_or_open(&cx.host, options).await?;
    let work = async {
        cx.out.say(format!("starting {nodes} nodes in {} (profile fast: policy times / 60)", dir.display()));
        prepare(&cluster).await?;
        cluster.start().await?;
        cluster.wait_healthy(START_TIME).await?;
        work(&cluster, &target_of(&cluster)).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = shutdown_signal() => Err(Failure::new(Code::Internal, "interrupted")),
    };
    let stopped = cluster.stop().await;
    tidy(cx, &dir, keep || outcome.is_err()).await;
    let value = outcome?;
    stopped.map(|()| value)
}

/// A folder that no other experiment has: neither one at the same time, nor one that crashed before.
fn new_folder(cx: &Context, what: &str) -> PathBuf {
    let own = cx.host.proc.own();
    std::env::temp_dir().join(format!("resilver-{what}-{}-{}", own.pid, own.start_ticks))
}

async fn tidy(cx: &Context, dir: &Path, keep: bool) {
    if keep {
        cx.out.say(format!("its folder stays: {}", dir.display()));
    } else if let Err(error) = remove(cx, dir).await {
        cx.out.say(format!("its folder {} could not be removed: {error}", dir.display()));
    }
}

fn target_of(cluster: &LocalCluster) -> Target {
    let host = |node: &crate::local::LocalNode| HostInfo {
        name: node.name.clone(),
        address: node.address.clone(),
        http: node.http.clone(),
        api: node.api.clone(),
        disks: node.disks.clone(),
    };
    Target { dir: cluster.dir().to_owned(), hosts: cluster.nodes().iter().map(host).collect() }
}

/// Removes the folder of an experiment: folders and files; anything else in it is none of ours and stops it.
async fn remove(cx: &Context, dir: &Path) -> std::io::Result<()> {
    for entry in cx.host.disk.list(dir).await? {
        let path = dir.join(&entry.name);
        match entry.kind {
            FileKind::Dir => Box::pin(remove(cx, &path)).await?,
            FileKind::File => cx.host.disk.remove_file(&path).await?,
            FileKind::Other => return Err(std::io::Error::other(format!("{} is no file", path.display()))),
        }
    }
    cx.host.disk.remove_dir(dir).await
}

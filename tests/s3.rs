//! The S3 door as its clients meet it: S3's rules with boto3, bad input over raw sockets, the tools people use, nodes killed
//! under load, and one large object. The clients stand in `tests/s3`; what they are installed in is named by
//! $RESILVER_S3_PYTHON.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/s3.rs"]
mod clients;
#[path = "support/lone.rs"]
mod lone;
mod support;

use std::io::{BufRead, BufReader};
use std::time::Duration;

use clients::Clients;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_chaos::client::Client;
use resilver_chaos::faults;
use support::{BINARY, Cluster, eventually};

/// How many nodes, and disks in each: 4+2 with a domain per shard.
const NODES: u32 = 6;
const DISKS: u32 = 2;

/// How long the load of the story with kills lasts, and how often a node may be killed in it. Bounded: each kill is a
/// recovery of some seconds on a busy machine.
const LOAD_S: u64 = 40;
const MOST_KILLS: usize = 8;
/// Between two looks at whether another node may be killed.
const LOOK_MS: u64 = 700;

/// The large object, in MiB; 5 GiB in the long form.
const LARGE_MIB: &str = "RESILVER_S3_LARGE_MIB";
const DEFAULT_LARGE_MIB: &str = "1024";
/// What a node may have in memory at its peak, whatever passes through it. Below the default size of the large object, and
/// far below that of the long form.
const MOST_NODE_MEMORY_MIB: u64 = 400;

/// Where the endpoints and the first key of a cluster are written.
fn access(cluster: &Cluster) -> std::path::PathBuf {
    cluster.dir.path().join("s3.json")
}

/// Runs one of the scripts that check an endpoint.
fn checked_by(script: &str) {
    let Some(clients) = Clients::find() else { return };
    let cluster = Cluster::start(NODES, DISKS, &[]);
    let mut args = vec!["--resilver", BINARY];
    if std::env::var_os("RESILVER_TEST_NO_SKIP").is_some() {
        args.push("--no-skip");
    }
    clients.run(script, &access(&cluster), &args).expect_success(script);
}

#[test]
fn s3s_rules_hold_for_boto3() {
    checked_by("conformance.py");
}

#[test]
fn bad_input_is_answered_with_s3s_own_errors_and_harms_nothing() {
    checked_by("raw.py");
}

#[test]
fn the_aws_command_line_s3cmd_and_rclone_work_unmodified() {
    checked_by("tools.py");
}

#[test]
fn a_bucket_in_front_of_the_domain_is_the_same_bucket() {
    let Some(clients) = Clients::find() else { return };
    let lone = lone::Lone::new("n1", 2, &[]);
    let door = lone.open_s3(", domain: \"s3.test\"");
    let _running = lone.start();
    lone.found();
    lone.ok(&["bucket", "create", "kept", "--coding", "1+1"]);
    let access = lone.s3_access(&door);
    // Phase 1: put by path, found by host: in any case, and with a port.
    assert_eq!(clients.one(&access, "PUT", "/kept/folder/k", 5).status, 200);
    for host in ["kept.s3.test", "Kept.S3.Test", "kept.s3.test:8080"] {
        let got = clients.one_to_host(&access, host, "GET", "/folder/k");
        assert_eq!((got.status, got.bytes), (200, 5), "{host}: {got:?}");
        assert!(
            clients.one_to_host(&access, host, "GET", "/?list-type=2").text.contains("<Key>folder/k</Key>"),
            "{host}"
        );
    }
    // Phase 2: the domain itself and any other name are path style; a bucket that is not there is not.
    for host in ["s3.test", "balancer.example", "127.0.0.1"] {
        assert_eq!(clients.one_to_host(&access, host, "GET", "/kept/folder/k").status, 200, "{host}");
    }
    assert_eq!(clients.one_to_host(&access, "other.s3.test", "GET", "/folder/k").code, "NoSuchBucket");
}

async fn all_healthy(client: &Client) -> bool {
    client.status().await.is_some_and(|status| {
        status.unanswered.is_empty()
            && !status.leader.is_empty()
            && status.nodes.iter().all(|node| node.state == "healthy")
            && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
    })
}

#[tokio::test]
async fn what_s3_acknowledged_is_there_when_nodes_were_killed_at_random_moments() {
    const SEED: u64 = 20_261_121;
    println!("seed {SEED}");
    let Some(clients) = Clients::find() else { return };
    // Phase 1: clients that put, complete, delete and list, and try again elsewhere when a node does not answer.
    let cluster = Cluster::start(NODES, DISKS, &[]);
    let client = cluster.client();
    let (seconds, seed) = (LOAD_S.to_string(), SEED.to_string());
    let mut load = clients.spawn("load.py", &access(&cluster), &["--seconds", &seconds, "--seed", &seed]);
    let mut lines = BufReader::new(load.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("begun"));
    // Phase 2: one node after the other is killed, each when the one before is whole again: a second failure at a time is
    // more than an acknowledgement at k+1 promises to survive without a pause.
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut killed = Vec::new();
    let begun = std::time::Instant::now();
    while killed.len() < MOST_KILLS && begun.elapsed() < Duration::from_secs(LOAD_S) {
        tokio::time::sleep(Duration::from_millis(LOOK_MS + rng.next_u64() % LOOK_MS)).await;
        if all_healthy(&client).await {
            let victim = &cluster.target.hosts[(rng.next_u64() % u64::from(NODES)) as usize];
            faults::kill_node(&cluster.host, &client, victim).await.unwrap();
            killed.push(victim.name.clone());
        }
    }
    println!("killed: {}", killed.join(" "));
    assert!(killed.len() >= 2, "only {killed:?} could be killed within {LOAD_S} s");
    // Phase 3: every client reads what it was told is there, whichever nodes answer by then.
    let said: Vec<String> = lines.collect();
    said.iter().for_each(|line| println!("{line}"));
    assert!(load.wait().unwrap().success(), "{}", said.join("\n"));
    // Phase 4: it heals by itself.
    eventually("the cluster is whole", async || all_healthy(&client).await).await;
}

/// The most that a process ever had in memory, from /proc/PID/status.
fn peak_memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_large_object_passes_in_constant_memory() {
    let Some(clients) = Clients::find() else { return };
    let mib = std::env::var(LARGE_MIB).unwrap_or_else(|_| DEFAULT_LARGE_MIB.to_owned());
    let cluster = Cluster::start(NODES, DISKS, &[]);
    let client = cluster.client();
    let ran = clients.run("large.py", &access(&cluster), &["--mib", &mib]);
    println!("{}", ran.stdout);
    assert!(ran.succeeded, "{}{}", ran.stdout, ran.stderr);
    for host in &cluster.target.hosts {
        let peak = peak_memory_mib(client.observe(&host.name).await.unwrap().pid);
        println!("{}: {peak} MiB at its peak", host.name);
        assert!(peak < MOST_NODE_MEMORY_MIB, "{} had {peak} MiB in memory for an object of {mib} MiB", host.name);
    }
}

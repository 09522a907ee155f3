//! Agents that relieve their nodes, beside real nodes: of a metadata disk that is too slow to follow with, and of a disk that
//! is full. What they did is given back when the reason is gone. Real file systems in a mount namespace of their own; needs
//! root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
#[path = "support/lone.rs"]
mod lone;
#[path = "support/mounts.rs"]
mod mounts;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use agents::{all_over, configured, incident, of_role, reaches, records, steps, told, verified};
use mounts::Mounts;
use resilver_chaos::client::{Client, Written};
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::locks::{AcquireRequest, AcquireResponse, ReleaseRequest};
use resilver_proto::transport::{self, Profile};
use support::{BINARY, Cluster, LIMIT, eventually};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const BUCKET: &str = "stories";
/// How long one put may take.
const PUT: Duration = Duration::from_secs(15);
/// Clients that write entries of the log.
const CLIENTS: u32 = 4;
/// How often each of them does. What agents know of each other is a second or two old: in that time fewer entries have to come than
/// count as a lag, or everybody would be slow.
const PACE: Duration = Duration::from_millis(100);
/// What each write and sync of the slow disk takes: an entry needs some of them.
const SLOW: &str = "slow 500";

/// A folder behind a file system that takes its time when it is told to. In a mount namespace of its own; ends with the test.
struct SlowFolder {
    child: Child,
    control: PathBuf,
}

impl SlowFolder {
    async fn mount(folder: &Path) -> Self {
        let behind = folder.with_extension("behind");
        std::fs::rename(folder, &behind).unwrap();
        std::fs::create_dir(folder).unwrap();
        let control = folder.with_extension("control");
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL", BINARY, "fault-fs"])
            .args([&behind, folder, &control])
            .spawn()
            .unwrap();
        let mounted = Self { child, control };
        eventually("it is mounted", async || UnixStream::connect(&mounted.control).is_ok()).await;
        mounted
    }

    fn order(&self, order: &str) {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(stream, "{order}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("ok "), "{order}: {answer}");
    }
}

impl Drop for SlowFolder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn put(client: &Client, from: usize, to: usize) {
    for at in from..to {
        let body = bytes::Bytes::from(vec![at as u8; 2000 * (at + 1)]);
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("k{at}"), body.clone(), PUT).await == Written::Acknowledged
        })
        .await;
    }
}

/// Entries of the log, some eighty in a second: locks that are taken and given back.
fn entries(cluster: &Cluster, leader: &str) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = &cluster.target.host(leader).unwrap().address;
        let mut locks = LocksClient::new(transport::channel(&cluster.host.net, address, Profile::Bulk).unwrap());
        let (path, life) = (format!("load/{number}"), format!("{number:032x}"));
        clients.spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            // After a stall the ticks that were missed would come at once, and everybody would be slow.
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let wanted = AcquireRequest {
                    path: path.clone(),
                    label: "load".to_owned(),
                    life: life.clone(),
                    lease_ms: 60_000,
                    wait_ms: 0,
                };
                if let Ok(had) = locks.acquire(wanted).await {
                    let AcquireResponse { token, owner, .. } = had.into_inner();
                    let _ = locks.release(ReleaseRequest { path: path.clone(), owner, token }).await;
                }
            }
        });
    }
    clients
}

/// Found by this: the agent asked its own node to give the vote up, which first had to catch up with the map of who votes; and that is
/// what it could not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_is_relieved_gives_its_vote_up_and_has_all_back_when_it_keeps_up() {
    if !lone::is_root("mounting a file system") {
        return;
    }
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 3).await;
    // The one that led last will hardly lead again; whoever does is found out below.
    let slow = of_role(&cluster, "voter", "").await;
    let folder = cluster.node_dir(&slow).join("meta");
    let dir = cluster.stop();
    let disk = SlowFolder::mount(&folder).await;
    let namespace = disk.child.id().to_string();
    let within = ["nsenter", "--target", &namespace, "--mount", "--"];
    let cluster = Cluster::start_within(dir, 4, 2, &[], &within);
    let client = cluster.client();
    // Half a minute of a lag of ten seconds is too long for a test.
    configured(&cluster, "", "lag: { entries: 160, behind: 2s, confirm_after: 4s }\n").await;
    all_over(&cluster, &client).await;
    if of_role(&cluster, "leader", "").await == slow {
        let ended = cluster.run(&["node", "restart", &slow, "--reason", "another is to lead"]);
        assert!(ended.status.success(), "{}", agents::said(&ended));
        eventually("another leads", async || {
            client.status().await.is_some_and(|status| !["", &slow].contains(&status.leader.as_str()))
        })
        .await;
        all_over(&cluster, &client).await;
    }

    // Its disk becomes slow while the leader is busy.
    let leader = of_role(&cluster, "leader", "").await;
    let load = entries(&cluster, &leader);
    disk.order(SLOW);
    let open = reaches(&cluster, &slow, "slow_follower", "recovering").await;
    eventually("it has given its vote up", async || {
        let gave = |one: &serde_json::Value| one["action"] == "demote" && one["details"]["resolution"] == "done";
        records(&cluster, &slow, &open).await.iter().any(gave)
    })
    .await;
    let mut others = cluster.target.hosts.iter().filter(|host| host.name != slow);
    assert!(others.all(|host| incident(&cluster, &host.name, "slow_follower").is_none()), "it alone is slow");

    // The disk is as it was, and the node keeps up: what was done to it is taken back, the newest first.
    disk.order("clear");
    drop(load);
    let over = reaches(&cluster, &slow, "slow_follower", "resolved").await;
    let written = records(&cluster, &slow, &over).await;
    let done = ["throttle", "set_mode", "install_snapshot", "demote", "promote", "set_mode", "throttle"];
    // One that failed, or was not seen in time, is begun again before the next.
    let begun = steps(&written);
    let mut in_order = begun.clone();
    in_order.dedup();
    assert_eq!(in_order, done, "{written:#?}");
    assert!(begun.len() <= done.len() + 2, "{written:#?}");
    told(&written, &slow, &begun, &["pause", "fresh", "authority", "intent_first"], "canary");
    eventually("three nodes vote", async || {
        let Some(status) = cluster.try_json(&["meta", "status", "--json"]) else { return false };
        let votes = |node: &&serde_json::Value| node["role"] == "voter" || node["role"] == "leader";
        status["nodes"].as_array().unwrap().iter().filter(votes).count() == 3
    })
    .await;
    let seen = client.observe(&slow).await.unwrap();
    assert!(seen.stands == Some(true) && seen.repair.unwrap().throttled.is_empty(), "nothing of it is left");
    all_over(&cluster, &client).await;
    verified(&cluster);
}

/// The disk that fills up: small, and what is left of it when it is full. Its canary has room still.
const SMALL_MIB: u32 = 64;
const LEFT_BYTES: u64 = 3 << 19;

#[tokio::test]
async fn a_node_whose_disk_is_full_is_cleaned_up_then_takes_no_writes_until_there_is_room_again() {
    if !lone::is_root("mounting small file systems") {
        return;
    }
    let cluster = Cluster::start(3, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 3).await;
    // One of its disks becomes a small file system of its own.
    let full = "n2";
    let folder = cluster.node_dir(full).join("disk1");
    let dir = cluster.stop();
    let before = folder.with_extension("before");
    std::fs::rename(&folder, &before).unwrap();
    let small = Mounts::new(&[(folder.as_path(), SMALL_MIB)]);
    let copied = Command::new("cp").arg("-a").arg(before.join(".")).arg(small.path(&folder)).status().unwrap();
    assert!(copied.success());
    let within = small.enter(&[]);
    let within: Vec<&str> = within.iter().map(String::as_str).collect();
    let cluster = Cluster::start_within(dir, 3, 2, &[], &within);
    let client = cluster.client();
    // Half a minute over a threshold, looked at every ten seconds, is too long for a test.
    configured(&cluster, "  sensors: { host_every: 1s, canary_every: 1s }\n", "resources: { confirm_after: 3s }\n")
        .await;
    all_over(&cluster, &client).await;

    let filler = small.fill_but(&folder, LEFT_BYTES);
    let open = reaches(&cluster, full, "resource_exhaustion", "recovering").await;
    let evidence = open["evidence"].as_str().unwrap();
    assert!(evidence.contains("room used of"), "{evidence}");
    let mode = async || client.observe(full).await.map(|seen| (seen.mode, seen.mode_automatic));
    eventually("it takes no writes", async || mode().await == Some(("read_only".to_owned(), true))).await;
    assert!(steps(&records(&cluster, full, &open).await).ends_with(&["throttle", "set_mode"]), "{open}");
    // The others do, and what is there is read.
    put(&client, 3, 5).await;

    std::fs::remove_file(filler).unwrap();
    let over = reaches(&cluster, full, "resource_exhaustion", "resolved").await;
    let done = ["reclaim", "reclaim", "reclaim", "throttle", "set_mode", "set_mode", "throttle"];
    let written = records(&cluster, full, &over).await;
    told(&written, full, &done, &["pause", "fresh", "authority", "intent_first"], "canary");
    assert_eq!(mode().await.map(|(mode, _)| mode).as_deref(), Some("read_write"));
    let crashed = incident(&cluster, full, "process_crash");
    assert!(crashed.is_none_or(|crash| crash["state"] == "resolved"), "nothing is restarted because a disk is full");
    put(&client, 5, 7).await;
    all_over(&cluster, &client).await;
    verified(&cluster);
}

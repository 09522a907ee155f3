//! The whole cluster loses its power at once, in the middle of writes, and every log ends in a torn tail. It starts again by itself,
//! with everything that was acknowledged, against the built command.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resilver_chaos::client::{Client, Written};
use resilver_host::Signal;
use serde_json::Value;
use support::{Cluster, LIMIT, eventually, stored_equal, whole};

const BUCKET: &str = "stories";
/// How long one put may take before its outcome counts as unknown.
const PUT_DEADLINE: Duration = Duration::from_secs(10);
/// Writers at a time, each with keys of its own, which it writes over and over.
const WRITERS: u64 = 4;
const KEYS: u64 = 8;
/// Acknowledged writes before the power goes.
const ENOUGH: u64 = 60;

/// How far a torn tail reaches.
const TORN_BYTES: usize = 154;

/// What may be read under a key: what was acknowledged last, or anything that was begun after that.
#[derive(Clone, Default)]
struct May {
    acknowledged: Option<u64>,
    unknown: Vec<u64>,
}

fn content(number: u64) -> bytes::Bytes {
    let len = 20_000 + (number * 7_919 % 200_000) as usize;
    (0..len).map(|at| (at as u64 * 31 + number * 17) as u8).collect::<Vec<u8>>().into()
}

/// Writes until told to stop, or until nobody answers; what may be read of its keys then.
async fn write(
    client: Arc<Client>,
    writer: u64,
    done: tokio::sync::watch::Sender<u64>,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, May> {
    let mut keys: BTreeMap<String, May> = BTreeMap::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, number) = (format!("w{writer}-{}", round % KEYS), writer * 100_000 + round);
        let may = keys.entry(key.clone()).or_default();
        match client.put(BUCKET, &key, content(number), PUT_DEADLINE).await {
            Written::Acknowledged => {
                *may = May { acknowledged: Some(number), unknown: Vec::new() };
                done.send_modify(|done| *done += 1);
            }
            Written::Refused(_) => {}
            Written::Unknown(_) => may.unknown.push(number),
        }
    }
    keys
}

/// Ends every process of every node in one go: agents and keepers first, so that nobody starts anything any more.
async fn power_off(cluster: &Cluster, client: &Client) {
    let mut victims: Vec<Vec<u32>> = vec![Vec::new(); 3];
    for host in &cluster.target.hosts {
        let node = client.observe(&host.name).await.unwrap().pid;
        let stat = std::fs::read_to_string(format!("/proc/{node}/status")).unwrap();
        let keeper = stat.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        victims[0].push(cluster.agent_pid(&host.name));
        victims[1].push(keeper);
        victims[2].push(node);
    }
    for pid in victims.into_iter().flatten() {
        cluster.signal(pid, Signal::Kill).await;
    }
}

/// Behind the end of a node's log: the begin of a record that was never acknowledged, and noise (docs/formats.md).
fn tear(log: &Path) {
    let header = std::fs::read(log.join("header")).unwrap();
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
    let slot = if number(16) >= number(4096 + 16) { 0 } else { 4096 };
    let (next_segment, end) = (number(slot + 32 + 8), number(slot + 32 + 16));
    let segment = log.join(format!("segment-{:016x}", next_segment - 1));
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    let mut torn = 700_u32.to_le_bytes().to_vec();
    torn.extend((4..TORN_BYTES).map(|at| (at * 37) as u8 | 1));
    file.write_all_at(&torn, end).unwrap();
}

#[tokio::test]
async fn a_cluster_that_lost_its_power_at_once_starts_with_torn_tails_everywhere_and_has_all_that_was_acknowledged() {
    // Phase 1: writers at work, some of them in the middle of a write when the power goes everywhere.
    let cluster = Cluster::start(6, 2, &[]);
    let client = Arc::new(cluster.client());
    client.ensure_bucket(BUCKET, None).await.unwrap();
    whole(&client).await;
    let (stop, (done, mut written)) = (Arc::new(AtomicBool::new(false)), tokio::sync::watch::channel(0));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), writer, done.clone(), stop.clone()))).collect();
    tokio::time::timeout(LIMIT, written.wait_for(|done| *done >= ENOUGH)).await.unwrap().unwrap();
    power_off(&cluster, &client).await;
    stop.store(true, Ordering::Relaxed);
    let mut keys = BTreeMap::new();
    for writer in writers {
        keys.extend(writer.await.unwrap());
    }
    assert!(keys.values().any(|may| !may.unknown.is_empty()), "nobody was in the middle of a write");
    let names: Vec<String> = cluster.target.hosts.iter().map(|host| host.name.clone()).collect();
    let dir = cluster.stop();

    // Phase 2: each log has bytes behind its end that nobody was ever told of.
    for name in &names {
        tear(&dir.path().join("nodes").join(name).join("meta/log"));
    }

    // Phase 3: the power is back. Nothing asks for a person, and nothing that was acknowledged is lost.
    let cluster = Cluster::start_in(dir, 6, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    for name in &names {
        let log = std::fs::read_to_string(cluster.node_dir(name).join("node.log")).unwrap();
        let opened = log.lines().rfind(|line| line.contains("log opened")).unwrap_or_default();
        let torn = serde_json::from_str::<Value>(opened).ok().and_then(|line| line["torn_bytes"].as_u64());
        // At least what was put there; an append that was cut short may reach further.
        assert!(torn >= Some(TORN_BYTES as u64), "{name} says nothing of its torn tail: {opened}");
    }
    for (key, may) in &keys {
        let found = client.get_crc(BUCKET, key, LIMIT).await;
        let is = |number: &u64| {
            let content = content(*number);
            found.as_ref().is_ok_and(|found| *found == (content.len() as u64, crc32c::crc32c(&content)))
        };
        let nothing = may.acknowledged.is_none() && found.is_err();
        assert!(nothing || may.acknowledged.iter().chain(&may.unknown).any(is), "{key}: {found:?}");
    }
    stored_equal(&cluster).await;
    let report = cluster.dir.path().join("report.json");
    let verified = cluster.run(&["verify", "--full", "--report", &report.display().to_string()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["report"]["verdict"], "pass", "{report}");
    eventually("no incident is open", async || {
        let Some(incidents) = cluster.try_json(&["incident", "list", "--json"]) else { return false };
        incidents.as_array().unwrap().iter().all(|incident| incident["state"] == "resolved")
    })
    .await;
    // How it came up is told: each step of the start, with what it took.
    let status = cluster.json(&["node", "status", "n1", "--json"]);
    let steps: Vec<&str> =
        status["start_steps"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["folders", "log", "database", "snapshot", "raft", "catch_up", "canary"], "{status}");
    assert!(status["start_steps"].as_array().unwrap().iter().all(|step| step["finished"] == true), "{status}");
}

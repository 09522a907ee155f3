//! Hosts that lose their power without a word: what clients of the others notice. Real processes in network namespaces of
//! their own; needs root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/lone.rs"]
mod lone;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lone::is_root;
use resilver_chaos::hosts::{HostCluster, Shape};
use resilver_chaos::s3::Access;
use resilver_proto::store::SetBucketRequest;
use resilver_proto::store::set_bucket_request::Quota;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::transport::{self, Profile};
use resilver_proto::web;
use serde_json::{Value, json};

/// One cluster at a time: each would measure the other.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the benchmark once and gives its cases.
fn cases(arguments: &[&str]) -> Vec<Value> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(["bench", "power-loss", "--runs", "1", "--json"])
        .args(arguments)
        .env_remove("RESILVER_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let cases: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    cases.as_array().unwrap().clone()
}

/// How long things take depends on the machine of the day: it is printed. That nothing fails does not.
fn no_client_noticed(cases: &[Value]) {
    for case in cases {
        let median = |name: &str| case[name]["median"].as_f64().unwrap_or(f64::NAN);
        println!(
            "{}: {} errors in {} requests; longest {:.0} ms, circuits open after {:.0} ms and closed {:.0} ms after, \
             status {:.0} ms",
            case["case"],
            case["errors"],
            case["requests"],
            median("stall_ms"),
            median("breaker_open_ms"),
            median("breaker_closed_ms"),
            median("status_p99_ms"),
        );
    }
    for case in cases {
        let name = case["case"].as_str().unwrap();
        if name.starts_with("saturated") {
            busy_is_not_dead(case);
            continue;
        }
        let dead = name.starts_with("power off");
        if dead {
            assert_eq!(case["errors"], 0, "{}: {}", case["case"], case["first_error"]);
        } else if let Some(error) = case["first_error"].as_str() {
            // Through a network that is ill a request may fail: with a clear answer, and in time.
            assert!(error.contains("503 ServiceUnavailable"), "{}: {error}", case["case"]);
        }
        assert!(!dead || case["breaker_open_ms"].is_object(), "{}: nobody suspected it", case["case"]);
        assert!(case["back_ms"].is_object(), "{}: not whole again", case["case"]);
    }
}

/// A host that is merely busy: every download is whole, nobody takes it for dead, and no agent lays a hand on it.
fn busy_is_not_dead(case: &Value) {
    let evidence = &case["evidence"];
    println!(
        "{}: {}, the longest {:.0} ms; {evidence}",
        case["case"],
        case["note"],
        case["download_ms"]["worst"].as_f64().unwrap()
    );
    assert!(case["requests"].as_u64().unwrap() >= 64, "fewer downloads than were to run at a time: {case}");
    assert_eq!(case["truncated"], 0, "{}", case["first_error"]);
    assert_eq!(case["errors"], 0, "{}", case["first_error"]);
    assert_eq!(evidence["steps"], json!({}), "steps against a host that was busy: {evidence}");
    assert_eq!(evidence["convicted"], json!([]), "taken for dead: {evidence}");
    assert!(evidence["incidents"].get("host_down").is_none(), "taken for dead: {evidence}");
}

#[test]
fn six_hosts_with_4_2_lose_one_and_no_client_sees_an_error() {
    if is_root("network namespaces") {
        let size = ["--nodes", "6", "--disks", "4", "--upload", "150", "--outage", "8s", "--saturation", "10s"];
        no_client_noticed(&cases(&[&size[..], &["--skip", "thrice"]].concat()));
    }
}

#[test]
fn four_hosts_with_2_2_lose_one_and_no_client_sees_an_error() {
    if is_root("network namespaces") {
        let size = ["--nodes", "4", "--disks", "4", "--upload", "0", "--outage", "8s"];
        no_client_noticed(&cases(&[&size[..], &["--skip", "thrice", "--skip", "saturated"]].concat()));
    }
}

/// How soon an operator's graphs must show it (the issue's own figure), and how often is looked.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// What an agent says in a metric, summed over its labels.
async fn metric(cluster: &HostCluster, at: usize, name: &str) -> f64 {
    let api = &cluster.target().hosts[at].api;
    let host = resilver_host::real::host();
    let Ok((200, page)) = web::call(&host.net, api, "/metrics", None, Duration::from_secs(5)).await else { return 0.0 };
    let text = String::from_utf8_lossy(&page).into_owned();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Changes a bucket again and again through a node's door, as fast as it is let: each change takes a lock.
async fn changes(host: &resilver_host::Host, address: &str) {
    let mut store = StoreClient::new(transport::channel(&host.net, address, Profile::Bulk).unwrap());
    for quota in 1_000_000.. {
        let quota = Some(Quota::QuotaBytes(quota));
        let request = SetBucketRequest { bucket: "changed".to_owned(), quota, ..SetBucketRequest::default() };
        // A refusal while nobody leads is what this is about.
        let _ = store.set_bucket(request).await;
    }
}

/// Asks a door for something that takes a key to be read, again and again.
async fn signed(host: &resilver_host::Host, access: &Access) {
    let doors = access.stores(host, "changed").unwrap();
    loop {
        for door in &doors {
            // What it is answered while nobody leads is what this is about.
            let _ = door.ensure_bucket(Duration::from_secs(30)).await;
        }
    }
}

/// The layers against the loss of a host leave nothing that could follow it. What follows the loss of a quorum, they cannot
/// prevent: nobody gets a lock, and no key can be read.
#[test]
fn a_lost_quorum_is_told_as_a_cascade_within_a_minute() {
    if !is_root("network namespaces") {
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        let binary = Path::new(env!("CARGO_BIN_EXE_resilver"));
        let cluster = HostCluster::start(&host, dir.path(), binary, Shape::new(4, 1)).await.unwrap();
        let told = async {
            let client = resilver_chaos::client::Client::new(&host, cluster.target()).unwrap();
            client.ensure_bucket("changed", None).await.unwrap();
            let voters = async {
                loop {
                    let status = cluster.await_whole(SHOWN_WITHIN).await.unwrap();
                    let votes = |role: &str| matches!(role, "leader" | "voter");
                    let voters = status.nodes.iter().filter(|node| votes(&node.role));
                    let voters: Vec<usize> = voters.filter_map(|node| cluster.index(&node.node)).collect();
                    if voters.len() == 3 {
                        return voters;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            };
            let voters = tokio::time::timeout(SHOWN_WITHIN, voters).await.expect("three vote");
            let (dead, others): (Vec<usize>, Vec<usize>) = (0..4).partition(|at| voters[..2].contains(at));
            // A key that no node knows: it might have been made a moment ago, so that a quorum has to say.
            let access = Access { access_key: "UNKNOWN".to_owned(), ..cluster.access(&others).await.unwrap() };
            let mut load = tokio::task::JoinSet::new();
            for at in &others {
                let (host, address) = (host.clone(), cluster.target().hosts[*at].address.clone());
                load.spawn(async move { changes(&host, &address).await });
            }
            let own = host.clone();
            load.spawn(async move { signed(&own, &access).await });
            let off = Instant::now();
            for at in dead {
                cluster.hosts().power_off(at).await.unwrap();
            }
            while off.elapsed() < SHOWN_WITHIN {
                for at in &others {
                    if metric(&cluster, *at, "resilver_cascading_failure_patterns_total").await > 0.0 {
                        return Some(off.elapsed());
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
            None
        };
        let told = told.await;
        cluster.end().await.unwrap();
        let told = told.expect("no agent counted a cascade within a minute");
        println!("a cascade is counted {} ms after the power went", told.as_millis());
    });
}

//! The S3 door of a node that closes while its node is fine: nobody but its clients would notice. The kernel closes the port
//! from outside, as no client can; needs root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/agents.rs"]
mod agents;
#[path = "support/lone.rs"]
mod lone;
mod support;

use std::process::Command;
use std::time::Duration;

use agents::{reaches, records, told};
use resilver_proto::web;
use serde_json::Value;
use support::{Cluster, eventually, whole};

/// How long the door may take for its word on a busy machine.
const ANSWER: Duration = Duration::from_secs(5);

async fn answer(cluster: &Cluster, door: &str) -> Option<u16> {
    web::call(&cluster.host.net, door, "/health", None, ANSWER).await.ok().map(|(status, _)| status)
}

/// Has the kernel close the listening socket of another process: the port is closed, and the process is told only when it
/// asks. Whether the kernel can.
fn closes(door: &str) -> bool {
    let (_, port) = door.rsplit_once(':').unwrap();
    let port = format!("sport = :{port}");
    let listed = || Command::new("ss").args(["-Hltn", &port]).output().unwrap().stdout;
    assert!(!listed().is_empty(), "nobody listens at {door}");
    Command::new("ss").args(["-K", "-Hltn", &port]).output().unwrap();
    if listed().is_empty() {
        return true;
    }
    let strict = std::env::var_os("RESILVER_TEST_NO_SKIP").is_some();
    assert!(!strict, "this kernel closes no socket of others (CONFIG_INET_DIAG_DESTROY), or not for us");
    eprintln!("skipped: this kernel closes no socket of others");
    false
}

/// Found by a reviewer: the door's task was awaited when the node stopped, and not before. Its clients were refused, and
/// heartbeats and canaries were green, for ever.
#[tokio::test]
async fn a_node_whose_door_was_closed_is_started_again() {
    if !lone::is_root("closing the socket of another process") {
        return;
    }
    // Phase 1: a door that answers.
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    let nodes = cluster.up["nodes"].as_array().unwrap();
    let n2: &Value = nodes.iter().find(|node| node["name"] == "n2").unwrap();
    let door = n2["s3"].as_str().unwrap().trim_start_matches("http://").to_owned();
    eventually("the door answers", async || answer(&cluster, &door).await == Some(200)).await;
    let before = client.observe("n2").await.unwrap().pid;
    // Phase 2: it is closed, and the process ends of that, with the reason in its log.
    if !closes(&door) {
        return;
    }
    let log = cluster.node_dir("n2").join("node.log");
    let why = format!("the S3 door at {door} ended: nobody can connect to it any more: Invalid argument (os error 22)");
    eventually("the node says why it ends", async || std::fs::read_to_string(&log).unwrap().contains(&why)).await;
    // Phase 3: its agent takes that for the crash of the process that it is, starts it once, and has it proven.
    let incident = reaches(&cluster, "n2", "process_crash", "resolved").await;
    told(&records(&cluster, "n2", &incident).await, "n2", &["start_node"], &[], "canary written and read");
    eventually("the door answers again", async || answer(&cluster, &door).await == Some(200)).await;
    assert_ne!(client.observe("n2").await.unwrap().pid, before, "another process");
    whole(&client).await;
}

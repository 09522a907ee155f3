//! What the agents of a cluster are told and what they did, as a person reads it: by the commands, from the journals.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::Output;

use resilver_host::Signal;
use serde_json::Value;

use std::path::Path;
use std::time::Duration;

use crate::support::{Cluster, eventually, whole};
use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;

/// How long one put may take.
const PUT: Duration = Duration::from_secs(15);
/// How long agents are kept away while something is done to a node's folder: far longer than that takes.
const HANDS_OFF: &str = "2m";

/// Keys of a configuration by which agents leave a node that lost its vote by damage to a person.
pub const LOST_VOTERS_ARE_A_PERSONS: &str =
    "authority: { modes: { log_corruption: { all: shadow }, database_corruption: { all: shadow } } }\n";

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn agent(cluster: &Cluster, node: &str) -> Option<u64> {
    let output = cluster.run(&["agent", "status", "--node", node, "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    status["pid"].as_u64()
}

/// Has every agent begin anew with more in its section and more keys in its file, as an operator would.
pub async fn configured(cluster: &Cluster, of_agent: &str, keys: &str) {
    for host in &cluster.target.hosts {
        let file = cluster.node_dir(&host.name).join("resilver.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("  dir: agent\n"), "{text}");
        std::fs::write(&file, text.replace("  dir: agent\n", &format!("  dir: agent\n{of_agent}")) + keys).unwrap();
        let checked = cluster.run(&["config", "check", &file.display().to_string()]);
        assert!(checked.status.success(), "{}", said(&checked));
        // `up` starts it again, as systemd does.
        cluster.signal(cluster.agent_pid(&host.name), Signal::Terminate).await;
    }
    for host in &cluster.target.hosts {
        let before = u64::from(cluster.agent_pid(&host.name));
        eventually("a new agent", async || agent(cluster, &host.name).is_some_and(|pid| pid != before)).await;
    }
}

/// The newest incident of this mode that a node's agent opened, the node's own start left out.
pub fn incident(cluster: &Cluster, node: &str, mode: &str) -> Option<Value> {
    let output = cluster.run(&["incident", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).ok()?;
    let of_it = |one: &&Value| one["agent"] == node && one["mode"] == mode && one["initial"] == false;
    listed.as_array()?.iter().find(of_it).cloned()
}

/// Waits until a node's agent has an incident of this mode in this state.
pub async fn reaches(cluster: &Cluster, node: &str, mode: &str, state: &str) -> Value {
    let mut found = None;
    eventually(&format!("{mode} of {node} is {state}"), async || {
        found = incident(cluster, node, mode);
        found.as_ref().is_some_and(|one| one["state"] == state)
    })
    .await;
    found.unwrap()
}

/// Everything that the agent of a node wrote down of an incident, oldest first; once it says it.
pub async fn records(cluster: &Cluster, node: &str, incident: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    eventually("the agent shows its journal", async || {
        let args = ["journal", "list", "--node", node, "--limit", "100000", "--json"];
        let Some(listed) = cluster.try_json(&args) else { return false };
        let of_it = |record: &&Value| record["incident"] == incident["id"];
        found = listed.as_array().unwrap().iter().filter(of_it).cloned().collect();
        true
    })
    .await;
    found
}

/// What was begun, in order.
pub fn steps(records: &[Value]) -> Vec<&str> {
    records.iter().filter(|one| one["kind"] == "intent").map(|one| one["action"].as_str().unwrap()).collect()
}

/// An incident that is over was opened once, about its node; each step was intended with every guard passed, and ended before
/// the next began; the last of them did what it was to do; and only then it was resolved, by a proof that says this.
pub fn told(records: &[Value], node: &str, steps: &[&str], guards: &[&str], proof: &str) {
    let shown = serde_json::to_string_pretty(records).unwrap();
    let opened: Vec<&Value> = records.iter().filter(|one| one["kind"] == "opened").collect();
    assert_eq!(opened.len(), 1, "{shown}");
    assert_eq!(opened[0]["details"]["node_id"], node, "{shown}");
    assert_eq!(self::steps(records), steps, "{shown}");
    let mut under_way: Option<&Value> = None;
    let mut last = "";
    for record in records {
        match record["kind"].as_str().unwrap() {
            "intent" => {
                assert!(under_way.is_none(), "two at a time: {shown}");
                under_way = Some(&record["step"]);
                let judged = record["guards"].as_array().unwrap();
                assert!(judged.iter().all(|guard| guard["passed"] == true), "{shown}");
                for name in guards {
                    assert!(judged.iter().any(|guard| guard["guard"] == *name), "{name} was not asked: {shown}");
                }
            }
            "outcome" => {
                assert_eq!(under_way.take(), Some(&record["step"]), "{shown}");
                last = record["details"]["resolution"].as_str().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!((last, under_way), ("done", None), "{shown}");
    let end = records.last().unwrap();
    assert_eq!(end["kind"], "resolved", "{shown}");
    let how = end["details"]["resolution"].as_str().unwrap();
    assert!(how.starts_with("proven: ") && how.contains(proof), "{how}");
}

/// Everything that is stored is read back, shard by shard.
pub fn verified(cluster: &Cluster) {
    let report = cluster.dir.path().join("report.json").display().to_string();
    let verified = cluster.run(&["verify", "--full", "--report", &report]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
}

/// A node by its role, once one says that it has it; not the one that is named.
pub async fn of_role(cluster: &Cluster, role: &str, but: &str) -> String {
    let mut found = None;
    eventually(&format!("a {role} is there"), async || {
        let status = cluster.try_json(&["meta", "status", "--json"]).unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let named = nodes.iter().find(|node| node["role"] == role && node["node"] != but);
        found = named.map(|node| node["node"].as_str().unwrap().to_owned());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Waits until the cluster is whole and no incident is open.
pub async fn all_over(cluster: &Cluster, client: &Client) {
    whole(client).await;
    eventually("no incident is open", async || {
        cluster.try_json(&["incident", "list", "--open", "--json"]) == Some(Value::Array(vec![]))
    })
    .await;
}

/// Stores objects `kN` of a thousand bytes each, acknowledged.
pub async fn put(client: &Client, bucket: &str, from: usize, to: usize) {
    for at in from..to {
        let body = bytes::Bytes::from(vec![at as u8; 1000]);
        eventually("a put is acknowledged", async || {
            client.put(bucket, &format!("k{at}"), body.clone(), PUT).await == Written::Acknowledged
        })
        .await;
    }
}

/// Ends a node's process while agents are paused, does something to its folder, and lets them start it again.
pub async fn changed(cluster: &Cluster, client: &Client, name: &str, change: impl FnOnce(&Path)) {
    let paused = cluster.run(&["pause", "--reason", "changing a folder", "--for", HANDS_OFF]);
    assert!(paused.status.success(), "{}", said(&paused));
    faults::kill_node(&cluster.host, client, cluster.target.host(name).unwrap()).await.unwrap();
    eventually("the node is gone", async || client.observe(name).await.is_none()).await;
    change(&cluster.node_dir(name));
    let resumed = cluster.run(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
}

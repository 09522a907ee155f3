//! What relieves a node, and what its agent sees of it, against the built command: real processes, clients and logs.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/lone.rs"]
mod lone;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use lone::Lone;
use resilver_host::Signal;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{
    CancelOperationRequest, DescribeRequest, ObserveRequest, ReclaimRequest, SetModeRequest, ThrottleRequest,
};
use resilver_proto::transport::Profile;
use serde_json::Value;
use support::{BINARY, Cluster};
use tonic::Code;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// `GET` without a signature: the status and the body.
fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
fn a_node_set_read_only_refuses_puts_and_serves_gets_also_after_a_restart() {
    let lone = Lone::founded(b"kept content");
    let s3 = lone.open_s3("");
    let running = lone.start();
    lone.await_phase("healthy");
    let content = lone.path("content");
    let put = || lone.run(&["object", "put", "kept/new", content.to_str().unwrap()]);
    let said = lone.ok(&["node", "mode", "n1", "read_only", "--reason", "the auditor is here"]);
    assert!(said.contains("read_write → read_only"), "{said}");
    let refused = put();
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("read_only") && refused.stderr.contains("the auditor is here"), "{refused:?}");
    assert_eq!(lone.read("kept/object"), b"kept content");
    let (status, body) = http_get(&s3, "/health").unwrap();
    assert!(status == 200 && body.contains("read_only: the auditor is here"), "{status} {body}");
    let status = lone.status().unwrap();
    assert_eq!((status["mode"].as_str(), status["stands"].as_bool()), (Some("read_only"), Some(true)), "{status}");
    running.stop();
    let running = lone.start();
    lone.await_phase("healthy");
    let refused = put();
    assert!(refused.stderr.contains("the auditor is here"), "a person's word outlasts the process: {refused:?}");

    lone.ok(&["node", "mode", "n1", "isolated", "--reason", "nobody may look"]);
    let to = lone.path("nowhere");
    let refused = lone.run(&["object", "get", "kept/object", to.to_str().unwrap()]);
    assert!(refused.code != Some(0) && refused.stderr.contains("nobody may look"), "{refused:?}");
    assert_eq!(http_get(&s3, "/health").unwrap().0, 503);

    lone.ok(&["node", "mode", "n1", "read_write"]);
    assert_eq!(put().code, Some(0));
    assert_eq!(lone.run(&["node", "mode", "n1", "asleep"]).code, Some(2), "no such mode");
    running.stop();
}

#[test]
fn an_operation_that_hangs_is_listed_and_cancelled_and_its_client_is_told() {
    let lone = Lone::founded(b"kept content");
    let running = lone.start();
    lone.await_phase("healthy");
    // A client that sends a little, and then nothing.
    let mut client = Command::new(BINARY)
        .args(["object", "put", "kept/slow", "-", "--config", lone.path("resilver.yaml").to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(&[7; 100_000]).unwrap();
    let listed = || -> Vec<Value> { serde_json::from_str(&lone.ok(&["operation", "list", "--json"])).unwrap() };
    let mut found = Vec::new();
    lone::eventually("the upload is listed", || {
        found = listed();
        !found.is_empty()
    });
    assert_eq!((found[0]["what"].as_str(), found[0]["subject"].as_str()), (Some("upload"), Some("kept")), "{found:?}");
    let id = found[0]["id"].as_str().unwrap();
    lone.ok(&["operation", "cancel", "--node", "n1", id, "--reason", "it blocks the door"]);
    let again = lone.run(&["operation", "cancel", "--node", "n1", id]);
    lone::eventually("nothing is under way", || listed().is_empty());
    // What it would have sent comes too late.
    drop(client.stdin.take());
    let mut stderr = String::new();
    client.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(!client.wait().unwrap().success() && stderr.contains("it blocks the door"), "{stderr}");
    assert!(again.code == Some(0) || again.stderr.contains("has ended"), "{again:?}");
    let objects = lone.ok(&["object", "list", "kept"]);
    assert!(objects.contains("object") && !objects.contains("slow"), "nothing of it is an object: {objects}");
    running.stop();
}

/// What the agent of n1 sees, by `GET /api/v1/sensors`.
fn sensors(cluster: &Cluster) -> Value {
    let api = &cluster.target.host("n1").unwrap().api;
    let body = http_get(api, "/api/v1/sensors").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str::<Value>(&body).map(|told| told["sensors"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_agent_sees_its_host_its_canary_the_replicas_its_process_and_its_logs() {
    let cluster = Cluster::start(3, 2, &[]);
    support::whole(&cluster.client()).await;
    let log = cluster.dir.path().join("kernel.log");
    std::fs::write(&log, "an old EXT4-fs error, which is no news\n").unwrap();
    let file = cluster.node_dir("n1").join("resilver.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let looks = format!(
        "  dir: agent\n  sensors:\n    host_every: 1s\n    canary_every: 1s\n    replicas_every: 1s\n    logs:\n      - file: \"{}\"\n        \
         patterns: [{{ name: ext4, contains: [EXT4-fs error], mode: disk_failure }}]\n",
        log.display()
    );
    std::fs::write(&file, text.replace("  dir: agent\n", &looks)).unwrap();
    let checked = cluster.run(&["config", "check", &file.display().to_string()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // `up` starts it again, as systemd does.
    cluster.signal(cluster.agent_pid("n1"), Signal::Terminate).await;
    let mut seen = Value::Null;
    support::eventually("every sensor has looked", async || {
        seen = sensors(&cluster);
        ["host", "canary", "replicas", "process"].iter().all(|sensor| !seen[*sensor].is_null())
    })
    .await;
    let host = &seen["host"]["fact"];
    assert!(host["memory_available_bytes"].as_u64().unwrap() <= host["memory_total_bytes"].as_u64().unwrap());
    assert!(seen["canary"]["fact"]["millis"].is_u64(), "{seen}");
    // One that was late at the first look says it at a later one.
    support::eventually("all three members are seen right", async || {
        let members = sensors(&cluster)["replicas"]["fact"]["members"].as_array().cloned().unwrap_or_default();
        let verdicts: Vec<&str> = members.iter().map(|member| member["verdict"].as_str().unwrap()).collect();
        assert!(verdicts.iter().all(|verdict| matches!(*verdict, "right" | "silent")), "{members:?}");
        verdicts == ["right"; 3]
    })
    .await;
    support::eventually("the cores, and what the node says of its room and descriptors, are known", async || {
        let host = sensors(&cluster)["host"]["fact"].clone();
        let volumes = host["volumes"].as_array().cloned().unwrap_or_default();
        let metadata = volumes.iter().find(|volume| volume["name"] == "metadata");
        let room = metadata.is_some_and(|volume| volume["available_bytes"].as_u64() > Some(0));
        volumes.len() == 3 && room && host["cpu_per_mille"].is_u64() && host["node_descriptors"].is_u64()
    })
    .await;

    // Three processes on one machine have one clock.
    let api = &cluster.target.host("n1").unwrap().api;
    support::eventually("the others' clocks agree", async || {
        let status = http_get(api, "/api/v1/status").map(|(_, body)| body).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let near = |peer: &Value| {
            let error = peer["clock_error_ms"].as_i64()?;
            Some(peer["clock_offset_ms"].as_i64()?.abs() <= error && peer["raft"]["term"].as_u64()? > 0)
        };
        peers.len() == 2 && peers.iter().all(|peer| near(peer) == Some(true))
    })
    .await;

    assert_eq!(seen["logs"].as_array().map(Vec::len), Some(0), "an old line is no news: {seen}");
    let mut appended = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    appended.write_all(b"kernel: EXT4-fs error (device sdb1)\nkernel: all is well\n").unwrap();
    support::eventually("the line is told", async || {
        let found = sensors(&cluster)["logs"][0]["fact"].clone();
        found["pattern"] == "ext4" && found["line"] == "kernel: EXT4-fs error (device sdb1)" && found["count"] == 1
    })
    .await;

    // A process that stands still is told as such, before anybody does anything about it.
    let paused = cluster.run(&["pause", "--reason", "looking at a stopped process", "--for", "2m"]);
    assert!(paused.status.success());
    let status = cluster.json(&["node", "status", "n1", "--json"]);
    let node = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
    let config = cluster.node_dir("n1").join("resilver.yaml").display().to_string();
    let once = || cluster.run(&["agent", "run", "--once", "--config", &config]);
    assert_eq!(once().status.code(), Some(0), "a node that is well");
    cluster.signal(node, Signal::Stop).await;
    // It is too early to call it hung, and a plan without anything to do would look like health.
    support::eventually("one look ends with 3 and says why", async || {
        let looked = once();
        let said = String::from_utf8_lossy(&looked.stderr).into_owned();
        looked.status.code() == Some(3) && said.contains("the node does not answer")
    })
    .await;
    support::eventually("it is seen stopped", async || sensors(&cluster)["process"]["fact"]["state"] == "stopped")
        .await;
    cluster.signal(node, Signal::Continue).await;
    support::eventually("it is seen going on", async || {
        let process = sensors(&cluster)["process"]["fact"].clone();
        process["pid"] == node && matches!(process["state"].as_str(), Some("running" | "sleeping"))
    })
    .await;
}

#[tokio::test]
async fn a_node_does_what_its_agent_asks_and_says_what_it_will_not() {
    let lone = Lone::founded(b"kept content");
    let running = lone.start();
    lone.await_phase("healthy");
    let host = resilver_host::real::host();
    let channel = resilver_proto::transport::channel(&host.net, &lone.address, Profile::Bulk).unwrap();
    let mut node = NodeControlClient::new(channel);
    let served = node.describe(DescribeRequest {}).await.unwrap().into_inner().capabilities;
    for verb in ["SetMode", "ListOperations", "CancelOperation", "Reclaim", "Throttle"] {
        assert!(served.contains(&format!("NodeControl.{verb}")), "{verb} is served and not told: {served:?}");
    }

    let reclaim = |what: &str| ReclaimRequest { what: what.to_owned(), fence: None };
    let made = node.reclaim(reclaim("space")).await.unwrap().into_inner();
    assert!(made.detail.contains("the log was purged up to entry"), "{made:?}");
    node.reclaim(reclaim("connections")).await.unwrap();
    assert_eq!(node.reclaim(reclaim("everything")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(lone.read("kept/object"), b"kept content", "nothing of it was needed");

    let throttle = |on| ThrottleRequest { on, reason: "the disks are busy".to_owned() };
    let answer = node.throttle(throttle(true)).await.unwrap().into_inner();
    assert!(!answer.before && answer.ends_ms > 0, "{answer:?}");
    let repair = node.observe(ObserveRequest {}).await.unwrap().into_inner().repair.unwrap();
    assert_eq!(repair.throttled, "the disks are busy");
    assert!(node.throttle(throttle(false)).await.unwrap().into_inner().before);

    let set = |mode: &str, automatic| SetModeRequest {
        mode: mode.to_owned(),
        reason: "a test".to_owned(),
        automatic,
        fence: None,
    };
    assert_eq!(node.set_mode(set("quiet", true)).await.unwrap().into_inner().before, "standing");
    let seen = node.observe(ObserveRequest {}).await.unwrap().into_inner();
    assert_eq!((seen.stands, seen.mode.as_str(), seen.mode_automatic), (Some(false), "read_write", true));
    assert_eq!(node.set_mode(set("standing", true)).await.unwrap().into_inner().before, "quiet");
    node.set_mode(set("read_only", false)).await.unwrap();
    let kept = node.set_mode(set("read_write", true)).await.unwrap_err();
    assert_eq!(kept.code(), Code::FailedPrecondition, "{kept}");
    node.set_mode(set("read_write", false)).await.unwrap();
    assert_eq!(node.set_mode(set("asleep", false)).await.unwrap_err().code(), Code::InvalidArgument);

    let cancel = CancelOperationRequest { operation: "1.1".to_owned(), reason: String::new() };
    assert_eq!(node.cancel_operation(cancel).await.unwrap_err().code(), Code::NotFound);
    let raft = node.observe(ObserveRequest {}).await.unwrap().into_inner().raft.unwrap();
    assert!(raft.last_log_term > 0 && raft.last_log_term <= raft.term, "{raft:?}");
    running.stop();
}

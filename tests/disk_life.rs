//! A disk's life, against the built command: emptied, exchanged, added, forgotten, and what is refused.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/lone.rs"]
mod lone;
mod support;

use std::path::Path;
use std::time::Duration;

use lone::Lone;
use resilver_chaos::client::{Client, Written};
use serde_json::Value;
use support::{Cluster, eventually, whole};

const BUCKET: &str = "stories";
const OBJECTS: usize = 30;
/// How long one put or get may take.
const LIMIT: Duration = Duration::from_secs(15);

async fn put(client: &Client, prefix: &str) {
    for at in 0..OBJECTS {
        let body = bytes::Bytes::from(vec![at as u8; 5_000 * (at + 1)]);
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("{prefix}{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

async fn all_there(client: &Client, prefix: &str) {
    for at in 0..OBJECTS {
        let expected = vec![at as u8; 5_000 * (at + 1)];
        let found = client.get_crc(BUCKET, &format!("{prefix}{at}"), LIMIT).await.unwrap();
        assert_eq!(found, (expected.len() as u64, crc32c::crc32c(&expected)), "{prefix}{at}");
    }
}

fn disks(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["disk", "list", "--json"]).as_array().unwrap().clone()
}

/// The disk in this folder of a node that is not given up.
fn disk_in(cluster: &Cluster, node: &str, folder: &str) -> Option<Value> {
    let path = cluster.node_dir(node).join(folder).display().to_string();
    disks(cluster).into_iter().find(|disk| disk["path"] == path.as_str() && disk["state"] != "out")
}

fn id(disk: &Value) -> String {
    disk["disk"].as_str().unwrap().to_owned()
}

fn refused(cluster: &Cluster, args: &[&str], why: &str) {
    let output = cluster.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{args:?}: {said}");
    assert!(said.contains(why), "{args:?}: {said}");
}

fn verified(cluster: &Cluster) {
    let output = cluster.run(&["verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_disk_is_emptied_exchanged_added_and_forgotten_while_the_node_serves() {
    // Phase 1: a cluster with objects.
    let cluster = Cluster::start(4, 3, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, "a").await;
    whole(&client).await;
    let pid = client.observe("n1").await.unwrap().pid;

    // Phase 2: a disk that works is emptied: nothing is missing at any time, and it ends out and empty.
    let drained = id(&disk_in(&cluster, "n1", "disk1").unwrap());
    refused(&cluster, &["disk", "replace", &drained], "works");
    refused(&cluster, &["disk", "remove", &drained], "it is forgotten once it is out and empty");
    let done = cluster.json(&["disk", "drain", &drained, "--reason", "it is old", "--json"]);
    assert_eq!((&done["before"], &done["state"]), (&Value::from("up"), &Value::from("out")), "{done}");
    assert!(done["shards"].as_u64().unwrap() > 0, "{done}");
    let after = disks(&cluster).into_iter().find(|disk| id(disk) == drained).unwrap();
    assert_eq!(after["state"], "out");
    verified(&cluster);
    all_there(&client, "a").await;

    // Phase 3: another is exchanged: its folder is empty, as a new file system in its place is.
    let dead = disk_in(&cluster, "n2", "disk2").unwrap();
    let folder = cluster.node_dir("n2").join("disk2");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    eventually("the disk is known to be gone", async || {
        disks(&cluster).iter().any(|disk| id(disk) == id(&dead) && disk["health"] == "gone")
    })
    .await;
    let done = cluster.json(&["disk", "replace", &id(&dead), "--reason", "it died", "--json"]);
    let new = done["disk"].as_str().unwrap().to_owned();
    assert_ne!(new, id(&dead));
    // Asked once more, it is the same disk.
    let again = cluster.json(&["disk", "replace", &id(&dead), "--json"]);
    assert_eq!(again["disk"], new.as_str());
    whole(&client).await;
    put(&client, "b").await;
    eventually("the new disk holds shards", async || {
        disk_in(&cluster, "n2", "disk2").is_some_and(|disk| id(&disk) == new && disk["objects"].as_u64() > Some(0))
    })
    .await;
    verified(&cluster);

    // Phase 4: one is added in a folder that no configuration names. What is not empty, not there, or the metadata's is not.
    let extra = cluster.dir.path().join("extra");
    let extra_path = extra.display().to_string();
    refused(&cluster, &["disk", "add", "n3", &extra_path], "cannot be made a disk");
    std::fs::create_dir(&extra).unwrap();
    std::fs::write(extra.join("thesis.txt"), "the only copy").unwrap();
    refused(&cluster, &["disk", "init", "n3", &extra_path], "thesis.txt");
    assert_eq!(std::fs::read_to_string(extra.join("thesis.txt")).unwrap(), "the only copy");
    std::fs::remove_file(extra.join("thesis.txt")).unwrap();
    let meta = cluster.node_dir("n3").join("meta/log").display().to_string();
    refused(&cluster, &["disk", "add", "n3", &meta], "metadata folder");
    let others = cluster.node_dir("n4").join("disk1").display().to_string();
    refused(&cluster, &["disk", "add", "n3", &others], "belongs to node n4");
    let added = cluster.json(&["disk", "add", "n3", &extra_path, "--json"]);
    let added = added["disk"].as_str().unwrap().to_owned();
    put(&client, "c").await;
    eventually("the added disk holds shards", async || {
        disks(&cluster).iter().any(|disk| id(disk) == added && disk["objects"].as_u64() > Some(0))
    })
    .await;
    for node in ["n1", "n2", "n3", "n4"] {
        let seen = client.observe(node).await.unwrap();
        assert_eq!(seen.phase, "healthy");
        assert!(node != "n1" || seen.pid == pid, "no process was restarted for any of it");
    }

    // Phase 5: an empty disk that is out is forgotten; all of it is still so when everything starts again.
    cluster.json(&["disk", "remove", &drained, "--json"]);
    // Its node has let go of it: nobody writes to it any more, and it could be pulled out.
    let old = cluster.node_dir("n1").join("disk1");
    std::fs::rename(&old, cluster.dir.path().join("pulled")).unwrap();
    std::fs::rename(cluster.dir.path().join("pulled"), &old).unwrap();
    assert!(disks(&cluster).iter().all(|disk| id(disk) != drained));
    whole(&client).await;
    let cluster = Cluster::start_in(cluster.stop(), 4, 3, &[]);
    let client = cluster.client();
    whole(&client).await;
    let is_up = |wanted: &str| disks(&cluster).iter().any(|disk| id(disk) == wanted && disk["health"] == "ok");
    assert!(is_up(&new) && is_up(&added), "{:?}", disks(&cluster));
    assert!(disks(&cluster).iter().all(|disk| id(disk) != drained), "a removed disk is not opened by a start");
    // Somebody wants it after all: it is recognised.
    let old = cluster.node_dir("n1").join("disk1").display().to_string();
    let back = cluster.json(&["disk", "add", "n1", &old, "--json"]);
    assert_eq!(back["disk"], drained.as_str());
    assert!(is_up(&drained));
    for prefix in ["a", "b", "c"] {
        all_there(&client, prefix).await;
    }
    verified(&cluster);
}

#[test]
fn the_last_good_copy_is_not_given_up() {
    let lone = Lone::founded(b"the only copy");
    let running = lone.start();
    lone.await_phase("healthy");
    let listed: Value = serde_json::from_str(&lone.ok(&["disk", "list", "--json"])).unwrap();
    let ids: Vec<String> = listed.as_array().unwrap().iter().map(id).collect();
    let drain = lone.run(&["disk", "drain", &ids[0], "--reason", "test"]);
    assert_eq!(drain.code, Some(5), "{}", drain.stderr);
    assert!(drain.stderr.contains("could not be rebuilt anywhere else"), "{}", drain.stderr);
    let unconfirmed = lone.run(&["disk", "fail", &ids[0], "--reason", "test"]);
    assert_eq!(unconfirmed.code, Some(5), "{}", unconfirmed.stderr);
    assert!(unconfirmed.stderr.contains("--confirm="), "{}", unconfirmed.stderr);
    lone.ok(&["disk", "fail", &ids[0], "--reason", "test", &format!("--confirm={}", ids[0])]);
    let last = lone.run(&["disk", "fail", &ids[1], "--reason", "test", &format!("--confirm={}", ids[1])]);
    assert_eq!(last.code, Some(5), "{}", last.stderr);
    assert!(last.stderr.contains("the last good copy"), "{}", last.stderr);
    assert_eq!(lone.read("kept/object"), b"the only copy");
    running.stop();
}

#[test]
fn what_is_no_disk_is_said_so() {
    let lone = Lone::founded(b"x");
    let running = lone.start();
    lone.await_phase("healthy");
    let unknown = "0".repeat(32);
    for verb in ["drain", "fail"] {
        let said = lone.run(&["disk", verb, &unknown, "--reason", "test"]);
        assert_eq!(said.code, Some(2), "{verb}: {}", said.stderr);
        assert!(said.stderr.contains("there is no disk"), "{verb}: {}", said.stderr);
    }
    let relative = lone.run(&["disk", "add", "n1", "disk9"]);
    assert_eq!(relative.code, Some(2), "{}", relative.stderr);
    assert!(relative.stderr.contains("no absolute path"), "{}", relative.stderr);
    assert!(!Path::new("disk9").exists());
    running.stop();
}

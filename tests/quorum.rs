//! The metadata is lost on all nodes, or on a majority of the voters, for good: from a backup, and from the survivor that has
//! most, against the built command.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;
use resilver_proto::web;
use serde_json::{Value, json};
use support::{Cluster, eventually, whole};

const BUCKET: &str = "stories";
/// How long one put or get may take.
const LIMIT: Duration = Duration::from_secs(15);

async fn put(client: &Client, prefix: &str, count: usize) {
    for at in 0..count {
        let body = bytes::Bytes::from(vec![at as u8; 7_000 * (at + 1)]);
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("{prefix}{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

async fn all_there(client: &Client, prefix: &str, count: usize) {
    for at in 0..count {
        let expected = vec![at as u8; 7_000 * (at + 1)];
        let found = client.get_crc(BUCKET, &format!("{prefix}{at}"), LIMIT).await.unwrap();
        assert_eq!(found, (expected.len() as u64, crc32c::crc32c(&expected)), "{prefix}{at}");
    }
}

/// Tells one agent to keep still, or not to any more.
async fn hands_off(cluster: &Cluster, node: &str, off: bool) {
    let api = &cluster.target.host(node).unwrap().api;
    let (path, body) = match off {
        true => ("/api/v1/pause", json!({ "owner": "test", "reason": "it is gone", "for": "1h" })),
        false => ("/api/v1/resume", json!({ "owner": "test" })),
    };
    let (status, said) = web::call(&cluster.host.net, api, path, Some(body.to_string().into()), LIMIT).await.unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
}

async fn dies(cluster: &Cluster, client: &Client, node: &str) {
    hands_off(cluster, node, true).await;
    faults::kill_node(&cluster.host, client, cluster.target.host(node).unwrap()).await.unwrap();
    eventually("the node is gone", async || client.observe(node).await.is_none()).await;
}

/// Each shard of these objects is on a node of its own. One that was stored while nodes were in doubt has stand-ins, and could not
/// lose two nodes before they are home.
async fn spread(client: &Client, prefix: &str, count: usize) {
    for at in 0..count {
        eventually("every shard is on a node of its own", async || {
            let found = client.verify(BUCKET, &format!("{prefix}{at}")).await;
            found.is_ok_and(|found| {
                let nodes: BTreeSet<(u32, &str)> =
                    found.shards.iter().map(|shard| (shard.extent, shard.node.as_str())).collect();
                nodes.len() == found.shards.len() && !nodes.iter().any(|(_, node)| node.is_empty())
            })
        })
        .await;
    }
}

fn said(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String) {
    let output = cluster.run(args);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `status` says; it may well be degraded.
fn status(cluster: &Cluster) -> Value {
    serde_json::from_slice(&cluster.run(&["status", "--json"]).stdout).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Nothing is missing on the nodes that are left.
async fn redundant(client: &Client) {
    eventually("nothing is missing", async || {
        client.status().await.is_some_and(|status| {
            !status.leader.is_empty() && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
        })
    })
    .await;
}

#[tokio::test]
async fn a_cluster_whose_metadata_is_lost_everywhere_goes_on_from_its_backup() {
    // Phase 1: a cluster, a backup, and what is stored after it.
    let cluster = Cluster::start(4, 2, &[]);
    agents::configured(&cluster, "", agents::LOST_VOTERS_ARE_A_PERSONS).await;
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, "before", 15).await;
    whole(&client).await;
    let name = text(&status(&cluster)["cluster_name"]);
    let file = cluster.dir.path().join("metadata.backup");
    let path = file.display().to_string();
    let backup = cluster.json(&["meta", "backup", &path, "--json"]);
    assert_eq!((backup["objects"].as_u64(), text(&backup["cluster_name"])), (Some(15), name.clone()), "{backup}");
    let (code, why) = said(&cluster, &["meta", "backup", &path]);
    assert!(code == Some(5) && why.contains("is there already"), "{why}");
    put(&client, "after", 5).await;
    let confirm = format!("--confirm={name}");
    let (code, why) = said(&cluster, &["meta", "restore", &path, "--node", "n1", &confirm]);
    assert!(code == Some(5) && why.contains("this node is healthy"), "{why}");

    // Phase 2: every node loses its metadata folder.
    let nodes = ["n1", "n2", "n3", "n4"];
    for node in nodes {
        dies(&cluster, &client, node).await;
    }
    for node in nodes {
        std::fs::remove_dir_all(cluster.node_dir(node).join("meta")).unwrap();
    }
    let comes_back = async |node| {
        hands_off(&cluster, node, false).await;
        eventually("the node says that it is a lost voter", async || {
            client.observe(node).await.is_some_and(|seen| seen.phase == "lost_voter")
        })
        .await;
    };
    for node in ["n1", "n2", "n3"] {
        comes_back(node).await;
    }
    // For all that n1 knows the silent one has gone on from the backup.
    let (code, why) = said(&cluster, &["meta", "restore", &path, "--node", "n1", &confirm]);
    assert!(code == Some(5) && why.contains("node n4 does not answer") && why.contains("--gone"), "{why}");
    comes_back("n4").await;

    // Phase 3: half a backup, the wrong word, and no word at all restore nothing.
    let half = cluster.dir.path().join("half.backup");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let (code, why) = said(&cluster, &["meta", "restore", &half.display().to_string(), "--node", "n1", &confirm]);
    assert!(code == Some(2) && why.contains("no whole backup"), "{why}");
    let (code, why) = said(&cluster, &["meta", "restore", &path, "--node", "n1"]);
    assert!(code == Some(5) && why.contains("15 objects"), "{why}");
    let (code, why) = said(&cluster, &["meta", "restore", &path, "--node", "n1", "--confirm=another"]);
    assert_eq!(code, Some(5), "{why}");

    // Phase 4: one node goes on from it in a new epoch, the others come back to it one by one.
    let reborn = cluster.json(&["meta", "restore", &path, "--node", "n1", &confirm, "--json"]);
    assert_eq!((reborn["epoch"].as_u64(), reborn["reaches"].as_u64()), (Some(2), backup["applied"].as_u64()));
    let (code, why) = said(&cluster, &["meta", "restore", &path, "--node", "n2", &confirm]);
    assert!(code == Some(5) && why.contains("serves this cluster in epoch 2"), "{why}");
    for node in ["n2", "n3", "n4"] {
        let (code, why) = said(&cluster, &["node", "rejoin", node]);
        assert_eq!(code, Some(0), "{node}: {why}");
    }
    whole(&client).await;
    all_there(&client, "before", 15).await;
    assert!(client.get_crc(BUCKET, "after0", LIMIT).await.is_err(), "what was stored after the backup is not in it");
    let warnings = status(&cluster)["warnings"].to_string();
    assert!(warnings.contains("nothing is collected"), "{warnings}");
    put(&client, "again", 5).await;
    let verified =
        cluster.run(&["verify", "--full", "--report", &cluster.dir.path().join("r.json").display().to_string()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let report: Value = serde_json::from_slice(&std::fs::read(cluster.dir.path().join("r.json")).unwrap()).unwrap();
    assert_eq!(report["report"]["verdict"], "pass", "{report}");
    assert_eq!(report["report"]["objects"], 20);
    let valid = cluster.json(&["meta", "validate", "--json"]);
    assert_eq!((&valid["valid"], &valid["objects"]), (&Value::from(true), &Value::from(20)), "{valid}");
    let (code, why) = said(&cluster, &["repair", "collect", &confirm]);
    assert_eq!(code, Some(0), "{why}");
    // Phase 5: all of it starts again from its disks.
    let cluster = Cluster::start_in(cluster.stop(), 4, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    all_there(&client, "before", 15).await;
    all_there(&client, "again", 5).await;
}

#[tokio::test]
async fn a_quorum_that_is_gone_for_good_is_recovered_from_the_survivor_that_has_most() {
    // Phase 1: five nodes, three of which vote. While they live nothing is forced.
    let cluster = Cluster::start(5, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, "before", 15).await;
    whole(&client).await;
    spread(&client, "before", 15).await;
    let (leader, voters, learners) = roles(&cluster).await;
    let gone = [leader, voters[0].clone()];
    let (survivor, confirm) = (voters[1].clone(), format!("--confirm={}", text(&status(&cluster)["cluster_name"])));
    let force = ["meta", "recover-quorum", "--gone", &gone[0], "--gone", &gone[1], &confirm, "--json"];
    let (code, why) = said(&cluster, &force);
    assert!(code == Some(5) && why.contains("a quorum lives"), "{why}");

    // Phase 2: the leader and another voter die, and do not come back. Nobody can write.
    for node in &gone {
        dies(&cluster, &client, node).await;
    }
    let (code, why) = said(&cluster, &["meta", "recover-quorum"]);
    assert!(code == Some(5) && why.contains("would be lost") && why.contains("no answer"), "{why}");
    let (code, why) = said(&cluster, &["meta", "recover-quorum", "--gone", &gone[0], &confirm]);
    assert!(code == Some(5) && why.contains("2 of 3 voters are not said to be gone"), "{why}");
    let lie = ["meta", "recover-quorum", "--gone", &gone[0], "--gone", &gone[1], "--gone", &survivor, &confirm];
    let (code, why) = said(&cluster, &lie);
    assert!(code == Some(5) && why.contains("is said to be gone, and answers"), "{why}");

    // Phase 3: with a person's word the one that has most goes on alone, in a new epoch; the others come back to it.
    let reborn = cluster.json(&force);
    let (first, epoch) = (text(&reborn["node"]), reborn["epoch"].as_u64());
    assert_eq!(epoch, Some(2), "{reborn}");
    assert!(std::path::Path::new(&text(&reborn["aside"])).join("state.redb").exists(), "{reborn}");
    for node in [&survivor, &learners[0], &learners[1]] {
        if *node != first {
            let (code, why) = said(&cluster, &["node", "rejoin", node]);
            assert_eq!(code, Some(0), "{node}: {why}");
        }
    }
    eventually("three nodes vote", async || {
        let Some(meta) = cluster.try_json(&["meta", "status", "--json"]) else { return false };
        let roles = meta["nodes"].as_array().unwrap().iter().map(|node| text(&node["role"]));
        let alive = meta["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "healthy").count();
        alive == 3 && roles.filter(|role| role == "leader" || role == "voter").count() == 3
    })
    .await;
    all_there(&client, "before", 15).await;
    put(&client, "after", 5).await;
    redundant(&client).await;
    let verified =
        cluster.run(&["verify", "--full", "--report", &cluster.dir.path().join("r.json").display().to_string()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));

    // Phase 4: one that was given up starts after all, as it was. It is nobody's voter, and comes back as a learner.
    hands_off(&cluster, &gone[1], false).await;
    eventually("the old member hears that its epoch is over", async || {
        client.observe(&gone[1]).await.is_some_and(|seen| seen.phase == "lost_voter")
    })
    .await;
    put(&client, "later", 3).await;
    let status = client.status().await.unwrap();
    assert!(status.epoch == 2 && !gone.contains(&status.leader), "{status:?}");
    let (code, why) = said(&cluster, &["node", "rejoin", &gone[1]]);
    assert_eq!(code, Some(0), "{why}");
    let (code, why) = said(&cluster, &["node", "up", &gone[1]]);
    assert_eq!(code, Some(0), "{why}");
    all_there(&client, "before", 15).await;
    all_there(&client, "after", 5).await;
    all_there(&client, "later", 3).await;
    assert_eq!(client.observe(&gone[1]).await.unwrap().epoch, 2);
}

/// Roles by `meta status`, once one leads: leader, voters, learners.
async fn roles(cluster: &Cluster) -> (String, Vec<String>, Vec<String>) {
    let mut found = (String::new(), Vec::new(), Vec::new());
    eventually("a leader and two other voters are there", async || {
        let Some(meta) = cluster.try_json(&["meta", "status", "--json"]) else { return false };
        let role = |wanted: &str| {
            let nodes = meta["nodes"].as_array().unwrap().iter();
            nodes.filter(|node| node["role"] == wanted).map(|node| text(&node["node"])).collect::<Vec<_>>()
        };
        let (leader, voters, learners) = (role("leader"), role("voter"), role("learner"));
        let whole = leader.len() == 1 && voters.len() == 2 && learners.len() == 2;
        if whole {
            found = (leader[0].clone(), voters, learners);
        }
        whole
    })
    .await;
    found
}

#[tokio::test]
async fn a_forced_epoch_is_undone_while_nobody_joined_it_and_not_after() {
    // Phase 1: the leader and another voter die, and are called gone too soon: the third goes on alone.
    let cluster = Cluster::start(5, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, "before", 10).await;
    whole(&client).await;
    let (leader, voters, _) = roles(&cluster).await;
    let gone = [leader, voters[0].clone()];
    let confirm = format!("--confirm={}", text(&status(&cluster)["cluster_name"]));
    let undo = ["meta", "recover-quorum", "--undo", &confirm];
    let (code, why) = said(&cluster, &undo);
    assert!(code == Some(5) && why.contains("nothing to undo"), "{why}");
    for node in &gone {
        dies(&cluster, &client, node).await;
    }
    let reborn = cluster.json(&["meta", "recover-quorum", "--gone", &gone[0], "--gone", &gone[1], &confirm, "--json"]);
    let first = text(&reborn["node"]);
    assert_eq!(reborn["epoch"].as_u64(), Some(2), "{reborn}");
    // A learner that is asked in the moment in which it hears that its epoch is over says that it could not.
    eventually("a bucket is made in the forced epoch", async || {
        said(&cluster, &["bucket", "create", "later"]).0 == Some(0)
    })
    .await;

    // Phase 2: it is undone, with a person's word only. What was there before comes back; what came since is aside.
    let (code, why) = said(&cluster, &["meta", "recover-quorum", "--undo"]);
    assert!(code == Some(5) && why.contains("would be set aside") && why.contains(&first), "{why}");
    let (code, why) = said(&cluster, &["meta", "recover-quorum", "--undo", "--confirm=another"]);
    assert!(code == Some(5) && why.contains("nothing was done"), "{why}");
    let undone = cluster.json(&["meta", "recover-quorum", "--undo", &confirm, "--json"]);
    let numbers = (undone["epoch"].as_u64(), undone["undone_epoch"].as_u64(), undone["already"].as_bool());
    assert_eq!(numbers, (Some(1), Some(2), Some(false)), "{undone}");
    assert!(undone["entries"].as_u64().unwrap() > 0, "{undone}");
    assert!(std::path::Path::new(&text(&undone["aside"])).join("state.redb").exists(), "{undone}");
    let again = cluster.json(&["meta", "recover-quorum", "--undo", &confirm, "--json"]);
    assert_eq!(again["already"].as_bool(), Some(true), "{again}");

    // Phase 3: the others are started after all. All have what was stored, those that heard of the other epoch as well.
    for node in &gone {
        hands_off(&cluster, node, false).await;
    }
    whole(&client).await;
    all_there(&client, "before", 10).await;
    put(&client, "after", 5).await;
    let now = status(&cluster);
    assert_eq!(now["epoch"].as_u64(), Some(1), "{now}");
    let buckets = cluster.json(&["bucket", "list", "--json"]).to_string();
    assert!(
        buckets.contains(BUCKET) && !buckets.contains("later"),
        "it was made in the epoch that is undone: {buckets}"
    );
    let report = cluster.dir.path().join("undone.json").display().to_string();
    let verified = cluster.run(&["verify", "--full", "--report", &report]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));

    // Phase 4: once more, and one of the others joins: now it stays. The epoch that was undone is not used again.
    spread(&client, "before", 10).await;
    spread(&client, "after", 5).await;
    let (leader, voters, learners) = roles(&cluster).await;
    let gone = [leader, voters[0].clone()];
    for node in &gone {
        dies(&cluster, &client, node).await;
    }
    let reborn = cluster.json(&["meta", "recover-quorum", "--gone", &gone[0], "--gone", &gone[1], &confirm, "--json"]);
    assert_eq!(reborn["epoch"].as_u64(), Some(3), "{reborn}");
    let survivors = [&voters[1], &learners[0], &learners[1]];
    let others: Vec<&String> = survivors.into_iter().filter(|node| **node != text(&reborn["node"])).collect();
    let (code, why) = said(&cluster, &["node", "rejoin", others[0]]);
    assert_eq!(code, Some(0), "{why}");
    let (code, why) = said(&cluster, &undo);
    assert!(code == Some(5) && why.contains("has joined epoch 3"), "{why}");
    let (code, why) = said(&cluster, &["node", "rejoin", others[1]]);
    assert_eq!(code, Some(0), "{why}");
    redundant(&client).await;
    all_there(&client, "before", 10).await;
    all_there(&client, "after", 5).await;
}

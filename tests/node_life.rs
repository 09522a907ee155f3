//! A node's way out of a cluster, against the built command: emptied, its vote given away, removed; what is refused; and who
//! votes by a person's word.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;
use serde_json::Value;
use support::{Cluster, eventually, whole};

const BUCKET: &str = "stories";
const OBJECTS: usize = 20;
/// How long one put or get may take.
const LIMIT: Duration = Duration::from_secs(15);

async fn put(client: &Client, prefix: &str) {
    for at in 0..OBJECTS {
        let body = bytes::Bytes::from(vec![at as u8; 5_000 * (at + 1)]);
        // The door may be that of a node that is no member any more: another one takes it.
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("{prefix}{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

async fn all_there(client: &Client, prefix: &str) {
    for at in 0..OBJECTS {
        let expected = vec![at as u8; 5_000 * (at + 1)];
        let key = format!("{prefix}{at}");
        eventually("an object is read", async || {
            client.get_crc(BUCKET, &key, LIMIT).await.ok() == Some((expected.len() as u64, crc32c::crc32c(&expected)))
        })
        .await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Everybody's role, as `meta status` shows it once one leads.
async fn roles(cluster: &Cluster) -> Vec<(String, String)> {
    let mut found = Vec::new();
    eventually("one leads", async || {
        let Some(status) = cluster.try_json(&["meta", "status", "--json"]) else { return false };
        let nodes = status["nodes"].as_array().unwrap().iter();
        found = nodes.map(|node| (text(&node["node"]), text(&node["role"]))).collect();
        true
    })
    .await;
    found
}

fn votes((_, role): &(String, String)) -> bool {
    matches!(role.as_str(), "leader" | "voter")
}

/// Those that vote, the leader first, and those that do not.
async fn seats(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
    let mut roles = roles(cluster).await;
    roles.sort_by_key(|(_, role)| role != "leader");
    let (voters, learners): (Vec<_>, Vec<_>) = roles.into_iter().partition(votes);
    let names = |seats: Vec<(String, String)>| seats.into_iter().map(|(node, _)| node).collect();
    (names(voters), names(learners))
}

fn listed(cluster: &Cluster, node: &str) -> Option<Value> {
    let nodes = cluster.json(&["node", "list", "--json"]);
    nodes.as_array().unwrap().iter().find(|row| row["node"] == node).cloned()
}

fn refused(cluster: &Cluster, args: &[&str], why: &str) {
    let output = cluster.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{args:?}: {said}");
    assert!(said.contains(why), "{args:?}: {said}");
}

#[tokio::test]
async fn a_node_is_emptied_and_removed_and_the_cluster_goes_on_without_it() {
    // Phase 1: five nodes, with objects, some of them so wide that every host is needed.
    let cluster = Cluster::start(5, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, "a").await;
    assert!(cluster.run(&["bucket", "create", "wide", "--coding", "4+1"]).status.success());
    let file = cluster.dir.path().join("content");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    assert!(cluster.run(&["object", "put", "wide/k", &file.display().to_string()]).status.success());
    whole(&client).await;
    eventually("three vote", async || roles(&cluster).await.iter().filter(|seat| votes(seat)).count() == 3).await;
    let (voters, learners) = seats(&cluster).await;
    let leaving = voters[0].clone();

    // Phase 2: what is refused, with the reason, and changes nothing.
    refused(&cluster, &["node", "drain", &leaving], "losing that node would lose objects");
    refused(&cluster, &["node", "remove", &leaving], "has a vote still");
    refused(&cluster, &["node", "remove", &learners[0]], "it is removed once it is emptied");
    // Another may lead by now, and be the first.
    let names = |(voters, learners): (Vec<String>, Vec<String>)| {
        [voters, learners].map(|seats| seats.into_iter().collect::<BTreeSet<_>>())
    };
    assert_eq!(names(seats(&cluster).await), names((voters, learners)));
    assert!(cluster.run(&["object", "delete", "wide/k"]).status.success());

    // Phase 3: emptying is begun, and taken back.
    let begun = cluster.json(&["node", "drain", &leaving, "--reason", "it is sold", "--json"]);
    assert_eq!((&begun["before"], &begun["state"]), (&Value::from("up"), &Value::from("draining")), "{begun}");
    let back = cluster.json(&["node", "up", &leaving, "--json"]);
    assert_eq!((&back["before"], &back["after"]), (&Value::from("draining"), &Value::from("up")), "{back}");
    whole(&client).await;

    // Phase 4: it is emptied while everything can be read; the leader hands over, and its vote goes to another.
    eventually("the others can take its vote over", async || {
        let drain = cluster.run(&["node", "drain", &leaving, "--reason", "it is sold"]);
        drain.status.success()
    })
    .await;
    let done = cluster.json(&["node", "drain", &leaving, "--wait", "--json"]);
    assert_eq!((&done["before"], &done["state"]), (&Value::from("draining"), &Value::from("drained")), "{done}");
    assert_eq!(listed(&cluster, &leaving).unwrap()["state"], "drained");
    let (voters, _) = seats(&cluster).await;
    assert!(voters.len() == 3 && !voters.contains(&leaving), "{voters:?}");
    put(&client, "b").await;
    all_there(&client, "a").await;

    // Phase 5: it is taken out. Its process still runs, says what happened to it, and no order brings it back.
    let removed = cluster.json(&["node", "remove", &leaving, "--reason", "it is sold", "--json"]);
    assert_eq!(
        (&removed["before"], &removed["state"]),
        (&Value::from("drained"), &Value::from("removed")),
        "{removed}"
    );
    assert!(cluster.run(&["node", "remove", &leaving]).status.success(), "asked twice, it is done once");
    let told = async || {
        client
            .observe(&leaving)
            .await
            .is_some_and(|seen| seen.phase == "lost_voter" && seen.phase_detail.contains("removed from the cluster"))
    };
    eventually("the removed node says so", told).await;
    assert!(listed(&cluster, &leaving).is_none(), "it does not answer for a cluster that it is not in");
    refused(&cluster, &["node", "rejoin", &leaving], "removed from the cluster");
    // A new process of it is no more welcome.
    let before = client.observe(&leaving).await.unwrap().pid;
    faults::kill_node(&cluster.host, &client, cluster.target.host(&leaving).unwrap()).await.unwrap();
    eventually("its new process says so, too", async || {
        client.observe(&leaving).await.is_some_and(|seen| seen.pid != before) && told().await
    })
    .await;
    whole(&client).await;
    assert!(listed(&cluster, &leaving).is_none());
    eventually("an agent of a member holds the lease", async || {
        let agents = cluster.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&agents.stdout).unwrap_or_default();
        let agents = status["agents"].as_array().cloned().unwrap_or_default();
        let mut holders =
            agents.iter().filter(|agent| agent["agent"] != leaving.as_str()).map(|agent| &agent["lease_holder"]);
        holders.all(|holder| holder.is_string() && *holder != leaving.as_str())
    })
    .await;
    let leader = client.status().await.unwrap().leader;
    let raft = client.observe(&leader).await.unwrap().raft.unwrap();
    assert!(raft.replication.iter().all(|peer| !peer.node.is_empty()), "a member of no node is left: {raft:?}");

    // Phase 6: four are left, one of them without a vote. A person takes the leader's and gives it back.
    let (voters, learners) = seats(&cluster).await;
    assert_eq!((voters.len(), learners.len()), (3, 1), "{voters:?} {learners:?}");
    let taken = cluster.json(&["meta", "remove-peer", &voters[0], "--reason", "its disk is slow", "--json"]);
    assert_eq!((&taken["may_vote"], &taken["role"]), (&Value::from(false), &Value::from("learner")), "{taken}");
    let (now, _) = seats(&cluster).await;
    assert!(now.len() == 3 && now.contains(&learners[0]) && !now.contains(&voters[0]), "{now:?}");
    let status = cluster.json(&["meta", "status", "--json"]);
    let row = status["nodes"].as_array().unwrap().iter().find(|row| row["node"] == voters[0].as_str()).unwrap();
    assert_eq!((&row["no_vote"]["reason"], &row["no_vote"]["automatic"]), (&"its disk is slow".into(), &false.into()));
    refused(&cluster, &["meta", "remove-peer", &voters[1]], "nobody could take its vote over");
    refused(&cluster, &["node", "drain", &voters[1]], "nobody could take its vote over");
    let back = cluster.json(&["meta", "add-peer", &voters[0], "--json"]);
    assert_eq!((&back["may_vote"], &back["role"]), (&Value::from(true), &Value::from("learner")), "{back}");
    cluster.json(&["meta", "remove-peer", &voters[1], "--json"]);
    let (now, _) = seats(&cluster).await;
    assert!(now.contains(&voters[0]) && !now.contains(&voters[1]), "its vote went to the one that may again: {now:?}");
    cluster.json(&["meta", "add-peer", &voters[1], "--json"]);

    // Phase 7: all of it is there, read back from the disks.
    put(&client, "c").await;
    whole(&client).await;
    for prefix in ["a", "b", "c"] {
        all_there(&client, prefix).await;
    }
    let report = cluster.dir.path().join("report.json").display().to_string();
    let verified = cluster.run(&["verify", "--full", "--report", &report]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let valid = cluster.run(&["meta", "validate"]);
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stdout));

    // Phase 8: all of it is still so when everything starts again, the removed one with the rest.
    let cluster = Cluster::start_in(cluster.stop(), 5, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    all_there(&client, "c").await;
    assert!(listed(&cluster, &leaving).is_none());
    eventually("the removed node says so after a start as well", async || {
        client.observe(&leaving).await.is_some_and(|seen| seen.phase_detail.contains("removed from the cluster"))
    })
    .await;
}

#[tokio::test]
async fn a_small_cluster_keeps_the_votes_it_has() {
    let cluster = Cluster::start(3, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    eventually("three vote", async || roles(&cluster).await.iter().filter(|seat| votes(seat)).count() == 3).await;
    for node in ["n1", "n2", "n3"] {
        refused(&cluster, &["meta", "remove-peer", node], "nobody could take its vote over");
        refused(&cluster, &["node", "drain", node], "nobody could take its vote over");
    }
    let unknown = cluster.run(&["node", "drain", "n9"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", String::from_utf8_lossy(&unknown.stderr));
    // What may vote already may go on: nothing is changed.
    let same = cluster.json(&["meta", "add-peer", "n2", "--json"]);
    assert_eq!((&same["may_vote_before"], &same["may_vote"]), (&Value::from(true), &Value::from(true)), "{same}");
}

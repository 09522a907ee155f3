//! A node that lost its metadata comes back as a learner, against the built command: real processes, real damage.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
#[path = "support/lone.rs"]
mod lone;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lone::Lone;
use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;
use resilver_proto::common::Fence;
use resilver_proto::contract::RejoinRequest;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::transport::{Profile, channel};
use serde_json::Value;
use support::{Cluster, eventually, whole};
use tonic::Code;

const BUCKET: &str = "stories";
/// How long one put or get may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long agents are kept away while the metadata of a node is damaged: far longer than that takes.
const HANDS_OFF: &str = "2m";

async fn put(client: &Client, from: usize, to: usize) {
    for at in from..to {
        let body = bytes::Bytes::from(vec![at as u8; 10_000 * (at + 1)]);
        // The door may be that of the node that is away: another one takes it.
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("k{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

async fn all_there(client: &Client, count: usize) {
    for at in 0..count {
        let expected = vec![at as u8; 10_000 * (at + 1)];
        let found = client.get_crc(BUCKET, &format!("k{at}"), LIMIT).await.unwrap();
        assert_eq!(found, (expected.len() as u64, crc32c::crc32c(&expected)), "k{at}");
    }
}

/// Ends a node, does something to its metadata folder, and lets its agent start it on what is left.
async fn struck(cluster: &Cluster, client: &Client, name: &str, damage: impl FnOnce(&Path)) {
    let paused = cluster.run(&["pause", "--reason", "damaging a node", "--for", HANDS_OFF]);
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    faults::kill_node(&cluster.host, client, cluster.target.host(name).unwrap()).await.unwrap();
    eventually("the node is gone", async || client.observe(name).await.is_none()).await;
    damage(&cluster.node_dir(name).join("meta"));
    let resumed = cluster.run(&["resume"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    eventually("the node says that it is a lost voter", async || {
        client.observe(name).await.is_some_and(|seen| seen.phase == "lost_voter")
    })
    .await;
}

/// The voters by name, as `meta status` shows them, and everybody's role; nobody at a moment without a leader.
fn roles(cluster: &Cluster) -> Vec<(String, String)> {
    let Some(status) = cluster.try_json(&["meta", "status", "--json"]) else { return Vec::new() };
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| (text(&node["node"]), text(&node["role"]))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn kept(cluster: &Cluster, name: &str) -> Vec<PathBuf> {
    let Ok(aside) = std::fs::read_dir(cluster.node_dir(name).join("meta/aside")) else { return Vec::new() };
    aside.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_lost_voter_comes_back_as_a_learner_and_nothing_is_lost() {
    // Phase 1: a cluster with objects. A node that has lost nothing is not taken back.
    let cluster = Cluster::start(5, 2, &[]);
    // What agents do about it by themselves is told in heals.rs.
    agents::configured(&cluster, "", agents::LOST_VOTERS_ARE_A_PERSONS).await;
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 10).await;
    let refused = cluster.run(&["node", "rejoin", "n2"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("this node is healthy") && said.contains("nothing was changed"), "{said}");

    // Phase 2: the leader's log rots while it is down. It says so, and takes no part; the others go on.
    let leader = text(&cluster.json(&["meta", "status", "--json"])["leader"]);
    struck(&cluster, &client, &leader, |meta| {
        let segment = meta.join("log/segment-0000000000000000");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[4096..6000].fill(0xA5);
        std::fs::write(&segment, bytes).unwrap();
    })
    .await;
    put(&client, 10, 15).await;
    let mut before = None;
    eventually("another leads", async || {
        before = client.status().await.filter(|status| !status.leader.is_empty() && status.leader != leader);
        before.is_some()
    })
    .await;
    let before = before.unwrap();

    // Phase 3: it is ordered back, and the command ends when the node serves. What was left of it is kept.
    let back = cluster.json(&["node", "rejoin", &leader, "--reason", "its log rotted", "--json"]);
    assert_eq!(back["state"], "healthy", "{back}");
    let aside = kept(&cluster, &leader);
    assert_eq!(aside.len(), 1, "{aside:?}");
    for name in ["identity.json", "log", "state.redb"] {
        assert!(aside[0].join(name).exists(), "{name} is not in {}", aside[0].display());
    }

    // Phase 4: three vote, all of them live, and the member that it was is nobody any more.
    let votes = |role: &str| matches!(role, "leader" | "voter");
    eventually("three nodes vote", async || roles(&cluster).iter().filter(|(_, role)| votes(role)).count() == 3).await;
    whole(&client).await;
    put(&client, 15, 20).await;
    all_there(&client, 20).await;
    let raft = client.observe(&before.leader).await.unwrap().raft.unwrap();
    assert!(raft.replication.iter().all(|peer| !peer.node.is_empty()), "a member of no node is left: {raft:?}");

    // Phase 5: the same node again, and this time nothing at all is left of its metadata: the disks know who it is.
    let gone = cluster.dir.path().join("gone");
    struck(&cluster, &client, &leader, |meta| std::fs::rename(meta, &gone).unwrap()).await;
    let back = cluster.run(&["node", "rejoin", &leader]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    whole(&client).await;

    // Phase 6: an identity that nobody can read is a lost voter as well, and comes back.
    let other = before.leader.clone();
    struck(&cluster, &client, &other, |meta| std::fs::write(meta.join("identity.json"), "{").unwrap()).await;
    let back = cluster.run(&["node", "rejoin", &other]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    whole(&client).await;

    // Phase 7: no incident stays open, every shard is where it should be, and all of it starts again from its disks.
    eventually("no incident is open", async || {
        let incidents = cluster.try_json(&["incident", "list", "--json"]).unwrap_or_default();
        incidents.as_array().is_some_and(|all| all.iter().all(|incident| incident["state"] == "resolved"))
    })
    .await;
    let cluster = Cluster::start_in(cluster.stop(), 5, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    put(&client, 20, 25).await;
    all_there(&client, 25).await;
    let verified = cluster.run(&["verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn a_lone_node_that_lost_its_metadata_is_not_made_anew() {
    let lone = Lone::founded(b"the only copy");
    let header = lone.path("meta/log/header");
    std::fs::write(&header, "").unwrap();
    let before = lone.evidence();
    let running = lone.start();
    lone.await_phase("lost_voter");
    let refused = lone.run(&["node", "rejoin", "n1"]);
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("no other member is known"), "{}", refused.stderr);
    running.stop();
    assert_eq!(lone.evidence(), before, "nothing was touched");
}

/// Has a node rejoin, as its agent does: what it said until the end, and how that was.
async fn ordered(cluster: &Cluster, node: &str, fence: Option<Fence>) -> (Vec<String>, Option<tonic::Status>) {
    let address = &cluster.target.host(node).unwrap().address;
    let members = cluster.target.hosts.iter().map(|host| host.address.clone()).filter(|other| other != address);
    let request = RejoinRequest { fence, members: members.collect(), reason: "a test".to_owned() };
    let mut control = NodeRecoveryClient::new(channel(&cluster.host.net, address, Profile::Bulk).unwrap());
    let mut stream = match control.rejoin(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut said = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(progress)) => said.push(progress.phase),
            Ok(None) => return (said, None),
            Err(status) => return (said, Some(status)),
        }
    }
}

/// Found by the simulator (`term-divergence`): the last steps for a stray, and for a copy that no other step mends, were refused by every
/// node that still served.
#[tokio::test]
async fn a_member_that_serves_gives_its_membership_up_under_a_fence_and_comes_back_as_a_learner() {
    let cluster = Cluster::start(4, 1, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 5).await;
    whole(&client).await;
    let (leader, voter) = (agents::of_role(&cluster, "leader", "").await, agents::of_role(&cluster, "voter", "").await);
    let fence = |round| Some(Fence { epoch: 1, round, holder: "n1".to_owned() });

    // Neither without a fence, nor under one that was overtaken, nor as the leader.
    let (_, refused) = ordered(&cluster, &voter, None).await;
    let refused = refused.unwrap();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("is healthy"), "{refused}");
    let (_, refused) = ordered(&cluster, &leader, fence(1000)).await;
    assert!(refused.unwrap().message().contains("this node leads"));
    let before = client.observe(&voter).await.unwrap();

    let (said, _) = ordered(&cluster, &voter, fence(1000)).await;
    assert!(said.contains(&"rejoined".to_owned()), "{said:?}");
    // Its process ends with the membership; its agent starts the next one, which is another member.
    eventually("it serves as another member", async || {
        client.observe(&voter).await.is_some_and(|seen| {
            let raft = seen.raft.as_ref().map_or(0, |raft| raft.id);
            seen.phase == "healthy" && seen.pid != before.pid && raft > before.raft.as_ref().map_or(0, |raft| raft.id)
        })
    })
    .await;
    let aside = kept(&cluster, &voter);
    assert!(aside.len() == 1 && aside[0].join("state.redb").exists(), "{aside:?}");
    let (_, refused) = ordered(&cluster, &voter, fence(999)).await;
    assert!(refused.unwrap().message().contains("fence"), "one that was overtaken");
    let votes = |role: &str| matches!(role, "leader" | "voter");
    eventually("three nodes vote", async || roles(&cluster).iter().filter(|(_, role)| votes(role)).count() == 3).await;
    all_there(&client, 5).await;
    support::stored_equal(&cluster).await;
}

//! Two clusters under one configuration are seen by every agent, told, and left to a person: nothing is merged, wiped or stopped. Against
//! the built command: real processes, a node that was really founded anew.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
mod support;

use std::process::Command;

use agents::{all_over, changed, of_role, put, reaches, records, said, steps, verified};
use support::{BINARY, Cluster, eventually, whole};

const BUCKET: &str = "stories";
/// What an agent may do to its own host's part in the old cluster meanwhile, none of it disruptive.
const HARMLESS: [&str; 6] = ["start_node", "mark_down", "mark_up", "evacuate_host", "repair_shards", "throttle"];

#[tokio::test]
async fn two_clusters_under_one_configuration_are_told_and_left_to_a_person() {
    let cluster = Cluster::start(4, 1, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, BUCKET, 0, 20).await;
    whole(&client).await;
    let lost = of_role(&cluster, "learner", "").await;
    let others: Vec<&str> =
        cluster.target.hosts.iter().map(|host| host.name.as_str()).filter(|name| *name != lost).collect();

    // Phase 1: somebody takes a node for a new machine and founds a cluster on it, under the address that it had.
    changed(&cluster, &client, &lost, |dir| {
        std::fs::create_dir(dir.join("before")).unwrap();
        for part in ["meta", "disk1"] {
            std::fs::rename(dir.join(part), dir.join("before").join(part)).unwrap();
        }
        std::fs::create_dir(dir.join("disk1")).unwrap();
        let file = dir.join("resilver.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(dir.join("before").join("resilver.yaml"), &text).unwrap();
        let alone = text.lines().filter(|line| !line.trim_start().starts_with("join:"));
        std::fs::write(&file, alone.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    })
    .await;
    eventually("the node waits to be told what it is part of", async || {
        client.observe(&lost).await.is_some_and(|seen| seen.phase == "waiting")
    })
    .await;
    // Asked with the configuration of all, the command sees the others' cluster and refuses. Nobody keeps a person from asking otherwise.
    let founded = cluster.run(&["cluster", "init", "--name", "another", "--node", &lost]);
    assert_eq!(founded.status.code(), Some(5), "{}", said(&founded));
    let dir = cluster.node_dir(&lost);
    let text = std::fs::read_to_string(dir.join("resilver.yaml")).unwrap();
    let alone = dir.join("alone.yaml");
    std::fs::write(&alone, text.split_once("\nnodes:").map_or(text.as_str(), |(own, _)| own)).unwrap();
    let founded = Command::new(BINARY)
        .args(["cluster", "init", "--name", "another", "--config"])
        .arg(&alone)
        .env_remove("RESILVER_DIR")
        .output()
        .unwrap();
    assert!(founded.status.success(), "{}", said(&founded));
    eventually("it is a cluster of its own", async || {
        client.observe(&lost).await.is_some_and(|seen| seen.phase == "healthy")
    })
    .await;
    let pid = client.observe(&lost).await.unwrap().pid;

    // Phase 2: all agents say so, each names the two, and it is a person's at once.
    let mut open = Vec::new();
    for host in &cluster.target.hosts {
        let found = reaches(&cluster, &host.name, "split_brain", "escalated").await;
        let explained = said(&cluster.run(&["incident", "explain", found["id"].as_str().unwrap()]));
        assert!(explained.contains("two clusters: ") && explained.contains(" is in cluster "), "{explained}");
        open.push((host.name.as_str(), found));
    }
    // The cluster serves on without that node, and nobody fences or stops either side.
    put(&client, BUCKET, 20, 30).await;
    assert_eq!(client.observe(&lost).await.unwrap().pid, pid, "it runs as before");
    for (agent, incident) in &open {
        let told = records(&cluster, agent, incident).await;
        assert!(steps(&told).is_empty(), "{agent}: {told:?}");
    }

    // Phase 3: the person chooses, by putting back what was there; it is over by proof.
    changed(&cluster, &client, &lost, |dir| {
        std::fs::create_dir(dir.join("another")).unwrap();
        for part in ["meta", "disk1"] {
            std::fs::rename(dir.join(part), dir.join("another").join(part)).unwrap();
            std::fs::rename(dir.join("before").join(part), dir.join(part)).unwrap();
        }
        std::fs::rename(dir.join("before").join("resilver.yaml"), dir.join("resilver.yaml")).unwrap();
    })
    .await;
    for (agent, incident) in &open {
        let over = reaches(&cluster, agent, "split_brain", "resolved").await;
        assert_eq!(over["id"], incident["id"], "one incident for one cause");
    }
    all_over(&cluster, &client).await;
    verified(&cluster);
    for host in others.iter().copied().chain([lost.as_str()]) {
        let listed = cluster.json(&["journal", "list", "--node", host, "--limit", "100000", "--json"]);
        let intents = listed.as_array().unwrap().iter().filter(|record| record["kind"] == "intent");
        let done: Vec<&str> = intents.filter_map(|record| record["action"].as_str()).collect();
        assert!(done.iter().all(|action| HARMLESS.contains(action)), "{host}: {done:?}");
    }
}

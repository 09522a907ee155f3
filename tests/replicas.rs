//! A member whose metadata is not the others' any more is found, blamed by the majority and mended, against the built command:
//! real processes, a real database changed behind the node's back.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
mod support;

use std::path::Path;
use std::process::Output;

use agents::{changed, of_role, put, said};
use redb::{ReadableTable, TableDefinition};
use resilver_chaos::client::Client;
use serde_json::Value;
use support::{Cluster, stored_equal, whole};

const BUCKET: &str = "stories";
/// Where objects lie in a node's database (docs/formats.md).
const OBJECTS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("objects");

/// Takes one object's record away and puts it under another's name, each a record that is whole.
fn tamper(meta: &Path) {
    let database = redb::Database::open(meta.join("state.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut table = txn.open_table(OBJECTS).unwrap();
        let key = |name: &str| format!("{BUCKET}\0{name}").into_bytes();
        assert!(table.get(key("k5").as_slice()).unwrap().is_some());
        let lost = table.remove(key("k3").as_slice()).unwrap().unwrap().value().to_vec();
        table.insert(key("k5").as_slice(), lost.as_slice()).unwrap();
    }
    txn.commit().unwrap();
}

/// Stops a node, changes its database, and lets its agent start it again.
async fn struck(cluster: &Cluster, client: &Client, name: &str) {
    // A backup makes durable what the node has applied: what it had not when it is killed would come from its log again.
    let backup = cluster.dir.path().join("backup");
    let _ = std::fs::remove_file(&backup);
    let backed_up = cluster.run(&["meta", "backup", backup.to_str().unwrap(), "--local", name]);
    assert!(backed_up.status.success(), "{}", said(&backed_up));
    changed(cluster, client, name, |dir| tamper(&dir.join("meta"))).await;
    whole(client).await;
}

fn compared(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[tokio::test]
async fn metadata_that_differs_is_found_blamed_by_the_majority_and_mended() {
    // Phase 1: all have the same, by what is kept and by what is stored.
    let cluster = Cluster::start(4, 1, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, BUCKET, 0, 20).await;
    whole(&client).await;
    for args in [vec!["meta", "compare", "--json"], vec!["meta", "compare", "--stored", "--json"]] {
        let equal = cluster.json(&args);
        assert_eq!((equal["equal"].as_bool(), equal["members"].as_array().unwrap().len()), (Some(true), 4), "{equal}");
    }
    for node in ["n1", "n2", "n3", "n4"] {
        let replayed = cluster.json(&["meta", "replay", node, "--json"]);
        assert!(replayed["equal"] == true && replayed["entries"].as_u64() > Some(20), "{node}: {replayed}");
    }
    let unknown = cluster.run(&["meta", "replay", "n99"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));

    // Phase 2: a follower's database is changed behind its back. What is kept does not show it; what is stored does.
    let wrong = of_role(&cluster, "voter", "").await;
    struck(&cluster, &client, &wrong).await;
    let kept = cluster.run(&["meta", "compare", "--json"]);
    assert_eq!(kept.status.code(), Some(0), "{}", said(&kept));
    let stored = cluster.run(&["meta", "compare", "--stored", "--json"]);
    assert_eq!(stored.status.code(), Some(1), "{}", said(&stored));
    let stored = compared(&stored);
    for member in stored["members"].as_array().unwrap() {
        let expected = if member["node"] == wrong.as_str() { "wrong" } else { "right" };
        assert_eq!(member["verdict"], expected, "{stored}");
    }
    let named: Vec<&str> =
        stored["differences"].as_array().unwrap().iter().map(|it| it["record"].as_str().unwrap()).collect();
    assert_eq!(named, ["objects: stories/k3", "objects: stories/k5"], "{stored}");
    let text = said(&cluster.run(&["meta", "compare", "--stored"]));
    assert!(text.contains(&format!("wrong: {wrong}")) && text.contains("not there at"), "{text}");

    // Its own log says so as well, without the others, however often it is replayed; and changes nothing.
    for _ in 0..2 {
        let replayed = cluster.run(&["meta", "replay", &wrong, "--json"]);
        assert_eq!(replayed.status.code(), Some(1), "{}", said(&replayed));
        let differs = compared(&replayed)["differences"].to_string();
        assert!(differs.contains("objects: stories/k3") && differs.contains("objects: stories/k5"), "{differs}");
    }

    // Phase 3: whoever is right is left alone, the leader is refused, and the one that is wrong is mended.
    let right = cluster.json(&["meta", "resync", &of_role(&cluster, "learner", "").await, "--json"]);
    assert_eq!(right["records"], 0, "{right}");
    let leader = cluster.run(&["meta", "resync", &of_role(&cluster, "leader", "").await]);
    assert_eq!(leader.status.code(), Some(5), "{}", said(&leader));
    assert!(said(&leader).contains("leads"), "{}", said(&leader));
    let unknown = cluster.run(&["meta", "resync", "n99"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    let mended = cluster.json(&["meta", "resync", &wrong, "--json"]);
    assert_eq!(mended["records"], 2, "{mended}");
    put(&client, BUCKET, 20, 25).await;
    stored_equal(&cluster).await;
    let replayed = cluster.json(&["meta", "replay", &wrong, "--json"]);
    assert_eq!(replayed["equal"], true, "{replayed}");
    whole(&client).await;
    let report = cluster.dir.path().join("report.json").display().to_string();
    let verified = cluster.run(&["verify", "--full", "--report", &report]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

    // Phase 4: the whole state, and the node's own log, do it as well.
    for how in ["--whole", "--replay"] {
        let wrong = of_role(&cluster, "voter", "").await;
        struck(&cluster, &client, &wrong).await;
        let mended = cluster.run(&["meta", "resync", &wrong, how]);
        assert_eq!(mended.status.code(), Some(0), "{how}: {}", said(&mended));
        stored_equal(&cluster).await;
    }
}

//! What rots under nodes that run is found in the background, and mended by their agents as what is found at a start is. Real
//! processes; bits flipped in the files that they have open.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use agents::{all_over, configured, of_role, put, reaches, records, told, verified};
use resilver_chaos::client::Written;
use support::{Cluster, eventually, stored_equal};

const BUCKET: &str = "stories";
/// A name that is nowhere else in a file. It sorts into the middle of the others: what the agents' canaries write lies in other pages of
/// the database, which are written anew all the time from what is in memory.
const NAME: &str = "k5-a-name-that-is-nowhere-else";
/// Objects around it.
const OBJECTS: usize = 100;
/// How long one put may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Flips a bit in every copy that a file has of the name; how many it has.
fn rot(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let copies = (0..bytes.len() - NAME.len()).filter(|at| bytes[*at..].starts_with(NAME.as_bytes()));
    copies.map(|at| file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap()).count()
}

/// Where `recovery.dir` says, and where the journal says.
fn what_rotted_is_kept(cluster: &Cluster, node: &str, written: &[serde_json::Value], file: &str) {
    let kept: Vec<&str> = written.iter().filter_map(|record| record["details"]["backup_path"].as_str()).collect();
    let [kept] = kept[..] else { panic!("one step moved something aside: {written:?}") };
    assert_eq!(Path::new(kept).parent(), Some(&*cluster.node_dir(node).join("kept").join(node)), "{kept}");
    for file in [file, "identity.json"] {
        assert!(Path::new(kept).join(file).exists(), "{file} is not in {kept}");
    }
}

#[tokio::test]
async fn a_log_and_a_database_that_rot_under_running_nodes_are_found_and_mended() {
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, BUCKET, 0, OBJECTS).await;
    eventually("the named one is acknowledged", async || {
        client.put(BUCKET, NAME, bytes::Bytes::from_static(b"named"), LIMIT).await == Written::Acknowledged
    })
    .await;
    configured(&cluster, "  sensors: { replicas_every: 2s }\n", "recovery: { dir: kept }\n").await;
    all_over(&cluster, &client).await;
    let disruptive =
        ["pause", "fresh", "corroborated", "authority", "budget", "quorum_kept", "one_at_a_time", "intent_first"];
    let digests = "its stored records come to the majority's digest at entries";

    // Phase 1: the leader's log. Nothing is asked of it that would read it.
    let struck = of_role(&cluster, "leader", "").await;
    let before = client.observe(&struck).await.unwrap();
    assert!(rot(&cluster.node_dir(&struck).join("meta/log/segment-0000000000000000")) > 0);
    let over = reaches(&cluster, &struck, "log_corruption", "resolved").await;
    let written = records(&cluster, &struck, &over).await;
    told(&written, &struck, &["rejoin_learner"], &disruptive, digests);
    what_rotted_is_kept(&cluster, &struck, &written, "log/segment-0000000000000000");
    all_over(&cluster, &client).await;
    let after = client.observe(&struck).await.unwrap();
    let member = |seen: &resilver_proto::contract::ObserveResponse| seen.raft.as_ref().map(|raft| raft.id);
    assert!(member(&after) > member(&before), "it is another member");

    // Phase 2: the database of another.
    let struck = of_role(&cluster, "voter", &struck).await;
    assert!(rot(&cluster.node_dir(&struck).join("meta/state.redb")) > 0);
    let over = reaches(&cluster, &struck, "database_corruption", "resolved").await;
    let written = records(&cluster, &struck, &over).await;
    told(&written, &struck, &["rejoin_learner"], &disruptive, digests);
    what_rotted_is_kept(&cluster, &struck, &written, "state.redb");

    // Nothing is left of it: no incident, no difference, nothing that was acknowledged is gone.
    all_over(&cluster, &client).await;
    let named = client.get_crc(BUCKET, NAME, LIMIT).await.unwrap();
    assert_eq!(named, (5, crc32c::crc32c(b"named")));
    stored_equal(&cluster).await;
    verified(&cluster);

    // What each promised last is shown, and everybody is as far as the leader.
    let status = cluster.json(&["meta", "status", "--json"]);
    let leader = &status["leader"];
    for node in status["nodes"].as_array().unwrap() {
        let vote = &node["vote"];
        assert_eq!(
            (&vote["term"], &vote["node"], &vote["committed"]),
            (&status["term"], leader, &true.into()),
            "{node}"
        );
        assert!(node["matched"].is_u64(), "{node}");
    }
}

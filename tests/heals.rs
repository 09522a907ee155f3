//! Agents that mend their nodes by themselves, against the built command: what is damaged is found, mended and proven without
//! a person, and what is a person's is asked for. Real processes, real damage.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/agents.rs"]
mod agents;
mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use agents::{all_over, configured, incident, of_role, reaches, records, said, steps, told, verified};
use redb::TableDefinition;
use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;
use serde_json::Value;
use support::{BINARY, Cluster, eventually, stored_equal, whole};
use tokio::task::JoinHandle;

const BUCKET: &str = "stories";
/// How long one put may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long agents are kept away while files are changed: far longer than that takes.
const HANDS_OFF: &str = "2m";

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Where things lie in a node's database (docs/formats.md).
const OBJECTS: Table = TableDefinition::new("objects");
const FORBIDDEN: Table = TableDefinition::new("forbidden");
const LEAVES: Table = TableDefinition::new("leaves");
/// How `lock acquire` ends when others had the lock all the while.
const GAVE_UP: i32 = 1;
/// More records than `meta resync` fetches one by one.
const MANY: u32 = 10_100;

async fn put(client: &Client, from: usize, to: usize) {
    for at in from..to {
        let body = bytes::Bytes::from(vec![at as u8; 2000 * (at + 1)]);
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("k{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

/// Ends a node, does something to its metadata folder, and lets its agent start it on what is left.
async fn struck(cluster: &Cluster, client: &Client, name: &str, damage: impl FnOnce(&Path)) {
    // A backup makes durable what the node has applied: what it had not when it is killed would come from its log again.
    let backup = cluster.dir.path().join("backup");
    let _ = std::fs::remove_file(&backup);
    let backed_up = cluster.run(&["meta", "backup", backup.to_str().unwrap(), "--local", name]);
    assert!(backed_up.status.success(), "{}", said(&backed_up));
    let paused = cluster.run(&["pause", "--reason", "damaging a node", "--for", HANDS_OFF]);
    assert!(paused.status.success(), "{}", said(&paused));
    faults::kill_node(&cluster.host, client, cluster.target.host(name).unwrap()).await.unwrap();
    eventually("the node is gone", async || client.observe(name).await.is_none()).await;
    damage(&cluster.node_dir(name).join("meta"));
    let resumed = cluster.run(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
}

/// Changes a node's database behind its back. The digests that it keeps in step go as well: it makes them anew from what is
/// there.
fn changed(meta: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(meta.join("state.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    assert!(txn.delete_table(LEAVES).unwrap());
    txn.commit().unwrap();
}

/// One object's record is gone, and lies under another's name.
fn a_record_in_the_place_of_another(txn: &redb::WriteTransaction) {
    let key = |name: &str| format!("{BUCKET}\0{name}").into_bytes();
    let mut table = txn.open_table(OBJECTS).unwrap();
    let lost = table.remove(key("k3").as_slice()).unwrap().unwrap().value().to_vec();
    assert!(table.insert(key("k5").as_slice(), lost.as_slice()).unwrap().is_some());
}

/// Records that nobody else has, too many to be fetched one by one.
fn many_records_more(txn: &redb::WriteTransaction) {
    let mut table = txn.open_table(FORBIDDEN).unwrap();
    for number in 0..MANY {
        let version = (u128::MAX - u128::from(number)).to_be_bytes();
        table.insert(version.as_slice(), [].as_slice()).unwrap();
    }
}

/// What the incident's end says was shown.
fn proven(written: &[Value]) -> String {
    let resolved = written.iter().find(|one| one["kind"] == "resolved");
    resolved.map_or_else(String::new, |resolved| resolved["details"].to_string())
}

#[tokio::test]
async fn members_that_differ_or_are_damaged_are_mended_by_their_agents() {
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 12).await;
    configured(&cluster, "  sensors: { replicas_every: 2s }\n", "").await;
    all_over(&cluster, &client).await;
    let disruptive =
        ["pause", "fresh", "corroborated", "authority", "budget", "quorum_kept", "one_at_a_time", "intent_first"];
    let digests = "its stored records come to the majority's digest at entries";

    // Phase 1: a member has other records than the majority. Those that differ are fetched.
    let wrong = of_role(&cluster, "voter", "").await;
    struck(&cluster, &client, &wrong, |meta| changed(meta, a_record_in_the_place_of_another)).await;
    let over = reaches(&cluster, &wrong, "state_divergence", "resolved").await;
    let written = records(&cluster, &wrong, &over).await;
    told(&written, &wrong, &["resync"], &disruptive, digests);
    assert!(proven(&written).contains("objects read the same through"), "{}", proven(&written));
    stored_equal(&cluster).await;

    // Phase 2: another differs in more than can be fetched one by one. It takes the whole state.
    let other = of_role(&cluster, "voter", &wrong).await;
    struck(&cluster, &client, &other, |meta| changed(meta, many_records_more)).await;
    let over = reaches(&cluster, &other, "state_divergence", "resolved").await;
    let written = records(&cluster, &other, &over).await;
    told(&written, &other, &["resync", "resync", "install_snapshot"], &disruptive, digests);
    let refused = written.iter().find(|one| one["kind"] == "outcome").unwrap()["details"].to_string();
    assert!(refused.contains("10000"), "{refused}");
    stored_equal(&cluster).await;
    all_over(&cluster, &client).await;

    // Phase 3: the log of the first rots. Its agent brings it back as another member.
    let lost = of_role(&cluster, "voter", &other).await;
    struck(&cluster, &client, &lost, |meta| {
        let segment = meta.join("log/segment-0000000000000000");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[4096..6000].fill(0xA5);
        std::fs::write(&segment, bytes).unwrap();
    })
    .await;
    let over = reaches(&cluster, &lost, "log_corruption", "resolved").await;
    let written = records(&cluster, &lost, &over).await;
    told(&written, &lost, &["rejoin_learner"], &disruptive, digests);
    assert!(proven(&written).contains("its log was replayed"), "{}", proven(&written));
    let did = written.iter().find(|one| one["kind"] == "outcome").unwrap()["details"].to_string();
    assert!(did.contains("it was member") && did.contains("caught up, and serving"), "{did}");

    // Phase 4: the database of another is no database any more.
    all_over(&cluster, &client).await;
    let lost = of_role(&cluster, "voter", &lost).await;
    struck(&cluster, &client, &lost, |meta| {
        let len = std::fs::metadata(meta.join("state.redb")).unwrap().len();
        std::fs::write(meta.join("state.redb"), vec![0xA5; usize::try_from(len).unwrap()]).unwrap();
    })
    .await;
    let over = reaches(&cluster, &lost, "database_corruption", "resolved").await;
    told(&records(&cluster, &lost, &over).await, &lost, &["rejoin_learner"], &disruptive, digests);

    // Nothing is left of it: no incident, no difference, no shard that is not as it was written.
    all_over(&cluster, &client).await;
    put(&client, 12, 15).await;
    stored_equal(&cluster).await;
    verified(&cluster);
}

/// Stands in the queue for a lock until it has it, and tells how that ended. One wait takes a minute at most, less than
/// this story may take: who gives up begins anew, or nobody would wait any more, and nothing would be ill.
fn patient(cluster: &Cluster, path: &str) -> JoinHandle<Output> {
    let (dir, path) = (cluster.dir.path().to_owned(), path.to_owned());
    tokio::task::spawn_blocking(move || {
        loop {
            let output = Command::new(BINARY)
                .args(["lock", "acquire", &path, "--lease", "1m", "--wait", "60s", "--owner", "patient", "--json"])
                .env("RESILVER_DIR", &dir)
                .output()
                .unwrap();
            // Whatever else it says does not change: the cluster may be gone.
            if output.status.code() != Some(GAVE_UP) || !said(&output).contains("was not had") {
                return output;
            }
        }
    })
}

#[tokio::test]
async fn a_lock_of_a_living_owner_is_broken_at_a_persons_word_and_not_before() {
    let cluster = Cluster::start(3, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client, 0, 3).await;
    // A minute, and then five by the policy's time, are too long for a test: the first is set, the second scaled. And a host that is busy
    // with other tests is not to count as saturated: then it would be no deadlock.
    let policy = "deadlock: { lock_limit: 8s, saturated_cpu: 1001, saturated_pressure: 1001 }\n";
    configured(&cluster, "  sensors: { canary_every: 1s }\n", policy).await;
    whole(&client).await;

    // Somebody takes a lock and forgets it; a bucket cannot be made, and somebody stands in the queue.
    let path = "config/bucket/photos";
    let forgotten = cluster.json(&["lock", "acquire", path, "--lease", "1h", "--owner", "forgetful", "--json"]);
    let refused = cluster.run(&["bucket", "create", "photos"]);
    assert!(!refused.status.success() && said(&refused).contains("forgetful"), "{}", said(&refused));
    let waiter = patient(&cluster, path);

    // The agent of the node that asked in vain finds it, does nothing, and asks.
    let (mut node, mut offer) = (String::new(), Value::Null);
    eventually("an approval is asked for", async || {
        for host in &cluster.target.hosts {
            let Some(open) = incident(&cluster, &host.name, "deadlock") else { continue };
            node.clone_from(&host.name);
            let shown = cluster.run(&["incident", "show", open["id"].as_str().unwrap(), "--json"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
            offer = shown["explanation"]["incident"]["approval"].clone();
        }
        offer["token"].is_string()
    })
    .await;
    let open = incident(&cluster, &node, "deadlock").unwrap();
    let evidence = open["evidence"].as_str().unwrap();
    assert!(evidence.contains(path) && evidence.contains("by forgetful") && evidence.contains("1 wait"), "{evidence}");
    assert_eq!((&offer["action"], &offer["grade"]), (&"break_lock".into(), &1.into()), "{offer}");
    assert!(steps(&records(&cluster, &node, &open).await).is_empty(), "nothing is done unasked");
    let held = cluster.json(&["lock", "list", "--json"]);
    let lock = held.as_array().unwrap().iter().find(|lock| lock["path"] == path).unwrap();
    assert_eq!((&lock["token"], &lock["owner"]), (&forgotten["token"], &"forgetful".into()), "{lock}");

    // A person's word, and it is broken, once: the next in the queue has it, under a token of its own.
    let (id, token) = (open["id"].as_str().unwrap(), offer["token"].as_str().unwrap());
    let given = cluster.run(&["incident", "approve", id, "--token", token, "--owner", "ada"]);
    assert_eq!(given.status.code(), Some(0), "{}", said(&given));
    let over = reaches(&cluster, &node, "deadlock", "resolved").await;
    let written = records(&cluster, &node, &over).await;
    told(&written, &node, &["break_lock"], &["pause", "fresh", "authority", "budget", "intent_first"], "canary");
    let intent = written.iter().find(|one| one["kind"] == "intent").unwrap();
    assert!(intent["guards"].to_string().contains("approved by ada"), "{intent}");
    let next = waiter.await.unwrap();
    assert!(next.status.success(), "{}", said(&next));
    let next: Value = serde_json::from_slice(&next.stdout).unwrap();
    assert!(next["token"].as_u64() > forgotten["token"].as_u64(), "{next}");
    let late = cluster.run(&["lock", "release", path, "--token", &forgotten["token"].to_string()]);
    assert_eq!(late.status.code(), Some(5), "what the old owner still sends does nothing: {}", said(&late));

    let released = cluster.run(&["lock", "release", path, "--token", &next["token"].to_string()]);
    assert!(released.status.success(), "{}", said(&released));
    eventually("the bucket can be made", async || cluster.run(&["bucket", "create", "photos"]).status.success()).await;
    all_over(&cluster, &client).await;
    verified(&cluster);
}

//! What the disks say of themselves, against the built command: a folder of outputs is read, shown, told, extrapolated; and a
//! disk is emptied once its node fails to read from it as well.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults::{find_file, flip_bytes};
use resilver_host::Signal;
use serde_json::Value;
use support::{Cluster, eventually, whole};

const BUCKET: &str = "stories";
const OBJECTS: usize = 20;
/// How long one put or get may take.
const LIMIT: Duration = Duration::from_secs(15);

/// As `smartctl -x` lays a disk's attributes out; the figures are this story's own.
fn output(pending: u64) -> String {
    format!(
        "smartctl 7.4 2023-08-01 r5530 [x86_64-linux-6.1.0] (local build)\n\
         === START OF INFORMATION SECTION ===\n\
         Device Model:     RSV STORY\n\
         Serial Number:    S-1\n\
         === START OF READ SMART DATA SECTION ===\n\
         SMART overall-health self-assessment test result: PASSED\n\
         ID# ATTRIBUTE_NAME          FLAGS    VALUE WORST THRESH FAIL RAW_VALUE\n  \
           5 Reallocated_Sector_Ct   PO--CK   100   100   010    -    0\n\
         197 Current_Pending_Sector  -O--CK   100   100   000    -    {pending}\n\
         198 Offline_Uncorrectable   ----CK   100   100   000    -    0\n"
    )
}

/// Whoever reads it sees one sample or the next one.
fn write(folder: &Path, name: &str, pending: u64) {
    let aside = folder.join(format!("{name}.new"));
    std::fs::write(&aside, output(pending)).unwrap();
    std::fs::rename(&aside, folder.join(name)).unwrap();
}

/// Has the agent of n1 look at outputs, once a second, and waits until it does.
async fn configured(cluster: &Cluster, folder: &Path) {
    let file = cluster.node_dir("n1").join("resilver.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let smart = format!(
        "  dir: agent\n  smart: {{ folder: \"{}\", devices: {{ disk1: first.txt, disk2: second.txt }} }}\n",
        folder.display()
    );
    let text = text.replace("  dir: agent\n", &smart) + "interval: 1s\ntrends: { sample_every: 1s }\n";
    std::fs::write(&file, text).unwrap();
    let checked = cluster.run(&["config", "check", &file.display().to_string()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // `up` starts it again, as systemd does.
    cluster.signal(cluster.agent_pid("n1"), Signal::Terminate).await;
    eventually("the agent reads its disks' words", async || words(cluster)[0].is_some()).await;
}

fn disk(cluster: &Cluster, folder: &str) -> Value {
    let path = cluster.node_dir("n1").join(folder).display().to_string();
    let disks = cluster.json(&["disk", "list", "--json"]);
    disks.as_array().unwrap().iter().find(|disk| disk["path"] == path.as_str()).unwrap().clone()
}

/// What n1's two disks say of themselves.
fn words(cluster: &Cluster) -> [Option<String>; 2] {
    ["disk1", "disk2"].map(|folder| disk(cluster, folder)["smart"].as_str().map(str::to_owned))
}

/// Incidents of this mode at n1, once all agents say theirs.
async fn incidents(cluster: &Cluster) -> Vec<Value> {
    let mut found = Vec::new();
    eventually("every agent says its incidents", async || {
        let Some(all) = cluster.try_json(&["incident", "list", "--json"]) else { return false };
        let all = all.as_array().or_else(|| all["incidents"].as_array()).unwrap().clone();
        found = all.into_iter().filter(|incident| incident["mode"] == "disk_degrading").collect();
        true
    })
    .await;
    found
}

async fn put(client: &Client) {
    for at in 0..OBJECTS {
        let body = bytes::Bytes::from(vec![at as u8; 5_000 * (at + 1)]);
        eventually("a put is acknowledged", async || {
            client.put(BUCKET, &format!("o{at}"), body.clone(), LIMIT).await == Written::Acknowledged
        })
        .await;
    }
}

/// The file of a shard that is in use, on this disk of n1.
async fn shard_on(cluster: &Cluster, client: &Client, disk: &Path) -> Option<PathBuf> {
    for at in (0..OBJECTS).rev() {
        let verified = client.verify(BUCKET, &format!("o{at}")).await.unwrap();
        let version = verified.object.unwrap().version;
        for shard in verified.shards.iter().filter(|shard| shard.node == "n1" && shard.state == "ok") {
            let name = format!("{version}-{}-{}", shard.extent, shard.shard);
            if let Some(file) = find_file(&cluster.host, disk, &name).await.unwrap() {
                return Some(file);
            }
        }
    }
    None
}

#[tokio::test]
async fn a_disk_that_degrades_is_told_and_one_that_also_fails_reads_is_emptied() {
    // Phase 1: nobody looks at SMART, and nobody says anything.
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    put(&client).await;
    whole(&client).await;
    assert_eq!(words(&cluster), [None, None]);
    let listed = cluster.run(&["disk", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("SMART"));

    // Phase 2: one disk is well, of the other there is no output.
    let folder = cluster.dir.path().join("smart");
    std::fs::create_dir(&folder).unwrap();
    write(&folder, "first.txt", 0);
    configured(&cluster, &folder).await;
    let mut second = Value::Null;
    eventually("both are shown", async || {
        second = disk(&cluster, "disk2");
        disk(&cluster, "disk1")["smart"] == "ok" && second["smart"] == "unknown"
    })
    .await;
    assert!(second["smart_reasons"][0].as_str().unwrap().contains("No such file"), "{second}");
    assert!(incidents(&cluster).await.is_empty());

    // Phase 3: it says PASSED, and sectors are pending: it is degrading, an incident is open, nothing is done. As they grow,
    // their end is foreseen.
    let begun = Instant::now();
    write(&folder, "first.txt", 8);
    eventually("it is shown", async || words(&cluster)[0].as_deref() == Some("degrading")).await;
    eventually("it is told", async || incidents(&cluster).await.iter().any(|incident| incident["state"] == "open"))
        .await;
    let degrading = incidents(&cluster).await.remove(0);
    let evidence = degrading["evidence"].as_str().unwrap();
    assert!(evidence.contains("sectors that cannot be read") && evidence.contains("first.txt"), "{evidence}");
    eventually("what the counter leads to is foreseen", async || {
        write(&folder, "first.txt", 8 + begun.elapsed().as_secs());
        let health = cluster.run(&["node", "health", "n1", "--json"]);
        String::from_utf8_lossy(&health.stdout).contains("counter_drift")
    })
    .await;
    let health = cluster.run(&["node", "health", "n1"]);
    let health = String::from_utf8_lossy(&health.stdout).into_owned();
    assert!(health.contains("is degrading by SMART: sectors that cannot be read"), "{health}");
    assert_eq!(disk(&cluster, "disk1")["state"], "up", "by SMART alone nothing is done");
    assert_eq!(incidents(&cluster).await.len(), 1);

    // Phase 4: the node finds a shard there that does not read back. Now both say so: the disk is emptied, what was on it is
    // read back from elsewhere, and only then it is given up.
    let drained = cluster.node_dir("n1").join("disk1");
    let shard = shard_on(&cluster, &client, &drained).await.expect("a shard is there");
    flip_bytes(&cluster.host, &cluster.target, &shard).await.unwrap();
    eventually("the disk is given up", async || disk(&cluster, "disk1")["state"] == "out").await;
    eventually("it is proven", async || {
        incidents(&cluster).await.iter().all(|incident| incident["state"] == "resolved")
    })
    .await;
    let mut steps: Vec<String> = incidents(&cluster).await[0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["action"].as_str().unwrap().to_owned())
        .collect();
    // One that failed, or was not seen in time, is begun again before the next.
    assert!(steps.len() <= 3, "{steps:?}");
    steps.dedup();
    assert_eq!(steps, ["evacuate_disk", "repair_shards"]);
    for at in 0..OBJECTS {
        let expected = vec![at as u8; 5_000 * (at + 1)];
        let found = client.get_crc(BUCKET, &format!("o{at}"), LIMIT).await.unwrap();
        assert_eq!(found, (expected.len() as u64, crc32c::crc32c(&expected)), "o{at}");
    }

    // The metadata has no shard there any more, or it would not be forgotten.
    let id = disk(&cluster, "disk1")["disk"].as_str().unwrap().to_owned();
    cluster.json(&["disk", "remove", &id, "--json"]);

    // Phase 5: an agent that is gone costs the list its word, and no time.
    cluster.signal(cluster.up_pid(), Signal::Stop).await;
    let pid = cluster.json(&["agent", "status", "--node", "n1", "--json"])["pid"].as_u64().unwrap();
    cluster.signal(u32::try_from(pid).unwrap(), Signal::Terminate).await;
    eventually("nobody speaks for the disk", async || disk(&cluster, "disk2")["smart"].is_null()).await;
    let asked = Instant::now();
    assert!(cluster.run(&["disk", "list"]).status.success());
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

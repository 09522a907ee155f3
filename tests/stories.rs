//! End-to-end stories against the built command: real processes, real disks, real sockets on loopback.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_chaos::client::{Client, Written};
use resilver_chaos::faults;
use resilver_chaos::watch::Cursor;
use resilver_host::Signal;
use resilver_proto::web;
use support::{Cluster, LIMIT, eventually, whole};

/// The bucket of the stories.
const BUCKET: &str = "stories";

/// How long one put may take before its outcome counts as unknown.
const PUT_DEADLINE: Duration = Duration::from_secs(15);

fn content(seed: u64, bytes: usize) -> bytes::Bytes {
    let mut content = vec![0; bytes];
    StdRng::seed_from_u64(seed).fill_bytes(&mut content);
    content.into()
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_nodes_are_killed_at_random_moments() {
    const PUTS: u64 = 200;
    const SEED: u64 = 20_261_120;
    println!("seed {SEED}");
    // Phase 1: a cluster, and a client that puts while nodes die under it.
    let cluster = Cluster::start(6, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut acknowledged = Vec::new();
    for at in 0..PUTS {
        if at % 20 == 10 {
            let victim = &cluster.target.hosts[(rng.next_u64() % 6) as usize];
            // A node that is still coming back from the kill before cannot be killed: one failure at a time is what
            // 4+2 with acknowledgement at k+1 promises to survive without a pause.
            if client.observe(&victim.name).await.is_some_and(|seen| seen.phase == "healthy") {
                faults::kill_node(&cluster.host, &client, victim).await.unwrap();
            }
        }
        let body = content(SEED ^ at, 1 + (rng.next_u64() % 300_000) as usize);
        let mark = (body.len() as u64, crc32c::crc32c(&body));
        if client.put(BUCKET, &format!("k{at}"), body, PUT_DEADLINE).await == Written::Acknowledged {
            acknowledged.push((format!("k{at}"), mark));
        }
    }
    assert!(acknowledged.len() > 100, "only {} of {PUTS} puts were acknowledged", acknowledged.len());
    // Phase 2: everything heals by itself.
    whole(&client).await;
    // Phase 3: every acknowledged object is there, whole, on all its shards.
    for (key, mark) in &acknowledged {
        assert_eq!(client.get_crc(BUCKET, key, LIMIT).await.unwrap(), *mark, "{key}");
        assert!(client.verify(BUCKET, key).await.unwrap().intact, "{key} has a shard missing or damaged");
    }
}

#[tokio::test]
async fn an_agent_restarted_in_the_middle_of_a_recovery_finishes_it_once() {
    // Phase 1: the agent of n2 is replaced by one that ends itself between the durable intent and its execution. The
    // node must not notice either.
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    let node = cluster.target.host("n2").unwrap().clone();
    let pid = client.observe("n2").await.unwrap().pid;
    let first = cluster.agent_pid("n2");
    // `up` plays systemd for its agents: it would start another one. It is held still while this story does that part.
    cluster.signal(cluster.up_pid(), Signal::Stop).await;
    cluster.signal(first, Signal::Terminate).await;
    eventually("the first agent has ended", async || cluster.host.proc.identify(first).unwrap().is_none()).await;
    let config = cluster.node_dir("n2").join("resilver.yaml");
    let agent_run = ["agent", "run", "--config", config.to_str().unwrap()];
    let mut doomed = cluster.spawn_with(&agent_run, &[("RESILVER_FAULT_POINTS", "agent.after_intent=exit")]);
    eventually("the second agent is ready", async || {
        web::call(&cluster.host.net, &node.api, "/readyz", None, LIMIT).await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    assert_eq!(client.observe("n2").await.unwrap().pid, pid, "the node ran on without its agent");
    let mut cursor = Cursor::at_end(&cluster.host, &cluster.target).await;
    let killed_ms = cluster.host.clock.now().as_millis();
    faults::kill_node(&cluster.host, &client, &node).await.unwrap();
    assert_eq!(doomed.wait().unwrap().code(), Some(137), "the second agent ended itself at the fault point");
    assert!(client.observe("n2").await.is_none(), "nobody may have started the node yet");
    // Phase 2: a new agent takes up what the journal says was under way.
    let mut agent = cluster.spawn(&agent_run);
    eventually("n2 serves again", async || {
        client.observe("n2").await.is_some_and(|seen| seen.started_ms >= killed_ms && seen.phase == "healthy")
    })
    .await;
    let mut seen = Vec::new();
    let opened = cursor
        .await_line(&cluster.host, &cluster.target, &mut seen, LIMIT, |line| {
            line.host == "n2" && line.kind == "opened" && line.mode == "process_crash"
        })
        .await
        .expect("the incident is in the journal");
    cursor
        .await_line(&cluster.host, &cluster.target, &mut seen, LIMIT, |line| {
            line.incident == opened.incident && line.kind == "resolved"
        })
        .await
        .expect("the incident is resolved");
    // Phase 3: one incident, and one start that took effect.
    let of_n2 = |kind: &str| seen.iter().filter(|line| line.host == "n2" && line.kind == kind).count();
    assert_eq!(of_n2("opened"), 1, "one failure is one incident: {seen:#?}");
    let started = seen
        .iter()
        .filter(|line| {
            line.host == "n2" && line.action == "start_node" && (line.kind == "outcome" || line.kind == "reconciled")
        })
        .count();
    assert!(started >= 1, "the start has an outcome or a reconciliation: {seen:#?}");
    let verified = cluster.run(&["journal", "verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let id = cluster.host.proc.identify(agent.id()).unwrap().unwrap();
    cluster.host.proc.adopt(id).await.unwrap().unwrap().signal(Signal::Terminate).unwrap();
    agent.wait().unwrap();
    cluster.signal(cluster.up_pid(), Signal::Continue).await;
}

#[tokio::test]
async fn a_thawed_holder_of_the_lease_is_refused_by_the_targets_fence() {
    // Phase 1: whoever holds the lease freezes itself right before it sends the step of a `node restart`.
    let cluster = Cluster::start(4, 2, &[("RESILVER_FAULT_POINTS", "coordinator.before_step=stop")]);
    let client = cluster.client();
    whole(&client).await;
    let holder = async || cluster.json(&["agent", "status", "--json"])["lease"]["holder"].as_str().map(str::to_owned);
    let mut first = None;
    eventually("somebody holds the lease", async || {
        first = holder().await.filter(|name| !name.is_empty());
        first.is_some()
    })
    .await;
    let first = first.unwrap();
    let target = cluster.target.hosts.iter().map(|host| host.name.clone()).rfind(|name| *name != first).unwrap();
    let pid_before = client.observe(&target).await.unwrap().pid;
    let mut cursor = Cursor::at_end(&cluster.host, &cluster.target).await;
    let order = ["node", "restart", target.as_str(), "--reason", "story"];
    let mut restart = cluster.spawn(&order);
    let frozen = cluster.agent_pid(&first);
    eventually("the holder has frozen itself", async || {
        // Not every agent has heard of the holder yet: a refusal is asked again, as a person would.
        if state_of(frozen) != 'T' && restart.try_wait().unwrap().is_some() {
            restart = cluster.spawn(&order);
        }
        state_of(frozen) == 'T'
    })
    .await;
    // Phase 2: its lease runs out, and another takes over and raises the target's fence.
    let mut second = None;
    eventually("another agent holds the lease", async || {
        let args = ["agent", "status", "--json", "--node", target.as_str()];
        second = cluster.json(&args)["lease"]["holder"].as_str().map(str::to_owned);
        second.as_ref().is_some_and(|name| !name.is_empty() && *name != first)
    })
    .await;
    let args = ["agent", "status", "--json", "--node", target.as_str()];
    eventually("the target's fence was raised", async || {
        cluster.json(&args)["fence"]["holder"].as_str().is_some_and(|name| name != first && !name.is_empty())
    })
    .await;
    // Phase 3: the first thaws and goes on where it was: the target says no.
    cluster.signal(frozen, Signal::Continue).await;
    let refused = restart.wait().unwrap();
    assert_eq!(refused.code(), Some(5), "a refusal by a guard is exit code 5");
    let mut seen = Vec::new();
    cursor
        .await_line(&cluster.host, &cluster.target, &mut seen, LIMIT, |line| {
            line.host == target && line.kind == "refused" && line.details.to_string().contains("fence")
        })
        .await
        .expect("the target's journal says that it refused an old fence");
    assert_eq!(client.observe(&target).await.unwrap().pid, pid_before, "the node was not restarted");
}

#[tokio::test]
async fn a_cluster_continues_where_it_was() {
    let cluster = Cluster::start(4, 2, &[]);
    let client = cluster.client();
    client.ensure_bucket(BUCKET, None).await.unwrap();
    let body = content(7, 3_000_000);
    assert_eq!(client.put(BUCKET, "kept", body.clone(), PUT_DEADLINE).await, Written::Acknowledged);
    let folder = cluster.stop();
    let cluster = Cluster::start_in(folder, 4, 2, &[]);
    let client = cluster.client();
    whole(&client).await;
    let found = client.get_crc(BUCKET, "kept", LIMIT).await.unwrap();
    assert_eq!(found, (body.len() as u64, crc32c::crc32c(&body)));
}

/// The state letter of a process, from /proc/PID/stat.
fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

#[tokio::test]
async fn a_node_that_must_not_start_says_why_and_changes_nothing() {
    // Phase 1: a cluster that was, and is stopped.
    let cluster = Cluster::start(4, 2, &[]);
    whole(&cluster.client()).await;
    let target = cluster.target.clone();
    let host = cluster.host.clone();
    let folder = cluster.stop();
    let node_dir = |name: &str| folder.path().join("nodes").join(name);
    let config = std::fs::read_to_string(node_dir("n1").join("resilver.yaml")).unwrap();
    let run = |text: &str| {
        let path = node_dir("n1").join("changed.yaml");
        std::fs::write(&path, text).unwrap();
        let command = ["node", "run", "--config", path.to_str().unwrap()];
        let output = std::process::Command::new(support::BINARY).args(command).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Phase 2: what is refused at once, each with its reason.
    let other_name = config.replace("  name: n1", "  name: n9").replace("{ id: n1,", "{ id: n9,");
    let (code, said) = run(&other_name);
    assert!(code != Some(0) && said.contains("belongs to node n1"), "{code:?}: {said}");
    let other_disks = config.replace("disks: [disk1, disk2]", "disks: [../n2/disk1, ../n2/disk2]");
    let (code, said) = run(&other_disks);
    assert!(code != Some(0) && said.contains("n2"), "a disk of another node: {code:?}: {said}");
    let address = &target.host("n1").unwrap().address;
    let taken = std::net::TcpListener::bind(address).unwrap();
    let (code, said) = run(&config);
    assert!(code != Some(0) && said.contains(&format!("cannot listen on {address}")), "{code:?}: {said}");
    drop(taken);
    // Phase 3: an empty metadata folder where there was a member is a lost voter: it answers, and takes no part.
    let meta = node_dir("n1").join("meta");
    std::fs::rename(&meta, node_dir("n1").join("meta.aside")).unwrap();
    let config_path = node_dir("n1").join("resilver.yaml");
    let mut lost = std::process::Command::new(support::BINARY)
        .args(["node", "run", "--config", config_path.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let client = Client::new(&host, &target).unwrap();
    eventually("the node says that it is a lost voter", async || {
        client.observe("n1").await.is_some_and(|seen| seen.phase == "lost_voter")
    })
    .await;
    lost.kill().unwrap();
    lost.wait().unwrap();
    // Phase 4: the folder comes back, and so does the cluster, whole.
    std::fs::remove_dir_all(&meta).unwrap();
    std::fs::rename(node_dir("n1").join("meta.aside"), &meta).unwrap();
    let cluster = Cluster::start_in(folder, 4, 2, &[]);
    whole(&cluster.client()).await;
}

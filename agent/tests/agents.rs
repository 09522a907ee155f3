//! Three agents in one process, each with a keeper and a node process of its own, over loopback: starting, healing,
//! the lease, an operator's restart, the pause, and the agent's own restart.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/node.rs"]
mod node_double;
#[path = "support/stuck.rs"]
mod stuck;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use node_double::NodeDouble;
use resilver_agent::journal::{Journal, verify};
use resilver_agent::run_dir::{RunDir, StopRecord};
use resilver_agent::{Agent, AgentError, Options, Peer};
use resilver_host::{Host, ProcId, Signal};
use resilver_proto::agent::agent_peer_client::AgentPeerClient;
use resilver_proto::agent::{FinishSlotRequest, RequestSlotRequest, RunStepRequest, Slot};
use resilver_proto::common::Fence;
use resilver_proto::transport;
use resilver_strategies::api::IncidentId;
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::Action;
use serde_json::Value;
use support::{free_port, request, until};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The HTTP status of what a guard refused.
const REFUSED: u16 = 409;

/// No test: the keeper's own process when a test started this program as one, and nothing otherwise.
#[test]
fn keeper_entry() {
    support::keeper_main();
}

struct Running {
    options: Options,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Running {
    async fn start(host: &Host, options: Options) -> Running {
        let agent = Agent::new(host.clone(), options.clone()).await.expect("the agent can start");
        let (stop, stopped) = watch::channel(false);
        Running { options, stop, task: tokio::spawn(agent.run(stopped)) }
    }

    async fn stop(self) -> Options {
        self.stop.send_replace(true);
        self.task.await.expect("no panic").expect("a clean stop");
        self.options
    }

    /// As by SIGKILL: every task is dropped where it stands.
    async fn crash(self) -> Options {
        self.task.abort();
        assert!(self.task.await.expect_err("cut off").is_cancelled());
        // What it had begun is cut off as well, each at its next turn: the last of them lets go of a port.
        for address in [&self.options.address, &self.options.http] {
            until("its port is free", || async { std::net::TcpListener::bind(address).ok().map(drop) }).await;
        }
        self.options
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        request(&self.options.http, &format!("GET {path} HTTP/1.1\r\n"), "").await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        request(&self.options.http, &head, body).await
    }

    /// The running node, once the agent has seen it healthy and has nothing left to do.
    async fn calm(&self) -> ProcId {
        until("a healthy node without an open incident", || async {
            let (_, status) = self.get("/api/v1/status").await;
            let healthy = status["node"]["fact"]["phase"] == "healthy" && status["incidents_open"] == 0;
            let pid = u32::try_from(status["node"]["pid"].as_u64()?).ok()?;
            let start_ticks = status["node"]["start_ticks"].as_u64()?;
            healthy.then_some(ProcId { pid, start_ticks })
        })
        .await
    }
}

async fn options(host: &Host, dir: &Path, count: usize) -> Vec<Options> {
    let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
    let mut all = Vec::new();
    for name in &names {
        let agent_dir: PathBuf = dir.join(name);
        let double =
            NodeDouble { name: name.clone(), members: names.clone(), host: host.clone(), agent_dir: agent_dir.clone() };
        let text = format!(
            r#"{{"name":"{name}","node_address":"{}","address":"{}","http":"{}","dir":"{}"}}"#,
            double.serve().await,
            free_port(),
            free_port(),
            agent_dir.display()
        );
        let mut options: Options = serde_json::from_str(&text).expect("options");
        std::fs::create_dir_all(&agent_dir).unwrap();
        options.launch = support::launch(&agent_dir, "/bin/sleep", &["120"]);
        options.policy = PolicyConfig::of(Profile::Fast);
        all.push(options);
    }
    let peer = |options: &Options| Peer {
        id: options.name.clone(),
        address: options.node_address.clone(),
        agent: options.address.clone(),
        gossip: None,
        agent_also: Vec::new(),
        api: None,
        data_dir: None,
    };
    let peers: Vec<Peer> = all.iter().map(peer).collect();
    all.iter_mut().for_each(|options| options.peers.clone_from(&peers));
    all
}

/// Kills, and waits until it is dead: on a busy machine that takes a moment, and a look before it would see it alive.
async fn kill(host: &Host, node: ProcId) {
    let process = host.proc.adopt(node).await.unwrap().expect("it runs");
    process.signal(Signal::Kill).unwrap();
    process.exited().await.unwrap();
}

async fn runs(host: &Host, node: ProcId) -> bool {
    host.proc.adopt(node).await.unwrap().is_some()
}

#[tokio::test]
async fn three_agents_start_heal_coordinate_and_survive_themselves() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let mut agents = Vec::new();
    for options in options(&host, dir.path(), 3).await {
        agents.push(Running::start(&host, options).await);
    }

    // Each agent starts its node and proves that it serves.
    let mut nodes = Vec::new();
    for agent in &agents {
        nodes.push(agent.calm().await);
    }
    assert_eq!(agents[0].get("/livez").await, (200, Value::String("ok\n".into())));
    assert_eq!(agents[0].get("/readyz").await.0, 200);
    assert_eq!(agents[0].get("/api/v1/nothing").await.0, 404);

    // A killed node is started again, once.
    let killed = Instant::now();
    kill(&host, nodes[1]).await;
    nodes[1] = until("another process", || async {
        let node = agents[1].calm().await;
        (node != nodes[1]).then_some(node)
    })
    .await;
    println!("killed to proven: {:?}", killed.elapsed());
    let (_, list) = agents[1].get("/api/v1/incidents").await;
    let crash = list["incidents"].as_array().unwrap().iter().find(|incident| incident["initial"] == false);
    let crash = crash.expect("an incident about the crash").clone();
    assert_eq!((&crash["mode"], &crash["state"]), (&"process_crash".into(), &"resolved".into()), "{crash}");
    assert_eq!(crash["steps"].as_array().unwrap().len(), 1, "{crash}");
    let (code, explained) = agents[1].get(&format!("/api/v1/incidents/{}", crash["id"].as_str().unwrap())).await;
    assert_eq!(code, 200);
    // A machine that stood still for a moment has a guard refuse what was seen before it, and the journal say so.
    let of_it = |kind: &&Value| !matches!(kind.as_str(), Some("refused" | "note"));
    let records = explained["records"].as_array().unwrap();
    let kinds: Vec<&Value> = records.iter().map(|record| &record["kind"]).filter(of_it).collect();
    assert_eq!(kinds, ["opened", "intent", "outcome", "resolved"], "{records:#?}");

    // Exactly one agent holds the lease, and all of them know who.
    let agreed = || async {
        let mut seen = Vec::new();
        for agent in &agents {
            let (_, status) = agent.get("/api/v1/status").await;
            seen.push(status["lease"]["holder"].as_str().unwrap_or_default().to_owned());
        }
        (!seen[0].is_empty() && seen.iter().all(|holder| *holder == seen[0])).then(|| seen[0].clone())
    };
    let holder = until("a holder that all know", agreed).await;

    // Each agent gives its node a score, and hears those of the others.
    let health = until("a score of every member", || async {
        let (_, health) = agents[0].get("/api/v1/health").await;
        let members = health["members"].as_array()?.clone();
        let scored = members.iter().filter(|member| member["standing"] == "scored").count();
        (scored == 3).then_some(health)
    })
    .await;
    assert!(health["cluster"]["reasons"].as_array().is_some_and(|reasons| reasons.len() == 3), "{health}");
    let (_, metrics) = agents[0].get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains(r#"resilver_health_score{scope="cluster"}"#));
    let (_, expected) = agents[0].get("/api/v1/predictions").await;
    assert_eq!(expected, serde_json::json!({ "node": "n1", "predictions": [] }));

    // An operator's restart, asked of an agent that is neither holder nor target.
    let target = if holder == "n3" { 1 } else { 2 };
    let asked = agents.iter().find(|agent| agent.options.name != holder).expect("another agent");
    let path = format!("/api/v1/nodes/n{}/restart", target + 1);
    let body = r#"{"owner":"ann","reason":"a test"}"#;
    let (code, _) = request(&asked.options.http, &format!("POST {path} HTTP/1.1\r\n"), body).await;
    assert_eq!(code, 415, "a web page must not be able to do this");
    // Of what is refused nothing was done: a guard asks for patience, or the lease has just moved.
    let (code, answer) = until("the restart is not refused", || async {
        let (code, answer) = asked.post(&path, body).await;
        (code != REFUSED).then_some((code, answer))
    })
    .await;
    assert_eq!((code, &answer["done"]), (200, &true.into()), "{answer}");
    let (fence, holds) = (answer["fence"].as_str().unwrap(), until("a holder that all know", agreed).await);
    assert!(fence.ends_with(&holder) || fence.ends_with(&holds), "{answer}");
    assert!(!runs(&host, nodes[target]).await);
    nodes[target] = agents[target].calm().await;
    until("the slot is closed", || async {
        let (_, status) = agents[target].get("/api/v1/status").await;
        (status["lease"]["slots"] == Value::Array(vec![])).then_some(())
    })
    .await;
    let (code, answer) = asked.post("/api/v1/nodes/n9/restart", body).await;
    assert_eq!(code, 404, "{answer}");

    // What does not run is started by hand beside an open slot, even one for this very node, and also where the holder runs.
    // Where a slow machine has the lease move meanwhile, the next holder is asked.
    let of_holder = |holder: &str| agents.iter().position(|agent| agent.options.name == holder).expect("one of them");
    let other = agents.iter().position(|agent| agent.options.name != holder).expect("another agent");
    let name = agents[other].options.name.clone();
    let ask = RequestSlotRequest {
        target: name.clone(),
        step: format!("detach_disk:{name}-900000"),
        incident: format!("{name}-1"),
        action: "detach_disk".into(),
        disk_unreadable: true,
        ..Default::default()
    };
    let (fence, at_holder) = until("a slot", || async {
        let at_holder = of_holder(&agreed().await?);
        let address = &agents[at_holder].options.address;
        let channel = transport::channel(&host.net, address, transport::Profile::Bulk).expect("an address");
        let answer = AgentPeerClient::new(channel).request_slot(ask.clone()).await.ok()?.into_inner();
        Some((answer.fence.filter(|_| answer.granted)?, at_holder))
    })
    .await;
    for target in BTreeSet::from([other, at_holder]) {
        let run = RunDir::new(&host, &agents[target].options.run_dir());
        run.mark_stopped(&StopRecord { owner: "ann".into(), reason: "a test".into(), at_ms: 1 }).await.unwrap();
        kill(&host, nodes[target]).await;
        until("the end is seen", || async {
            let (_, status) = agents[target].get("/api/v1/status").await;
            (status["node"]["state"] == "ended").then_some(())
        })
        .await;
        let path = format!("/api/v1/nodes/n{}/restart", target + 1);
        // The holder's agent hears of it with its next look.
        let (code, answer) = until("the start is not refused", || async {
            let (code, answer) = asked.post(&path, body).await;
            (code != REFUSED).then_some((code, answer))
        })
        .await;
        assert_eq!((code, &answer["done"]), (200, &true.into()), "{answer}");
        nodes[target] = agents[target].calm().await;
    }
    let open = agents[at_holder].get("/api/v1/status").await.1["lease"]["slots"].to_string();
    let moved = agreed().await.is_none_or(|holder| of_holder(&holder) != at_holder);
    assert!(open.contains(&ask.step) || moved, "it is open still: {open}");
    let (step, incident) = (ask.step.clone(), ask.incident.clone());
    let slot = Slot { target: name, step, incident, fence: Some(fence), opened_ms: 0 };
    let address = &agents[at_holder].options.address;
    let channel = transport::channel(&host.net, address, transport::Profile::Bulk).expect("an address");
    let finish = FinishSlotRequest { slot: Some(slot), verified: true };
    let closed = AgentPeerClient::new(channel).finish_slot(finish).await.expect("an answer").into_inner().closed;
    assert!(closed || moved, "its holder closes it");

    // Whoever held the lease before and thaws now: its order comes with a lower fence and is refused at the target.
    let channel =
        transport::channel(&host.net, &agents[target].options.address, transport::Profile::Bulk).expect("an address");
    let stale = RunStepRequest {
        fence: Some(Fence { epoch: 1, round: 0, holder: "n9".into() }),
        step: "restart_node".into(),
        reason: "thawed".into(),
        operator: "bob".into(),
        ..Default::default()
    };
    let refused = AgentPeerClient::new(channel).run_step(stale).await.expect("an answer").into_inner();
    assert!(!refused.done && refused.refusal.contains("is stale"), "{refused:?}");
    assert!(runs(&host, nodes[target]).await, "nothing happened");

    // Paused: a dead node is left alone until resumed.
    let (code, _) = agents[0].post("/api/v1/pause", r#"{"owner":"ann","reason":"a test","for":"5m"}"#).await;
    assert_eq!(code, 200);
    kill(&host, nodes[0]).await;
    until("the refusal", || async {
        let (_, metrics) = agents[0].get("/metrics").await;
        metrics.as_str()?.contains("resilver_guard_refusals_total{guard=\"pause\"}").then_some(())
    })
    .await;
    let (_, status) = agents[0].get("/api/v1/status").await;
    assert_eq!((&status["node"]["state"], &status["paused"]["owner"]), (&"ended".into(), &"ann".into()));
    assert_eq!(agents[0].post("/api/v1/resume", r#"{"owner":"ann"}"#).await.0, 200);
    nodes[0] = agents[0].calm().await;

    // An agent that stops leaves its node alone, and adopts it when it comes back.
    let options = agents.remove(0).stop().await;
    assert!(runs(&host, nodes[0]).await, "stopping the agent never stops the node");
    let again = Running::start(&host, options).await;
    assert_eq!(again.calm().await, nodes[0], "adopted");
    let (_, page) = again.get("/api/v1/journal?limit=1000").await;
    let records = page["records"].as_array().unwrap();
    assert_eq!(page["last"].as_u64(), Some(records.len() as u64));
    let texts: Vec<_> = records.iter().filter_map(|record| record["details"]["evidence"].as_str()).collect();
    assert!(texts.contains(&"agent stopped; the node goes on"), "{texts:?}");
    verify(&host, &again.options.journal_dir()).await.expect("the chain holds over the restart");

    agents.push(again);
    for agent in agents {
        agent.stop().await;
    }
    for node in nodes {
        kill(&host, node).await;
    }
}

/// A node that leaves a line for each of its starts.
fn counting_node(dir: &Path) -> (PathBuf, PathBuf) {
    let (program, starts) = (dir.join("node.sh"), dir.join("starts"));
    write_program(&program, &format!("#!/bin/sh\necho started >> {}\nexec sleep 120\n", starts.display()));
    (program, starts)
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_of_a_recovery_finishes_it_once() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let (program, starts) = counting_node(dir.path());
    let mut options = options(&host, dir.path(), 1).await.remove(0);
    options.launch.node.program = program;
    options.launch.node.args.clear();
    // Each round kills the agent as by hand; the journal must not run into its budget of starts because of that.
    options.policy.recovery.max_restart_attempts = 50;
    let count = || std::fs::read_to_string(&starts).unwrap_or_default().lines().count();
    let mut agent = Running::start(&host, options).await;
    let mut node = agent.calm().await;
    assert_eq!(count(), 1);

    // Somewhere between the node's death and its proven recovery the agent dies, too.
    for (round, pause_ms) in [0, 3, 10, 20, 40, 80, 160].into_iter().enumerate() {
        kill(&host, node).await;
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        let options = agent.crash().await;
        agent = Running::start(&host, options).await;
        let now = agent.calm().await;
        assert_ne!(now, node, "round {round}: it was dead");
        assert_eq!(count(), round + 2, "round {round}, agent killed {pause_ms} ms after the node: started once");
        node = now;
    }
    verify(&host, &agent.options.journal_dir()).await.expect("the chain holds over all crashes");
    agent.stop().await;
    kill(&host, node).await;
}

/// A journal that cannot be synced for two seconds: starting what is dead goes on, the lease is given up, and people are told;
/// once the disk takes it again, nothing of it is missing.
#[tokio::test]
async fn an_agent_whose_journal_hangs_only_relieves_and_gives_the_lease_up() {
    let dir = tempfile::tempdir().unwrap();
    let (host, hangs) = stuck::host(&dir.path().join("n1").join("journal"));
    let options = options(&host, dir.path(), 1).await.remove(0);
    let agent = Running::start(&host, options).await;
    let node = agent.calm().await;
    until("the lease", || async {
        let (_, status) = agent.get("/api/v1/status").await;
        status["lease"]["fence"].is_string().then_some(())
    })
    .await;

    hangs.set(true);
    let began = Instant::now();
    kill(&host, node).await;
    let told = until("the word that the journal is lost", || async {
        (agent.get("/readyz").await.0 == 503).then(|| began.elapsed())
    })
    .await;
    assert!(told >= std::time::Duration::from_secs(2), "a slow sync is no lost journal: {told:?}");
    let again = until("the node again, without a journal", || async {
        let (_, status) = agent.get("/api/v1/status").await;
        let pid = u32::try_from(status["node"]["pid"].as_u64()?).ok()?;
        let start_ticks = status["node"]["start_ticks"].as_u64()?;
        (pid != node.pid).then_some(ProcId { pid, start_ticks })
    })
    .await;
    let status = until("no lease", || async {
        let (_, status) = agent.get("/api/v1/status").await;
        (status["lease"]["fence"].is_null() && status["lease"]["eligible"] == false).then_some(status)
    })
    .await;
    assert!(status["held_back"].to_string().contains("the journal cannot be synced"), "{status}");
    let body = r#"{"owner":"ann","reason":"a test"}"#;
    let (code, answer) = agent.post("/api/v1/nodes/n1/restart", body).await;
    assert_ne!(code, 200, "nothing of grade 2: {answer}");
    assert!(runs(&host, again).await);

    hangs.set(false);
    until("a journal", || async { (agent.get("/readyz").await.0 == 200).then_some(()) }).await;
    until("nothing left to do", || async {
        let (_, status) = agent.get("/api/v1/status").await;
        (status["incidents_open"] == 0).then_some(())
    })
    .await;
    let (_, page) = agent.get("/api/v1/journal?limit=1000").await;
    let kinds: Vec<_> = page["records"].as_array().unwrap().iter().map(|record| record["kind"].clone()).collect();
    for kind in ["opened", "intent", "outcome", "resolved"] {
        assert_eq!(kinds.iter().filter(|found| **found == kind).count(), 2, "the first start and this one: {kinds:?}");
    }
    verify(&host, &agent.options.journal_dir()).await.expect("the chain holds");
    agent.stop().await;
    kill(&host, again).await;
}

/// Found by the simulator (`mixed`, seed 8291194): an operator's connection to the lease's holder broke while the restart was
/// not proven yet. The slot stayed open, and for ten minutes nothing disruptive could be done in the whole cluster, the next
/// restart by hand included.
#[tokio::test]
async fn an_operator_who_hangs_up_leaves_no_slot_open() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let (program, broken) = (dir.path().join("node.sh"), dir.path().join("broken"));
    write_program(&program, &format!("#!/bin/sh\n[ -e {} ] && exit 1\nexec sleep 120\n", broken.display()));
    let mut agents = Vec::new();
    for mut options in options(&host, dir.path(), 3).await {
        options.launch.node.program.clone_from(&program);
        options.launch.node.args.clear();
        options.policy.recovery.proof_deadline = std::time::Duration::from_secs(2);
        agents.push(Running::start(&host, options).await);
    }
    let mut nodes = Vec::new();
    for agent in &agents {
        nodes.push(agent.calm().await);
    }
    let holder = until("a holder", || async {
        let (_, status) = agents[0].get("/api/v1/status").await;
        agents.iter().position(|agent| status["lease"]["holder"] == agent.options.name)
    })
    .await;
    let target = (holder + 1) % agents.len();
    let path = format!("/api/v1/nodes/{}/restart", agents[target].options.name);
    let body = r#"{"owner":"ann","reason":"a test"}"#;
    let slots = || async {
        let (_, status) = agents[holder].get("/api/v1/status").await;
        status["lease"]["slots"].as_array().unwrap().len()
    };

    // Restarted while it cannot start: the proof is waited for, and the operator waits with it, for a moment.
    std::fs::write(&broken, "").unwrap();
    let mut stream = tokio::net::TcpStream::connect(&agents[holder].options.http).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nHost: x\r\n");
    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    until("the old process gone", || async { (!runs(&host, nodes[target]).await).then_some(()) }).await;
    assert_eq!(slots().await, 1, "the step is not proven yet");
    drop(stream);

    until("no open slot", || async { (slots().await == 0).then_some(()) }).await;
    std::fs::remove_file(&broken).unwrap();
    nodes[target] = until("the node again", || async {
        // Its agent may have started it by now; if not, nothing holds the operator back.
        let (_, answer) = agents[target].post(&path, body).await;
        assert!(!answer.to_string().contains("not verified yet"), "{answer}");
        let (_, status) = agents[target].get("/api/v1/status").await;
        let pid = u32::try_from(status["node"]["pid"].as_u64()?).ok()?;
        let node = ProcId { pid, start_ticks: status["node"]["start_ticks"].as_u64()? };
        (node != nodes[target] && runs(&host, node).await).then_some(node)
    })
    .await;
    for agent in agents {
        agent.stop().await;
    }
    for node in nodes {
        kill(&host, node).await;
    }
}

/// Found on review: the search began at the line whose number the incident has, and ended 50,000 lines later. But numbers are
/// shared with what is not written down, and with incidents that another agent named.
#[tokio::test]
async fn the_records_of_an_incident_are_found_wherever_its_number_points() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let options = options(&host, dir.path(), 1).await.remove(0);
    let mut journal = Journal::open(&host, &options.journal_dir(), |_| {}).await.expect("the journal opens");
    let line = |kind, incident: Option<&str>| {
        let mut draft = Draft::new(kind, Action::Skip).with("evidence", "of an earlier life");
        draft.incident = incident.map(|id| IncidentId(id.to_owned()));
        draft
    };
    let (ahead, behind, taken_over) = ("n1-900000", "n1-2", "n2-57");
    let mut story = vec![line(RecordKind::Opened, Some(ahead)), line(RecordKind::Opened, Some(taken_over))];
    story.extend((0..55_000).map(|_| line(RecordKind::Note, None)));
    for kind in [RecordKind::Opened, RecordKind::Refused, RecordKind::Resolved] {
        story.extend([ahead, behind, taken_over].map(|incident| line(kind, Some(incident))));
    }
    for page in story.chunks(1000) {
        for draft in page {
            journal.append(1_700_000_000_000, draft.clone()).expect("there is room");
        }
        journal.flush(false).await.expect("the disk takes it");
    }
    drop(journal);

    let agent = Running::start(&host, options).await;
    for (incident, expected) in [(ahead, 4), (behind, 3), (taken_over, 4)] {
        let (code, found) = agent.get(&format!("/api/v1/incidents/{incident}")).await;
        assert_eq!(code, 200, "{incident}: {found}");
        let records = found["records"].as_array().unwrap();
        assert!(records.iter().all(|record| record["incident"] == incident), "{found}");
        let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds[kinds.len() - 3..], ["opened", "refused", "resolved"], "{incident}");
        assert_eq!((kinds.len(), &found["left_out"]), (expected, &Value::Null), "{incident}");
    }
    // What is written while the agent runs is found as well.
    let node = agent.calm().await;
    let (_, list) = agent.get("/api/v1/incidents").await;
    let (_, first) = agent.get(&format!("/api/v1/incidents/{}", list["incidents"][0]["id"].as_str().unwrap())).await;
    assert!(first["records"].as_array().is_some_and(|records| records.len() >= 4), "{first}");
    agent.stop().await;
    kill(&host, node).await;
}

/// The refusals in an agent's journal that were answers to `ann`.
async fn refusals(agent: &Running) -> Vec<Value> {
    let (_, page) = agent.get("/api/v1/journal?limit=1000").await;
    let by_ann = |record: &&Value| record["details"]["from"] == "ann" || record["details"]["owner"] == "ann";
    let records = page["records"].as_array().unwrap();
    records.iter().filter(|record| record["kind"] == "refused").filter(by_ann).cloned().collect()
}

/// Found on review: exit code 5, and no line of it in any journal.
#[tokio::test]
async fn a_restart_that_is_refused_for_want_of_a_lease_is_a_record() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    // One of three agents is no majority.
    let agent = Running::start(&host, options(&host, dir.path(), 3).await.remove(0)).await;
    let body = r#"{"owner":"ann","reason":"a test"}"#;
    let (code, answer) = agent.post("/api/v1/nodes/n2/restart", body).await;
    assert_eq!((code, &answer["guard"]), (REFUSED, &"one_at_a_time".into()), "{answer}");
    let told = until("the refusal's record", || async { refusals(&agent).await.pop() }).await;
    assert_eq!((&told["action"], &told["details"]["node_id"]), (&"restart_node".into(), &"n2".into()), "{told}");
    assert!(told["details"]["evidence"].as_str().is_some_and(|why| why.starts_with("nobody holds")), "{told}");
    assert_eq!((&told["guards"][0]["guard"], &told["guards"][0]["passed"]), (&answer["guard"], &false.into()));
    let node = agent.calm().await;
    agent.stop().await;
    kill(&host, node).await;
}

/// As above, by a guard of the lease's holder.
#[tokio::test]
async fn a_restart_that_a_guard_of_the_holder_refuses_is_a_record() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let agent = Running::start(&host, options(&host, dir.path(), 1).await.remove(0)).await;
    let node = agent.calm().await;
    until("the lease", || async {
        let (_, status) = agent.get("/api/v1/status").await;
        status["lease"]["fence"].is_string().then_some(())
    })
    .await;
    // The only voter there is must not be taken away.
    let (code, answer) = agent.post("/api/v1/nodes/n1/restart", r#"{"owner":"ann","reason":"a test"}"#).await;
    assert_eq!(code, REFUSED, "{answer}");
    let told = until("the refusal's record", || async { refusals(&agent).await.pop() }).await;
    assert_eq!((&told["action"], &told["details"]["guard"]), (&"restart_node".into(), &answer["guard"]), "{told}");
    assert_eq!((&told["guards"][0]["guard"], &told["guards"][0]["passed"]), (&answer["guard"], &false.into()));
    let (_, metrics) = agent.get("/metrics").await;
    let counted = format!("resilver_guard_refusals_total{{guard={}}}", answer["guard"]);
    assert!(metrics.as_str().is_some_and(|metrics| metrics.contains(&counted)), "{counted}");
    assert!(runs(&host, node).await);
    agent.stop().await;
    kill(&host, node).await;
}

/// Found on review: a pause was answered with 200 while its record waited in memory, and an agent that was killed had forgotten
/// it. And approvals were taken while the journal was lost.
#[tokio::test]
async fn a_pause_that_is_not_on_disk_is_not_told_as_done_and_no_approval_is_taken_then() {
    let dir = tempfile::tempdir().unwrap();
    let (host, hangs) = stuck::host(&dir.path().join("n1").join("journal"));
    let agent = Running::start(&host, options(&host, dir.path(), 1).await.remove(0)).await;
    let node = agent.calm().await;
    let pause = r#"{"owner":"ann","reason":"a test","for":"5m"}"#;
    let paused = async |agent: &Running| agent.get("/api/v1/status").await.1["paused"]["owner"].clone();

    hangs.set(true);
    let (code, answer) = agent.post("/api/v1/pause", pause).await;
    assert_eq!(code, 503, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|why| why.contains("would not know that after its own restart")));
    assert_eq!(paused(&agent).await, "ann", "it is in force all the same");
    let given = r#"{"owner":"ann","token":"00"}"#;
    let (code, answer) = agent.post("/api/v1/incidents/n1-1/approve", given).await;
    assert_eq!((code, &answer["guard"]), (REFUSED, &"intent_first".into()), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|why| why.contains("the journal cannot be synced")), "{answer}");

    hangs.set(false);
    until("a journal", || async { (agent.get("/readyz").await.0 == 200).then_some(()) }).await;
    assert_eq!(agent.post("/api/v1/pause", pause).await.0, 200);
    let told = refusals(&agent).await.pop().expect("refusals are records");
    assert_eq!((&told["action"], &told["details"]["guard"]), (&"approve".into(), &"intent_first".into()), "{told}");
    let agent = Running::start(&host, agent.crash().await).await;
    assert_eq!(paused(&agent).await, "ann", "what was answered with 200 is remembered");
    agent.stop().await;
    kill(&host, node).await;
}

//! One agent among eighty others, over loopback: whom it asks without the lease, with it, and once it has lost it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/node.rs"]
mod node_double;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use node_double::NodeDouble;
use resilver_agent::{Agent, Options, Peer};
use resilver_host::Host;
use resilver_proto::agent::agent_peer_server::{AgentPeer, AgentPeerServer};
use resilver_proto::agent::*;
use resilver_proto::transport;
use resilver_strategies::watching::Asker;
use serde_json::Value;
use support::{free_port, request, until};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

const MEMBERS: usize = 81;
const OWN: &str = "n40";
/// Not asked by plan, and holder of the lease in the end.
const HOLDER: &str = "n69";

/// No test: the keeper's own process when a test started this program as one, and nothing otherwise.
#[test]
fn keeper_entry() {
    support::keeper_main();
}

/// Another agent: it counts who asks, and grants the lease to whoever asks while that is allowed.
#[derive(Clone)]
struct Other {
    name: String,
    host: Host,
    asked: Arc<AtomicU64>,
    grants: Arc<AtomicBool>,
    /// Whom it takes for the holder; empty: nobody.
    holder: watch::Receiver<String>,
}

impl Other {
    async fn serve(self) -> String {
        let listener = self.host.net.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let router = transport::server().add_service(AgentPeerServer::new(self));
        tokio::spawn(transport::serve(router, listener, std::future::pending()));
        address
    }
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl AgentPeer for Other {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(PingResponse {
            node: self.name.clone(),
            node_alive: true,
            node_phase: "healthy".into(),
            leader: "n1".into(),
            cluster_id: "c1".into(),
            epoch: 1,
            tells_silent: true,
            wall_ms: self.host.clock.now().as_millis(),
            lease_holder: self.holder.borrow().clone(),
            ..Default::default()
        }))
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let promised = self.grants.load(Ordering::Relaxed);
        let highest = request.into_inner().ballot;
        Ok(Response::new(PrepareResponse { promised, highest, ..Default::default() }))
    }

    async fn accept(&self, request: Request<AcceptRequest>) -> Result<Response<AcceptResponse>, Status> {
        let accepted = self.grants.load(Ordering::Relaxed);
        let highest = request.into_inner().ballot;
        Ok(Response::new(AcceptResponse { accepted, highest, ..Default::default() }))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Ok(Response::new(ReleaseResponse {}))
    }
    async fn open_slot(&self, _: Request<SlotRequest>) -> Result<Response<SlotResponse>, Status> {
        absent()
    }
    async fn close_slot(&self, _: Request<SlotRequest>) -> Result<Response<SlotResponse>, Status> {
        absent()
    }
    async fn request_slot(&self, _: Request<RequestSlotRequest>) -> Result<Response<RequestSlotResponse>, Status> {
        absent()
    }
    async fn finish_slot(&self, _: Request<FinishSlotRequest>) -> Result<Response<FinishSlotResponse>, Status> {
        absent()
    }
    async fn raise_fence(&self, _: Request<RaiseFenceRequest>) -> Result<Response<RaiseFenceResponse>, Status> {
        absent()
    }
    async fn coordinate(&self, _: Request<CoordinateRequest>) -> Result<Response<CoordinateResponse>, Status> {
        absent()
    }
    async fn run_step(&self, _: Request<RunStepRequest>) -> Result<Response<RunStepResponse>, Status> {
        absent()
    }
}

struct Town {
    options: Options,
    asked: BTreeMap<String, Arc<AtomicU64>>,
    grants: Arc<AtomicBool>,
    holder: watch::Sender<String>,
}

impl Town {
    async fn new(host: &Host, dir: &std::path::Path) -> Town {
        let (grants, (holder, heard)) = (Arc::new(AtomicBool::new(false)), watch::channel(String::new()));
        let members = vec!["n1".to_owned(), "n2".to_owned(), OWN.to_owned()];
        let double = NodeDouble { name: OWN.into(), members, host: host.clone(), agent_dir: dir.to_owned() };
        let node = double.serve().await;
        let (mut asked, mut peers) = (BTreeMap::new(), Vec::new());
        let own = free_port();
        for name in (1..=MEMBERS).map(|at| format!("n{at}")) {
            let mut agent = own.clone();
            if name != OWN {
                let count = Arc::new(AtomicU64::new(0));
                asked.insert(name.clone(), count.clone());
                let (name, host) = (name.clone(), host.clone());
                let other = Other { name, host, asked: count, grants: grants.clone(), holder: heard.clone() };
                agent = other.serve().await;
            }
            peers.push(Peer {
                id: name,
                address: node.clone(),
                agent,
                gossip: None,
                agent_also: Vec::new(),
                api: None,
                data_dir: None,
            });
        }
        let text = format!(
            r#"{{"name":"{OWN}","node_address":"{node}","address":"{own}","http":"{}","dir":"{}"}}"#,
            free_port(),
            dir.display()
        );
        let mut options: Options = serde_json::from_str(&text).expect("options");
        options.launch = support::launch(dir, "/bin/sleep", &["120"]);
        options.peers = peers;
        Town { options, asked, grants, holder }
    }

    async fn get(&self, path: &str) -> Value {
        request(&self.options.http, &format!("GET {path} HTTP/1.1\r\n"), "").await.1
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.asked.iter().map(|(name, count)| (name.clone(), count.load(Ordering::Relaxed))).collect()
    }

    /// Waits until each of these was asked three times more, and says how often everybody was before and after.
    async fn three_rounds(&self, names: &BTreeSet<String>) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        let before = self.counts();
        until("three rounds", || async {
            let now = self.counts();
            names.iter().all(|name| now[name] >= before[name] + 3).then_some(())
        })
        .await;
        (before, self.counts())
    }

    /// Waits until the agent says that it asks so many of the others.
    async fn asks(&self, count: usize) {
        until("another view", || async {
            let status = self.get("/api/v1/status").await;
            let of_all = count == MEMBERS - 1 && status.get("partial").is_none();
            let peers = status["peers"].as_array()?.len() == count;
            (peers && (of_all || status["partial"]["asked"] == count)).then_some(())
        })
        .await;
    }

    /// What it asks by plan.
    fn plan(&self, more: &[&str]) -> BTreeSet<String> {
        let mut all: Vec<String> = self.options.peers.iter().map(|peer| peer.id.clone()).collect();
        all.sort();
        let mut needed: BTreeSet<String> = acceptors(&all);
        needed.extend(["n1", "n2"].iter().chain(more).map(|name| (*name).to_owned()));
        let doubtful = BTreeSet::new();
        Asker { own: OWN, all: &all, holds: false, needed: &needed, doubtful: &doubtful }.asks()
    }
}

/// The first five of the names, as beside Resilver's own nodes.
fn acceptors(all: &[String]) -> BTreeSet<String> {
    all.iter().take(5).cloned().collect()
}

#[tokio::test]
async fn an_agent_of_eighty_one_asks_some_all_while_it_holds_the_lease_and_some_again() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let town = Town::new(&host, dir.path()).await;
    let agent = Agent::new(host.clone(), town.options.clone()).await.expect("the agent can start");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(agent.run(stopped));

    // Without the lease: its neighbours, the voters, the lease's members. The others never hear from it.
    let plan = town.plan(&[]);
    assert!(plan.len() < 50 && !plan.contains(HOLDER), "{plan:?}");
    town.asks(plan.len()).await;
    let (_, after) = town.three_rounds(&plan).await;
    assert!(after.iter().all(|(name, count)| plan.contains(name) || *count == 0), "{after:?}");
    let health = town.get("/api/v1/health").await;
    assert_eq!(health["partial"]["of"], MEMBERS - 1);
    assert_eq!(health["members"].as_array().unwrap().len(), plan.len() + 1, "nobody is shown who is not asked");

    // Others say who holds it: that one is asked, too.
    town.holder.send_replace(HOLDER.to_owned());
    let plan = town.plan(&[HOLDER]);
    town.asks(plan.len()).await;
    let (_, after) = town.three_rounds(&plan).await;
    assert!(after[HOLDER] > 0 && after.iter().all(|(name, count)| plan.contains(name) || *count == 0), "{after:?}");
    town.holder.send_replace(String::new());

    // With it: everybody.
    town.grants.store(true, Ordering::Relaxed);
    town.asks(MEMBERS - 1).await;
    let all: BTreeSet<String> = town.asked.keys().cloned().collect();
    town.three_rounds(&all).await;
    assert_eq!(town.get("/api/v1/status").await["engine"]["silent"], serde_json::json!({}));

    // And once it is lost, some again: of the others nothing is left, and nothing was opened on the way.
    town.grants.store(false, Ordering::Relaxed);
    let plan = town.plan(&[]);
    town.asks(plan.len()).await;
    let (before, after) = town.three_rounds(&plan).await;
    let left_alone = |name: &String| plan.contains(name) || before[name] == after[name];
    assert!(after.keys().all(left_alone), "{before:?} {after:?}");
    let incidents = town.get("/api/v1/incidents").await;
    let modes: Vec<&Value> = incidents["incidents"].as_array().unwrap().iter().map(|one| &one["mode"]).collect();
    assert_eq!(modes, ["process_crash"], "its own node was started, and that was all");
    assert_eq!(town.get("/api/v1/status").await["engine"]["silent"], serde_json::json!({}));
    let series = town.get("/metrics").await;
    let series = series.as_str().unwrap().lines().filter(|line| line.starts_with("resilver_peer_up")).count();
    assert_eq!(series, plan.len());

    stop.send_replace(true);
    task.await.unwrap().unwrap();
}

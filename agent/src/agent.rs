//! Putting the agent together, and its life from start to stop.
//!
//! Owns: which tasks there are and how they are wired. Must never: stop the node when it stops itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::disk::create_dir_durably;
use resilver_host::planted::{Bug, bug};
use resilver_host::supervise::Nobody;
use resilver_host::{Host, Listener, Supervisor};
use resilver_proto::agent::agent_peer_server::AgentPeerServer;
use resilver_proto::transport;
use resilver_strategies::api::Input;
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{Engine, EngineOptions};
use resilver_strategies::watching::FULL_MATRIX;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::approvals::Tokens;
use crate::coordinator::{Coordinator, CoordinatorSetup};
use crate::executors::{Executors, Tools};
use crate::flight::{Recorder, Writer as FlightWriter};
use crate::health::{HealthDesk, HealthTask};
use crate::http::{self, Api};
use crate::journal::{Journal, JournalError};
use crate::lease::{LeaseActor, LeaseError, LeaseHandle, LeaseNotice, LeaseSetup};
use crate::links::Links;
use crate::main_loop::{MainLoop, Request};
use crate::options::{Options, SmartSource};
use crate::peer_service::PeerService;
use crate::replay::Replay;
use crate::sensors::{
    CanarySensor, HeartbeatSensor, HostSensor, LogDesk, LogSensor, PeerSensor, PeerWatch, ProcessSensor,
    ProcessStateSensor, ReplicasSensor, SmartSensor, stopped,
};
use crate::service::{self, ServiceManager};
use crate::state::{PeerViews, View};
use crate::swim::{self, GossipError, Swim, SwimView};
use crate::telemetry::{Telemetry, Told};
use crate::timebase::Timebase;

/// Inputs that may wait for the engine. It takes microseconds for each; a second's worth of all sensors is far less.
const MAX_INPUTS: usize = 256;
/// Requests that may wait for the main loop.
const MAX_REQUESTS: usize = 64;
/// News of the lease that may wait for the coordinator.
const MAX_NOTICES: usize = 16;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: is another agent of this host running, or the port taken?")]
    Bind {
        /// For whom.
        what: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error("the agent's journal cannot be opened")]
    Journal(#[from] JournalError),
    /// The lease's state cannot be read.
    #[error("the agent's part in the lease cannot be read")]
    Lease(#[from] LeaseError),
    /// Gossip cannot begin.
    #[error("the agents' gossip cannot begin")]
    Gossip(#[from] GossipError),
    /// A figure of the policy is impossible.
    #[error("the policy cannot be used")]
    Policy(#[from] resilver_strategies::config::BadPolicy),
    /// The agent's folder cannot be used.
    #[error("cannot make the agent's folder {}", path.display())]
    Dir {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// An agent that is ready to run: its addresses are bound and its past is read.
pub struct Agent {
    host: Host,
    options: Options,
    time: Timebase,
    journal: Journal,
    flight: Option<(Recorder, FlightWriter)>,
    replay: Replay,
    grpc: Box<dyn Listener>,
    http: Box<dyn Listener>,
    gossip: Option<swim::Opened>,
    supervisor: Arc<dyn Supervisor>,
}

impl Agent {
    /// Binds the agent's addresses (which also keeps a second agent of this host away from its folder) and reads its
    /// journal.
    ///
    /// # Errors
    /// What an operator has to settle before this agent can run.
    pub async fn new(host: Host, options: Options) -> Result<Agent, AgentError> {
        let time = Timebase::new(&host);
        options.policy.check()?;
        let grpc = bind(&host, "other agents", &options.address).await?;
        let http = bind(&host, "HTTP", &options.http).await?;
        let made = create_dir_durably(&*host.disk, &options.dir).await;
        made.map_err(|source| AgentError::Dir { path: options.dir.clone(), source })?;
        let gossip = match &options.gossip {
            Some(gossip) => Some(swim::open(&host, &options, gossip).await?),
            None => {
                tracing::warn!("no `agent.gossip`: whether a host is there is judged by pings alone");
                None
            }
        };
        let mut replay = Replay::new(time.when());
        let max_bytes = options.journal.max_bytes;
        let journal = Journal::open_within(&host, &options.journal_dir(), max_bytes, |line| replay.push(line)).await?;
        let flight = Recorder::open(&host, &options).await;
        let supervisor = Arc::new(Nobody);
        Ok(Agent { host, options, time, journal, flight, replay, grpc, http, gossip, supervisor })
    }

    /// The same, telling whoever looks after this process that the main loop turns.
    #[must_use]
    pub fn supervised(self, supervisor: Arc<dyn Supervisor>) -> Agent {
        Agent { supervisor, ..self }
    }

    /// Where it listens for other agents and for HTTP: with the ports the system chose, when 0 was asked.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn addresses(&self) -> std::io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
        Ok((self.grpc.local_addr()?, self.http.local_addr()?))
    }

    /// Runs until `shutdown` says true (or its sender is gone). The node goes on.
    ///
    /// # Errors
    /// When the lease's state cannot be read.
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> Result<(), AgentError> {
        let Agent { host, options, time, journal, flight, replay, grpc, http, gossip, supervisor } = self;
        let (recorder, flight_writer) = flight.unzip();
        let started_ms = time.wall_ms();
        let links = Arc::new(Links::new(&host, &options));
        let telemetry = Arc::new(Telemetry::new());
        let peers = Arc::new(PeerViews::default());
        let health = Arc::new(HealthDesk::new(&options, &time));
        let (notices_tx, notices) = mpsc::channel(MAX_NOTICES);
        let setup = LeaseSetup {
            host: host.clone(),
            own: options.name.clone(),
            members: members(&options),
            links: links.clone(),
            time: time.clone(),
            notices: notices_tx,
        };
        let (lease_actor, lease) = LeaseActor::open(setup, &options.dir).await?;
        let (input, inputs) = mpsc::channel(MAX_INPUTS);
        let (requests_tx, requests) = mpsc::channel(MAX_REQUESTS);
        let (view_tx, view) = watch::channel(View::new());
        let coordinator = Coordinator::new(CoordinatorSetup {
            own: options.name.clone(),
            links: links.clone(),
            lease: lease.clone(),
            peers: peers.clone(),
            view: view.clone(),
            requests: requests_tx.clone(),
            time: time.clone(),
            policy: options.policy.clone(),
        });
        let service = service::manager(&host, &options);
        let (changed, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let tools = Tools {
            links: links.clone(),
            service: service.clone(),
            changed: changed.clone(),
            lease: lease.clone(),
            deadline: options.heartbeat_deadline,
            own: options.name.clone(),
            clock: host.clock.clone(),
        };
        let domain = options.failure_domain();
        let engine = EngineOptions { node: options.name.clone(), domain, policy: policy(&options) };
        let (swim_view, swim) = swim::views();
        let gossip = gossip.map(|opened| Swim::new(&host, opened, lease.clone(), telemetry.clone(), swim_view));
        let parts = Parts {
            host,
            options,
            time,
            links,
            telemetry,
            peers,
            logs: Arc::default(),
            swim,
            health,
            lease,
            coordinator,
            input,
            view,
            shutdown,
        };
        let mut main = MainLoop {
            engine: Engine::new(engine),
            executors: Executors::new(tools, parts.input.clone()),
            coordinator: parts.coordinator.clone(),
            lease: parts.lease.clone(),
            telemetry: parts.telemetry.clone(),
            time: parts.time.clone(),
            inputs,
            input: parts.input.clone(),
            requests,
            view: view_tx,
            waiting: BTreeMap::new(),
            tokens: Tokens::new(&parts.host),
            answer_to: None,
            recorder,
            lost: false,
            eligible: None,
            slots: JoinSet::new(),
            supervisor,
            journal,
        };
        let mut tasks = parts.spawn(Spawned {
            service,
            changed,
            begun,
            lease_actor,
            notices,
            requests: requests_tx,
            gossip,
            flight: flight_writer,
            grpc,
            http,
            reader: main.journal.reader(),
            started_ms,
        });
        let pid = parts.host.proc.own().pid;
        main.begin(&Told::Started { pid, factor: parts.options.policy.factor }).await;
        let started = replay.finish(parts.time.when());
        main.run(started, parts.shutdown.clone()).await;
        // The lease's task gives the lease up, the recorder closes its segment; everything else is dropped where it stands.
        let _ = tokio::time::timeout(STOP_PATIENCE, tasks.lease.join_next()).await;
        let _ = tokio::time::timeout(STOP_PATIENCE, tasks.flight.join_next()).await;
        tasks.all.shutdown().await;
        Ok(())
    }
}

/// What the engine decides by: the options' policy, unless the planted bug takes the limits of starts away.
fn policy(options: &Options) -> PolicyConfig {
    let mut policy = options.policy.clone();
    if bug(Bug::RestartInLoop) {
        policy.recovery.max_restart_attempts = u32::MAX;
        policy.recovery.restart_waits.clear();
        policy.recovery.restart_cooldown = std::time::Duration::ZERO;
    }
    policy
}

/// How long stopping waits for the lease to be given up. Others notice a lost holder by themselves after 10 s.
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// What several tasks share.
struct Parts {
    host: Host,
    options: Options,
    time: Timebase,
    links: Arc<Links>,
    telemetry: Arc<Telemetry>,
    peers: Arc<PeerViews>,
    logs: Arc<LogDesk>,
    swim: watch::Receiver<SwimView>,
    health: Arc<HealthDesk>,
    lease: LeaseHandle,
    coordinator: Coordinator,
    input: mpsc::Sender<Input>,
    view: watch::Receiver<View>,
    shutdown: watch::Receiver<bool>,
}

/// What goes into one task each.
struct Spawned {
    service: Arc<dyn ServiceManager>,
    changed: Arc<Notify>,
    begun: Arc<Notify>,
    lease_actor: LeaseActor,
    notices: mpsc::Receiver<LeaseNotice>,
    requests: mpsc::Sender<Request>,
    gossip: Option<Swim>,
    flight: Option<FlightWriter>,
    grpc: Box<dyn Listener>,
    http: Box<dyn Listener>,
    reader: crate::journal::JournalReader,
    started_ms: u64,
}

struct Tasks {
    lease: JoinSet<()>,
    flight: JoinSet<()>,
    all: JoinSet<()>,
}

impl Parts {
    fn spawn(&self, spawned: Spawned) -> Tasks {
        let Spawned { service, changed, begun, lease_actor, notices, requests, gossip, .. } = spawned;
        let Spawned { flight, grpc, http, reader, started_ms, .. } = spawned;
        let mut tasks = Tasks { lease: JoinSet::new(), flight: JoinSet::new(), all: JoinSet::new() };
        if let Some(writer) = flight {
            tasks.flight.spawn(writer.run());
        }
        tasks.lease.spawn(lease_actor.run(self.shutdown.clone()));
        let all = &mut tasks.all;
        all.spawn(self.coordinator.clone().run(notices, self.shutdown.clone()));
        let process =
            ProcessSensor { host: self.host.clone(), service, changed, begun: begun.clone(), out: self.input.clone() };
        all.spawn(process.run(self.shutdown.clone()));
        let heartbeat = HeartbeatSensor {
            links: self.links.clone(),
            interval: self.options.heartbeat_interval,
            deadline: self.options.heartbeat_deadline,
            begun,
            lease: self.lease.clone(),
            health: self.health.clone(),
            out: self.input.clone(),
        };
        all.spawn(heartbeat.run(self.shutdown.clone()));
        all.spawn(self.health_task(requests.clone()).run(self.shutdown.clone()));
        if let Some(smart) = &self.options.smart {
            all.spawn(self.smart_sensor(smart).run(self.shutdown.clone()));
        }
        self.spawn_lookers(all);
        self.spawn_peer_sensors(all);
        if let Some(gossip) = gossip {
            all.spawn(gossip.run(self.shutdown.clone()));
        }
        all.spawn(self.peer_service(grpc));
        let api = Api {
            options: self.options.clone(),
            time: self.time.clone(),
            pid: self.host.proc.own().pid,
            started_ms,
            view: self.view.clone(),
            peers: self.peers.clone(),
            logs: self.logs.clone(),
            lease: self.lease.clone(),
            coordinator: self.coordinator.clone(),
            telemetry: self.telemetry.clone(),
            health: self.health.clone(),
            journal: reader,
            requests,
        };
        all.spawn(http::serve(api, http, self.shutdown.clone()));
        tasks
    }

    /// The sensors of the own host and node, each in a task of its own: one that hangs holds up no other.
    fn spawn_lookers(&self, all: &mut JoinSet<()>) {
        let sensors = &self.options.sensors;
        let (host, view, out) = (&self.host, &self.view, &self.input);
        let looker = HostSensor { host: host.clone(), every: sensors.host_every, view: view.clone(), out: out.clone() };
        all.spawn(looker.run(self.shutdown.clone()));
        let (every, links) = (sensors.process_every, &self.links);
        let process = ProcessStateSensor { host: host.clone(), every, view: view.clone(), out: out.clone() };
        all.spawn(process.run(self.shutdown.clone()));
        let every = sensors.canary_every;
        let canary = CanarySensor { links: links.clone(), every, view: view.clone(), out: out.clone() };
        all.spawn(canary.run(self.shutdown.clone()));
        let replicas = ReplicasSensor {
            host: host.clone(),
            links: links.clone(),
            every: sensors.replicas_every.unwrap_or(self.options.interval),
            view: view.clone(),
            out: out.clone(),
        };
        all.spawn(replicas.run(self.shutdown.clone()));
        for source in &sensors.logs {
            let logs = LogSensor {
                host: host.clone(),
                source: source.clone(),
                every: sensors.logs_every,
                dir: self.options.dir.join("logs"),
                desk: self.logs.clone(),
                out: out.clone(),
            };
            all.spawn(logs.run(self.shutdown.clone()));
        }
    }

    /// Everybody is asked in a cluster that is small enough for it; in a larger one [`PeerWatch`] chooses.
    fn spawn_peer_sensors(&self, all: &mut JoinSet<()>) {
        if self.links.peers.len() > FULL_MATRIX {
            let watch = PeerWatch { sensor: self.peer_sensor(""), view: self.view.clone() };
            all.spawn(watch.run(self.shutdown.clone()));
            return;
        }
        for peer in self.options.others() {
            all.spawn(self.peer_sensor(&peer.id).run(self.shutdown.clone()));
        }
    }

    fn health_task(&self, requests: mpsc::Sender<Request>) -> HealthTask {
        HealthTask {
            own: self.options.name.clone(),
            host: self.host.clone(),
            desk: self.health.clone(),
            links: self.links.clone(),
            deadline: self.options.heartbeat_deadline,
            sample_every: self.options.policy.trends.sample_every,
            lease: self.lease.clone(),
            telemetry: self.telemetry.clone(),
            view: self.view.clone(),
            requests,
        }
    }

    fn smart_sensor(&self, options: &SmartSource) -> SmartSensor {
        SmartSensor {
            host: self.host.clone(),
            options: options.clone(),
            policy: self.options.policy.smart.clone(),
            interval: self.options.interval,
            dir: self.options.dir.join("smart"),
            view: self.view.clone(),
            health: self.health.clone(),
            telemetry: self.telemetry.clone(),
            out: self.input.clone(),
        }
    }

    fn peer_sensor(&self, peer: &str) -> PeerSensor {
        PeerSensor {
            host: self.host.clone(),
            own: self.options.name.clone(),
            peer: peer.to_owned(),
            links: self.links.clone(),
            interval: self.options.heartbeat_interval,
            deadline: self.options.heartbeat_deadline,
            lease: self.lease.clone(),
            telemetry: self.telemetry.clone(),
            views: self.peers.clone(),
            swim: self.swim.clone(),
            health: self.health.clone(),
            out: self.input.clone(),
            begins_in: Duration::ZERO,
        }
    }

    fn peer_service(&self, listener: Box<dyn Listener>) -> impl Future<Output = ()> + use<> {
        let service = PeerService {
            own: self.options.name.clone(),
            domain: self.options.failure_domain(),
            time: self.time.clone(),
            lease: self.lease.clone(),
            coordinator: Arc::new(self.coordinator.clone()),
            view: self.view.clone(),
            health: self.health.clone(),
            peers: self.peers.clone(),
        };
        let router = transport::server().add_service(AgentPeerServer::new(service));
        let mut shutdown = self.shutdown.clone();
        async move {
            let stop = async move { stopped(&mut shutdown).await };
            if let Err(error) = transport::serve(router, listener, stop).await {
                tracing::error!(%error, "the server for other agents ended");
            }
        }
    }
}

async fn bind(host: &Host, what: &'static str, address: &str) -> Result<Box<dyn Listener>, AgentError> {
    let bound = host.net.bind(address).await;
    bound.map_err(|source| AgentError::Bind { what, address: address.to_owned(), source })
}

/// All members: the configured ones, and this agent even where it does not list itself.
fn members(options: &Options) -> Vec<String> {
    let mut members: Vec<String> = options.others().map(|peer| peer.id.clone()).collect();
    members.push(options.name.clone());
    members
}

//! A cluster on simulated machines: what an init system starts there, and how it is founded.
//!
//! Owns: the options of nodes and agents (those of `resilver up`, on the machines' own folders), the programs that
//! `Proc::spawn` may start, and the founding. The node, the agent and the keeper are the product's own, unchanged.
//!
//! Must never: help a node up. Its agent does; this starts agents only, as systemd would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resilver_agent::Agent;
use resilver_agent::keeper::{KeeperOptions, run_keeper};
use resilver_agent::options::{
    FlightOptions, Invocation, JournalOptions, Launch, Options as AgentOptions, Peer, SensorOptions, ServiceOptions,
    SmartSource,
};
use resilver_host::{Host, SpawnSpec};
use resilver_node::deadlines::{Deadlines, Defences};
use resilver_node::options::{
    LocationOptions, MetadataScrubOptions, Options as NodeOptions, RepairOptions, ScrubOptions,
};
use resilver_node::service::Node;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{Coding, CreateBucketRequest, InitRequest, StatusRequest};
use resilver_proto::transport;
use resilver_sim_kernel::{Kernel, MachineId, Pid, ProcessState, Program};
use resilver_strategies::cascade::Pattern;
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::types::FailureKind;

use crate::smartctl;

/// The bucket every workload writes to.
pub(crate) const BUCKET: &str = "data";
/// What the cluster is called.
pub(crate) const CLUSTER_NAME: &str = "sim";
/// Where a node answers gRPC.
pub(crate) const NODE_PORT: u16 = 7000;
/// Where a node answers HTTP.
const NODE_HTTP_PORT: u16 = 7001;
/// Where an agent answers other agents.
const AGENT_PORT: u16 = 7100;
/// Where an agent answers HTTP.
const AGENT_HTTP_PORT: u16 = 7101;

/// The metadata's disk: log segments of 8 MiB and a database of some hundred objects.
const META_BYTES: u64 = 512 << 20;
/// A disk for shards: far more than a run writes; a full disk is a fault of its own.
const DISK_BYTES: u64 = 1 << 30;
/// The agent's disk.
const AGENT_BYTES: u64 = 256 << 20;

/// How long founding may take, in the run's time: a few elections.
const FOUNDING_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a cluster that is being founded.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long one call of the founder may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Exit codes of the simulated programs.
const EXIT_OK: i32 = 0;
const EXIT_FAILED: i32 = 1;

/// The metadata folder's mount on every machine.
pub(crate) const META_MOUNT: &str = "/meta";
/// The agent's mount on every machine.
pub(crate) const AGENT_MOUNT: &str = "/agent";

/// A founded cluster.
pub(crate) struct Cluster {
    machines: Vec<MachineId>,
    client: MachineId,
    disks: usize,
    agents: BTreeMap<MachineId, Program>,
    counters: smartctl::Counters,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// It did not come up in time.
    #[error("the cluster was not founded within {} s of simulated time: {last}", FOUNDING_DEADLINE.as_secs())]
    Late {
        /// What the founder last waited for.
        last: String,
    },
}

/// The name of node `index`, from 0.
pub(crate) fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

fn at(name: &str, port: u16) -> String {
    format!("{name}:{port}")
}

/// The address of a node's gRPC, by its name.
pub(crate) fn node_address(name: &str) -> String {
    at(name, NODE_PORT)
}

/// The address of an agent's HTTP, by its node's name.
pub(crate) fn agent_http(name: &str) -> String {
    at(name, AGENT_HTTP_PORT)
}

/// The mount of a shard disk, from 0.
pub(crate) fn disk_mount(disk: usize) -> PathBuf {
    PathBuf::from(format!("/disk{}", disk + 1))
}

/// The folder of a configured disk on its mount.
pub(crate) fn shards_folder(mount: &Path) -> PathBuf {
    mount.join("shards")
}

fn node_options(index: usize, nodes: usize, disks: usize, watching: Watching) -> NodeOptions {
    let name = node_name(index);
    let usual = MetadataScrubOptions::default();
    NodeOptions {
        address: at(&name, NODE_PORT),
        http: at(&name, NODE_HTTP_PORT),
        data_dir: PathBuf::from(META_MOUNT).join("data"),
        aside: None,
        disks: (0..disks).map(|disk| shards_folder(&disk_mount(disk))).collect(),
        join: (0..nodes).filter(|other| *other != index).map(|other| node_address(&node_name(other))).collect(),
        location: LocationOptions::default(),
        // As `resilver up` has it: damage is found within a run.
        scrub: ScrubOptions { period: Duration::from_secs(20), rate_bytes_per_second: 200_000_000 },
        // Usually longer than any run: what rots in the metadata is met when it is read, or at the next start.
        metadata_scrub: MetadataScrubOptions { period: watching.reread_every.unwrap_or(usual.period), ..usual },
        repair: RepairOptions { check_interval: Duration::from_secs(2), ..RepairOptions::default() },
        read_deadline: Duration::from_secs(30),
        // Parts of uploads that broke off are collected within a run.
        abandoned_uploads_after: Duration::from_secs(20),
        deadlines: Deadlines::default(),
        defences: Defences::On,
        // Clients come by the gateway: the door's sockets are none of the simulated network's.
        s3: None,
        name,
    }
}

/// How closely agents look in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watching {
    /// How often they compare the members' metadata, if not as usual.
    pub(crate) compare_every: Option<Duration>,
    /// How often nodes read their stored metadata back, if not as usual, which is less often than a run lasts.
    pub(crate) reread_every: Option<Duration>,
    /// Whether disks have counters of their own.
    pub(crate) smart: bool,
    /// Whether the operator has a pattern of his own for what follows a lost quorum: the ones that ship need the S3 door.
    pub(crate) cascade: bool,
}

/// What an operator would write into `cascades.patterns`: hosts are gone, no lock is had any more, and uploads fail.
fn own_pattern() -> Pattern {
    Pattern {
        name: "peer_locks_uploads".to_owned(),
        initial: FailureKind::PeerUnreachable,
        then: vec![FailureKind::LockTimeout, FailureKind::UploadFailure],
        window: Duration::from_secs(60),
    }
}

/// What disks say of themselves, from the program that is asked.
fn smart_source(node: &str, disks: usize) -> SmartSource {
    let of = |disk: usize| (shards_folder(&disk_mount(disk)), smartctl::device(node, disk + 1));
    let command = Some(vec![smartctl::PROGRAM.to_owned()]);
    SmartSource { command, devices: (0..disks).map(of).collect(), ..SmartSource::default() }
}

fn agent_options(index: usize, nodes: usize, disks: usize, watching: Watching) -> AgentOptions {
    let name = node_name(index);
    // What is compared or sampled as usual is so less often than a run lasts.
    let usual = Duration::from_secs(600);
    let replicas_every = watching.compare_every.or(Some(usual));
    let peer = |other: usize| {
        let id = node_name(other);
        Peer {
            address: node_address(&id),
            agent: at(&id, AGENT_PORT),
            api: Some(agent_http(&id)),
            agent_also: Vec::new(),
            gossip: None,
            data_dir: None,
            id,
        }
    };
    let program = PathBuf::from("/bin/resilver");
    let mut policy = PolicyConfig::of(Profile::Fast);
    policy.cascades.patterns.extend(watching.cascade.then(own_pattern));
    AgentOptions {
        node_address: node_address(&name),
        node_http: Some(at(&name, NODE_HTTP_PORT)),
        address: at(&name, AGENT_PORT),
        http: agent_http(&name),
        dir: PathBuf::from(AGENT_MOUNT).join("state"),
        service: ServiceOptions::default(),
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_deadline: Duration::from_secs(1),
        // Hosts are judged by pings alone: simulated machines have names, and gossip wants numbers.
        gossip: None,
        smart: watching.smart.then(|| smart_source(&name, disks)),
        sensors: SensorOptions { replicas_every, ..SensorOptions::default() },
        journal: JournalOptions::default(),
        // A run is repeated from its seed: nobody needs its recording, and compressing it would take from the seeds.
        flight: FlightOptions { enabled: false, ..FlightOptions::default() },
        interval: if watching.smart { smartctl::LOOK_EVERY } else { usual },
        rack: String::new(),
        peers: (0..nodes).map(peer).collect(),
        policy,
        launch: Launch {
            keeper: Invocation { program: program.clone(), args: vec!["keeper".to_owned()] },
            node: Invocation { program, args: vec!["node".to_owned(), name.clone()] },
            log: PathBuf::from(AGENT_MOUNT).join("node.log"),
        },
        name,
    }
}

/// An error and what caused it, on one line, as the command prints it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn agent_program(options: AgentOptions) -> Program {
    Arc::new(move |host: Host, shutdown| {
        let options = options.clone();
        Box::pin(async move {
            let agent = match Agent::new(host, options).await {
                Ok(agent) => agent,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the agent cannot start");
                    return EXIT_FAILED;
                }
            };
            match agent.run(shutdown).await {
                Ok(()) => EXIT_OK,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the agent ended");
                    EXIT_FAILED
                }
            }
        })
    })
}

fn node_program(options: NodeOptions, log: PathBuf) -> Program {
    Arc::new(move |host: Host, shutdown| {
        let (options, log) = (options.clone(), log.clone());
        Box::pin(async move {
            let ended = match Node::open(host.clone(), options).await {
                Ok(node) => node.run(shutdown).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => EXIT_OK,
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(error, "the node ended");
                    say(&host, &log, &format!("error: {error}\n")).await;
                    EXIT_FAILED
                }
            }
        })
    })
}

/// Appends to a program's log, where its keeper looks for the last error. A disk that is in the way is none of its
/// business: it ends all the same.
async fn say(host: &Host, log: &Path, text: &str) {
    let written = async {
        let file = host.disk.open(log, resilver_host::OpenMode::Create).await?;
        let end = file.len().await?;
        file.write_at(end, text.to_owned().into()).await
    };
    if let Err(error) = written.await {
        tracing::warn!(%error, "the log cannot be written");
    }
}

/// What [`KeeperOptions::to_args`] wrote: `--run-dir DIR --log FILE -- PROGRAM ARGS…`.
fn keeper_options(args: &[String]) -> Option<KeeperOptions> {
    let [run_flag, run_dir, log_flag, log, dashes, program, args @ ..] = args else { return None };
    let known = run_flag == "--run-dir" && log_flag == "--log" && dashes == "--";
    known.then(|| KeeperOptions {
        run_dir: run_dir.into(),
        log: log.into(),
        program: program.into(),
        args: args.to_vec(),
    })
}

/// The programs a process may start: `keeper …`, `node NAME`, and smartctl.
fn programs(nodes: BTreeMap<String, Program>, counters: smartctl::Counters) -> resilver_sim_kernel::Programs {
    Arc::new(move |spec: &SpawnSpec| match spec.args.split_first()? {
        (verb, args) if verb == "keeper" => {
            let options = keeper_options(args)?;
            let program: Program = Arc::new(move |host, _| {
                let options = options.clone();
                Box::pin(async move { i32::from(run_keeper(host, options).await) })
            });
            Some(program)
        }
        (verb, [name]) if verb == "node" => nodes.get(name).cloned(),
        _ => counters.program(spec),
    })
}

impl Cluster {
    /// Machines `n1…` with an agent each and a machine for clients; founds a cluster and makes a bucket (4+2 from six
    /// nodes on, else 2+2).
    ///
    /// # Errors
    /// [`BootError::Late`]: a bug of the product or of the simulator, since no fault is on yet.
    pub(crate) fn boot(
        kernel: &mut Kernel,
        nodes: usize,
        disks: usize,
        watching: Watching,
    ) -> Result<Cluster, BootError> {
        let machines: Vec<MachineId> = (0..nodes).map(|index| kernel.add_machine(&node_name(index))).collect();
        let client = kernel.add_machine("client");
        let log = PathBuf::from(AGENT_MOUNT).join("node.log");
        let mut agents = BTreeMap::new();
        let mut node_programs = BTreeMap::new();
        for (index, machine) in machines.iter().enumerate() {
            let files = kernel.file_system(*machine);
            files.device(Path::new(META_MOUNT), META_BYTES);
            files.device(Path::new(AGENT_MOUNT), AGENT_BYTES);
            // One more than the node is told of: a spare.
            for disk in 0..=disks {
                files.device(&disk_mount(disk), DISK_BYTES);
            }
            agents.insert(*machine, agent_program(agent_options(index, nodes, disks, watching)));
            node_programs
                .insert(node_name(index), node_program(node_options(index, nodes, disks, watching), log.clone()));
        }
        let counters = smartctl::Counters::default();
        kernel.on_spawn(programs(node_programs, counters.clone()));
        let cluster = Cluster { machines, client, disks, agents, counters };
        for index in 0..nodes {
            cluster.start_agent(kernel, index);
        }
        cluster.found(kernel)?;
        Ok(cluster)
    }

    fn found(&self, kernel: &mut Kernel) -> Result<(), BootError> {
        let nodes = self.machines.len();
        let last = Arc::new(std::sync::Mutex::new(String::from("nothing yet")));
        let said = last.clone();
        let program: Program = Arc::new(move |host: Host, _| {
            let said = said.clone();
            Box::pin(async move {
                while let Err(reason) = found_once(&host, nodes).await {
                    if let Ok(mut said) = said.lock() {
                        *said = reason;
                    }
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                EXIT_OK
            })
        });
        let founder = kernel.start(self.client, "founder", &program);
        let deadline = kernel.now() + FOUNDING_DEADLINE;
        while self.is_alive(kernel, founder) {
            if kernel.now() > deadline {
                let last = last.lock().map(|said| said.clone()).unwrap_or_default();
                return Err(BootError::Late { last });
            }
            kernel.step();
        }
        Ok(())
    }

    fn is_alive(&self, kernel: &Kernel, pid: Pid) -> bool {
        kernel.processes().iter().any(|process| process.pid == pid && !matches!(process.state, ProcessState::Ended(_)))
    }

    /// Starts the agent of node `index`, as its machine's init does.
    pub(crate) fn start_agent(&self, kernel: &mut Kernel, index: usize) -> Option<Pid> {
        let machine = self.machine(index);
        let program = self.agents.get(&machine)?;
        Some(kernel.start(machine, "agent", program))
    }

    /// The machine of node `index`.
    pub(crate) fn machine(&self, index: usize) -> MachineId {
        self.machines[index]
    }

    /// All machines with nodes.
    pub(crate) fn machines(&self) -> &[MachineId] {
        &self.machines
    }

    /// The clients' machine.
    pub(crate) fn client(&self) -> MachineId {
        self.client
    }

    /// What its disks say of themselves.
    pub(crate) fn counters(&self) -> &smartctl::Counters {
        &self.counters
    }

    /// How many shard disks each machine has, the spare with them.
    pub(crate) fn disks(&self) -> usize {
        self.disks + 1
    }

    /// The running agent process, if there is one.
    pub(crate) fn agent_pid(&self, kernel: &Kernel, index: usize) -> Option<Pid> {
        kernel.find(self.machine(index), "agent")
    }
}

/// One attempt at a founded, whole cluster with a bucket. `Err`: not yet, for this reason.
async fn found_once(host: &Host, nodes: usize) -> Result<(), String> {
    let first = node_address(&node_name(0));
    let channel = transport::channel(&host.net, &first, transport::Profile::Bulk).map_err(|error| error.to_string())?;
    let mut cluster = ClusterClient::new(channel.clone());
    let status = call(cluster.status(StatusRequest { local: false })).await?;
    if status.cluster_id.is_empty() {
        // A cluster may be founded once all answer; here nobody else could have founded one.
        call(cluster.init(InitRequest { name: CLUSTER_NAME.to_owned() })).await?;
        return Err("the others have not joined".to_owned());
    }
    let healthy = status.nodes.iter().filter(|node| node.state == "healthy").count();
    if healthy < nodes || status.leader.is_empty() {
        return Err(format!("{healthy} of {nodes} nodes are healthy, leader {:?}", status.leader));
    }
    let (k, m) = if nodes >= 6 { (4, 2) } else { (2, 2) };
    let request = CreateBucketRequest {
        bucket: BUCKET.to_owned(),
        coding: Some(Coding { k, m }),
        if_absent: true,
        ..CreateBucketRequest::default()
    };
    call(StoreClient::new(channel).create_bucket(request)).await?;
    Ok(())
}

async fn call<T>(work: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_DEADLINE, work).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

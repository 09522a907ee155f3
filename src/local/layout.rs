//! The folder of a local cluster: who listens where, and each node's configuration.
//!
//! Owns: `cluster.json`, `nodes/NAME/` and the choice of ports. Must never: overwrite a configuration (a person may have
//! edited it), or change a folder that holds another number of nodes or disks than asked.
//!
//! ```text
//! DIR/cluster.json                 the members and their addresses
//! DIR/gossip.key                   what the agents' gossip is sealed with, for its owner's eyes only
//! DIR/s3.json, DIR/s3.env          endpoints and an access key of the S3 door, for their owner's eyes only
//! DIR/lock/                        who runs it
//! DIR/nodes/n1/resilver.yaml       configuration of node and agent
//! DIR/nodes/n1/{meta,disk1,disk2}/ the node's data
//! DIR/nodes/n1/agent/              the agent's state
//! DIR/nodes/n1/{node,agent}.log    what they said
//! ```

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use resilver_host::Host;
use resilver_host::disk::{replace_file, replace_private_file};

use super::{LocalNode, LocalOptions, Upkeep};
use crate::discover::{self, CLUSTER_FILE, ClusterFile, FORMAT, Member};
use crate::exit::Failure;

/// The most nodes: each is two processes, and a laptop has so many cores.
const MAX_NODES: u32 = 32;
/// The most disks per node.
const MAX_DISKS: u32 = 16;
/// One data and one parity shard need two disks: below that nothing survives anything.
const MIN_DISKS_IN_ALL: u32 = 2;
/// Ports are taken from here: below the range the kernel hands to outgoing connections (32768 and up), so that none of
/// those sits on a node's port while it is down.
const PORTS: std::ops::Range<u32> = 20_000..32_000;
/// Ports per node: node, its HTTP, agent, its HTTP, S3, gossip.
const PORTS_PER_NODE: u32 = 6;
/// The agents' key within the folder.
const GOSSIP_KEY_FILE: &str = "gossip.key";
/// How many places are tried for the block of ports.
const PORT_ATTEMPTS: u32 = 200;

/// Refuses a folder that cannot be used as asked. Touches nothing: what is refused is left as it was.
pub(super) async fn inspect(host: &Host, dir: &Path, options: &LocalOptions) -> Result<(), Failure> {
    if exists(host, dir).await? {
        return open(host, dir, options).await.map(|_| ());
    }
    let (nodes, disks) = size(options);
    check_size(nodes, disks)?;
    refuse_foreign(host, dir).await
}

/// What the folder holds, made when it holds nothing.
pub(super) async fn create_or_open(host: &Host, dir: &Path, options: &LocalOptions) -> Result<ClusterFile, Failure> {
    let file = match exists(host, dir).await? {
        true => open(host, dir, options).await?,
        false => create(host, dir, options).await?,
    };
    write_gossip_key(host, dir, &file).await?;
    // Completes what a crash left half made; does nothing to what is there.
    for member in &file.nodes {
        write_node(host, dir, &file, member, options.upkeep).await?;
    }
    Ok(file)
}

async fn exists(host: &Host, dir: &Path) -> Result<bool, Failure> {
    let path = dir.join(CLUSTER_FILE);
    match host.disk.metadata(&path).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

fn size(options: &LocalOptions) -> (u32, u32) {
    (options.nodes.unwrap_or(super::DEFAULT_NODES), options.disks.unwrap_or(super::DEFAULT_DISKS))
}

async fn open(host: &Host, dir: &Path, options: &LocalOptions) -> Result<ClusterFile, Failure> {
    let file = discover::read_cluster_file(host, dir).await?;
    file.check_startable(dir)?;
    let differs = |what: &str, asked: u32, there: u32| {
        Failure::usage(format!("{} holds a cluster with {there} {what}, not {asked}", dir.display()))
            .next(format!("continue it as it is: `resilver up --dir {}`", dir.display()))
            .next("or make a new one in another folder: --dir DIR")
    };
    let nodes = u32::try_from(file.nodes.len()).unwrap_or(u32::MAX);
    match (options.nodes, options.disks) {
        (Some(asked), _) if asked != nodes => Err(differs("nodes", asked, nodes)),
        (_, Some(asked)) if asked != file.disks => Err(differs("disks per node", asked, file.disks)),
        _ => Ok(file),
    }
}

async fn create(host: &Host, dir: &Path, options: &LocalOptions) -> Result<ClusterFile, Failure> {
    let (nodes, disks) = size(options);
    let base = free_ports(host, nodes).await?;
    let member = |index: u32| {
        let name = format!("n{}", index + 1);
        let address = |offset: u32| format!("127.0.0.1:{}", base + index * PORTS_PER_NODE + offset);
        Member {
            address: address(0),
            http: Some(address(1)),
            agent: Some(address(2)),
            api: Some(address(3)),
            s3: Some(address(4)),
            gossip: Some(address(5)),
            agent_dir: Some(Path::new("nodes").join(&name).join("agent")),
            name,
        }
    };
    let file =
        ClusterFile { format: FORMAT, name: options.name.clone(), disks, nodes: (0..nodes).map(member).collect() };
    let failed =
        |error: std::io::Error| Failure::failed(format!("cannot make a cluster in {}: {error}", dir.display()));
    let text = serde_json::to_string_pretty(&file).map_err(|error| Failure::failed(error.to_string()))? + "\n";
    replace_file(&*host.disk, &dir.join(CLUSTER_FILE), Bytes::from(text)).await.map_err(failed)?;
    Ok(file)
}

/// Sizes that can hold data, and that this machine can run.
fn check_size(nodes: u32, disks: u32) -> Result<(), Failure> {
    if nodes == 0 || disks == 0 || nodes.saturating_mul(disks) < MIN_DISKS_IN_ALL {
        return Err(Failure::usage(format!(
            "{nodes} node(s) with {disks} disk(s) each cannot hold any coding: the smallest, 1+1, needs two disks"
        ))
        .next("use --nodes 6 --disks 2 (the default, 4+2), or at least --nodes 1 --disks 2"));
    }
    if nodes > MAX_NODES || disks > MAX_DISKS {
        return Err(Failure::usage(format!(
            "{nodes} nodes with {disks} disks each are more than one machine runs: at most {MAX_NODES} nodes and \
             {MAX_DISKS} disks"
        )));
    }
    Ok(())
}

/// A folder with something else in it is left alone.
async fn refuse_foreign(host: &Host, dir: &Path) -> Result<(), Failure> {
    let entries = host.disk.list(dir).await.unwrap_or_default();
    let foreign: Vec<String> =
        entries.into_iter().map(|entry| entry.name).filter(|name| name != "lock" && !name.ends_with(".tmp")).collect();
    match foreign.is_empty() {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{} is not empty ({}) and holds no cluster",
            dir.display(),
            foreign.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
        ))
        .next("name an empty or new folder: --dir DIR")),
    }
}

/// The first port of a block in which nobody listens.
async fn free_ports(host: &Host, nodes: u32) -> Result<u32, Failure> {
    let wanted = nodes * PORTS_PER_NODE;
    let mut rng = host.rand.fork("local.ports");
    let mut last = String::new();
    for _ in 0..PORT_ATTEMPTS {
        let base = PORTS.start + rng.next_u32() % (PORTS.end - PORTS.start - wanted);
        // All are held until the last is bound, so that none is counted twice; then they are free again.
        let mut held = Vec::new();
        for port in base..base + wanted {
            let address = format!("127.0.0.1:{port}");
            // Which of them is for datagrams is not looked at: a port is free when it is free for both.
            match futures_util::future::try_join(host.net.bind(&address), host.net.bind_datagram(&address)).await {
                Ok(both) => held.push(both),
                Err(error) => {
                    last = error.to_string();
                    break;
                }
            }
        }
        if held.len() == wanted as usize {
            return Ok(base);
        }
    }
    Err(Failure::failed(format!(
        "no {wanted} free ports in a row on 127.0.0.1 between {} and {}: {last}",
        PORTS.start, PORTS.end
    ))
    .next("end what listens there, or use fewer nodes"))
}

/// Makes the key of a cluster whose agents gossip, once.
async fn write_gossip_key(host: &Host, dir: &Path, file: &ClusterFile) -> Result<(), Failure> {
    let path = dir.join(GOSSIP_KEY_FILE);
    if file.nodes.iter().all(|member| member.gossip.is_none()) || host.disk.metadata(&path).await.is_ok() {
        return Ok(());
    }
    let key = Bytes::from(resilver_agent::new_key_file(host));
    let written = replace_private_file(&*host.disk, &path, key).await;
    written.map_err(|error| Failure::failed(format!("cannot write the agents' key {}: {error}", path.display())))
}

async fn write_node(
    host: &Host,
    dir: &Path,
    file: &ClusterFile,
    member: &Member,
    upkeep: Upkeep,
) -> Result<(), Failure> {
    let node = local_node(dir, file.disks, member);
    let failed = |error: std::io::Error| Failure::failed(format!("cannot prepare {}: {error}", node.dir.display()));
    if host.disk.metadata(&node.config).await.is_ok() {
        return Ok(());
    }
    host.disk.create_dir_all(&node.dir).await.map_err(failed)?;
    let text = configuration(file, member, upkeep);
    replace_file(&*host.disk, &node.config, Bytes::from(text)).await.map_err(failed)
}

/// Where everything of a member is.
pub(super) fn local_node(dir: &Path, disks: u32, member: &Member) -> LocalNode {
    let own = dir.join("nodes").join(&member.name);
    LocalNode {
        name: member.name.clone(),
        address: member.address.clone(),
        http: member.http.clone().unwrap_or_default(),
        s3: member.s3.clone().unwrap_or_default(),
        agent_address: member.agent.clone().unwrap_or_default(),
        api: member.api.clone().unwrap_or_default(),
        disks: (1..=disks).map(|disk| own.join(format!("disk{disk}"))).collect(),
        meta: own.join("meta"),
        config: own.join("resilver.yaml"),
        agent_dir: member.agent_dir.as_ref().map_or_else(|| own.join("agent"), |path: &PathBuf| dir.join(path)),
        agent_log: own.join("agent.log"),
        node_log: own.join("node.log"),
        dir: own,
    }
}

/// A node's configuration file. Relative paths start from the file's folder, so that the cluster can be moved.
fn configuration(file: &ClusterFile, member: &Member, upkeep: Upkeep) -> String {
    let upkeep = match upkeep {
        Upkeep::Playful => {
            "  # Figures of a cluster to play with: damage is found in seconds, not within the 14 days of production.
  scrub: { period: 20s, rate_bytes_per_second: 200000000 }
  metadata_scrub: { period: 20s, rate_bytes_per_second: 10000000 }
  repair: { check_interval: 2s, full_check_period: 60s }
"
        }
        Upkeep::Production => "",
    };
    let others: Vec<String> =
        file.nodes.iter().filter(|other| other.name != member.name).map(|other| other.address.clone()).collect();
    let disks: Vec<String> = (1..=file.disks).map(|disk| format!("disk{disk}")).collect();
    let mut text = format!(
        "\
# Written once by `resilver up`; edit it as you like, it is never overwritten.
profile: fast
node:
  name: {name}
  address: {address}
  http: {http}
  data_dir: meta
  disks: [{disks}]
  join: [{join}]
{upkeep}  read_deadline: 30s
  s3: {{ address: {s3} }}
agent:
  name: {name}
  node_address: {address}
  node_http: {http}
  address: {agent}
  http: {api}
  dir: agent
{gossip}nodes:
",
        name = member.name,
        address = member.address,
        http = member.http.as_deref().unwrap_or_default(),
        s3 = member.s3.as_deref().unwrap_or_default(),
        gossip = member.gossip.as_ref().map_or_else(String::new, |listen| {
            format!("  gossip: {{ listen: \"{listen}\", key_file: ../../{GOSSIP_KEY_FILE} }}\n")
        }),
        agent = member.agent.as_deref().unwrap_or_default(),
        api = member.api.as_deref().unwrap_or_default(),
        disks = disks.join(", "),
        join = others.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", "),
    );
    for other in &file.nodes {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "  - {{ id: {}, address: \"{}\", agent: \"{}\", api: \"{}\"{} }}",
            other.name,
            other.address,
            other.agent.as_deref().unwrap_or_default(),
            other.api.as_deref().unwrap_or_default(),
            other.gossip.as_ref().map_or_else(String::new, |gossip| format!(", gossip: \"{gossip}\"")),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn file() -> ClusterFile {
        let member = |name: &str, port: u32| Member {
            name: name.to_owned(),
            address: format!("127.0.0.1:{port}"),
            http: Some(format!("127.0.0.1:{}", port + 1)),
            agent: Some(format!("127.0.0.1:{}", port + 2)),
            api: Some(format!("127.0.0.1:{}", port + 3)),
            s3: Some(format!("127.0.0.1:{}", port + 4)),
            gossip: Some(format!("127.0.0.1:{}", port + 5)),
            agent_dir: None,
        };
        ClusterFile {
            format: FORMAT,
            name: "local".to_owned(),
            disks: 2,
            nodes: vec![member("n1", 20_000), member("n2", 20_006)],
        }
    }

    #[test]
    fn what_up_writes_is_what_the_node_reads() {
        let file = file();
        let text = configuration(&file, &file.nodes[1], Upkeep::Playful);
        let config: Config = parse(Path::new("resilver.yaml"), &text).expect("own configuration is accepted");
        let measured = configuration(&file, &file.nodes[1], Upkeep::Production);
        assert!(parse::<Config>(Path::new("resilver.yaml"), &measured).is_ok() && measured.len() < text.len());
        let node = config.node.expect("a node");
        assert_eq!(node.join, ["127.0.0.1:20000"]);
        assert_eq!(node.disks, [PathBuf::from("disk1"), PathBuf::from("disk2")]);
        assert_eq!(node.s3.map(|s3| s3.address).as_deref(), Some("127.0.0.1:20010"));
        assert_eq!(config.nodes.len(), 2);
        assert_eq!(config.nodes[0].gossip.as_deref(), Some("127.0.0.1:20005"));
        let gossip = config.agent.and_then(|agent| agent.gossip).expect("agents gossip");
        assert_eq!((gossip.listen.as_str(), gossip.key_file), ("127.0.0.1:20011", PathBuf::from("../../gossip.key")));
    }

    #[test]
    fn a_folder_from_before_the_s3_door_is_known_but_not_started() {
        let old =
            r#"{ "format": 1, "name": "local", "disks": 2, "nodes": [{ "name": "n1", "address": "127.0.0.1:1" }] }"#;
        let file: ClusterFile = serde_json::from_str(old).expect("its members are known");
        let refusal = file.check_startable(Path::new("old")).expect_err("not started").to_string();
        assert!(refusal.contains("old holds a cluster of format 1, made before the S3 door"), "{refusal}");
    }

    #[test]
    fn sizes_that_hold_nothing_are_refused() {
        assert!(check_size(1, 1).is_err());
        assert!(check_size(0, 4).is_err());
        assert!(check_size(1000, 2).is_err());
        assert!(check_size(1, 2).is_ok() && check_size(2, 1).is_ok() && check_size(6, 2).is_ok());
    }
}

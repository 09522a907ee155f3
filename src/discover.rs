//! Which cluster a verb is about.
//!
//! Owns: the order in which places are looked at, and `cluster.json`, by which a folder made by `resilver up` names its
//! members. Must never: contact anybody; guess between two clusters.
//!
//! Invariant: an explicit place that does not work is an error, never a reason to try the next one.

use std::path::{Path, PathBuf};

use resilver_host::Host;
use resilver_host::disk::read_file;
use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::exit::{Code, Failure};

/// The folder `resilver up` uses, and the verbs look at, when nothing else is said.
pub(crate) const DEFAULT_DIR: &str = "resilver-data";
/// Names the members of a cluster within its folder.
pub(crate) const CLUSTER_FILE: &str = "cluster.json";
/// The configuration looked for in the current folder.
pub(crate) const LOCAL_CONFIG: &str = "resilver.yaml";
/// The configuration of an installed host.
pub(crate) const SYSTEM_CONFIG: &str = "/etc/resilver/resilver.yaml";
/// The format of [`ClusterFile`]. A higher one is refused; of a lower one the members are still known, but `resilver up`
/// does not start it: see [`ClusterFile::check_startable`]. Format 2 brought the S3 addresses.
pub(crate) const FORMAT: u32 = 2;
/// The longest cluster file that is read: some hundred bytes per member.
const MAX_CLUSTER_FILE_BYTES: u64 = 1024 * 1024;

/// Flags that say where the cluster is; the same on every verb.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Place {
    /// Folder of a cluster made by `resilver up`
    #[arg(long, global = true, value_name = "DIR", env = "RESILVER_DIR", help_heading = "Where the cluster is")]
    pub(crate) dir: Option<PathBuf>,
    /// Configuration file of a host of the cluster
    #[arg(long, global = true, value_name = "FILE", env = "RESILVER_CONFIG", help_heading = "Where the cluster is")]
    pub(crate) config: Option<PathBuf>,
}

/// A member, as far as a command must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// The node's name.
    pub(crate) name: String,
    /// Where it answers gRPC, `host:port`.
    pub(crate) address: String,
    /// Where it serves /metrics and /health, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
    /// Where it speaks S3, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) s3: Option<String>,
    /// Where its agent answers other agents, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    /// Where its agent gossips, `address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gossip: Option<String>,
    /// Where its agent answers people, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// Its agent's state folder, when it is on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_dir: Option<PathBuf>,
}

/// What `DIR/cluster.json` says. Paths in it are relative to DIR, so that the folder can be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The cluster's name.
    pub(crate) name: String,
    /// Disks per node.
    pub(crate) disks: u32,
    /// All members.
    pub(crate) nodes: Vec<Member>,
}

impl ClusterFile {
    /// Whether nodes of this version can run on the folder.
    ///
    /// # Errors
    /// [`Code::Usage`] for a folder of an older format: its nodes' metadata is older, too, and each of them would refuse
    /// it by itself. No release has written one.
    pub(crate) fn check_startable(&self, dir: &Path) -> Result<(), Failure> {
        if self.format >= FORMAT {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} holds a cluster of format {}, made before the S3 door: this version cannot read its metadata",
            dir.display(),
            self.format
        ))
        .next("use the version of resilver that made it, for example to read its objects out")
        .next("or make a new one in another folder: --dir DIR"))
    }
}

/// A cluster that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Where: for messages.
    pub(crate) source: PathBuf,
    /// Who is in it, as that place says.
    pub(crate) members: Vec<Member>,
    /// The node of this host, when a configuration says so.
    pub(crate) own: Option<String>,
}

impl Found {
    /// The member of this name.
    ///
    /// # Errors
    /// [`Code::Usage`] with the names there are.
    pub(crate) fn member(&self, name: &str) -> Result<&Member, Failure> {
        self.members.iter().find(|member| member.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
            Failure::usage(format!("no node `{name}` in {}", self.source.display()))
                .next(format!("nodes there: {}", names.join(", ")))
        })
    }
}

/// Finds the cluster.
///
/// # Errors
/// [`Code::Usage`] when an explicit place cannot be read, or when there is none at all.
pub(crate) async fn find(host: &Host, place: &Place) -> Result<Found, Failure> {
    // A flag beats a variable, but clap has merged the two: an explicit file is the narrower word.
    if let Some(config) = &place.config {
        return from_config(host, config).await;
    }
    if let Some(dir) = &place.dir {
        return from_dir(host, dir).await;
    }
    let exists = async |path: &Path| host.disk.metadata(path).await.is_ok();
    if exists(Path::new(LOCAL_CONFIG)).await {
        return from_config(host, Path::new(LOCAL_CONFIG)).await;
    }
    let default = Path::new(DEFAULT_DIR);
    if exists(&default.join(CLUSTER_FILE)).await {
        return from_dir(host, default).await;
    }
    if exists(Path::new(SYSTEM_CONFIG)).await {
        return from_config(host, Path::new(SYSTEM_CONFIG)).await;
    }
    Err(Failure::usage("no cluster found")
        .next("start one here: `resilver up`")
        .next("or name it: --dir DIR (or RESILVER_DIR) for one made by `up`, --config FILE for an installed host")
        .next(format!("looked for ./{LOCAL_CONFIG}, ./{DEFAULT_DIR}/{CLUSTER_FILE} and {SYSTEM_CONFIG}")))
}

/// Reads `DIR/cluster.json`.
///
/// # Errors
/// [`Code::Usage`] when it is absent, unreadable or of a newer format.
pub(crate) async fn read_cluster_file(host: &Host, dir: &Path) -> Result<ClusterFile, Failure> {
    let path = dir.join(CLUSTER_FILE);
    let data = read_file(&*host.disk, &path, MAX_CLUSTER_FILE_BYTES).await.map_err(|error| {
        let failure =
            Failure::new(Code::Usage, format!("no cluster in {}: {}: {error}", dir.display(), path.display()));
        failure.next(format!("make one: `resilver up --dir {}`", dir.display()))
    })?;
    let file: ClusterFile = serde_json::from_slice(&data).map_err(|error| {
        Failure::usage(format!("{} cannot be understood: {error}", path.display()))
            .next("it is written by `resilver up`: restore it from a copy")
    })?;
    if file.format > FORMAT {
        return Err(Failure::usage(format!(
            "{} has format {}, newer than {FORMAT}, the newest this command knows",
            path.display(),
            file.format
        ))
        .next("use the version of resilver that made this folder"));
    }
    Ok(file)
}

async fn from_dir(host: &Host, dir: &Path) -> Result<Found, Failure> {
    let file = read_cluster_file(host, dir).await?;
    let place = |mut member: Member| {
        member.agent_dir = member.agent_dir.map(|path| dir.join(path));
        member
    };
    Ok(Found { source: dir.to_owned(), members: file.nodes.into_iter().map(place).collect(), own: None })
}

async fn from_config(host: &Host, path: &Path) -> Result<Found, Failure> {
    let config = config::load(host, path).await?;
    let members = members_of(&config);
    if members.is_empty() {
        return Err(Failure::usage(format!("{} names no node", path.display()))
            .next("add a section `node:`, or a list `nodes:` with id and address of the members"));
    }
    let own = config.node.as_ref().map(|node| node.name.clone());
    Ok(Found { source: path.to_owned(), members, own })
}

/// The members a configuration names: its `nodes:`, and its own node in front when the list does not have it.
fn members_of(config: &Config) -> Vec<Member> {
    let agent = config.agent.as_ref();
    let own_dir = |name: &str| agent.filter(|agent| agent.name == name).map(|agent| agent.dir.clone());
    let mut members: Vec<Member> = config
        .nodes
        .iter()
        .map(|peer| Member {
            name: peer.id.clone(),
            address: peer.address.clone(),
            http: None,
            s3: None,
            agent: Some(peer.agent.clone()),
            gossip: peer.gossip.clone(),
            api: peer.api.clone(),
            agent_dir: own_dir(&peer.id),
        })
        .collect();
    if let Some(node) = &config.node
        && !members.iter().any(|member| member.name == node.name)
    {
        let beside = agent.filter(|agent| agent.name == node.name);
        members.insert(
            0,
            Member {
                name: node.name.clone(),
                address: node.address.clone(),
                http: Some(node.http.clone()),
                s3: node.s3.as_ref().map(|s3| s3.address.clone()),
                agent: beside.map(|agent| agent.address.clone()),
                gossip: None,
                api: beside.map(|agent| agent.http.clone()),
                agent_dir: own_dir(&node.name),
            },
        );
    }
    members
}

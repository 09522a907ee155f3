//! What this crate needs to know of the cluster it breaks: where its parts are. It did not start them and does not end
//! them, but for the faults it is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One host of the cluster: a node and its agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostInfo {
    /// Name of the node.
    pub name: String,
    /// The node's gRPC address.
    pub address: String,
    /// The node's HTTP address, `host:port`.
    pub http: String,
    /// The agent's HTTP address, `host:port`.
    pub api: String,
    /// The node's disks.
    pub disks: Vec<PathBuf>,
}

/// The cluster under test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Its folder: nothing outside it is ever touched.
    pub dir: PathBuf,
    /// Its hosts.
    pub hosts: Vec<HostInfo>,
}

impl Target {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&HostInfo> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

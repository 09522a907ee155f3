//! `cluster init|status`.

use clap::Subcommand;
use resilver_proto::store::InitRequest;
use serde::Serialize;

use super::context::Context;
use crate::client::{CHANGE_DEADLINE, within};
use crate::exit::{Code, Failure};

/// Verbs of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Make one node the first voter of a new cluster; others join it. Nothing else ever creates a cluster
    Init {
        /// The cluster's name, for people
        #[arg(long, default_value = "resilver")]
        name: String,
        /// The node to found it on; the host's own, or the first listed, by default
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// How the cluster is; exits 3 when degraded, 4 when nobody answers
    Status,
}

#[derive(Serialize)]
struct Founded {
    cluster_id: String,
    name: String,
    node: String,
}

impl ClusterVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            ClusterVerb::Init { name, node } => init(cx, name, node).await,
            ClusterVerb::Status => super::status::cluster(cx).await,
        }
    }
}

async fn init(cx: &Context, name: String, node: Option<String>) -> Result<Code, Failure> {
    let found = cx.found().await?;
    let nodes = cx.nodes().await?;
    let first = || found.members.first().map(|member| member.name.clone());
    let chosen = node.or(found.own.clone()).or_else(first).unwrap_or_default();
    found.member(&chosen)?;
    let Some(node) = nodes.named(&chosen) else { return Err(Failure::usage(format!("no node `{chosen}`"))) };
    // A second cluster beside the first would split the nodes for good: whoever can be asked is asked.
    for other in nodes.all() {
        if let Ok(seen) = other.look().await
            && !seen.cluster_id.is_empty()
        {
            return Err(Failure::new(
                Code::Refused,
                format!("{} is in cluster {} already", other.name, seen.cluster_id),
            )
            .next("see `resilver cluster status`; other nodes join it by `node.join` in their configuration"));
        }
    }
    let request = InitRequest { name: name.clone() };
    let answer = within(CHANGE_DEADLINE, async { node.cluster().init(request).await })
        .await
        .map_err(|status| Failure::from_status("found a cluster", &node.name, &status))?;
    let founded = Founded { cluster_id: answer.cluster_id, name, node: node.name.clone() };
    cx.out.show(&founded, |founded| {
        format!("cluster {} ({}) founded on {}\n", founded.name, founded.cluster_id, founded.node)
    })?;
    Ok(Code::Ok)
}

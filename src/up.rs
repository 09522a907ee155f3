//! `resilver up`: a whole cluster on this machine, in the foreground until Ctrl-C.
//!
//! Owns: the conversation, and the place of systemd: an agent that ends is started again. Must never: start or restart
//! a node, which is the agents' part.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use resilver_host::Process;
use serde::Serialize;

use crate::cli::context::Context;
use crate::daemon::shutdown_signal;
use crate::discover::DEFAULT_DIR;
use crate::exit::{Code, Failure};
use crate::local::{LocalCluster, LocalNode, LocalOptions, S3Access, Upkeep};
use crate::output::Table;

/// How long the cluster may take to be whole: replaying logs and catching up after a crash included.
const START_TIME: Duration = Duration::from_secs(90);
/// The wait before an agent that ended is started again: what ends at once must not spin.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// `up`.
#[derive(Debug, Args)]
#[command(after_help = "The cluster's folder is --dir DIR or RESILVER_DIR, else ./resilver-data. Run again on the \
                        same folder, it continues where it was; Ctrl-C ends all its processes and keeps the data.")]
pub(crate) struct UpArgs {
    /// Nodes; 6 by default, the fewest on which 4+2 survives any two
    #[arg(long)]
    nodes: Option<u32>,
    /// Disks (folders) per node; 2 by default
    #[arg(long)]
    disks: Option<u32>,
    /// The cluster's name
    #[arg(long, default_value = "local")]
    name: String,
    /// End when standard input closes, too: whoever started this and died takes the cluster along
    #[arg(long)]
    stop_with_stdin: bool,
}

/// What programs read from the first line of standard output.
#[derive(Debug, Serialize)]
struct Started {
    dir: PathBuf,
    nodes: Vec<StartedNode>,
    /// The first node's; every node has one of its own and serves everything.
    s3_endpoint: String,
    access_key: String,
    secret_key: Secret,
    #[serde(skip)]
    s3_file: PathBuf,
    #[serde(skip)]
    s3_variables: PathBuf,
}

/// Shown to programs that ask for JSON, and to nobody else.
#[derive(Serialize)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

#[derive(Debug, Serialize)]
struct StartedNode {
    name: String,
    pid: Option<u32>,
    agent_pid: Option<u32>,
    address: String,
    http: String,
    api: String,
    s3: String,
}

/// `up`.
pub(crate) async fn run(cx: &Context, args: UpArgs) -> Result<Code, Failure> {
    let options = LocalOptions {
        dir: cx.place.dir.clone().unwrap_or_else(|| DEFAULT_DIR.into()),
        nodes: args.nodes,
        disks: args.disks,
        binary: cx.binary()?,
        name: args.name,
        upkeep: Upkeep::Playful,
    };
    let cluster = LocalCluster::create_or_open(&cx.host, options).await?;
    let outcome = tokio::select! {
        () = shutdown_signal() => Ok(()),
        () = stdin_closed(cx), if args.stop_with_stdin => Ok(()),
        outcome = serve(cx, &cluster) => outcome,
    };
    cx.out.say("stopping the agents and nodes of this folder; the data stays");
    let stopped = cluster.stop().await;
    outcome.and(stopped).map(|()| Code::Ok)
}

/// Resolves once nobody can write to standard input any more.
async fn stdin_closed(cx: &Context) {
    let drained = cx.host.blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())).await;
    if let Err(error) = drained {
        tracing::debug!(%error, "standard input cannot be read: it counts as closed");
    }
}

/// Starts everything, says so, and keeps the agents running. Ends only by failing.
async fn serve(cx: &Context, cluster: &LocalCluster) -> Result<(), Failure> {
    let count = cluster.nodes().len();
    cx.out.say(format!(
        "starting {count} nodes in {} (profile fast: policy times divided by 60)",
        cluster.dir().display()
    ));
    cluster.start().await?;
    cluster.wait_healthy(START_TIME).await?;
    let access = cluster.s3_access().await?;
    if !cluster.knows_key(&access).await? {
        let file = cluster.s3_file();
        cx.out.say(format!(
            "the access key {} in {} was revoked: S3 clients are refused with it; remove that file and start again to \
             have a new one made",
            access.access_key,
            file.display()
        ));
    }
    let started = describe(cluster, access).await?;
    if cx.out.is_json() {
        cx.out.json_line(&started)?;
    } else {
        cx.out.text(&started.text())?;
    }
    supervise(cx, cluster).await
}

/// What systemd does on a real host: an agent that ends is started again.
async fn supervise(cx: &Context, cluster: &LocalCluster) -> Result<(), Failure> {
    let mut ends = FuturesUnordered::new();
    for node in cluster.nodes() {
        ends.push(end_of(node, cluster.start_agent(node).await?));
    }
    while let Some(node) = ends.next().await {
        cx.out.say(format!("the agent of {} has ended, starting it again", node.name));
        tokio::time::sleep(RESTART_WAIT).await;
        ends.push(end_of(node, cluster.start_agent(node).await?));
    }
    Ok(())
}

async fn end_of(node: &LocalNode, agent: Arc<dyn Process>) -> &LocalNode {
    if let Err(error) = agent.exited().await {
        tracing::warn!(node = node.name, %error, "the agent's end could not be watched");
    }
    node
}

async fn describe(cluster: &LocalCluster, access: S3Access) -> Result<Started, Failure> {
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot tell what runs for {}: {error}", node.name));
        let pids = cluster.pids(&node.name).await.map_err(failed)?;
        nodes.push(StartedNode {
            name: node.name.clone(),
            pid: pids.node.map(|id| id.pid),
            agent_pid: pids.agent.map(|id| id.pid),
            address: node.address.clone(),
            http: node.http.clone(),
            api: format!("http://{}", node.api),
            s3: format!("http://{}", node.s3),
        });
    }
    Ok(Started {
        dir: cluster.dir().to_owned(),
        nodes,
        s3_endpoint: access.endpoints.into_iter().next().unwrap_or_default(),
        access_key: access.access_key,
        secret_key: Secret(access.secret_key),
        s3_file: cluster.s3_file(),
        s3_variables: cluster.s3_variables(),
    })
}

impl Started {
    fn text(&self) -> String {
        let mut table = Table::new(["NODE", "PID", "AGENT_PID", "ADDRESS", "API", "S3"]);
        let pid = |pid: Option<u32>| crate::output::cell(pid);
        for node in &self.nodes {
            let (address, api, s3) = (node.address.clone(), node.api.clone(), node.s3.clone());
            table.row([node.name.clone(), pid(node.pid), pid(node.agent_pid), address, api, s3]);
        }
        let dir = quoted(&self.dir);
        let victim =
            self.nodes.last().and_then(|node| node.pid).map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        format!(
            "{}
The cluster is whole. In another terminal:

  export RESILVER_DIR={dir}
  resilver status
  resilver bucket create photos
  resilver object put photos/readme README.md
  resilver object verify photos/readme
  kill -9 {victim}             # and watch: resilver journal follow
  resilver incident list

Its S3 door is {endpoint} (or any other of the column S3); an access key that may do everything is in
{keys}, and for your shell in s3.env beside it:

  . {variables}
  aws s3 cp README.md s3://photos/ && aws s3 ls s3://photos

Ctrl-C here ends it; the data stays.
",
            table.render(),
            keys = self.s3_file.display(),
            variables = quoted(&self.s3_variables),
            endpoint = self.s3_endpoint,
        )
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_blank_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/srv/data-1")), "/srv/data-1");
        assert_eq!(quoted(Path::new("/srv/my data")), "'/srv/my data'");
        assert_eq!(quoted(Path::new("/srv/it's")), r"'/srv/it'\''s'");
    }
}

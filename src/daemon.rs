//! The long-running verbs: a node, an agent, a keeper.
//!
//! Owns: how a configuration becomes a running service, and how a signal ends it. Must never: hold what a service does.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use resilver_agent::keeper::KeeperOptions;
use resilver_agent::options::Options as AgentOptions;
use resilver_agent::{Agent, AgentError};
use resilver_node::service::{Node, NodeError};
use resilver_strategies::config::{AuthorityTable, GradeTable};
use resilver_strategies::types::Authority;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::context::Context;
use crate::config;
use crate::exit::{Code, Failure, chain};

/// Threads of a node's runtime. Two: the shards' checksums and parity are computed on one while the other answers
/// heartbeats; more only compete with the disks' own threads on small hosts.
pub(crate) const NODE_WORKERS: usize = 2;

/// `keeper`, as the agent calls it. Its flags are the agent's business (`KeeperOptions::to_args`) and would clash with
/// the ones every verb has, so they are taken whole and parsed apart.
#[derive(Debug, Args)]
pub(crate) struct KeeperArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Parser)]
#[command(name = "keeper", disable_help_flag = true)]
struct KeeperFlags {
    /// Where the run is recorded.
    #[arg(long)]
    run_dir: PathBuf,
    /// Where the node's output goes.
    #[arg(long)]
    log: PathBuf,
    /// The node's program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl KeeperArgs {
    fn options(self) -> Result<KeeperOptions, Failure> {
        let flags =
            KeeperFlags::try_parse_from(std::iter::once("keeper".to_owned()).chain(self.args)).map_err(|error| {
                Failure::usage(error.to_string()).next("agents call this, people use `resilver agent run`")
            })?;
        let mut command = flags.command.into_iter();
        let program = command.next().map(PathBuf::from).unwrap_or_default();
        Ok(KeeperOptions { run_dir: flags.run_dir, log: flags.log, program, args: command.collect() })
    }
}

/// `node run`.
pub(crate) async fn node(cx: &Context) -> Result<Code, Failure> {
    let path = cx.config_file().await?;
    let options = config::load(&cx.host, &path).await?.node_options(&path)?;
    let shutdown = shutdown_watch();
    let node = Node::open(cx.host.clone(), options).await.map_err(node_failed)?;
    node.run(shutdown).await.map_err(node_failed)?;
    Ok(Code::Ok)
}

/// How a node's end reads on the command line. Most errors of a node carry their next step in their own words; what only
/// the system said does not.
fn node_failed(error: NodeError) -> Failure {
    let code = match &error {
        NodeError::Options(_) => Code::Usage,
        NodeError::Disk(disk) if disk.is_mistake() => Code::Usage,
        NodeError::Refused(_) => Code::Refused,
        _ => Code::Failed,
    };
    let failure = Failure::new(code, chain(&error));
    match io_kind(&error) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            failure.next("free space on that file system, then start the node again: nothing acknowledged is lost")
        }
        Some(ErrorKind::ReadOnlyFilesystem) => failure
            .next("see in `dmesg` why the kernel mounted it read-only, mount it writable, then start the node again"),
        Some(ErrorKind::PermissionDenied) => {
            failure.next("give the folder to the user that runs the node (`ls -ld` shows whose it is)")
        }
        _ => failure,
    }
}

/// What the system said, if it is at the bottom of this.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(system) = error.downcast_ref::<std::io::Error>() {
            return Some(system.kind());
        }
        next = error.source();
    }
    None
}

/// `agent run`.
pub(crate) async fn agent(cx: &Context, once: bool, interval: Option<Duration>) -> Result<Code, Failure> {
    let path = cx.config_file().await?;
    let mut config = config::load(&cx.host, &path).await?;
    if let Some(interval) = interval {
        config::check_interval("--interval", interval)?;
        config.interval = Some(interval);
    }
    let options = config.agent_options(&path, &cx.binary()?)?;
    if once {
        return look_once(cx, options).await;
    }
    let supervisor = resilver_host::real::supervisor(cx.host.proc.own().pid, |name| std::env::var_os(name))
        .map_err(|error| Failure::usage(error.to_string()).next("systemd sets it by itself: unset it elsewhere"))?;
    let agent = Agent::new(cx.host.clone(), options).await.map_err(agent_failed)?.supervised(supervisor);
    agent.run(shutdown_watch()).await.map_err(agent_failed)?;
    Ok(Code::Ok)
}

fn agent_failed(error: AgentError) -> Failure {
    Failure::failed(chain(&error))
}

/// `agent run --once`: the plan of the agent that runs here, or of one that is made for this look and may only observe.
async fn look_once(cx: &Context, mut options: AgentOptions) -> Result<Code, Failure> {
    let door = crate::agents::Agent::at(&cx.host, &options.name, &options.http);
    let detection = &options.policy.detection;
    // What convicts a silent node, and one more: by then everything that can be seen from here was seen.
    let silent = detection.heartbeat * (detection.missed_heartbeats + 1);
    let get =
        async |path| door.get(path).await.ok().filter(crate::agents::Answer::is_success).map(|answer| answer.body);
    // Without its node's answer a plan is of what is known else, and that nothing is to be done means nothing.
    let asked = async || {
        let (plan, status) = (get("/api/v1/plan").await?, get("/api/v1/status").await?);
        let age = status.pointer("/node/heartbeat_age_ms").and_then(Value::as_u64).map(Duration::from_millis);
        Some((plan, age.is_some_and(|age| age <= silent)))
    };
    let (plan, answers) = match asked().await {
        Some(known) => known,
        None => {
            let observe = GradeTable { all: Some(Authority::Observe), ..GradeTable::default() };
            // A look is no life: nothing of it is worth a replay.
            options.flight.enabled = false;
            options.policy.authority = AuthorityTable { grades: observe, ..AuthorityTable::default() };
            let agent = Agent::new(cx.host.clone(), options).await.map_err(agent_failed)?;
            let (stop, stopping) = watch::channel(false);
            let running = tokio::spawn(agent.run(stopping));
            tokio::time::sleep(silent).await;
            let answer = asked().await;
            stop.send_replace(true);
            match running.await {
                Ok(ended) => ended.map_err(agent_failed)?,
                Err(error) => return Err(Failure::new(Code::Internal, format!("the agent broke down: {error}"))),
            }
            answer.ok_or_else(|| Failure::new(Code::Degraded, "the agent made no plan in time: nothing is known"))?
        }
    };
    cx.out.show(&plan, crate::cli::operator::plan_text)?;
    match (crate::cli::operator::entries(&plan).is_empty(), answers) {
        (true, false) => Err(Failure::new(Code::Degraded, "the node does not answer: how it is, is not known")
            .next("`resilver agent status`, or once more: one look is too short to call it hung")),
        (nothing_to_do, _) => Ok(if nothing_to_do { Code::Ok } else { Code::Degraded }),
    }
}

/// `keeper`.
pub(crate) async fn keeper(cx: &Context, args: KeeperArgs) -> Result<Code, Failure> {
    match resilver_agent::keeper::run_keeper(cx.host.clone(), args.options()?).await {
        resilver_agent::keeper::EXIT_OK => Ok(Code::Ok),
        resilver_agent::keeper::EXIT_REFUSED => Ok(Code::Refused),
        _ => Ok(Code::Failed),
    }
}

/// True once SIGTERM or Ctrl-C came.
fn shutdown_watch() -> watch::Receiver<bool> {
    let (tx, rx) = watch::channel(false);
    tokio::spawn(async move {
        shutdown_signal().await;
        // Nobody waits any more: the service has ended by itself.
        let _ = tx.send(true);
    });
    rx
}

/// Resolves at SIGTERM or Ctrl-C.
pub(crate) async fn shutdown_signal() {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without a handler the default action ends the process: that is an end, too.
        Err(error) => {
            tracing::warn!(%error, "a signal handler could not be installed");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Noun};

    #[test]
    fn a_keeper_understands_what_an_agent_calls_it_with() {
        let options = KeeperOptions {
            run_dir: "/a/run".into(),
            log: "/a/node.log".into(),
            program: "/bin/resilver".into(),
            args: ["node", "run", "--config", "/a/resilver.yaml"].map(str::to_owned).to_vec(),
        };
        let line = ["resilver", "keeper"].map(str::to_owned).into_iter().chain(options.to_args());
        let Noun::Keeper(args) = Cli::try_parse_from(line).expect("it parses").noun else { panic!("another verb") };
        assert_eq!(args.options().expect("it parses"), options);
    }
}

//! The command line: noun, then verb.
//!
//! Owns: names, flags and help. Must never: do the work; each noun has a module that does.

pub(crate) mod agent;
pub(crate) mod bucket;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod confirm;
pub(crate) mod context;
pub(crate) mod disk;
pub(crate) mod disk_change;
pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod incident;
pub(crate) mod journal;
pub(crate) mod key;
pub(crate) mod lock;
pub(crate) mod mark;
pub(crate) mod meta;
pub(crate) mod meta_recovery;
pub(crate) mod node;
pub(crate) mod node_leave;
pub(crate) mod node_mode;
pub(crate) mod object;
pub(crate) mod operation;
pub(crate) mod operator;
pub(crate) mod policy;
pub(crate) mod rejoin;
pub(crate) mod repair;
mod replay;
mod replicas;
pub(crate) mod smart;
pub(crate) mod status;
pub(crate) mod transfer;
mod undo_quorum;
pub(crate) mod validate;
pub(crate) mod verify;
pub(crate) mod voters;

use clap::{Args, Parser, Subcommand};

use self::context::Context;
use crate::discover::Place;
use crate::exit::{Code, Failure};
use crate::output::Format;
use crate::telemetry::{LogFormat, Verbosity};

/// A storage cluster that heals itself: nodes that store objects, and an agent beside each that brings it back.
#[derive(Debug, Parser)]
#[command(
    name = "resilver",
    version,
    after_help = Code::HELP,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Short for `-o json`
    #[arg(long, global = true)]
    json: bool,
    /// How the log on standard error looks; what it says: RESILVER_LOG
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log: LogFormat,
}

impl Global {
    /// The format asked for.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// What a verb is about.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Start a whole cluster on this machine and keep it in the foreground
    Up(crate::up::UpArgs),
    /// How the cluster and its agents are; exits 3 when degraded, 4 when nobody answers
    Status,
    /// Read every object back from its disks; exits 0 only if nothing failed and nothing was skipped
    Verify(verify::VerifyArgs),
    /// What the agents would do now, and why they do not
    Plan,
    /// Keep all agents from acting, for a reason and for a time
    Pause(operator::PauseArgs),
    /// Let all agents act again
    Resume(operator::ResumeArgs),
    /// Found a cluster; how it is
    #[command(subcommand)]
    Cluster(cluster::ClusterVerb),
    /// Storage nodes
    #[command(subcommand)]
    Node(node::NodeVerb),
    /// Recovery agents
    #[command(subcommand)]
    Agent(agent::AgentVerb),
    /// Disks
    #[command(subcommand)]
    Disk(disk::DiskVerb),
    /// Buckets
    #[command(subcommand)]
    Bucket(bucket::BucketVerb),
    /// Objects
    #[command(subcommand)]
    Object(object::ObjectVerb),
    /// Access keys: who may come in through the S3 door, and do what
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// Locks: who may change what now; breaking one whose owner is dead
    #[command(subcommand)]
    Lock(lock::LockVerb),
    /// What clients have under way, and ending it
    #[command(subcommand)]
    Operation(operation::OperationVerb),
    /// Metadata: leader, term, who is how far
    #[command(subcommand)]
    Meta(meta::MetaVerb),
    /// The repair queue
    #[command(subcommand)]
    Repair(repair::RepairVerb),
    /// What went wrong, and what was done about it
    #[command(subcommand)]
    Incident(incident::IncidentVerb),
    /// The agents' record of every decision
    #[command(subcommand)]
    Journal(journal::JournalVerb),
    /// What another policy would have decided
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// The configuration file
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Break a cluster in four ways under load and watch it heal
    #[cfg(feature = "chaos")]
    Demo(crate::chaos::DemoArgs),
    /// Measure detection, recovery, rebuild and rest
    #[cfg(feature = "chaos")]
    Bench(crate::chaos::BenchArgs),
    /// A disk that hangs or fails when it is told to; started by experiments
    #[cfg(feature = "chaos")]
    #[command(hide = true)]
    FaultFs(crate::chaos::FaultFsArgs),
    /// Completions for a shell, on standard output
    Completions(docs::CompletionsArgs),
    /// The manual page, on standard output
    Man(docs::ManArgs),
    /// A node's parent process; started by its agent
    #[command(hide = true)]
    Keeper(crate::daemon::KeeperArgs),
}

impl Noun {
    /// How many threads the verb's runtime has; `None`: one, the caller's. A node answers many peers at once; everything
    /// else waits for others, and threads that only wait cost memory.
    pub(crate) fn workers(&self) -> Option<usize> {
        match self {
            Noun::Node(node::NodeVerb::Run) => Some(crate::daemon::NODE_WORKERS),
            // Their load and checksums are work of their own, beside what they watch.
            #[cfg(feature = "chaos")]
            Noun::Demo(_) | Noun::Bench(_) => Some(crate::daemon::NODE_WORKERS),
            _ => None,
        }
    }

    /// How much the verb logs by itself.
    pub(crate) fn verbosity(&self) -> Verbosity {
        match self {
            Noun::Node(node::NodeVerb::Run)
            | Noun::Agent(agent::AgentVerb::Run { once: false, .. })
            | Noun::Keeper(_) => Verbosity::Daemon,
            _ => Verbosity::Verb,
        }
    }

    /// Does it.
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            Noun::Up(args) => crate::up::run(cx, args).await,
            Noun::Status => status::status(cx).await,
            Noun::Verify(args) => verify::run(cx, args).await,
            Noun::Plan => operator::plan(cx).await,
            Noun::Pause(args) => operator::pause(cx, args).await,
            Noun::Resume(args) => operator::resume(cx, args).await,
            Noun::Cluster(verb) => verb.run(cx).await,
            Noun::Node(verb) => verb.run(cx).await,
            Noun::Agent(verb) => verb.run(cx).await,
            Noun::Disk(verb) => verb.run(cx).await,
            Noun::Bucket(verb) => verb.run(cx).await,
            Noun::Object(verb) => verb.run(cx).await,
            Noun::Key(verb) => verb.run(cx).await,
            Noun::Lock(verb) => verb.run(cx).await,
            Noun::Operation(verb) => verb.run(cx).await,
            Noun::Meta(verb) => verb.run(cx).await,
            Noun::Repair(verb) => verb.run(cx).await,
            Noun::Incident(verb) => verb.run(cx).await,
            Noun::Journal(verb) => verb.run(cx).await,
            Noun::Policy(verb) => verb.run(cx).await,
            Noun::Config(verb) => verb.run(cx).await,
            #[cfg(feature = "chaos")]
            Noun::Demo(args) => crate::chaos::demo(cx, args).await,
            #[cfg(feature = "chaos")]
            Noun::Bench(args) => crate::chaos::bench(cx, args).await,
            #[cfg(feature = "chaos")]
            Noun::FaultFs(args) => crate::chaos::fault_fs(cx, args).await,
            Noun::Completions(args) => docs::completions(cx, args),
            Noun::Man(args) => docs::man(cx, args).await,
            Noun::Keeper(args) => crate::daemon::keeper(cx, args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

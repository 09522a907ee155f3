//! Where the command's own log goes: standard error, as text for people and JSON for machines.
//!
//! Owns: the subscriber, set once per process. Must never: write to standard output, which is for data.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged: `RESILVER_LOG=info,resilver_node=debug`.
pub(crate) const FILTER: &str = "RESILVER_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// How much is logged when [`FILTER`] does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// A daemon: what it does.
    Daemon,
    /// A verb: only what went wrong; its answer says the rest.
    Verb,
}

/// Sets the process's subscriber. A filter that cannot be read is said and replaced by the default.
pub(crate) fn init(format: LogFormat, verbosity: Verbosity) {
    let default = match verbosity {
        // openraft tells every election and append at info, s3s every mistake of a client as an error: what stands before
        // them logs what matters.
        Verbosity::Daemon => "info,openraft=error,openraft::replication=off,s3s=off",
        Verbosity::Verb => "warn,openraft=off,s3s=off",
    };
    let (filter, bad) = match std::env::var(FILTER) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(default), Some(error.to_string())),
        },
        Err(_) => (EnvFilter::new(default), None),
    };
    let json = match format {
        LogFormat::Auto => verbosity == Verbosity::Daemon && !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Set by nobody before us: main calls this once. A second call in a test process changes nothing.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.with_ansi(color).try_init() };
    if let Some(error) = bad {
        tracing::warn!(%error, "{FILTER} cannot be read, logging with the default filter {default}");
    }
}

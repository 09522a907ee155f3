//! Tools of the system, run to their end.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use resilver_host::{ExitStatus, Host, OpenMode, SpawnSpec};

/// No tool used here takes long.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of what they said is shown.
const SAID_BYTES: usize = 16 * 1024;

/// Runs tools, and keeps what they say in one file.
pub(super) struct Shell {
    host: Host,
    log: PathBuf,
}

impl Shell {
    pub(super) fn new(host: &Host, dir: &Path) -> Self {
        Self { host: host.clone(), log: dir.join("tools.log") }
    }

    /// Where they say it.
    pub(super) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// What they said so far.
    pub(super) async fn said(&self) -> String {
        read(&self.host, &self.log).await.unwrap_or_default()
    }

    /// Runs a tool that must succeed.
    pub(super) async fn run(&self, program: &str, args: &[&dyn Display]) -> anyhow::Result<()> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let shown = format!("{program} {}", args.join(" "));
        let spec =
            SpawnSpec { program: program.into(), args, env: Vec::new(), log: Some(self.log()), new_session: false };
        let process =
            self.host.proc.spawn(spec).await.with_context(|| format!("{program} cannot be run: is it installed?"))?;
        let ended =
            tokio::time::timeout(LIMIT, process.exited()).await.with_context(|| format!("{shown} does not end"))?;
        match ended? {
            Some(ExitStatus::Code(0)) => Ok(()),
            other => bail!("{shown}: {other:?}: {}", self.said().await),
        }
    }
}

/// A file whose length is not told before it is read, as those of /proc.
pub(super) async fn read(host: &Host, path: &Path) -> Option<String> {
    let file = host.disk.open(path, OpenMode::Read).await.ok()?;
    let data = file.read_at(0, SAID_BYTES).await.ok()?;
    Some(String::from_utf8_lossy(&data).into_owned())
}

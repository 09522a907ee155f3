//! A host whose processor others take: loops that compute nothing, as many as keep every core of the machine busy.
//!
//! All hosts share this machine's cores. So that the loops take one host's share and not everybody's, its processes are put
//! in a control group with a quota, where the kernel has one (version 1, controller `cpu`); elsewhere the loops compete with
//! every host, and whoever reports figures says so.
//!
//! Invariants: the loops end by themselves (`timeout`) and with their host; the group ends with its maker, killed or not: a
//! shell waits at a FIFO that only the maker holds open, and clears it away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use resilver_host::{File, Host, OpenMode, Process, SpawnSpec};

use super::shell;
use super::{Hosts, quoted};

/// Loops per core: with fewer the host's own threads would still get half of it.
const LOOPS_PER_CORE: usize = 4;
/// Where controllers of control groups, version 1, are.
const GROUPS: &str = "/sys/fs/cgroup/cpu";
/// The kernel's usual period of a quota.
const PERIOD_US: usize = 100_000;
/// What a host may have of each core of the machine, in percent: the others keep the rest, as they would if the host had
/// cores of its own.
const SHARE_PERCENT: usize = 50;
/// How often the shell tries to remove the group: its processes leave it, or end with their host, within moments.
const SWEEPS: usize = 100;

/// A host that is saturated.
pub struct Saturated {
    host: Host,
    loops: usize,
    quota: Option<Quota>,
}

/// A control group around a host.
struct Quota {
    cores: f64,
    /// The shell that clears it away, and what it waits at.
    sweeper: Arc<dyn Process>,
    door: PathBuf,
    held: Arc<dyn File>,
}

impl Hosts {
    /// Keeps the processor of a host busy for `span`.
    ///
    /// # Errors
    /// When a tool refuses.
    pub async fn saturate(&self, index: usize, span: Duration, log: &Path) -> anyhow::Result<Saturated> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let quota = self.confine(index, cores).await?;
        let loops = cores * LOOPS_PER_CORE;
        let seconds = format!("{:.3}", span.as_secs_f64());
        let args = [&seconds, "sh", "-c", "while :; do :; done"].map(str::to_owned);
        for _ in 0..loops {
            self.start(index, Path::new("timeout"), &args, log).await?;
        }
        Ok(Saturated { host: self.host.clone(), loops, quota })
    }

    /// Puts all that runs on a host into a group of its own; `None` where there is no such controller.
    async fn confine(&self, index: usize, cores: usize) -> anyhow::Result<Option<Quota>> {
        let Some(parent) = parent(&self.host).await else { return Ok(None) };
        let own = self.host.proc.own();
        let group = parent.join(format!("resilver-{}-{}-host{}", own.pid, own.start_ticks, index + 1));
        let door = self.hosts[index].door.with_extension("sweeper");
        self.shell.run("mkfifo", &[&door.display()]).await?;
        let held = self.host.disk.open(&door, OpenMode::Write).await.context("the door of the sweeper")?;
        let (group, parent) = (quoted(&group.display().to_string()), quoted(&parent.display().to_string()));
        // First who clears it away, then the group: nothing is left behind in between.
        let sweep = format!(
            "read -r _ < {}; n=0; while [ -d {group} ] && [ $n -lt {SWEEPS} ]; do n=$((n + 1)); \
             while read -r pid; do echo \"$pid\" > {parent}/cgroup.procs; done < {group}/cgroup.procs; \
             rmdir {group} || sleep 0.1; done",
            quoted(&door.display().to_string())
        );
        let spec = SpawnSpec {
            program: "sh".into(),
            args: vec!["-c".to_owned(), sweep],
            env: Vec::new(),
            log: Some(self.shell.log()),
            new_session: true,
        };
        let sweeper = self.host.proc.spawn(spec).await.context("the sweeper of a control group")?;
        let quota_us = cores * PERIOD_US * SHARE_PERCENT / 100;
        let make = format!(
            "mkdir {group} && echo {PERIOD_US} > {group}/cpu.cfs_period_us && echo {quota_us} > {group}/cpu.cfs_quota_us"
        );
        self.shell.run("sh", &[&"-c", &make]).await?;
        // PIDs are those of the host, where this is said. One that ends meanwhile cannot be moved and need not be.
        let enter = format!(
            "for own in /proc/[0-9]*; do echo \"${{own#/proc/}}\" > {group}/cgroup.procs || true; done 2>/dev/null"
        );
        self.in_host(index, &enter).await?;
        Ok(Some(Quota { cores: quota_us as f64 / PERIOD_US as f64, sweeper, door, held }))
    }
}

impl Saturated {
    /// How it was made, for those who read figures of it.
    pub fn note(&self) -> String {
        match &self.quota {
            Some(quota) => format!("{} loops on a host held to {:.1} cores by a quota", self.loops, quota.cores),
            None => format!("{} loops on a host, without a quota: every host was slowed", self.loops),
        }
    }

    /// Gives the host its processor back: to be called when the loops are over.
    ///
    /// # Errors
    /// When the group cannot be cleared away.
    pub async fn end(self) -> anyhow::Result<()> {
        let Some(Quota { sweeper, door, held, .. }) = self.quota else { return Ok(()) };
        drop(held);
        sweeper.exited().await?;
        self.host.disk.remove_file(&door).await?;
        Ok(())
    }
}

/// The group that this process is in, if groups of it can have a quota.
async fn parent(host: &Host) -> Option<PathBuf> {
    let groups = shell::read(host, Path::new("/proc/self/cgroup")).await?;
    let path = PathBuf::from(format!("{GROUPS}{}", cpu_group(&groups)?));
    host.disk.metadata(&path.join("cpu.cfs_period_us")).await.ok()?;
    Some(path)
}

/// The group of the controller `cpu` in the text of /proc/PID/cgroup, without a slash at its end.
fn cpu_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == "cpu").then(|| path.trim_end_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_processor_is_found_among_the_others() {
        assert_eq!(cpu_group("9:name=systemd:/\n2:cpuacct:/x\n1:cpu:/\n0::/\n"), Some(""));
        assert_eq!(cpu_group("4:cpu,cpuacct:/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!(cpu_group("0::/user.slice\n"), None, "version 2 has no such controller");
    }
}

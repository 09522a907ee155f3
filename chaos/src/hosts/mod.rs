//! Hosts of their own on one machine: a network namespace and a process namespace each, joined by a bridge, so that a
//! host can lose its power without saying anything. Needs root, iproute2 and nftables.
//!
//! Owns: the namespaces, the bridge between them, our own end of it, and everything that runs on the hosts.
//! Must never: touch an interface, a rule or a process outside its namespaces, or outlive its maker.
//!
//! Invariants:
//! - A host's PID 1 is a shell that does what it reads from a FIFO, which this process holds open: however this process
//!   ends, killed included, the kernel closes the FIFO, the PIDs 1 end, and with each its processes (stopped ones, too),
//!   its interfaces and its rules.
//! - A host that loses power sends no FIN and no RST: its port at the bridge goes down before its processes stop.

mod cluster;
mod processes;
mod saturate;
mod shell;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use resilver_host::{File, Host, OpenMode, Process, SpawnSpec};
use tokio::time::Instant;

pub use cluster::{Defences, HostCluster, Shape};
pub use saturate::Saturated;
use shell::Shell;

/// The hosts' networks: of the range for benchmarks (RFC 2544), which no real host has. Which of them, the PID says, so that
/// two experiments at a time do not share one. The hosts' addresses end in 1, 2, …; ours in 254.
const NETWORKS: &str = "198.18";
/// The last part of our own address.
const OURS: u32 = 254;
/// More hosts than this are more than the machine has room for; and their addresses must differ from ours.
const MAX_HOSTS: usize = 32;
/// How long making a namespace may take.
const NAMESPACE_TIME: Duration = Duration::from_secs(10);
/// How often is looked whether it is there: it is another process's doing.
const LOOK: Duration = Duration::from_millis(5);

/// What one host does to what another sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Everything is dropped.
    Cut,
    /// So many of a hundred packets are dropped.
    Lossy(u8),
}

/// A machine of its own: everything in it ends with its PID 1.
struct Namespaces {
    /// `unshare`, which takes PID 1 along.
    outside: Arc<dyn Process>,
    /// PID 1, as we see it.
    leader: u32,
    /// Where it reads what it is to do, and our end of that.
    door: PathBuf,
    held: Arc<dyn File>,
}

/// Hosts joined by a bridge.
pub struct Hosts {
    host: Host,
    shell: Shell,
    switch: Namespaces,
    hosts: Vec<Namespaces>,
    network: String,
}

impl Hosts {
    /// Makes `count` hosts with an address each, and our own end of their network. `dir` is for what the tools say.
    ///
    /// # Errors
    /// When a tool is missing or refuses: this needs root.
    pub async fn new(host: &Host, dir: &Path, count: usize) -> anyhow::Result<Self> {
        ensure!((1..=MAX_HOSTS).contains(&count), "{count} hosts: 1 to {MAX_HOSTS} can be made");
        host.disk.create_dir_all(dir).await?;
        let shell = Shell::new(host, dir);
        let switch = Namespaces::new(host, &shell, dir.join("switch")).await?;
        let mut hosts = Vec::with_capacity(count);
        for number in 1..=count {
            hosts.push(Namespaces::new(host, &shell, dir.join(format!("host{number}"))).await?);
        }
        let network = format!("{NETWORKS}.{}", host.proc.own().pid % 256);
        let made = Self { host: host.clone(), shell, switch, hosts, network };
        made.join_them().await?;
        Ok(made)
    }

    async fn join_them(&self) -> anyhow::Result<()> {
        self.in_switch(
            "ip link set lo up && ip link add br0 type bridge && ip link set br0 up && nft add table bridge faults && \
             nft 'add chain bridge faults forward { type filter hook forward priority 0 ; }'",
        )
        .await?;
        for (index, host) in self.hosts.iter().enumerate() {
            let number = index + 1;
            self.in_switch(&format!(
                "ip link add p{number} type veth peer name eth0 netns {} && ip link set p{number} master br0 up",
                host.leader
            ))
            .await?;
            self.in_host(
                index,
                &format!("ip addr add {}/24 dev eth0 && ip link set eth0 up && ip link set lo up", self.address(index)),
            )
            .await?;
        }
        // Our end goes with the switch, as a veth goes with its peer.
        let ours = format!("resilver{}", self.host.proc.own().pid % 1_000_000);
        let own = self.host.proc.own().pid;
        self.in_switch(&format!(
            "ip link add uplink type veth peer name {ours} netns {own} && ip link set uplink master br0 up"
        ))
        .await?;
        self.shell.run("ip", &[&"addr", &"add", &format!("{}.{OURS}/24", self.network), &"dev", &ours]).await?;
        self.shell.run("ip", &[&"link", &"set", &ours, &"up"]).await?;
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The address of a host, without a port.
    pub fn address(&self, index: usize) -> String {
        format!("{}.{}", self.network, index + 1)
    }

    /// Starts a program on a host. It belongs to the host from then on: its PID 1 is its parent.
    ///
    /// # Errors
    /// When the host cannot be told.
    pub async fn start(&self, index: usize, program: &Path, args: &[String], log: &Path) -> anyhow::Result<()> {
        let words = [program.display().to_string()].into_iter().chain(args.iter().cloned());
        let words: Vec<String> = words.map(|word| quoted(&word)).collect();
        let line = format!("{} < /dev/null >> {} 2>&1 &", words.join(" "), quoted(&log.display().to_string()));
        let script =
            format!("printf '%s\\n' {} > {}", quoted(&line), quoted(&self.hosts[index].door.display().to_string()));
        self.shell.run("sh", &[&"-c", &script]).await
    }

    /// Takes the power of a host: not a word leaves it from now on, and its processes stop where they are.
    ///
    /// # Errors
    /// When a tool refuses.
    pub async fn power_off(&self, index: usize) -> anyhow::Result<()> {
        self.in_switch(&format!("ip link set p{} down", index + 1)).await?;
        self.in_host(index, "kill -STOP -1").await
    }

    /// Gives the power back: what ran is gone, nothing was started yet, the network is there.
    ///
    /// # Errors
    /// When a tool refuses.
    pub async fn power_on(&self, index: usize) -> anyhow::Result<()> {
        self.in_host(index, "kill -KILL -1").await?;
        self.in_switch(&format!("ip link set p{} up", index + 1)).await
    }

    /// From now on `link` befalls what `from` sends to `to`.
    ///
    /// # Errors
    /// When a tool refuses.
    pub async fn impair(&self, from: usize, to: usize, link: Link) -> anyhow::Result<()> {
        let verdict = match link {
            Link::Cut => "drop".to_owned(),
            Link::Lossy(percent) => format!("numgen random mod 100 < {percent} drop"),
        };
        self.in_switch(&format!(
            "nft 'add rule bridge faults forward iifname p{} oifname p{} {verdict}'",
            from + 1,
            to + 1
        ))
        .await
    }

    /// Ends every impairment.
    ///
    /// # Errors
    /// When a tool refuses.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.in_switch("nft flush chain bridge faults forward").await
    }

    /// In the switch's network, and among our own processes: other namespaces are named by their PIDs.
    async fn in_switch(&self, script: &str) -> anyhow::Result<()> {
        let network = format!("--net=/proc/{}/ns/net", self.switch.leader);
        self.shell.run("nsenter", &[&network, &"sh", &"-c", &script]).await
    }

    async fn in_host(&self, index: usize, script: &str) -> anyhow::Result<()> {
        let entered = enter(&self.hosts[index]);
        let mut args: Vec<&dyn std::fmt::Display> = entered.iter().map(|arg| arg as &dyn std::fmt::Display).collect();
        args.extend([&"sh" as &dyn std::fmt::Display, &"-c", &script]);
        self.shell.run("nsenter", &args).await
    }

    /// Ends all of them and waits until they are gone, and with them whoever writes into their folders.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn end(self) -> anyhow::Result<()> {
        for Namespaces { outside, door, held, .. } in self.hosts.into_iter().chain([self.switch]) {
            drop(held);
            outside.exited().await?;
            self.host.disk.remove_file(&door).await?;
        }
        Ok(())
    }
}

/// The arguments of `nsenter` before the command.
fn enter(namespaces: &Namespaces) -> Vec<String> {
    ["--target", &namespaces.leader.to_string(), "--net", "--pid", "--mount", "--"].map(str::to_owned).to_vec()
}

impl Namespaces {
    async fn new(host: &Host, shell: &Shell, door: PathBuf) -> anyhow::Result<Self> {
        shell.run("mkfifo", &[&door.display()]).await?;
        // Reading and writing: opening a FIFO for one of them would wait for the other end.
        let held = host.disk.open(&door, OpenMode::Write).await.context("the door of a host")?;
        let script = format!("while read -r line; do eval \"$line\"; done < {}", quoted(&door.display().to_string()));
        let args = ["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script];
        let spec = SpawnSpec {
            program: "unshare".into(),
            args: args.map(str::to_owned).to_vec(),
            env: Vec::new(),
            log: Some(shell.log()),
            new_session: true,
        };
        let outside = host.proc.spawn(spec).await.context("unshare")?;
        let pid = outside.id().pid;
        let children = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
        let until = Instant::now() + NAMESPACE_TIME;
        loop {
            if let Some(leader) = leader(host, &children).await {
                return Ok(Self { outside, leader, door, held });
            }
            ensure!(
                Instant::now() < until,
                "no namespaces within {} s: {}",
                NAMESPACE_TIME.as_secs(),
                shell.said().await
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The PID 1 of new namespaces, once it has become what it is to be: its mounts are made then.
async fn leader(host: &Host, children: &Path) -> Option<u32> {
    let text = shell::read(host, children).await?;
    let pid: u32 = text.split_whitespace().next()?.parse().ok()?;
    let name = shell::read(host, Path::new(&format!("/proc/{pid}/comm"))).await?;
    (name.trim() == "sh").then_some(pid)
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}

//! A host of its own with a real systemd, and the units that ship with the product on it.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::lone::{Said, eventually};

/// What boots it.
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/boot-host");

/// The units as they are installed.
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd");

/// A booted host. It and everything on it ends with this.
pub struct Booted {
    boot: Child,
    leader: u32,
    cgroup: PathBuf,
    _work: TempDir,
    _files: TempDir,
}

/// A node of the cluster on that host, and the units it and its agent run as.
pub struct Member {
    pub name: String,
    pub node_unit: String,
    pub agent_unit: String,
    suffix: String,
    port: u16,
}

impl Member {
    /// The first has the units exactly as they ship; the others have copies with names and folders of their own.
    pub fn new(number: u16) -> Self {
        let suffix = if number == 1 { String::new() } else { format!("-n{number}") };
        Self {
            name: format!("n{number}"),
            node_unit: format!("resilver-node{suffix}.service"),
            agent_unit: format!("resilver-agent{suffix}.service"),
            suffix,
            port: 7000 + 100 * number,
        }
    }

    fn address(&self, offset: u16) -> String {
        format!("127.0.0.1:{}", self.port + offset)
    }

    /// Where its configuration is, on the host.
    pub fn config(&self) -> String {
        format!("/etc/resilver/resilver{}.yaml", self.suffix)
    }

    fn unit(&self, file: &str) -> String {
        let text = std::fs::read_to_string(Path::new(UNITS).join(file)).unwrap();
        let state =
            |kind: &str| (format!("StateDirectory={kind}\n"), format!("StateDirectory={kind}{}\n", self.suffix));
        let changes = [
            ("/etc/resilver/resilver.yaml".to_owned(), self.config()),
            ("After=resilver-node.service".to_owned(), format!("After={}", self.node_unit)),
            ("Also=resilver-node.service".to_owned(), format!("Also={}", self.node_unit)),
            state("resilver"),
            state("resilver-agent"),
        ];
        changes.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    fn configuration(&self, all: &[Member]) -> String {
        let state = format!("/var/lib/resilver{}", self.suffix);
        let agent_state = format!("/var/lib/resilver-agent{}", self.suffix);
        let join: Vec<String> = all
            .iter()
            .filter(|other| other.name != self.name)
            .map(|other| format!("\"{}\"", other.address(0)))
            .collect();
        let mut text = format!(
            "profile: fast\nnode:\n  name: {name}\n  address: {node}\n  http: {http}\n  data_dir: {state}/meta\n  \
             disks: [/srv/resilver/{name}-1, /srv/resilver/{name}-2]\n  join: [{join}]\nagent:\n  name: {name}\n  \
             node_address: {node}\n  address: {agent}\n  http: {api}\n  dir: {agent_state}\n  service: {{ kind: systemd, \
             unit: {unit} }}\nnodes:\n",
            name = self.name,
            node = self.address(0),
            http = self.address(1),
            agent = self.address(2),
            api = self.address(3),
            join = join.join(", "),
            unit = self.node_unit,
        );
        for member in all {
            let (name, node, agent, api) = (&member.name, member.address(0), member.address(2), member.address(3));
            text.push_str(&format!("  - {{ id: {name}, address: \"{node}\", agent: \"{agent}\", api: \"{api}\" }}\n"));
        }
        text
    }
}

impl Booted {
    /// Boots a host with the members' units and configurations, and waits until systemd is up.
    pub fn new(binary: &str, members: &[Member]) -> Self {
        let (work, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        lay_out(files.path(), members);
        let cgroup = cgroup2().join(format!("resilver-test-{}", std::process::id()));
        let boot = Command::new(BOOT)
            .args([work.path(), &cgroup, Path::new(binary), files.path()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut booted = Self { boot, leader: 0, cgroup, _work: work, _files: files };
        eventually("the host has a PID 1", || {
            assert!(booted.boot.try_wait().unwrap().is_none(), "the host could not be booted");
            booted.leader = booted.only_child().unwrap_or_default();
            booted.leader != 0
        });
        // Degraded is up as well: some unit of this machine's systemd has no place here.
        eventually("systemd is up", || {
            let said = booted.run(&["systemctl", "is-system-running"]);
            matches!(said.stdout.trim(), "running" | "degraded")
        });
        booted
    }

    fn only_child(&self) -> Option<u32> {
        let pid = self.boot.id();
        // Before `unshare` has become itself, a child is one of the script's.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let child: u32 = children.split_whitespace().next()?.parse().ok()?;
        let booted = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "unshare" && booted.trim() == "systemd").then_some(child)
    }

    /// Runs a command on the host.
    pub fn run(&self, command: &[&str]) -> Said {
        let output = Command::new("nsenter")
            .args(["--target", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"])
            .args(["env", "NO_COLOR=1", "LC_ALL=C"])
            .args(command)
            .output()
            .unwrap();
        output.into()
    }

    /// Runs a command that must succeed, and tells what it printed.
    pub fn ok(&self, command: &[&str]) -> String {
        let said = self.run(command);
        assert_eq!(said.code, Some(0), "{command:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// How often systemd has started a unit since the boot.
    pub fn starts(&self, unit: &str) -> usize {
        let log = self.ok(&["journalctl", "--no-pager", "--output=cat", "--unit", unit]);
        log.lines().filter(|line| line.starts_with("Started ")).count()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log =
                self.run(&["journalctl", "--no-pager", "--output=short-precise", "--lines=120", "--unit=resilver-*"]);
            eprintln!("--- the host's journal\n{}", log.stdout);
        }
        // Its child, the host's PID 1, goes with it, and with PID 1 everything on the host.
        let _ = self.boot.kill();
        let _ = self.boot.wait();
        eventually("the host's cgroup is empty", || remove_cgroup(&self.cgroup).is_ok());
    }
}

fn lay_out(root: &Path, members: &[Member]) {
    let write = |path: &str, text: String| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("etc/sysusers.d/resilver.conf", std::fs::read_to_string(Path::new(UNITS).join("resilver.sysusers")).unwrap());
    for member in members {
        write(&format!("etc/systemd/system/{}", member.node_unit), member.unit("resilver-node.service"));
        write(&format!("etc/systemd/system/{}", member.agent_unit), member.unit("resilver-agent.service"));
        write(member.config().trim_start_matches('/'), member.configuration(members));
    }
}

/// Where cgroup v2 is mounted: alone, or beside v1.
fn cgroup2() -> PathBuf {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let found = places
        .into_iter()
        .find(|place| place.join("cgroup.procs").exists() && place.join("cgroup.controllers").exists());
    found.expect("no cgroup v2 hierarchy is mounted, and systemd needs one")
}

/// A cgroup can be removed once nothing is in it, its children first.
fn remove_cgroup(cgroup: &Path) -> std::io::Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(cgroup)?.map(Result::unwrap) {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}

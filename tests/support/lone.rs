//! One node that is run directly, without an agent, in a folder of its own: for what must be said at its start, and for
//! what an agent would mend before anybody could look.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The command under test.
const BINARY: &str = env!("CARGO_BIN_EXE_resilver");

/// How long anything awaited may take before the test fails. Generous: these machines are shared.
const LIMIT: Duration = Duration::from_secs(60);

/// How often what another process brings about is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A node's folder and configuration; it runs only between [`Lone::start`] and the end of what that returns.
pub struct Lone {
    pub name: String,
    pub address: String,
    dir: TempDir,
}

/// A running node. Killed when dropped.
pub struct Running {
    child: Child,
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            // A process that a signal ended has no code: the shell's convention is readable in a failed assertion.
            code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lone {
    /// Writes the configuration of a node with disks `disk1` to `diskN`, which asks `join` to be let in.
    pub fn new(name: &str, disks: usize, join: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Held together until both are known, so that they differ.
        let ports = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [address, http] = ports.map(|port| port.local_addr().unwrap().to_string());
        let disks: Vec<String> = (1..=disks).map(|number| format!("disk{number}")).collect();
        let mut text = format!(
            "profile: fast\nnode:\n  name: {name}\n  address: {address}\n  http: {http}\n  data_dir: meta\n  disks: [{}]\n",
            disks.join(", ")
        );
        // Found within seconds, not within the 14 days of production.
        text.push_str("  scrub: { period: 2s, rate_bytes_per_second: 200000000 }\n  repair: { check_interval: 1s }\n");
        let join: Vec<String> = join.iter().map(|address| format!("\"{address}\"")).collect();
        writeln!(text, "  join: [{}]", join.join(", ")).unwrap();
        std::fs::write(dir.path().join("resilver.yaml"), text).unwrap();
        Self { name: name.to_owned(), address, dir }
    }

    /// Adds keys to the node's part of the configuration, each on a line of its own.
    pub fn configure(&self, keys: &str) {
        let path = self.path("resilver.yaml");
        let mut text = std::fs::read_to_string(&path).unwrap();
        for key in keys.lines() {
            writeln!(text, "  {key}").unwrap();
        }
        std::fs::write(path, text).unwrap();
    }

    /// Opens the S3 door of a node that was not started yet, with more keys of `s3`, and tells its address.
    pub fn open_s3(&self, more: &str) -> String {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        self.configure(&format!("s3: {{ address: \"{address}\"{more} }}"));
        address
    }

    /// Makes a key that may do everything, and writes it with the door's address as `up` does.
    pub fn s3_access(&self, address: &str) -> PathBuf {
        let key: Value = serde_json::from_str(&self.ok(&["key", "create", "test", "--admin", "--json"])).unwrap();
        let access = self.path("s3.json");
        let told = serde_json::json!({
            "endpoints": [format!("http://{address}")],
            "access_key": key["access_key"],
            "secret_key": key["secret_key"],
        });
        std::fs::write(&access, told.to_string()).unwrap();
        access
    }

    /// A cluster of one: founded, with the bucket `kept` (1+1) and the object `kept/object` of `content`. Stopped again.
    pub fn founded(content: &[u8]) -> Self {
        let lone = Self::new("n1", 2, &[]);
        let running = lone.start();
        lone.found();
        std::fs::write(lone.path("content"), content).unwrap();
        lone.ok(&["bucket", "create", "kept", "--coding", "1+1"]);
        let content = lone.path("content");
        lone.ok(&["object", "put", "kept/object", content.to_str().unwrap()]);
        running.stop();
        lone
    }

    /// Makes the running node a cluster, and waits until it serves.
    pub fn found(&self) {
        self.await_phase("waiting");
        self.ok(&["cluster", "init"]);
        self.await_phase("healthy");
    }

    /// A path below the node's folder.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The command line that runs this node.
    pub fn command(&self) -> Vec<String> {
        [BINARY, "node", "run", "--config", self.path("resilver.yaml").to_str().unwrap()].map(str::to_owned).to_vec()
    }

    /// Starts the node.
    pub fn start(&self) -> Running {
        self.start_as(&self.command())
    }

    /// Starts the node by another command line, for example one that enters a mount namespace first.
    pub fn start_as(&self, command: &[String]) -> Running {
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env("NO_COLOR", "1")
            .env_remove("RESILVER_DIR")
            .env_remove("RESILVER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Runs a verb against this node.
    pub fn run(&self, args: &[&str]) -> Said {
        let output = Command::new(BINARY)
            .args(args)
            .arg("--config")
            .arg(self.path("resilver.yaml"))
            .env("NO_COLOR", "1")
            .env_remove("RESILVER_DIR")
            .output()
            .unwrap();
        output.into()
    }

    /// Runs a verb that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        said.stdout
    }

    /// What the node says of itself, when it answers.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.run(&["node", "status", &self.name, "--json"]).stdout).ok()
    }

    /// Waits until the node is in a phase, and tells what it says about it.
    pub fn await_phase(&self, phase: &str) -> String {
        let mut last = Value::Null;
        eventually(&format!("{} is {phase}", self.name), || {
            last = self.status().unwrap_or_default();
            last["phase"] == phase
        });
        last["phase_detail"].as_str().unwrap_or_default().to_owned()
    }

    /// What the object reads as, with `object get`.
    pub fn read(&self, object: &str) -> Vec<u8> {
        let to = self.path("read-back");
        self.ok(&["object", "get", object, to.to_str().unwrap(), "--force"]);
        std::fs::read(to).unwrap()
    }

    /// The shard files of all disks.
    pub fn shards(&self) -> Vec<PathBuf> {
        let mut shards = Vec::new();
        for number in 1.. {
            let disk = self.path(format!("disk{number}"));
            if !disk.exists() {
                return shards;
            }
            shards.extend(files_below(&disk.join("shards")).into_keys());
        }
        unreachable!("no machine has so many disks")
    }

    /// Every file that must not change when a node refuses to start: its metadata and its disks' superblocks and shards.
    /// Not: who uses the folder, and the canaries, which are written to prove that they can be.
    pub fn evidence(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = files_below(self.dir.path());
        files.retain(|path, _| {
            let name = path.file_name().unwrap_or_default();
            let kept = path.starts_with(self.path("meta")) || path.starts_with(self.path("disk1"));
            (kept || path.starts_with(self.path("disk2"))) && name != "process.json" && name != "canary"
        });
        files
    }

    /// Puts every file of an earlier [`Lone::evidence`] back as it was.
    pub fn restore(&self, evidence: &BTreeMap<PathBuf, Vec<u8>>) {
        for path in self.evidence().keys().filter(|path| !evidence.contains_key(*path)) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, content) in evidence {
            std::fs::write(path, content).unwrap();
        }
    }
}

impl Running {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an operator would, and tells how it went.
    pub fn stop(self) -> Said {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Said {
        eventually("the node has ended", || self.child.try_wait().unwrap().is_some());
        let mut said =
            Said::from(Output { status: self.child.wait().unwrap(), stdout: Vec::new(), stderr: Vec::new() });
        said.stderr = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already in every test that went as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file below a folder with its content.
pub fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// Awaits a condition that another process brings about.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Whether this test may run: it needs root. In CI ($RESILVER_TEST_NO_SKIP) its absence is a failure, not a skip.
pub fn is_root(for_what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("RESILVER_TEST_NO_SKIP").is_none(), "not root, which is needed for {for_what}");
    eprintln!("skipped: needs root for {for_what}");
    false
}

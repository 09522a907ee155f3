//! A real cluster for a story: `resilver up` in a folder of its own, stopped when the story ends, however it ends.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_chaos::client::Client;
use resilver_chaos::target::{HostInfo, Target};
use resilver_host::{Host, Signal};
use serde_json::Value;
use tempfile::TempDir;

/// The command under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_resilver");

/// How long anything awaited may take before the story fails. Generous: these machines are shared.
pub const LIMIT: Duration = Duration::from_secs(90);

/// One cluster at a time: a story on a machine that runs another story's cluster measures that one too.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster that is up.
pub struct Cluster {
    pub dir: TempDir,
    pub host: Host,
    pub target: Target,
    pub up: Value,
    process: Child,
    /// `up` ends when this closes: also when the test is killed.
    _stdin: Option<ChildStdin>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts one and waits until it is whole. `env` goes to every process of it.
    pub fn start(nodes: u32, disks: u32, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, nodes, disks, env)
    }

    /// Starts or continues the cluster of a folder.
    pub fn start_in(dir: TempDir, nodes: u32, disks: u32, env: &[(&str, &str)]) -> Self {
        Self::start_within(dir, nodes, disks, env, &[])
    }

    /// The same, by a command that runs the one that follows it, somewhere else for example.
    pub fn start_within(dir: TempDir, nodes: u32, disks: u32, env: &[(&str, &str)], within: &[&str]) -> Self {
        // A story that failed says so itself; the next one starts afresh.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let command = [within, &[BINARY]].concat();
        let mut process = Command::new(command[0])
            .args(&command[1..])
            .args(["up", "--json", "--stop-with-stdin", "--nodes", &nodes.to_string(), "--disks", &disks.to_string()])
            .arg("--dir")
            .arg(dir.path())
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let up: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("up said {line:?}: {error}"));
        let hosts = up["nodes"].as_array().unwrap().iter().map(|node| host_info(dir.path(), disks, node)).collect();
        let target = Target { dir: dir.path().to_owned(), hosts };
        let stdin = process.stdin.take();
        Self { dir, host: resilver_host::real::host(), target, up, process, _stdin: stdin, _turn: turn }
    }

    /// Runs the command against this cluster.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(BINARY).args(args).env("RESILVER_DIR", self.dir.path()).output().unwrap()
    }

    /// Runs the command, expects success, and parses its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, if it succeeds and says JSON. For a look inside a poll, which may come at a moment without a leader,
    /// or while an agent is silent (exit code 3).
    pub fn try_json(&self, args: &[&str]) -> Option<Value> {
        let output = self.run(args);
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Starts the command without waiting for it.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.spawn_with(args, &[])
    }

    /// Starts the command with more variables, without waiting for it.
    pub fn spawn_with(&self, args: &[&str], env: &[(&str, &str)]) -> Child {
        Command::new(BINARY)
            .args(args)
            .envs(env.iter().copied())
            .env("RESILVER_DIR", self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.host, &self.target).unwrap()
    }

    /// The pid of `up` itself.
    pub fn up_pid(&self) -> u32 {
        self.process.id()
    }

    /// The agent's pid of a node.
    pub fn agent_pid(&self, node: &str) -> u32 {
        let nodes = self.up["nodes"].as_array().unwrap();
        let found = nodes.iter().find(|entry| entry["name"] == node).unwrap();
        u32::try_from(found["agent_pid"].as_u64().unwrap()).unwrap()
    }

    /// Sends a signal to one process of this cluster.
    pub async fn signal(&self, pid: u32, signal: Signal) {
        let id = self.host.proc.identify(pid).unwrap().expect("the process runs");
        self.host.proc.adopt(id).await.unwrap().expect("the process runs").signal(signal).unwrap();
    }

    /// The folder of a node.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.path().join("nodes").join(node)
    }

    /// Ends the cluster and gives the folder back.
    pub fn stop(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        drop(self._stdin.take());
        // A story that failed half way may have left `up` stopped.
        let _ = Command::new("kill").args(["-CONT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            for host in &self.target.hosts {
                for log in ["agent.log", "node.log"] {
                    let text = std::fs::read_to_string(self.node_dir(&host.name).join(log)).unwrap_or_default();
                    let tail: Vec<&str> = text.lines().rev().take(15).collect();
                    eprintln!("--- {} {log}", host.name);
                    tail.iter().rev().for_each(|line| eprintln!("{line}"));
                }
            }
        }
    }
}

fn host_info(dir: &Path, disks: u32, node: &Value) -> HostInfo {
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    let folder = dir.join("nodes").join(text("name"));
    HostInfo {
        name: text("name"),
        address: text("address"),
        http: text("http"),
        api: text("api").trim_start_matches("http://").trim_end_matches('/').to_owned(),
        disks: (1..=disks).map(|number| folder.join(format!("disk{number}"))).collect(),
    }
}

/// Awaits a condition that some other process brings about.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "{what}: not within {} s", LIMIT.as_secs());
}

/// All members have stored the same. One that is silent, or a moment in which nobody can be asked, says nothing of it
/// (exit codes 3 and 4): it is asked again. Members that differ are no matter of time.
pub async fn stored_equal(cluster: &Cluster) {
    let mut compared = Value::Null;
    eventually("every member says what it has stored", async || {
        let output = cluster.run(&["meta", "compare", "--stored", "--json"]);
        compared = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{compared} {why}");
        output.status.success()
    })
    .await;
    assert_eq!(compared["equal"], true, "{compared}");
}

/// Waits until every node is healthy under a leader and nothing is left to repair.
pub async fn whole(client: &Client) {
    eventually("the cluster is whole", async || {
        client.status().await.is_some_and(|status| {
            status.unanswered.is_empty()
                && !status.leader.is_empty()
                && status.nodes.iter().all(|node| node.state == "healthy")
                && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
        })
    })
    .await;
}

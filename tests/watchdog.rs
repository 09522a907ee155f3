//! The agent tells whoever started it that its main loop turns, by sd_notify: the built command against a real socket.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than an agent takes to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What the test says that systemd waits for: a sign of life is due every three seconds.
const PATIENCE: Duration = Duration::from_secs(6);

struct Agent(Child);

impl Agent {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent whose node nobody runs: that is an incident, and no reason not to turn.
fn started(dir: &std::path::Path, socket: &str) -> Agent {
    let config = dir.join("resilver.yaml");
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (node, http, address, api) = (free(), free(), free(), free());
    let text = format!(
        "node:\n  name: n1\n  address: {node}\n  http: {http}\n  data_dir: meta\n  disks: [disk1]\nagent:\n  name: n1\n  \
         node_address: {node}\n  address: {address}\n  http: {api}\n  dir: agent\n  service: {{ kind: systemd, unit: none.service }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(["agent", "run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", PATIENCE.as_micros().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    Agent(child)
}

/// What is heard next; `None`: nothing within the time.
fn heard(socket: &UnixDatagram, within: Duration) -> Option<String> {
    socket.set_read_timeout(Some(within)).unwrap();
    let mut buffer = [0; 256];
    socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned())
}

#[test]
fn an_agent_says_that_it_is_ready_that_it_turns_and_that_it_stops_and_nothing_while_it_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("resilver-watchdog-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let agent = started(dir.path(), &format!("@{name}"));
    assert_eq!(heard(&socket, LIMIT).as_deref(), Some("READY=1\nWATCHDOG=1"));

    // Two signs of life, neither sooner than due.
    for _ in 0..2 {
        let since = Instant::now();
        assert_eq!(heard(&socket, LIMIT).as_deref(), Some("WATCHDOG=1"));
        assert!(since.elapsed() > PATIENCE / 4, "{:?}", since.elapsed());
    }

    // One that is frozen says nothing (all of its threads: that a hung loop alone says nothing is by there being no other voice) for as long as systemd would wait; once it turns again it says so.
    agent.signal("-STOP");
    while heard(&socket, Duration::from_millis(10)).is_some() {}
    assert_eq!(heard(&socket, PATIENCE), None);
    agent.signal("-CONT");
    assert_eq!(heard(&socket, LIMIT).as_deref(), Some("WATCHDOG=1"));

    agent.signal("-TERM");
    let mut last = String::new();
    while let Some(said) = heard(&socket, LIMIT) {
        last = said;
        if last == "STOPPING=1" {
            break;
        }
    }
    assert_eq!(last, "STOPPING=1");
    let mut agent = agent;
    assert!(agent.0.wait().unwrap().success());
}

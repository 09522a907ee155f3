//! What the tests with real processes share.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use resilver_agent::{Invocation, KeeperOptions, Launch};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long anything may take before a test gives up. Generous: the machine is shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A keeper of its own process: this test program again, with only the test `keeper_entry`. The shell hands the
/// keeper's arguments over in a variable, because the test harness would take them for its own.
pub(crate) fn keeper_invocation() -> Invocation {
    let program = std::env::current_exe().expect("the test's own program");
    let script = format!("KEEPER_ARGS=\"$*\" exec {} keeper_entry --exact --nocapture", program.display());
    Invocation { program: "/bin/sh".into(), args: vec!["-c".to_owned(), script, "keeper".to_owned()] }
}

/// A launch of `program` under such a keeper. Arguments must hold no spaces.
pub(crate) fn launch(dir: &Path, program: &str, args: &[&str]) -> Launch {
    Launch {
        keeper: keeper_invocation(),
        node: Invocation { program: program.into(), args: args.iter().map(|arg| (*arg).to_owned()).collect() },
        log: dir.join("node.log"),
    }
}

/// The body of `keeper_entry`: what `resilver keeper` does.
pub(crate) fn keeper_main() {
    let Ok(args) = std::env::var("KEEPER_ARGS") else { return };
    let words: Vec<&str> = args.split(' ').collect();
    let ["--run-dir", run_dir, "--log", log, "--", program, rest @ ..] = words.as_slice() else {
        panic!("not a keeper's arguments: {args}")
    };
    let options = KeeperOptions {
        run_dir: run_dir.into(),
        log: log.into(),
        program: program.into(),
        args: rest.iter().map(|arg| (*arg).to_owned()).collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let code = runtime.block_on(async { resilver_agent::run_keeper(resilver_host::real::host(), options).await });
    std::process::exit(code.into());
}

/// Waits until `what` is there.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One HTTP exchange, without a client's help.
pub(crate) async fn request(address: &str, head: &str, body: &str) -> (u16, Value) {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the agent listens");
    let text = format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
}

/// Below the range that the kernel hands to outgoing connections (32768 and up): while an agent is away one of those once sat
/// on its port.
pub(crate) fn free_port() -> String {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let free = (0..12_000).find_map(|_| {
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id().wrapping_mul(97).wrapping_add(turn)) % 12_000;
        let address = format!("127.0.0.1:{port}");
        std::net::TcpListener::bind(&address).is_ok().then_some(address)
    });
    free.expect("a free port")
}

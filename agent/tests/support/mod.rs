//! What the tests with real processes share.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use resilver_agent::{Invocation, KeeperOptions, Launch};

/// How long anything may take before a test gives up. Generous: the machine is shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A keeper of its own process: this test program again, with only the test `keeper_entry`. The shell hands the
/// keeper's arguments over in a variable, because the test harness would take them for its own.
pub(crate) fn keeper_invocation() -> Invocation {
    let program = std::env::current_exe().expect("the test's own program");
    let script = format!("KEEPER_ARGS=\"$*\" exec {} keeper_entry --exact --ignored --nocapture", program.display());
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

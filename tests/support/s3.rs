//! The Python that S3's clients are installed in, and the scripts of `tests/s3` that run in it.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Names the interpreter. `tests/s3/requirements.txt` says what it must have.
const PYTHON: &str = "RESILVER_S3_PYTHON";

/// The interpreter.
#[derive(Clone)]
pub struct Clients {
    python: PathBuf,
}

/// A script that has ended.
pub struct Ran {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

/// What one request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub code: String,
    pub bytes: u64,
    pub text: String,
}

impl Clients {
    /// The interpreter, when there is one. In CI ($RESILVER_TEST_NO_SKIP) its absence is a failure, not a skip.
    pub fn find() -> Option<Self> {
        if let Some(python) = std::env::var_os(PYTHON) {
            return Some(Self { python: python.into() });
        }
        assert!(std::env::var_os("RESILVER_TEST_NO_SKIP").is_none(), "${PYTHON} names no Python with the S3 clients");
        eprintln!("skipped: ${PYTHON} names no Python with the S3 clients (tests/s3/requirements.txt)");
        None
    }

    fn command(&self, script: &str, access: &Path, args: &[&str]) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3");
        let mut command = Command::new(&self.python);
        // Unbuffered, so that a story can follow it; and nothing is written beside the sources.
        command.args(["-u", "-B"]).arg(folder.join(script)).arg("--access").arg(access).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str, access: &Path, args: &[&str]) -> Ran {
        let output = self.command(script, access, args).output().unwrap();
        Ran {
            succeeded: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a script whose lines are read while it runs.
    pub fn spawn(&self, script: &str, access: &Path, args: &[&str]) -> Child {
        self.command(script, access, args).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Sends one signed request; `bytes` is the length of its body.
    pub fn one(&self, access: &Path, method: &str, target: &str, bytes: usize) -> Answer {
        self.one_with(access, &["--bytes", &bytes.to_string(), method, target])
    }

    /// Sends one signed request to a host of another name than the endpoint's.
    pub fn one_to_host(&self, access: &Path, host: &str, method: &str, target: &str) -> Answer {
        self.one_with(access, &["--host", host, method, target])
    }

    fn one_with(&self, access: &Path, args: &[&str]) -> Answer {
        let ran = self.run("one.py", access, args);
        assert!(ran.succeeded, "{args:?}: {}", ran.stderr);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        Answer {
            status: said["status"].as_u64().unwrap(),
            code: said["code"].as_str().unwrap().to_owned(),
            bytes: said["bytes"].as_u64().unwrap(),
            text: said["text"].as_str().unwrap().to_owned(),
        }
    }
}

impl Ran {
    /// Shows what the script said, and fails with what failed in it.
    pub fn expect_success(&self, script: &str) {
        println!("{}", self.stdout);
        if !self.succeeded {
            // A check that failed has its reason on the line below it.
            let lines: Vec<&str> = self.stdout.lines().collect();
            let failed: Vec<&str> = lines
                .iter()
                .enumerate()
                .filter(|(at, line)| line.starts_with("FAILED") || (*at > 0 && lines[at - 1].starts_with("FAILED")))
                .map(|(_, line)| *line)
                .collect();
            panic!("{script}:\n{}\n{}{}", failed.join("\n"), self.stderr, lines.last().unwrap_or(&""));
        }
    }
}

//! Clients that others wrote: boto3, on a host without a node. The same keys, contents and oracle as our own clients'.
//!
//! Owns: the script's life on its host, from its first answers to its report. Must never: let boto3 retry, which would hide
//! what is measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use resilver_host::disk::{read_file, replace_file, replace_private_file};
use resilver_host::{ExitStatus, Host, SpawnSpec};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::traffic::{self, Request};
use crate::hosts::Hosts;
use crate::s3::Access;

/// What runs there. In the binary, so that the benchmark needs no checkout.
const SCRIPT: &str = include_str!("boto3_load.py");
/// How long Python, boto3 and the first answers may take.
const READY_TIME: Duration = Duration::from_secs(60);
/// The script ends by itself after this: longer than any outage that is measured.
const AT_MOST: Duration = Duration::from_secs(3600);
/// What a loop may be at when it is to end, and the writing of the report.
const REPORT_TIME: Duration = traffic::DEADLINE.saturating_add(Duration::from_secs(30));
/// Between two looks for a file that the script makes: it is another process's doing.
const LOOK: Duration = Duration::from_millis(20);
/// A report has a line of 100 bytes for each request: this is room for an hour of them.
const MAX_REPORT_BYTES: u64 = 256 << 20;
/// How much of what it said is shown.
const SAID_BYTES: u64 = 64 * 1024;

/// The script at work.
pub(super) struct Load {
    host: Host,
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Reported {
    ended_ms: u64,
    took_ms: f64,
    error: Option<String>,
    truncated: bool,
    stores: bool,
}

/// Makes sure, before anything is built up, that the interpreter has boto3.
///
/// # Errors
/// When it has not, with what to do about it.
pub(super) async fn check(host: &Host, python: &Path) -> anyhow::Result<()> {
    let advice = || {
        format!(
            "make one with `python3 -m venv DIR && DIR/bin/pip install -r tests/s3/requirements.txt` and name it in \
             $RESILVER_S3_PYTHON (now {})",
            python.display()
        )
    };
    let spec = SpawnSpec {
        program: python.to_owned(),
        args: vec!["-c".to_owned(), "import boto3".to_owned()],
        env: Vec::new(),
        log: None,
        new_session: false,
    };
    let process = host.proc.spawn(spec).await.with_context(|| format!("no Python there: {}", advice()))?;
    let ended = tokio::time::timeout(READY_TIME, process.exited()).await;
    let ended = ended.with_context(|| format!("{} does not import boto3 in time", python.display()))??;
    ensure!(ended == Some(ExitStatus::Code(0)), "this Python has no boto3: {}", advice());
    Ok(())
}

impl Load {
    /// Starts it on the host `at` and waits until every loop has had an answer.
    pub(super) async fn start(
        host: &Host,
        hosts: &Hosts,
        at: usize,
        dir: &Path,
        python: &Path,
        access: &Access,
        bucket: &str,
    ) -> anyhow::Result<Self> {
        let folder = dir.join("boto3");
        host.disk.create_dir_all(&folder).await?;
        let load = Self { host: host.clone(), folder };
        for left in ["ready", "stop", "report"] {
            // Of the run before; absent in the first.
            let _ = host.disk.remove_file(&load.path(left)).await;
        }
        let told = json!({
            "endpoints": access.endpoints, "access_key": access.access_key, "secret_key": access.secret_key,
            "bucket": bucket, "kept": traffic::KEPT, "kept_bytes": traffic::KEPT_BYTES, "puts": traffic::PUTS,
            "put_bytes": traffic::PUT_BYTES, "pause_s": traffic::PAUSE.as_secs_f64(),
            "deadline_s": traffic::DEADLINE.as_secs(), "at_most_s": AT_MOST.as_secs(),
            "ready": load.path("ready"), "stop": load.path("stop"), "report": load.path("report"),
        });
        let (script, what) = (load.path("boto3_load.py"), load.path("load.json"));
        replace_file(&*host.disk, &script, Bytes::from_static(SCRIPT.as_bytes())).await?;
        replace_private_file(&*host.disk, &what, Bytes::from(told.to_string())).await?;
        // A program on a host has no standard input: its shell gives it one.
        let line = r#"exec "$0" -B "$1" < "$2""#;
        let words = [python, &script, &what].map(|path| path.display().to_string());
        let args: Vec<String> = ["-c".to_owned(), line.to_owned()].into_iter().chain(words).collect();
        hosts.start(at, Path::new("sh"), &args, &load.path("boto3.log")).await?;
        load.await_file("ready", READY_TIME).await?;
        Ok(load)
    }

    /// Ends it. The requests that were under way or begun after `since`.
    pub(super) async fn stop(self, since: Instant) -> anyhow::Result<Vec<Request>> {
        let since_ms = self.host.clock.now().as_millis().saturating_sub(since.elapsed().as_millis() as u64);
        replace_file(&*self.host.disk, &self.path("stop"), Bytes::from_static(b"stop")).await?;
        self.await_file("report", REPORT_TIME).await?;
        let report = read_file(&*self.host.disk, &self.path("report"), MAX_REPORT_BYTES).await?;
        requests(&report, since_ms)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn await_file(&self, name: &str, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        while self.host.disk.metadata(&self.path(name)).await.is_err() {
            if Instant::now() >= until {
                let said = read_file(&*self.host.disk, &self.path("boto3.log"), SAID_BYTES).await;
                let said = said.map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default();
                anyhow::bail!("the load of boto3 is not {name} after {} s: {said}", limit.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

fn requests(report: &[u8], since_ms: u64) -> anyhow::Result<Vec<Request>> {
    let all: Vec<Reported> = serde_json::from_slice(report).context("the report of the load of boto3")?;
    let request = |reported: Reported| Request {
        stall: Duration::from_secs_f64(reported.took_ms.max(0.0) / 1e3),
        error: reported.error,
        truncated: reported.truncated,
        stores: reported.stores,
    };
    Ok(all.into_iter().filter(|reported| reported.ended_ms >= since_ms).map(request).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_from_the_outage_on() {
        let report = br#"[
            {"ended_ms": 900, "took_ms": 9000.0, "error": "before", "truncated": false, "stores": true},
            {"ended_ms": 1500, "took_ms": 812.5, "error": null, "truncated": false, "stores": true},
            {"ended_ms": 2000, "took_ms": 3.0, "error": "get: IncompleteRead", "truncated": true, "stores": false}
        ]"#;
        let requests = requests(report, 1000).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].stall, Duration::from_micros(812_500));
        assert!(requests[0].stores && requests[0].error.is_none());
        assert!(requests[1].truncated && !requests[1].stores);
    }
}

//! What a cluster costs when nothing happens: processor time and memory of each node and agent, read from /proc.

use std::time::Duration;

use anyhow::Context;
use resilver_host::{Host, OpenMode};
use tokio::time::Instant;

use super::Figures;
use crate::client::Client;
use crate::target::Target;

/// /proc counts processor time in these: USER_HZ, 100 on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// A page of memory, as /proc/PID/statm counts.
const PAGE_BYTES: f64 = 4096.0;

/// Longer than any of the /proc files read here.
const PROC_FILE_BYTES: usize = 4096;

/// Watches for `span`. `agents` are the agents' process ids.
///
/// # Errors
/// When a process is gone or /proc cannot be read.
pub async fn run(host: &Host, target: &Target, agents: &[u32], span: Duration) -> anyhow::Result<Vec<Figures>> {
    let client = Client::new(host, target)?;
    let mut nodes = Vec::new();
    for info in &target.hosts {
        nodes.push(client.observe(&info.name).await.with_context(|| format!("{} does not answer", info.name))?.pid);
    }
    let begun = Instant::now();
    let before = (cpu(host, agents).await?, cpu(host, &nodes).await?);
    tokio::time::sleep(span).await;
    let after = (cpu(host, agents).await?, cpu(host, &nodes).await?);
    let seconds = begun.elapsed().as_secs_f64();
    let share = |before: &[f64], after: &[f64]| {
        before.iter().zip(after).map(|(before, after)| 100.0 * (after - before) / seconds).collect()
    };
    Ok([
        Figures::over("idle agent: processor", "% of a core", share(&before.0, &after.0)),
        Figures::over("idle agent: resident memory", "MiB", memory(host, agents).await?),
        Figures::over("idle node: processor", "% of a core", share(&before.1, &after.1)),
        Figures::over("idle node: resident memory", "MiB", memory(host, &nodes).await?),
    ]
    .into_iter()
    .flatten()
    .collect())
}

async fn cpu(host: &Host, pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(pids.len());
    for pid in pids {
        let stat = proc_file(host, *pid, "stat").await?;
        // The second field is the command in parentheses and may hold anything; utime and stime are 14 and 15.
        let rest = stat.rsplit_once(')').context("an odd /proc/PID/stat")?.1;
        let mut fields = rest.split_whitespace().skip(11);
        let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok()).context("an odd /proc/PID/stat");
        seconds.push((next()? + next()?) / TICKS_PER_SECOND);
    }
    Ok(seconds)
}

async fn memory(host: &Host, pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    let mut mib = Vec::with_capacity(pids.len());
    for pid in pids {
        let statm = proc_file(host, *pid, "statm").await?;
        let pages: f64 = statm.split_whitespace().nth(1).context("an odd /proc/PID/statm")?.parse()?;
        mib.push(pages * PAGE_BYTES / f64::from(1 << 20));
    }
    Ok(mib)
}

async fn proc_file(host: &Host, pid: u32, name: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{name}");
    let file = host.disk.open(path.as_ref(), OpenMode::Read).await.with_context(|| path.clone())?;
    Ok(String::from_utf8_lossy(&file.read_at(0, PROC_FILE_BYTES).await?).into_owned())
}

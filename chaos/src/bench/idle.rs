//! What a cluster costs when nothing happens: processor time and memory of each node and agent, read from /proc.

use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use tokio::time::Instant;

use super::{Figures, procfs};
use crate::client::Client;
use crate::target::Target;

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
        let cpu = procfs::cpu(host, *pid).await?;
        seconds.push(cpu.user + cpu.system);
    }
    Ok(seconds)
}

async fn memory(host: &Host, pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    let mut mib = Vec::with_capacity(pids.len());
    for pid in pids {
        mib.push(procfs::memory(host, *pid).await?.resident);
    }
    Ok(mib)
}

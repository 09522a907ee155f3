//! A disk of a host hangs, and the host itself is well.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::{LOOK, Scene};
use crate::client::Client;

/// How long a disk that is well again may take to serve.
const BACK: Duration = Duration::from_secs(60);

impl Scene {
    /// From now on everything that the host's faulty disk is asked waits.
    pub(in crate::bench::power_loss) async fn hang_disk(&self, victim: usize) -> anyhow::Result<()> {
        self.cluster.hang_disk(victim).await
    }

    /// The disk is well again; waits until its node says so.
    pub(in crate::bench::power_loss) async fn clear_disk(&self, victim: usize) -> anyhow::Result<()> {
        self.cluster.clear_disk(victim).await?;
        let until = Instant::now() + BACK;
        while self.disk_health(victim).await.as_deref() != Some("ok") {
            anyhow::ensure!(Instant::now() < until, "the disk hangs no more, and is not in service after {BACK:?}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// When the host's faulty disk was out of service, in milliseconds since `off`: from then on nothing waits for it.
    pub(in crate::bench::power_loss) async fn await_disk_out(
        &self,
        victim: usize,
        off: Instant,
        until: Instant,
    ) -> Option<f64> {
        while Instant::now() < until {
            if self.disk_health(victim).await.as_deref() == Some("error") {
                return Some(off.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// What its node's canary says of the host's faulty disk.
    async fn disk_health(&self, victim: usize) -> Option<String> {
        let path = self.cluster.faulty_disk(victim)?.display().to_string();
        let name = &self.cluster.target().hosts[victim].name;
        let said = Client::new(&self.host, self.cluster.target()).context("a client").ok()?.observe(name).await?;
        said.disks.into_iter().find(|disk| disk.path == path).map(|disk| disk.health)
    }
}

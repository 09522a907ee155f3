//! The canary: does this disk still write, sync and read back, and is it still the disk it was?
//!
//! Once a second per disk, and at once when somebody's operation failed. A probe that does not come back is not repeated
//! (a hanging disk gets one hanging canary, not a thread more each second); the time it hangs is the finding.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resilver_host::OpenMode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::core::{Core, SHARDS};
use super::io::{Blame, Patience, TICK, blame};
use super::superblock::{self, Superblock, Unreadable};
use super::{Health, HealthReport};

/// How often a disk is asked. A wiped or unplugged disk is noticed within this time.
const PERIOD: Duration = Duration::from_secs(1);

/// The shortest time between two probes, however many operations fail: a storm of errors must not become one of syncs.
const SHORTEST_GAP: Duration = Duration::from_millis(200);

/// Good probes in a row before a disk that failed is trusted again: one alone may be luck.
const CLEAN_PROBES: u32 = 3;

/// The canary's file name.
const CANARY_FILE: &str = "canary";

/// Its length: one sector, overwritten in place, so that a full disk can still do it.
const CANARY_BYTES: usize = 512;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probe {
    Fine,
    Gone(String),
    Foreign(String),
    Failed(String),
    /// This process lacks something (descriptors, memory): it says nothing about the disk.
    Inconclusive(String),
}

impl Probe {
    fn of(doing: &str, error: &io::Error) -> Self {
        match blame(error) {
            Blame::Full => Self::Fine, // full is no failure: it is told apart, by the room measured
            Blame::Nobody if error.kind() == io::ErrorKind::NotFound => Self::Gone(format!("{doing}: {error}")),
            Blame::Nobody => Self::Inconclusive(format!("{doing}: {error}")),
            Blame::ReadOnly => Self::Failed("the file system is read-only".to_owned()),
            Blame::Disk => Self::Failed(format!("{doing}: {error}")),
        }
    }
}

/// Decides a disk's health from probe to probe.
#[derive(Default)]
struct Judge {
    clean: u32,
}

impl Judge {
    fn judge(&mut self, before: &HealthReport, probe: Probe) -> HealthReport {
        let bad = |health, reason| HealthReport { health, reason, hanging: false };
        match probe {
            Probe::Fine => {
                self.clean += 1;
                if before.health == Health::Error && self.clean < CLEAN_PROBES {
                    return HealthReport { hanging: false, ..before.clone() };
                }
                HealthReport { health: Health::Ok, reason: String::new(), hanging: false }
            }
            Probe::Inconclusive(_) => HealthReport { hanging: false, ..before.clone() },
            Probe::Gone(reason) => bad(self.stained(Health::Gone), reason),
            Probe::Foreign(reason) => bad(self.stained(Health::Foreign), reason),
            Probe::Failed(reason) => bad(self.stained(Health::Error), reason),
        }
    }

    /// What is thought of a disk whose present probe has not come back for so many ticks.
    fn waiting(&mut self, before: &HealthReport, ticks: u32, patience: Patience) -> Option<HealthReport> {
        let reason = format!("the canary has been hanging for {} s", u64::from(ticks) * TICK.as_secs());
        if ticks >= patience.hanging_ticks {
            Some(HealthReport { health: self.stained(Health::Error), reason, hanging: true })
        } else if ticks == patience.suspect_ticks && before.health == Health::Ok {
            Some(HealthReport { health: Health::Suspect, reason, hanging: false })
        } else {
            None
        }
    }

    fn stained(&mut self, health: Health) -> Health {
        self.clean = 0;
        health
    }
}

/// Watches one disk until shutdown.
pub(super) async fn watch(core: Arc<Core>, mut shutdown: watch::Receiver<bool>) {
    let watching = async {
        let mut judge = Judge::default();
        loop {
            let started = Instant::now();
            one_round(&core, &mut judge).await;
            tokio::select! {
                () = sleep_until(started + PERIOD) => {}
                () = async { core.io.doubt.notified().await; sleep_until(started + SHORTEST_GAP).await } => {}
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = core.retired() => {}
        // A sender that is gone means the same as a stop.
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// One probe, judged while it lasts and when it is done.
async fn one_round(core: &Arc<Core>, judge: &mut Judge) {
    let (began, number) = (Instant::now(), core.doubts.probe_begins());
    let probing = probe(core);
    tokio::pin!(probing);
    let mut ticks = 0;
    let found = loop {
        match tokio::time::timeout(TICK, probing.as_mut()).await {
            Ok(found) => break found,
            Err(_elapsed) => {
                ticks += 1;
                if ticks == core.io.patience.suspect_ticks {
                    core.check_is_late();
                }
                if let Some(report) = judge.waiting(&core.report(), ticks, core.io.patience) {
                    core.set_health(report);
                }
            }
        }
    };
    core.checked(began.elapsed());
    match &found {
        Probe::Fine => core.canary_succeeded(),
        Probe::Gone(_) | Probe::Foreign(_) => core.forget_folders(),
        Probe::Failed(_) => core.io.count_error(),
        Probe::Inconclusive(reason) => {
            tracing::warn!(disk = %core.io.disk, reason, "the canary could not be asked; the disk keeps its health");
        }
    }
    let fine = found == Probe::Fine;
    core.set_health(judge.judge(&core.report(), found));
    core.doubts.probe_ended(number, fine);
    if fine {
        core.remove_leftovers().await;
    }
}

async fn probe(core: &Arc<Core>) -> Probe {
    let (host, root) = (&core.io.host, &core.io.root);
    // First of all: is it our disk? Nothing may be written below a folder that is not.
    let found = match superblock::read(host, root).await {
        Ok(Ok(found)) => found,
        Ok(Err(Unreadable::Damaged(detail))) => return Probe::Failed(format!("its superblock is damaged: {detail}")),
        Ok(Err(Unreadable::TooNew(format))) => return Probe::Foreign(format!("it has the newer format {format}")),
        Err(error) => match (error.kind(), Probe::of("reading the superblock", &error)) {
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => {
                return Probe::Gone(format!("there is no superblock in {}", root.display()));
            }
            (_, probe) => return probe,
        },
    };
    if let Err(reason) = recognise(&core.identity(), &found) {
        return Probe::Foreign(reason);
    }
    if let Err(probe) = complete(core, &found).await {
        return probe;
    }
    match write_and_read_back(core).await {
        Ok(true) => {}
        Ok(false) => return Probe::Failed("it reads back other bytes than were written".to_owned()),
        Err(error) => match Probe::of("the canary", &error) {
            // It had its superblock a moment ago; the next probe tells.
            Probe::Gone(reason) => return Probe::Inconclusive(reason),
            Probe::Fine => {}
            probe => return probe,
        },
    }
    match host.disk.space(root).await {
        Ok(space) => {
            core.set_space(space);
            Probe::Fine
        }
        Err(error) => Probe::of("asking for room", &error),
    }
}

/// Whether the superblock found is the expected disk's.
pub(super) fn recognise(expected: &Superblock, found: &Superblock) -> Result<(), String> {
    if found.disk != expected.disk {
        return Err(format!("it is disk {} of node {}", found.disk, found.node));
    }
    if found.instance != expected.instance {
        return Err(format!("it belongs to node {} (data folder {})", found.node, found.instance));
    }
    match (expected.cluster, found.cluster) {
        (Some(ours), Some(other)) if ours != other => Err(format!("it belongs to cluster {other}")),
        _ => Ok(()),
    }
}

/// Brings a recognised disk up to date: its folders when they are missing (it came back, or somebody removed them under
/// us), its superblock when the node has joined a cluster since.
async fn complete(core: &Arc<Core>, found: &Superblock) -> Result<(), Probe> {
    let failed = |doing: &str, error: &io::Error| match Probe::of(doing, error) {
        Probe::Gone(reason) => Probe::Inconclusive(reason),
        Probe::Fine => Probe::Failed(format!("{doing}: {error}")),
        probe => probe,
    };
    let shards = core.io.root.join(SHARDS);
    let missing = match core.io.host.disk.metadata(&shards).await {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed("looking for its folders", &error)),
    };
    if missing || !core.is_prepared() {
        tracing::warn!(disk = %core.io.disk, path = %core.io.root.display(), "disk is taken (back) into use");
        core.prepare().await.map_err(|error| Probe::Failed(error.to_string()))?;
    }
    core.refresh(found).await.map_err(|error| failed("writing the superblock", &error))
}

/// Overwrites the canary, syncs it and reads it back from the device.
async fn write_and_read_back(core: &Arc<Core>) -> io::Result<bool> {
    let path = core.io.root.join(CANARY_FILE);
    let file = core.io.host.disk.open(&path, OpenMode::Create).await?;
    let mut content = format!("resilver canary {} {}\n", core.io.disk, core.next_serial()).into_bytes();
    content.resize(CANARY_BYTES, b'.');
    let content = Bytes::from(content);
    file.write_at(0, content.clone()).await?;
    file.sync().await?;
    file.drop_cache().await?;
    Ok(file.read_at(0, CANARY_BYTES).await? == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(health: Health) -> HealthReport {
        HealthReport { health, reason: "before".to_owned(), hanging: false }
    }

    #[test]
    fn a_failed_disk_must_prove_itself_three_times() {
        let mut judge = Judge::default();
        let mut now = judge.judge(&report(Health::Ok), Probe::Failed("broken".to_owned()));
        assert_eq!((now.health, now.reason.as_str()), (Health::Error, "broken"));
        for expected in [Health::Error, Health::Error, Health::Ok] {
            now = judge.judge(&now, Probe::Fine);
            assert_eq!(now.health, expected);
        }
    }

    #[test]
    fn a_disk_that_comes_back_is_taken_back_at_once() {
        for away in [Health::Gone, Health::Foreign, Health::Suspect] {
            assert_eq!(Judge::default().judge(&report(away), Probe::Fine).health, Health::Ok);
        }
    }

    #[test]
    fn hanging_is_suspect_after_three_seconds_and_an_error_after_ten() {
        let (mut judge, patience) = (Judge::default(), Patience::default());
        let before = report(Health::Ok);
        assert_eq!(judge.waiting(&before, 2, patience), None);
        assert_eq!(judge.waiting(&before, 3, patience).unwrap().health, Health::Suspect);
        let hanging = judge.waiting(&report(Health::Suspect), 10, patience).unwrap();
        assert_eq!((hanging.health, hanging.hanging), (Health::Error, true));
        // A disk already known to be worse than suspect does not get better by hanging.
        assert_eq!(judge.waiting(&report(Health::Gone), 3, patience), None);
    }

    #[test]
    fn a_process_without_descriptors_convicts_no_disk() {
        let error = io::Error::from_raw_os_error(24);
        let probe = Probe::of("opening", &error);
        assert!(matches!(probe, Probe::Inconclusive(_)));
        assert_eq!(Judge::default().judge(&report(Health::Ok), probe).health, Health::Ok);
    }

    #[test]
    fn a_full_disk_is_no_failed_disk() {
        assert_eq!(Probe::of("writing", &io::Error::from_raw_os_error(28)), Probe::Fine);
        assert!(matches!(Probe::of("writing", &io::Error::from_raw_os_error(30)), Probe::Failed(_)));
        assert!(matches!(Probe::of("writing", &io::Error::from_raw_os_error(5)), Probe::Failed(_)));
    }
}

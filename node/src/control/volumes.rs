//! Room on every file system that this node writes to, as the node itself may see it: its agent may not look into its folders.
//!
//! Must never: make a look at the node wait for a file system. One that hangs keeps its last figures until they are old, and is
//! not asked again before it has answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_host::{Host, Space};
use resilver_proto::contract::VolumeState;
use tokio::time::Instant;

use super::Shared;

/// How often each is asked. Half of the agents' period of looking at their host.
const EVERY: Duration = Duration::from_secs(5);

/// Figures older than this are not told: it hangs, and the disk's own canary says so.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// The name of the metadata's file system.
const METADATA: &str = "metadata";

/// What was found, by folder.
#[derive(Clone, Default)]
pub(crate) struct Volumes {
    known: Arc<Mutex<BTreeMap<PathBuf, Known>>>,
}

#[derive(Default)]
struct Known {
    /// A question is out.
    asked: bool,
    found: Option<(Space, Instant)>,
}

impl Volumes {
    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a folder's file system; asks anew when that is not of just now.
    fn space(&self, host: &Host, path: &Path) -> Option<Space> {
        let mut known = self.known();
        let one = known.entry(path.to_owned()).or_default();
        let age = one.found.map(|(_, at)| at.elapsed());
        if !one.asked && age.is_none_or(|age| age >= EVERY) {
            one.asked = true;
            let (volumes, disk, path) = (self.clone(), host.disk.clone(), path.to_owned());
            tokio::spawn(async move {
                let found = disk.space(&path).await;
                let mut known = volumes.known();
                let one = known.entry(path).or_default();
                one.asked = false;
                // A folder that is gone is told by the disk's canary.
                one.found = found.ok().map(|space| (space, Instant::now()));
            });
        }
        one.found.filter(|(_, at)| at.elapsed() <= GOOD_FOR).map(|(space, _)| space)
    }
}

/// The metadata's, then each disk's.
pub(super) fn look(shared: &Shared) -> Vec<VolumeState> {
    let disks = shared.disks.get().map(|disks| disks.volumes()).unwrap_or_default();
    let disks = disks.iter().map(|volume| (volume.id().to_string(), volume.path().to_owned()));
    let places = std::iter::once((METADATA.to_owned(), shared.options.data_dir.clone())).chain(disks);
    places
        .filter_map(|(name, path)| {
            let space = shared.volumes.space(&shared.host, &path)?;
            Some(VolumeState {
                name,
                path: path.display().to_string(),
                total_bytes: space.total_bytes,
                available_bytes: space.available_bytes,
                inodes_total: space.inodes_total,
                inodes_free: space.inodes_free,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_asked_in_the_background_and_told_once_it_answered() {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        let volumes = Volumes::default();
        assert_eq!(volumes.space(&host, dir.path()), None);
        crate::testing::until("it has answered", async || volumes.space(&host, dir.path()).is_some()).await;
        assert_eq!(volumes.space(&host, &dir.path().join("gone")), None);
    }
}

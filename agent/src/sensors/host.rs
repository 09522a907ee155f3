//! How much of everything the host has left: cores, memory, pressure, descriptors, and room on every file system that the node
//! writes to.
//!
//! Must never: wait for a file system that hangs. One that has not answered is left out, which is not the same as full, and is
//! not asked again before it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use resilver_host::{Host, Space};
use resilver_strategies::api::{HostFact, Input, NodeFact, Observation, VolumeFact};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{running, stopped};
use crate::state::View;

/// How long one look at the file systems may take, all of them side by side: they answer from memory, or hang.
const VOLUME_DEADLINE: Duration = Duration::from_secs(2);

/// Disks that are looked at; a node has fewer.
const MAX_VOLUMES: usize = 256;

/// The name of the metadata's file system among the volumes.
const METADATA: &str = "metadata";

/// Looks at the host.
pub(crate) struct HostSensor {
    /// The machine.
    pub(crate) host: Host,
    /// How often.
    pub(crate) every: Duration,
    /// Which process the node is, and where it writes.
    pub(crate) view: watch::Receiver<View>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

/// A question to a file system that is still out.
type Asked = BTreeMap<String, oneshot::Receiver<Option<Space>>>;

impl HostSensor {
    /// Looks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.look_on() => {}
        }
    }

    async fn look_on(&self) {
        let mut turn = interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Where it writes does not change with every answer, and a node that is down has not moved.
        let mut places = BTreeMap::new();
        let mut asked = Asked::new();
        loop {
            turn.tick().await;
            let node = {
                let view = self.view.borrow();
                if let Some(fact) = &view.node.fact {
                    places = places_of(fact);
                }
                running(&view)
            };
            let machine = self.host.proc.clone();
            let load = self.host.blocking(move || machine.load(node)).await;
            let volumes = self.volumes(&places, &mut asked).await;
            let fact = HostFact {
                cpu_per_mille: load.cpu_per_mille,
                cpu_pressure_per_mille: load.cpu_pressure_per_mille,
                memory_pressure_per_mille: load.memory_pressure_per_mille,
                io_pressure_per_mille: load.io_pressure_per_mille,
                memory_total_bytes: load.memory_total_bytes,
                memory_available_bytes: load.memory_available_bytes,
                node_resident_bytes: load.process_resident_bytes,
                node_descriptors: load.process_descriptors,
                node_descriptors_limit: load.process_descriptors_limit,
                volumes,
            };
            // Only a stopping agent has dropped the receiver.
            let _ = self.out.send(Input::Observed(Observation::Host(Box::new(fact)))).await;
        }
    }

    async fn volumes(&self, places: &BTreeMap<String, PathBuf>, asked: &mut Asked) -> Vec<VolumeFact> {
        let known: BTreeSet<&String> = places.keys().collect();
        asked.retain(|name, _| known.contains(name));
        for (name, path) in places {
            if asked.contains_key(name) {
                continue;
            }
            let (disk, path, (tell, told)) = (self.host.disk.clone(), path.clone(), oneshot::channel());
            // On its own: what hangs in the kernel is not ended by nobody waiting for it.
            tokio::spawn(async move {
                // Nobody waits when the disk is known no more.
                let _ = tell.send(disk.space(&path).await.ok());
            });
            asked.insert(name.clone(), told);
        }
        let mut volumes = Vec::new();
        let until = tokio::time::Instant::now() + VOLUME_DEADLINE;
        let names: Vec<String> = asked.keys().cloned().collect();
        for name in names {
            let Some(told) = asked.get_mut(&name) else { continue };
            let Ok(answer) = timeout(until.saturating_duration_since(tokio::time::Instant::now()), told).await else {
                continue;
            };
            asked.remove(&name);
            // A file system that says no is gone: the node's own canary says so of a disk.
            let (Some(space), Some(path)) = (answer.ok().flatten(), places.get(&name)) else { continue };
            volumes.push(VolumeFact {
                name,
                path: path.display().to_string(),
                total_bytes: space.total_bytes,
                available_bytes: space.available_bytes,
                inodes_total: space.inodes_total,
                inodes_free: space.inodes_free,
            });
        }
        volumes
    }
}

fn places_of(fact: &NodeFact) -> BTreeMap<String, PathBuf> {
    let disks = fact.disks.iter().take(MAX_VOLUMES).map(|disk| (disk.disk.clone(), PathBuf::from(&disk.path)));
    let metadata = (!fact.data_dir.is_empty()).then(|| (METADATA.to_owned(), PathBuf::from(&fact.data_dir)));
    metadata.into_iter().chain(disks).collect()
}

#[cfg(test)]
mod tests {
    use resilver_strategies::api::DiskFact;

    use super::*;

    #[tokio::test]
    async fn the_metadatas_and_every_disks_room_is_told_and_one_that_is_gone_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let disk = |disk: &str, path: String| DiskFact { disk: disk.into(), path, ..DiskFact::default() };
        let disks = vec![disk("d1", path.clone()), disk("d2", format!("{path}/gone"))];
        let places = places_of(&NodeFact { data_dir: path, disks, ..NodeFact::default() });
        let (out, _inputs) = mpsc::channel(1);
        let (_, view) = watch::channel(View::new());
        let sensor = HostSensor { host: resilver_host::real::host(), every: Duration::from_secs(10), view, out };
        let mut asked = Asked::new();
        let volumes = sensor.volumes(&places, &mut asked).await;
        let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["d1", METADATA]);
        assert!(volumes.iter().all(|volume| volume.total_bytes >= volume.available_bytes && volume.total_bytes > 0));
        assert!(asked.is_empty());
    }
}

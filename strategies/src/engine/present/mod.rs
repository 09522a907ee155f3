//! What an incident's subject looks like now: one file per group of modes, read by `decide.rs`.
//!
//! Owns: whether there is still something to recover. Must never: act, or take what is not known for well.

mod applies;
mod disks;
mod process;
mod watched;

pub(crate) use applies::Applies;
pub(crate) use watched::is_watched;

use crate::api::Subject;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::incidents::Incident;
use crate::types::{Mode, Moment};

impl Engine {
    /// What the incident's subject looks like now.
    pub(crate) fn present(&self, now: Moment, incident: &Incident) -> Present {
        match (&incident.subject, incident.mode) {
            (_, mode) if is_watched(mode) => self.present_watched(now, incident),
            (_, Mode::CascadingFailure) => self.present_cascade(now, incident),
            (Subject::Node(_), _) => self.present_process(incident),
            (Subject::Hosts(hosts), _) => self.present_hosts(hosts),
            (Subject::Disk { disk, .. }, Mode::DataCorruption) => self.present_scan(disk),
            (Subject::Disk { disk, .. }, Mode::DiskDegrading) => self.present_degrading(now, incident, disk),
            (Subject::Disk { disk, .. }, _) => self.present_disk(incident, disk),
            (Subject::Object { .. }, _) if incident.mended => {
                Present::Prove("the node says that it has repaired it".to_owned())
            }
            (Subject::Object { .. }, _) => Present::Ill,
        }
    }
}

//! What is left of the machine: cores and memory by `sysinfo`, pressure, descriptors and control groups by procfs.
//!
//! Owns: the one use of `sysinfo`, with the look before it (a share of time needs two). Must never: fail as a whole because
//! one figure is not to be had: a kernel without PSI, a container without its own limits.

use std::fs;
#[cfg(feature = "resources")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "resources")]
use sysinfo::System;

use super::procfs;
use crate::{HostLoad, ProcId};

/// Looks at the machine.
pub(super) struct Looker {
    /// With whether it has looked before; `None`: it cannot look here.
    #[cfg(feature = "resources")]
    system: Mutex<Option<(System, bool)>>,
}

impl Looker {
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "resources")]
            system: Mutex::new(System::new().ok().map(|system| (system, false))),
        }
    }

    /// What is left, and what this process takes.
    pub(super) fn look(&self, of: Option<ProcId>) -> HostLoad {
        let mut load = HostLoad {
            cpu_pressure_per_mille: pressure("cpu"),
            memory_pressure_per_mille: pressure("memory"),
            io_pressure_per_mille: pressure("io"),
            ..HostLoad::default()
        };
        self.machine(&mut load);
        if let Some(id) = of {
            process(id, &mut load);
        }
        load
    }

    #[cfg(feature = "resources")]
    fn machine(&self, load: &mut HostLoad) {
        let mut held = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((system, looked)) = &mut *held else { return };
        system.refresh_cpu_usage();
        system.refresh_memory();
        // The first look has none to compare with.
        if std::mem::replace(looked, true) {
            load.cpu_per_mille = Some((system.global_cpu_usage() * 10.0).round().clamp(0.0, 1000.0) as u32);
        }
        load.memory_total_bytes = Some(system.total_memory()).filter(|bytes| *bytes > 0);
        load.memory_available_bytes = load.memory_total_bytes.map(|_| system.available_memory());
    }

    #[cfg(not(feature = "resources"))]
    fn machine(&self, _: &mut HostLoad) {}
}

/// Of a process, and of its control group where that may have less than the machine has.
fn process(id: ProcId, load: &mut HostLoad) {
    let memory = procfs::memory(id);
    let (open, may_open) = (procfs::descriptors(id.pid), procfs::descriptors_limit(id.pid));
    let group = procfs::group_memory(id.pid);
    // `memory` has looked whether it is this process; what was read after it is looked at once more.
    let Ok(Some(memory)) = memory else { return };
    if procfs::start_ticks(id.pid).ok().flatten() != Some(id.start_ticks) {
        return;
    }
    load.process_resident_bytes = Some(memory.resident_bytes);
    (load.process_descriptors, load.process_descriptors_limit) = (open, may_open);
    if let Some((limit, used)) = group.filter(|(limit, _)| load.memory_total_bytes.is_none_or(|total| *limit < total)) {
        let left = limit.saturating_sub(used);
        load.memory_total_bytes = Some(limit);
        load.memory_available_bytes = Some(load.memory_available_bytes.map_or(left, |host| host.min(left)));
    }
}

/// Of the last ten seconds, the share in which some task waited. `None`: the kernel has no PSI, or it is switched off.
fn pressure(what: &str) -> Option<u32> {
    some_avg10(&fs::read_to_string(format!("/proc/pressure/{what}")).ok()?)
}

fn some_avg10(text: &str) -> Option<u32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = some.split_ascii_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse().ok()?;
    Some((percent * 10.0).round().clamp(0.0, 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_share_of_the_last_ten_seconds() {
        let text =
            "some avg10=12.34 avg60=1.00 avg300=0.50 total=123\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(some_avg10(text), Some(123));
        assert_eq!(some_avg10("full avg10=3.00\n"), None);
        assert_eq!(some_avg10(""), None);
        assert_eq!(some_avg10("some avg10=much\n"), None);
    }

    #[test]
    fn a_look_at_this_machine_finds_this_process_and_no_other() {
        let own = procfs::own().expect("/proc is mounted");
        let looker = Looker::new();
        let load = looker.look(Some(own));
        assert!(load.process_resident_bytes.is_some_and(|bytes| bytes > 0), "{load:?}");
        let (open, may) = (load.process_descriptors.unwrap(), load.process_descriptors_limit.unwrap());
        assert!(open > 2 && open <= may, "{load:?}");
        let other = ProcId { start_ticks: own.start_ticks + 1, ..own };
        assert_eq!(looker.look(Some(other)).process_resident_bytes, None);
    }

    #[cfg(feature = "resources")]
    #[test]
    fn the_second_look_knows_how_busy_the_cores_were() {
        let looker = Looker::new();
        let first = looker.look(None);
        assert_eq!(first.cpu_per_mille, None);
        assert!(first.memory_available_bytes <= first.memory_total_bytes && first.memory_total_bytes > Some(0));
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        assert!(looker.look(None).cpu_per_mille.is_some_and(|share| share <= 1000));
    }
}

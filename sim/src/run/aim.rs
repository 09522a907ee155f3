//! What an event of the plan means now: which machine, which processes, which folder.
//!
//! Must never: change anything but the folder that whoever puts a new disk in makes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_sim_kernel::{Kernel, MachineId, Pid};

use super::inject::Field;
use super::links::Ill;
use crate::cluster::{disk_mount, shards_folder};
use crate::plan::{Ask, Cut, Event, Fault, Role, SPARE, Target, VOTERS};

pub(super) fn alive(kernel: &Kernel, pid: Pid) -> bool {
    kernel.processes().iter().any(|process| process.pid == pid && process.state.is_alive())
}

/// The machine an event strikes, now.
pub(super) fn resolve(field: &Field<'_>, target: Target) -> Option<usize> {
    let named = |name: &str| {
        (0..field.cluster.machines().len()).find(|at| field.kernel.machine_name(field.cluster.machine(*at)) == name)
    };
    match target {
        Target::Machine(place)
        | Target::Disk { machine: place, .. }
        | Target::MetaDisk(place)
        | Target::AgentDisk(place) => Some(field.places.index(place)),
        Target::RaftLeader => named(field.views.leader()?),
        Target::Follower => {
            let leader = field.views.leader();
            (1..=VOTERS)
                .map(|place| field.places.index(place))
                .find(|at| Some(field.kernel.machine_name(field.cluster.machine(*at)).as_str()) != leader)
        }
        Target::LeaseHolder => named(field.views.holder()?),
        Target::WhoeverActs => None,
    }
}

/// The names of the machines that an event strikes, now.
pub(super) fn machines(field: &Field<'_>, event: &Event) -> Vec<String> {
    let others: Vec<usize> = match event.fault {
        Fault::Apart { other, .. } => vec![field.places.index(other)],
        Fault::NodesApart { all: true } => (0..field.cluster.machines().len()).collect(),
        _ => Vec::new(),
    };
    let named = |index| field.kernel.machine_name(field.cluster.machine(index));
    let first = resolve(field, event.target);
    let others = others.into_iter().filter(|other| Some(*other) != first);
    first.into_iter().chain(others).map(named).collect()
}

pub(super) fn processes(field: &Field<'_>, index: usize, role: Role) -> Vec<Pid> {
    let machine = field.cluster.machine(index);
    let roles: &[&str] = match role {
        Role::Node => &["node"],
        Role::Agent => &["agent"],
        Role::Keeper => &["keeper"],
        Role::All => &["agent", "keeper", "node"],
    };
    roles.iter().filter_map(|role| field.kernel.find(machine, role)).collect()
}

/// The folder that becomes a disk: the spare's is a file system of its own; of a disk that the node was configured with it is
/// the configured one.
pub(super) fn folder(ask: Ask, mount: &Path) -> PathBuf {
    let spare = disk_mount(SPARE - 1);
    if ask == (Ask::Replace { spare: true }) || mount == spare { spare } else { shards_folder(mount) }
}

/// What whoever puts a new disk in does: makes the folder on it, if nothing is there.
pub(super) fn make_folder(kernel: &Kernel, machine: MachineId, mount: &Path, folder: &Path) {
    let system = kernel.file_system(machine);
    // What a new file system has in its root.
    if system.files(mount).is_empty()
        && let Err(error) = system.put(&folder.join("lost+found").join("none"), "")
    {
        tracing::warn!(%error, "a folder for a new disk could not be made");
    }
}

pub(super) fn ill(fault: Fault) -> Ill {
    match fault {
        Fault::Partition(cut) => Ill { no_in: cut != Cut::Outbound, no_out: cut != Cut::Inbound, ..Ill::default() },
        Fault::SlowLinks { low_ms, high_ms } => {
            let latency = Some((Duration::from_millis(low_ms), Duration::from_millis(high_ms)));
            Ill { latency, ..Ill::default() }
        }
        Fault::LossyLinks { permille } => Ill { loss_permille: permille, ..Ill::default() },
        _ => Ill::default(),
    }
}

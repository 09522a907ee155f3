//! Faults of disks: which device, which files, which bytes.
//!
//! Owns: the layout of a machine's files as the faults need it (see node/src/meta/storage.rs and node/src/disk/volume.rs).

use std::path::{Path, PathBuf};

use resilver_sim_disk::{DeviceFault, FileSystem, Filter, Times};
use resilver_sim_kernel::{Kernel, MachineId};

use crate::cluster::{AGENT_MOUNT, META_MOUNT, disk_mount};
use crate::plan::{DiskOp, Fault, Files, Target};

/// How far apart bits are flipped in a file that is ruined: a page of the database, and less than a segment of the log.
const RUINED_EVERY: u64 = 4096;
/// In which bytes of each: what lies behind the only record of a page means nothing to anybody.
const RUINED_BYTES: u64 = 64;

/// The folder of a disk's shards. What lies beside it is no shard (temporary, moved aside).
const SHARDS: &str = "shards";

/// The mount a target means.
pub(super) fn mount(target: Target) -> Option<PathBuf> {
    match target {
        Target::Disk { disk, .. } => Some(disk_mount(disk - 1)),
        Target::MetaDisk(_) => Some(PathBuf::from(META_MOUNT)),
        Target::AgentDisk(_) => Some(PathBuf::from(AGENT_MOUNT)),
        Target::Machine(_) | Target::RaftLeader | Target::Follower | Target::LeaseHolder | Target::WhoeverActs => None,
    }
}

/// The device fault that a fault of the plan stands for, if it is one that lasts.
pub(super) fn lasting(fault: Fault) -> Option<DeviceFault> {
    Some(match fault {
        Fault::DiskError(DiskOp::Read) => DeviceFault::read_error(Filter::Any, Times::Always),
        Fault::DiskError(DiskOp::Write) => DeviceFault::write_error(Filter::Any, Times::Always),
        Fault::DiskError(DiskOp::Sync) => DeviceFault::sync_error(Filter::Any, Times::Always),
        Fault::DiskFull => DeviceFault::Full,
        Fault::DiskCrowded { permille } => DeviceFault::Crowded { permille },
        Fault::DiskSlow { factor } => DeviceFault::Slow { factor },
        Fault::DiskHung => DeviceFault::Hung,
        Fault::DiskVanished | Fault::DiskReplaced => DeviceFault::Vanished,
        _ => return None,
    })
}

/// Which paths of a device are files of this kind. `None`: there are none yet.
pub(super) fn filter(system: &FileSystem, mount: &Path, files: Files) -> Option<Filter> {
    let meta = Path::new(META_MOUNT).join("data");
    Some(match files {
        Files::Shards => Filter::Under(shards(system, mount)?),
        Files::Log => Filter::Containing("/log/segment-".to_owned()),
        Files::Vote => Filter::Path(meta.join("log").join("vote")),
        Files::Database => Filter::Path(meta.join("state.redb")),
        Files::Snapshots => Filter::Under(meta.join("snapshots")),
    })
}

/// Where a disk's shards lie: `…/shards/4f/VERSION-EXTENT-SHARD`.
fn shards(system: &FileSystem, mount: &Path) -> Option<PathBuf> {
    system.files(mount).into_iter().find_map(|(path, _)| {
        version_of(&path)?;
        Some(path.parent()?.parent()?.to_owned())
    })
}

/// The version that a file is a shard of, if it is one.
pub(super) fn version_of(path: &Path) -> Option<&str> {
    let shelf = path.parent()?.parent()?.file_name()?;
    let mut parts = path.file_name()?.to_str()?.split('-');
    let version = parts.next()?;
    (shelf == SHARDS && parts.count() == 2).then_some(version)
}

/// Flips a bit in up to `count` of the files of a mount that match, in bytes that something was written to. How many.
pub(super) fn rot(
    kernel: &mut Kernel,
    machine: MachineId,
    mount: &Path,
    matches: impl Fn(&Path) -> bool,
    count: u32,
) -> u32 {
    let system = kernel.file_system(machine);
    let mut there: Vec<(PathBuf, u64)> =
        system.files(mount).into_iter().filter(|(path, len)| *len > 0 && matches(path)).collect();
    let mut rotted = 0;
    while rotted < count && !there.is_empty() {
        let at = kernel.rng().between(0, there.len() as u64 - 1) as usize;
        let (path, _) = there.swap_remove(at);
        let Some(end) = written(&system, &path) else { continue };
        rotted += u32::from(system.flip_bit(&path, 0..end).is_some());
    }
    rotted
}

/// Flips bits of all of these files, from end to end. How many.
pub(super) fn ruin(kernel: &Kernel, machine: MachineId, mount: &Path, files: Files) -> usize {
    let system = kernel.file_system(machine);
    let Some(filter) = filter(&system, mount, files) else { return 0 };
    let there = system.files(mount).into_iter().map(|(path, _)| path).filter(|path| filter.matches(path));
    let flips = there.filter_map(|path| Some((written(&system, &path)?, path))).flat_map(|(end, path)| {
        let system = &system;
        let pieces = (0..end).step_by(RUINED_EVERY as usize).map(move |from| from..end.min(from + RUINED_BYTES));
        pieces.filter_map(move |piece| system.flip_bit(&path, piece)).collect::<Vec<_>>()
    });
    flips.count()
}

/// Past the end of what was written nobody would miss a bit: log segments are mostly room.
fn written(system: &FileSystem, path: &Path) -> Option<u64> {
    let last = system.synced_content(path)?.iter().rposition(|byte| *byte != 0)?;
    Some(last as u64 + 1)
}

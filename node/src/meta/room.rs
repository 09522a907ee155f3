//! Room on the metadata disk: measured by each member for itself, told to all through the cluster map.
//!
//! Owns: the measure, the limits, and the verdict whether something that makes metadata grow may begin. Must never: hold
//! back what makes it shrink. A database that cannot grow stops its member, and with a majority of them the cluster: so the
//! last room is kept for deletes, for repair, and for the snapshot that lets the log be purged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_host::{FileKind, Host, Space};
use tokio::sync::watch;

use super::storage::Layout;
use super::{Meta, MetaError};
use crate::model::{Command, Outcome};
use crate::types::NodeName;

/// How often the room is measured: at the rate that the log takes commands, not a tenth of the reserve in between.
const INTERVAL: Duration = Duration::from_secs(10);

/// Room kept back beside that for a snapshot. A delete adds a kilobyte to the log, and to the database, which writes in new
/// pages, some kilobytes until the next flush: 512 MiB are some hundred thousand deletes, with three segments of the log
/// being filled meanwhile.
const RESERVE_BYTES: u64 = 512 * 1024 * 1024;

/// On a small file system (a test's, a demonstration's) the reserve is this part of it instead: a twentieth.
const RESERVE_PART: u64 = 20;

/// There is room again with this much more than the reserve, in percent of it: a member that stands at the limit must not
/// change the map with every object.
const HYSTERESIS_PERCENT: u64 = 50;

/// What a state takes that comes anew beside the one that is kept, in states: the snapshot as it arrives, and the database that it
/// is put into.
const COPIES: u64 = 2;

/// Room beside that for the log, which fills some segments of 8 MiB before the first is purged; or that part of a small file system
/// which is its reserve.
const NEW_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// Too little room for what makes metadata grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Here.
    #[error(
        "the metadata disk of this node ({0}) is nearly full: free space on it, or delete objects; deletes and reads go on"
    )]
    Here(PathBuf),
    /// At too many voters.
    #[error(
        "the metadata disks of too many nodes are nearly full ({}): free space on them, or delete objects; deletes and \
         reads go on", .0.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
    )]
    Voters(Vec<NodeName>),
}

/// Too little room for a state that comes anew beside the one that is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{available_bytes} bytes are free in {}, and {needed_bytes} are needed: what is there is kept aside, and the state comes \
     anew beside it; free some", dir.display()
)]
pub(crate) struct NoRoomBeside {
    /// The metadata folder.
    pub(crate) dir: PathBuf,
    /// What its file system still takes.
    pub(crate) available_bytes: u64,
    /// What would be needed.
    pub(crate) needed_bytes: u64,
}

/// Whether there is room in a member's folder for a state like the one in it, beside that. How large the cluster's is by now is not
/// known here: what is left of the member's own is the measure, and where nothing is left, only what every member needs.
pub(crate) async fn room_beside(host: &Host, dir: &Path) -> Result<Result<(), NoRoomBeside>, MetaError> {
    let layout = Layout::of(dir);
    let space = host.disk.space(dir).await.map_err(MetaError::io("measuring", dir))?;
    let mut state_bytes = length(host, &layout.database).await;
    // Either may be lost or damaged: neither is missed here.
    for entry in host.disk.list(&layout.snapshots).await.unwrap_or_default() {
        if entry.kind == FileKind::File {
            state_bytes = state_bytes.max(length(host, &layout.snapshots.join(entry.name)).await);
        }
    }
    let (available_bytes, needed_bytes) = (space.available_bytes, needed_beside(space.total_bytes, state_bytes));
    let refused = NoRoomBeside { dir: dir.to_owned(), available_bytes, needed_bytes };
    Ok(if available_bytes < needed_bytes { Err(refused) } else { Ok(()) })
}

async fn length(host: &Host, path: &Path) -> u64 {
    host.disk.metadata(path).await.map_or(0, |found| found.len_bytes)
}

fn needed_beside(total_bytes: u64, state_bytes: u64) -> u64 {
    state_bytes.saturating_mul(COPIES).saturating_add(NEW_LOG_BYTES.min(total_bytes / RESERVE_PART))
}

/// Where a member measures, and what it found.
pub(super) struct Room {
    pub(super) host: Host,
    pub(super) node: NodeName,
    /// The metadata folder.
    pub(super) dir: PathBuf,
    /// The database in it.
    pub(super) database: PathBuf,
    pub(super) low: watch::Sender<bool>,
}

impl Meta {
    /// Whether something that makes metadata grow may begin: this member has room, and a majority of the voters.
    ///
    /// # Errors
    /// Where the room is missing.
    pub fn has_room(&self) -> Result<(), NoRoom> {
        if *self.inner.room.low.borrow() {
            return Err(NoRoom::Here(self.inner.room.dir.clone()));
        }
        let (map, voters) = (self.map(), self.status().voters);
        let low: Vec<NodeName> = voters
            .iter()
            .filter_map(|voter| map.node_by_raft(*voter))
            .filter(|node| node.metadata_low)
            .map(|node| node.name.clone())
            .collect();
        let majority = voters.len() / 2 + 1;
        if voters.len() - low.len() < majority && !low.is_empty() { Err(NoRoom::Voters(low)) } else { Ok(()) }
    }
}

/// Measures for ever, and tells the map when the verdict is another.
pub(super) async fn run(meta: Meta, mut stop: watch::Receiver<bool>) {
    loop {
        let round = async {
            measure(&meta.inner.room).await;
            tell(&meta).await;
            tokio::time::sleep(INTERVAL).await;
        };
        tokio::select! {
            () = round => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn measure(room: &Room) {
    let disk = room.host.disk.as_ref();
    let space = disk.space(&room.dir).await;
    let database = disk.metadata(&room.database).await;
    let (space, database_bytes) = match (space, database) {
        (Ok(space), Ok(database)) => (space, database.len_bytes),
        (Err(error), _) | (_, Err(error)) => {
            tracing::debug!(dir = %room.dir.display(), %error, "the room on the metadata disk could not be measured");
            return;
        }
    };
    room.low.send_if_modified(|low| {
        let now = is_low(space, database_bytes, *low);
        if now != *low {
            let available_bytes = space.available_bytes;
            if now {
                tracing::warn!(dir = %room.dir.display(), available_bytes, "the metadata disk is nearly full");
            } else {
                tracing::info!(dir = %room.dir.display(), available_bytes, "the metadata disk has room again");
            }
        }
        std::mem::replace(low, now) != now
    });
}

/// The map is told again until it says what is so: a proposal may fail, and a member may have been low when it stopped.
async fn tell(meta: &Meta) {
    let room = &meta.inner.room;
    let low = *room.low.borrow();
    let told = meta.map().nodes.get(&room.node).map(|node| node.metadata_low);
    if told.is_none_or(|told| told == low) {
        return;
    }
    match meta.propose(Command::SetMetadataRoom { node: room.node.clone(), low }).await {
        Ok(Outcome::Done) => {}
        Ok(other) => tracing::debug!(?other, "the cluster map does not take what is told of the metadata disk"),
        Err(error) => tracing::debug!(%error, "the cluster map is told of the metadata disk in the next round"),
    }
}

/// The verdict. A snapshot is written whole beside the one before, and is at most as large as the database.
fn is_low(space: Space, database_bytes: u64, was: bool) -> bool {
    let reserve = RESERVE_BYTES.min(space.total_bytes / RESERVE_PART) + database_bytes;
    let limit = if was { reserve + reserve * HYSTERESIS_PERCENT / 100 } else { reserve };
    space.available_bytes < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn space(total_bytes: u64, available_bytes: u64) -> Space {
        Space { total_bytes, available_bytes, inodes_total: 0, inodes_free: 0 }
    }

    #[test]
    fn a_disk_is_low_within_its_reserve_and_stays_so_until_there_is_clearly_room_again() {
        let large = |available| space(100 * GIB, available);
        assert!(!is_low(large(GIB / 2), 0, false));
        assert!(is_low(large(GIB / 2 - 1), 0, false));
        assert!(is_low(large(GIB / 2), 0, true), "at the limit nothing changes");
        assert!(is_low(large(GIB * 3 / 4 - 1), 0, true));
        assert!(!is_low(large(GIB * 3 / 4), 0, true));
    }

    #[test]
    fn a_state_that_comes_anew_needs_room_for_its_snapshot_its_database_and_a_log() {
        assert_eq!(needed_beside(100 * GIB, 3 * GIB), 6 * GIB + NEW_LOG_BYTES);
        assert_eq!(needed_beside(GIB, 0), GIB / 20, "a part of a small disk");
        assert_eq!(needed_beside(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_reserve_holds_a_snapshot_and_is_a_part_of_a_small_disk() {
        assert!(is_low(space(100 * GIB, 2 * GIB), 2 * GIB, false), "a snapshot of the database would not fit");
        assert!(!is_low(space(100 * GIB, 3 * GIB), 2 * GIB, false));
        assert!(!is_low(space(GIB, GIB / 20), 0, false));
        assert!(is_low(space(GIB, GIB / 20 - 1), 0, false));
    }
}

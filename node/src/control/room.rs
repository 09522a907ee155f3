//! Whether what leaves a disk or a node, or is to be rebuilt because it is gone, fits on the others.
//!
//! Owns: the sums, by what nodes say of their disks just now, and by how many shards the metadata knows on each. Must never: change
//! anything; count on a disk that nobody speaks for.
//!
//! All refusals are RESOURCE_EXHAUSTED: nothing was done, and it may be asked again once there is room.

use std::sync::Arc;

use resilver_proto::contract::DiskState as Said;
use tonic::Status;

use super::Shared;
use super::voters::{Answers, ask};
use crate::model::{ClusterMap, DiskState};
use crate::state::Counts;
use crate::types::{DiskId, NodeName};

/// Of each disk that takes over, a twentieth stays free: file systems slow down long before they are full, and a disk that is
/// filled to the brim by this is the next one's emergency.
const ROOM_KEPT_PART: u64 = 20;

/// Refuses to empty a node whose shards the others have no room for.
pub(super) fn of_node(map: &ClusterMap, answers: &Answers, leaving: &NodeName) -> Result<(), Status> {
    let disks = |own: bool| {
        let said = answers.iter().filter(move |(node, _)| (*node == leaving) == own);
        said.flat_map(|(_, answer)| &answer.disks)
    };
    let need_bytes: u64 = disks(true).map(|disk| disk.used_bytes).sum();
    has(&format!("the {need_bytes} bytes on node {leaving}"), need_bytes, room_bytes(map, disks(false)))
}

/// Has a disk's emptying by an agent refused where what is on it does not fit on the others: it would fill them instead. A person
/// may know what comes next.
pub(super) async fn of_drained(shared: &Arc<Shared>, map: &ClusterMap, disk: DiskId) -> Result<(), Status> {
    // Asked once more it goes on.
    if map.disk_state(disk) == Some(DiskState::Draining) {
        return Ok(());
    }
    of_disk(map, &ask(shared, map).await, disk)
}

fn of_disk(map: &ClusterMap, answers: &Answers, leaving: DiskId) -> Result<(), Status> {
    let id = leaving.to_string();
    let all = || answers.values().flat_map(|answer| &answer.disks);
    let Some(need_bytes) = all().find(|disk| disk.disk_id == id).map(|disk| disk.used_bytes) else {
        return Err(Status::unavailable(format!("nobody says how much is on disk {id}. Nothing was changed")));
    };
    let room = room_bytes(map, all().filter(|disk| disk.disk_id != id));
    has(&format!("the {need_bytes} bytes on disk {id}"), need_bytes, room)
}

/// Has the giving up of a host by an agent refused where what was on it cannot be rebuilt on the others for want of room.
pub(super) async fn of_lost_node(shared: &Arc<Shared>, lost: &NodeName) -> Result<(), Status> {
    let core = shared.core()?;
    let map = core.meta.map();
    let gone = |disk: DiskId| map.disks.get(&disk).is_some_and(|record| record.node == *lost);
    let answers = ask(shared, &map).await;
    rebuilt(&map, &answers, &core.meta.counts(), gone, &format!("node {lost}"))
}

/// The same of a disk.
pub(super) async fn of_lost_disk(shared: &Arc<Shared>, map: &ClusterMap, lost: DiskId) -> Result<(), Status> {
    let core = shared.core()?;
    let answers = ask(shared, map).await;
    rebuilt(map, &answers, &core.meta.counts(), |disk| disk == lost, &format!("disk {lost}"))
}

/// What is gone says nothing of itself any more: how many shards it has the metadata knows, and how large one is those that answer.
/// What was given up before, and is not rebuilt yet, needs room as well.
fn rebuilt(
    map: &ClusterMap,
    answers: &Answers,
    counts: &Counts,
    gone: impl Fn(DiskId) -> bool,
    what: &str,
) -> Result<(), Status> {
    let shards = |of: &dyn Fn(DiskId) -> bool| -> u64 {
        counts.shards_by_disk.iter().filter(|(disk, _)| of(**disk)).map(|(_, shards)| shards).sum()
    };
    let own = shards(&gone);
    // One that was emptied needs no room, whatever others do.
    if own == 0 {
        return Ok(());
    }
    let before = shards(&|disk| !gone(disk) && map.disk_state(disk).is_none_or(DiskState::is_left));
    let told = || answers.values().flat_map(|answer| &answer.disks);
    let (used, known) =
        told().fold((0_u64, 0_u64), |(used, known), disk| (used + disk.used_bytes, known + disk.objects));
    let need_bytes = (own + before).saturating_mul(used.div_ceil(known.max(1)));
    let others = told().filter(|disk| disk.disk_id.parse().is_ok_and(|id| !gone(id)));
    let waiting = if before > 0 { format!(", and {before} that wait to be rebuilt already,") } else { String::new() };
    let what = format!("the {own} shards of {what}{waiting} (some {need_bytes} bytes)");
    has(&what, need_bytes, room_bytes(map, others))
}

/// The room of those disks that take shards, a part of each kept free.
fn room_bytes<'a>(map: &ClusterMap, disks: impl Iterator<Item = &'a Said>) -> u64 {
    let takes = |disk: &&Said| {
        disk.health == "ok" && disk.disk_id.parse().is_ok_and(|id| map.disk_state(id) == Some(DiskState::Up))
    };
    let room = |disk: &Said| disk.available_bytes.saturating_sub(disk.total_bytes / ROOM_KEPT_PART);
    disks.filter(takes).map(room).sum()
}

fn has(what: &str, need_bytes: u64, room_bytes: u64) -> Result<(), Status> {
    if need_bytes <= room_bytes {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "{what} do not fit elsewhere: the other disks that take shards have {room_bytes} bytes of room, a twentieth of each kept \
         free; add disks or nodes first. Nothing was changed"
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use resilver_proto::contract::ObserveResponse;

    use super::*;
    use crate::model::{DiskRecord, MarkedBy};

    /// A disk of each node, of 1000 bytes: how many are used, and how many available. Each shard has ten.
    fn told(disks: &[(u64, u64)]) -> (ClusterMap, Answers, Counts) {
        let (mut map, mut answers, mut counts) = (ClusterMap::default(), BTreeMap::new(), Counts::default());
        for (number, (used_bytes, available_bytes)) in (1_u128..).zip(disks) {
            let (id, node) = (DiskId(number), NodeName(format!("n{number}")));
            let record = DiskRecord {
                id,
                node: node.clone(),
                path: String::new(),
                capacity_bytes: 1000,
                state: DiskState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
            };
            map.disks.insert(id, record);
            counts.shards_by_disk.insert(id, used_bytes / 10);
            let disk = Said {
                disk_id: id.to_string(),
                health: "ok".into(),
                used_bytes: *used_bytes,
                available_bytes: *available_bytes,
                total_bytes: 1000,
                objects: used_bytes / 10,
                ..Said::default()
            };
            let answer = ObserveResponse { phase: "healthy".into(), disks: vec![disk], ..ObserveResponse::default() };
            answers.insert(node, answer);
        }
        (map, answers, counts)
    }

    fn said(result: Result<(), Status>) -> String {
        result.map_or_else(|status| status.message().to_owned(), |()| "fits".to_owned())
    }

    #[test]
    fn a_disk_is_emptied_by_an_agent_only_where_what_is_on_it_fits_elsewhere() {
        let (mut map, mut answers, _) = told(&[(300, 700), (800, 200), (700, 200)]);
        let verdict = |map: &ClusterMap, answers: &Answers, disk| said(of_disk(map, answers, DiskId(disk)));
        assert_eq!(verdict(&map, &answers, 1), "fits", "300 in 150 and 150, a twentieth of each kept");
        assert_eq!(verdict(&map, &answers, 3), "fits", "700 in 650 and 150");
        map.disks.get_mut(&DiskId(2)).unwrap().state = DiskState::ReadOnly;
        let refused = verdict(&map, &answers, 3);
        assert!(refused.contains("the 700 bytes on disk") && refused.contains("have 650 bytes of room"), "{refused}");
        answers.clear();
        assert!(verdict(&map, &answers, 1).contains("nobody says how much"));
    }

    #[test]
    fn a_node_is_emptied_only_where_what_is_on_it_fits_elsewhere() {
        let (mut map, mut answers, _) = told(&[(300, 700), (800, 200), (700, 200)]);
        let verdict = |map: &ClusterMap, answers: &Answers| said(of_node(map, answers, &"n1".into()));
        assert_eq!(verdict(&map, &answers), "fits", "two times 150");
        map.disks.get_mut(&DiskId(3)).unwrap().state = DiskState::ReadOnly;
        let why = verdict(&map, &answers);
        assert!(why.contains("the 300 bytes on node n1") && why.contains("150 bytes of room"), "{why}");
        map.disks.get_mut(&DiskId(3)).unwrap().state = DiskState::Up;
        answers.get_mut(&"n2".into()).unwrap().disks[0].health = "gone".into();
        assert_ne!(verdict(&map, &answers), "fits");
        answers.remove(&"n2".into());
        assert_ne!(verdict(&map, &answers), "fits", "what nobody speaks for is no room");
    }

    #[test]
    fn what_is_gone_is_given_up_only_where_it_can_be_rebuilt_elsewhere() {
        let (mut map, mut answers, mut counts) = told(&[(300, 700), (800, 200), (700, 200)]);
        answers.remove(&"n1".into());
        let verdict = |map: &ClusterMap, answers: &Answers, counts: &Counts, lost: u128| {
            said(rebuilt(map, answers, counts, |disk| disk == DiskId(lost), "node n1"))
        };
        assert_eq!(verdict(&map, &answers, &counts, 1), "fits", "30 shards of 10 bytes in 150 and 150");
        counts.shards_by_disk.insert(DiskId(1), 31);
        let why = verdict(&map, &answers, &counts, 1);
        assert!(
            why.contains("the 31 shards of node n1 (some 310 bytes)") && why.contains("300 bytes of room"),
            "{why}"
        );
        // Another one was given up just before, and is not rebuilt yet.
        (map, answers, counts) = told(&[(100, 700), (100, 700), (700, 200), (700, 200)]);
        answers.remove(&"n1".into());
        assert_eq!(verdict(&map, &answers, &counts, 1), "fits");
        map.disks.get_mut(&DiskId(2)).unwrap().state = DiskState::Out;
        answers.remove(&"n2".into());
        assert_eq!(verdict(&map, &answers, &counts, 1), "fits", "20 shards in 150 and 150");
        counts.shards_by_disk.insert(DiskId(2), 25);
        let why = verdict(&map, &answers, &counts, 1);
        assert!(why.contains("and 25 that wait to be rebuilt already"), "{why}");
        // What has been emptied takes no room.
        counts.shards_by_disk.remove(&DiskId(1));
        assert_eq!(verdict(&map, &answers, &counts, 1), "fits");
    }
}

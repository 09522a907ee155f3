//! Where a shard is to be: pure rules over the cluster map, the same for every node that asks.
//!
//! Must never: name a disk that takes no new shards; hurry a host that is only away.

use crate::gateway::ExtentSpec;
use crate::model::{ClusterMap, DiskState, Home, HostState, NodeRecord};
use crate::placement::replacement;
use crate::types::{DiskId, ShardIndex};

/// Where a shard that is lost or bad is to be rebuilt: in its place while that disk may be written, elsewhere once the
/// disk is given up or never got it. `None`: nowhere now.
pub fn target_of(map: &ClusterMap, spec: &ExtentSpec, shard: ShardIndex) -> Option<DiskId> {
    let home = spec.homes.get(shard.as_usize())?;
    match home.at.and_then(|disk| Some((disk, map.disk_state(disk)?))) {
        Some((disk, DiskState::Up)) => Some(disk),
        // It may come back as it was: whoever set it so also ends it.
        Some((_, DiskState::ReadOnly | DiskState::Down)) => None,
        None if waits_for_its_host(map, spec, *home) => None,
        Some((_, DiskState::Draining | DiskState::Out)) | None => {
            replacement(map, spec.id.version, spec.id.index, spec.coding, &spec.homes, shard)
        }
    }
}

/// Whether a shard that is nowhere waits for the host it belongs to, which is down for a while: to rebuild it elsewhere at
/// once is a rebuild storm for every host that is restarted. Not while the extent could not lose one more shard.
fn waits_for_its_host(map: &ClusterMap, spec: &ExtentSpec, home: Home) -> bool {
    let left = spec.homes.iter().filter(|home| home.at.is_some_and(|disk| map.readable(disk))).count();
    let waited_for = |node: &NodeRecord| node.state == HostState::Down && node.keeps_its_place();
    let down = map.node_of_disk(home.wanted).is_some_and(waited_for);
    let was_well = map.disks.get(&home.wanted).is_some_and(|disk| disk.state == DiskState::Up);
    down && was_well && left > usize::from(spec.coding.k)
}

/// The disk that a shard belongs on while a stand-in has it, if it may be written: the hint that the metadata keeps of it.
pub(super) fn delivery_of(map: &ClusterMap, home: Home) -> Option<DiskId> {
    home.at.filter(|at| *at != home.wanted)?;
    Some(home.wanted).filter(|disk| map.disk_state(*disk) == Some(DiskState::Up))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BLOCK_BYTES, Coding, DiskRecord, Location, Mark, MarkedBy};
    use crate::types::{ExtentId, ExtentIndex, InstanceId, NodeName, RaftId, Version};

    /// Six hosts with a disk each: host `nI` has disk `I`.
    fn map() -> ClusterMap {
        let mut map = ClusterMap::default();
        for index in 1..=6_u64 {
            let name = NodeName(format!("n{index}"));
            let node = NodeRecord {
                name: name.clone(),
                raft_id: RaftId(index),
                instance: InstanceId(u128::from(index)),
                address: String::new(),
                location: Location::default(),
                metadata_low: false,
                state: HostState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
                attempt: None,
                draining: None,
                no_vote: None,
            };
            let disk = DiskRecord {
                id: DiskId(u128::from(index)),
                node: name.clone(),
                path: String::new(),
                capacity_bytes: 1 << 30,
                state: DiskState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
            };
            map.nodes.insert(name, node);
            map.disks.insert(disk.id, disk);
        }
        map
    }

    fn mark(map: &mut ClusterMap, host: u64, state: HostState) {
        map.nodes.get_mut(&NodeName(format!("n{host}"))).unwrap().state = state;
    }

    /// 2+2 on the first four disks.
    fn extent(at: [Option<u128>; 4]) -> ExtentSpec {
        ExtentSpec {
            bucket: "b".into(),
            key: "k".into(),
            id: ExtentId { version: Version(1), index: ExtentIndex(0) },
            coding: Coding { k: 2, m: 2 },
            block_bytes: BLOCK_BYTES,
            len_bytes: 1,
            homes: (1..).zip(at).map(|(wanted, at)| Home { at: at.map(DiskId), wanted: DiskId(wanted) }).collect(),
        }
    }

    const WHOLE: [Option<u128>; 4] = [Some(1), Some(2), Some(3), Some(4)];

    fn target(map: &ClusterMap, at: [Option<u128>; 4]) -> Option<u128> {
        target_of(map, &extent(at), ShardIndex(3)).map(|disk| disk.0)
    }

    #[test]
    fn what_is_on_a_host_that_is_down_waits_and_of_one_that_is_out_is_rebuilt_elsewhere() {
        let mut map = map();
        assert_eq!(target(&map, WHOLE), Some(4), "in its place");
        mark(&mut map, 4, HostState::Down);
        assert_eq!(target(&map, WHOLE), None);
        mark(&mut map, 4, HostState::Out);
        assert!(matches!(target(&map, WHOLE), Some(5 | 6)));
    }

    #[test]
    fn a_shard_that_is_nowhere_waits_for_its_host_only_while_another_may_be_lost() {
        let mut map = map();
        let missing = [Some(1), Some(2), Some(3), None];
        assert_eq!(target(&map, missing), Some(4), "its own home takes it");
        mark(&mut map, 4, HostState::Down);
        assert_eq!(target(&map, missing), None, "three are left, two are needed");
        mark(&mut map, 3, HostState::Down);
        assert!(matches!(target(&map, missing), Some(5 | 6)), "one more lost would be the end");
        mark(&mut map, 3, HostState::Up);
        mark(&mut map, 4, HostState::Out);
        assert!(matches!(target(&map, missing), Some(5 | 6)), "nobody waits for what is given up");
        // It is the disk that was given up, not only its host that is away.
        mark(&mut map, 4, HostState::Down);
        map.disks.get_mut(&DiskId(4)).unwrap().state = DiskState::Out;
        assert!(matches!(target(&map, missing), Some(5 | 6)));
    }

    #[test]
    fn what_is_on_a_disk_that_is_emptied_goes_elsewhere_and_counts_until_then() {
        let mut map = map();
        map.disks.get_mut(&DiskId(4)).unwrap().state = DiskState::Draining;
        assert!(matches!(target(&map, WHOLE), Some(5 | 6)));
        assert!(map.readable(DiskId(4)), "nothing is missing before it is there");
        assert_eq!(target(&map, [Some(1), Some(2), Some(3), Some(5)]), Some(5), "and there it stays");
    }

    #[test]
    fn what_is_on_a_host_that_is_emptied_goes_elsewhere_and_waits_while_that_is_away() {
        let mut map = map();
        map.nodes.get_mut(&"n4".into()).unwrap().draining =
            Some(Mark { by: MarkedBy::Operator, reason: String::new() });
        assert!(matches!(target(&map, WHOLE), Some(5 | 6)));
        let stood_in = Home { at: Some(DiskId(5)), wanted: DiskId(4) };
        assert_eq!(delivery_of(&map, stood_in), None, "it takes nothing back");
        mark(&mut map, 4, HostState::Down);
        assert_eq!(target(&map, WHOLE), None, "it cannot be read now, and is expected back");
        let missing = [Some(1), Some(2), Some(3), None];
        assert!(matches!(target(&map, missing), Some(5 | 6)), "nothing belongs there any more: nobody waits for it");
    }

    #[test]
    fn a_hint_is_delivered_to_a_host_that_is_up() {
        let mut map = map();
        let stood_in = Home { at: Some(DiskId(5)), wanted: DiskId(4) };
        assert_eq!(delivery_of(&map, stood_in), Some(DiskId(4)));
        for state in [HostState::Down, HostState::Out] {
            mark(&mut map, 4, state);
            assert_eq!(delivery_of(&map, stood_in), None);
        }
        assert_eq!(delivery_of(&map, Home { at: Some(DiskId(5)), wanted: DiskId(5) }), None);
    }
}

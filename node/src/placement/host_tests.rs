//! Hosts that are down and out: what belongs where, and that the domains hold all the way.

use proptest::prelude::*;

use super::tests::{clusters, coding, flat, homes, map, spread};
use super::*;
use crate::model::{Home, HostState};
use crate::types::ShardIndex;

fn set(map: &mut ClusterMap, node: &NodeName, state: HostState) {
    map.nodes.get_mut(node).unwrap().state = state;
}

fn on(map: &ClusterMap, disk: DiskId) -> HostState {
    map.node_of_disk(disk).unwrap().state
}

fn recorded(homes: &[DiskId]) -> Vec<Home> {
    homes.iter().map(|disk| Home { at: Some(*disk), wanted: *disk }).collect()
}

/// As repair does it: one shard after the other, each recorded before the next is looked at, until nothing is to be done.
fn repaired(map: &ClusterMap, version: Version, coding: Coding, mut homes: Vec<Home>) -> Vec<Home> {
    for _ in 0..homes.len() * 3 {
        for shard in 0..homes.len() {
            let index = ShardIndex(u8::try_from(shard).unwrap());
            if let Some(wanted) = settled(map, version, ExtentIndex(0), coding, &homes, index) {
                homes[shard].wanted = wanted;
            }
            let Home { at, wanted } = homes[shard];
            let lost = at.is_none_or(|at| map.disk_state(at) == Some(DiskState::Out));
            let deliverable = at != Some(wanted) && map.disk_state(wanted) == Some(DiskState::Up);
            let target = match (lost, deliverable) {
                (true, _) => replacement(map, version, ExtentIndex(0), coding, &homes, index),
                (false, true) => Some(wanted),
                (false, false) => None,
            };
            // The metadata refuses two shards of an extent on one disk.
            let taken = |disk| homes.iter().enumerate().any(|(at, home)| at != shard && home.at == Some(disk));
            if let Some(disk) = target.filter(|disk| !taken(*disk)) {
                homes[shard] = Home { at: Some(disk), wanted: disk };
            }
        }
    }
    homes
}

fn at(homes: &[Home]) -> Vec<DiskId> {
    homes.iter().filter_map(|home| home.at).collect()
}

/// Hosts that have a disk and are up.
fn up_hosts(map: &ClusterMap) -> usize {
    let names: BTreeSet<&NodeName> = disks(map, Which::Writable).map(|(_, node)| &node.name).collect();
    names.len()
}

proptest! {
    /// Whatever hosts are down or out: new shards belong on hosts that are not out, one on each while there are enough, and
    /// what is written elsewhere for now is written on hosts that are up.
    #[test]
    fn marks_of_hosts_keep_the_domains(hosts in clusters(), marks in prop::collection::vec(0_u8..3, 10), version: u128) {
        let mut map = map(&hosts);
        let names: Vec<NodeName> = map.nodes.keys().cloned().collect();
        for (name, mark) in names.iter().zip(&marks) {
            set(&mut map, name, HostState::ALL[usize::from(*mark)]);
        }
        let (coding, version) = (coding(2, 1), Version(version));
        let kept = map.nodes.values().filter(|node| node.state != HostState::Out).count();
        let placed = place(&map, version, ExtentIndex(0), coding);
        let Ok(Placement { homes, .. }) = placed else {
            let have = disks(&map, Which::Homes).count();
            prop_assert!(have < coding.total(), "{have} disks are enough");
            return Ok(());
        };
        prop_assert!(homes.iter().all(|home| on(&map, *home) != HostState::Out));
        if kept >= coding.total() {
            prop_assert_eq!(spread(&map, DomainLevel::Host, &homes)[0], 1);
        }
        let in_doubt = |disk| on(&map, disk) != HostState::Up;
        if let Some(disk) = stand_in(&map, version, ExtentIndex(0), coding, &homes, in_doubt) {
            prop_assert_eq!(on(&map, disk), HostState::Up);
            prop_assert!(!homes.contains(&disk));
        }
        let mut lost = recorded(&homes);
        lost[0].at = None;
        if let Some(disk) = replacement(&map, version, ExtentIndex(0), coding, &lost, ShardIndex(0)) {
            prop_assert_eq!(on(&map, disk), HostState::Up);
        }
    }

    /// A host goes out, everything is rebuilt; it comes back, and another goes: never two shards on one disk, never two on
    /// one host while there are enough, and what was rebuilt elsewhere stays there.
    #[test]
    fn hosts_that_come_and_go_never_bring_two_shards_together(
        hosts in clusters(), version: u128, first: prop::sample::Index, second: prop::sample::Index,
    ) {
        let mut map = map(&hosts);
        let (coding, version) = (coding(2, 2), Version(version));
        let names: Vec<NodeName> = map.nodes.keys().cloned().collect();
        let Ok(Placement { homes, .. }) = place(&map, version, ExtentIndex(0), coding) else { return Ok(()) };
        let mut now = recorded(&homes);
        for gone in [first.get(&names), second.get(&names)] {
            set(&mut map, gone, HostState::Out);
            now = repaired(&map, version, coding, now);
            let placed = at(&now);
            prop_assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), coding.total(), "one disk each: {:?}", now);
            if writable_disks(&map) >= coding.total() {
                prop_assert!(placed.iter().all(|disk| on(&map, *disk) == HostState::Up), "{now:?}");
                prop_assert!(now.iter().all(|home| home.at == Some(home.wanted)), "{now:?}");
            }
            if up_hosts(&map) >= coding.total() {
                prop_assert_eq!(spread(&map, DomainLevel::Host, &placed)[0], 1);
            }
            set(&mut map, gone, HostState::Up);
            prop_assert_eq!(repaired(&map, version, coding, now.clone()), now.clone(), "nothing moves back");
        }
    }

    /// What was put while a host was down is put right, whichever way the host goes: back, or out.
    #[test]
    fn stand_ins_end_where_they_belong(hosts in clusters(), version: u128, gone: prop::sample::Index, back: bool) {
        let mut map = map(&hosts);
        let (coding, version) = (coding(2, 2), Version(version));
        let names: Vec<NodeName> = map.nodes.keys().cloned().collect();
        let gone = gone.get(&names);
        set(&mut map, gone, HostState::Down);
        let Ok(Placement { homes, .. }) = place(&map, version, ExtentIndex(0), coding) else { return Ok(()) };
        let mut now = recorded(&homes);
        for shard in 0..now.len() {
            if on(&map, now[shard].wanted) == HostState::Up {
                continue;
            }
            let taken: Vec<DiskId> = now.iter().flat_map(|home| home.at.into_iter().chain([home.wanted])).collect();
            let in_doubt = |disk| on(&map, disk) != HostState::Up;
            now[shard].at = stand_in(&map, version, ExtentIndex(0), coding, &taken, in_doubt);
        }
        let stood_in = now.iter().all(|home| home.at.is_some());
        set(&mut map, gone, if back { HostState::Up } else { HostState::Out });
        let after = repaired(&map, version, coding, now);
        if back && stood_in {
            prop_assert_eq!(at(&after), homes, "each went home");
        } else if !back && up_hosts(&map) >= coding.total() {
            prop_assert!(after.iter().all(|home| home.at == Some(home.wanted)), "{after:?}");
            prop_assert_eq!(spread(&map, DomainLevel::Host, &at(&after))[0], 1, "{:?}", after);
        }
    }
}

#[test]
fn a_host_that_is_down_keeps_its_place_and_one_that_is_out_does_not() {
    let six = flat(6, 2);
    let name = NodeName::from("n2");
    let belongs = |map: &ClusterMap| {
        (0..50).filter(|v| homes(map, *v, coding(4, 2)).iter().any(|d| map.disks[d].node == name)).count()
    };
    let (mut down, mut out) = (six.clone(), six.clone());
    set(&mut down, &name, HostState::Down);
    set(&mut out, &name, HostState::Out);
    assert_eq!((belongs(&six), belongs(&down), belongs(&out)), (50, 50, 0));
    for version in 0..50 {
        assert_eq!(homes(&down, version, coding(4, 2)), homes(&six, version, coding(4, 2)));
    }
    // Nor does one that is down make the cluster promise less.
    assert_eq!(failure_domain(&down, coding(4, 2)), DomainLevel::Host);
    assert_eq!(failure_domain(&out, coding(4, 2)), DomainLevel::Disk);
    assert_eq!(default_coding(&down), Ok((coding(4, 2), None)));
    assert_eq!(default_coding(&out), Ok((coding(2, 2), None)));
    assert_eq!((writable_disks(&down), writable_disks(&out)), (10, 10));
}

#[test]
fn a_stand_in_is_settled_where_it_is_unless_it_stands_beside_another_shard() {
    let mut map = flat(6, 2);
    let (version, coding) = (Version(3), coding(2, 2));
    let placed = homes(&map, 3, coding);
    let gone = map.disks[&placed[0]].node.clone();
    let twin = |of: DiskId| {
        let node = &map.disks[&of].node;
        map.disks.values().find(|disk| disk.node == *node && disk.id != of).unwrap().id
    };
    let free = map.disks.values().find(|disk| !placed.iter().any(|home| map.disks[home].node == disk.node)).unwrap().id;
    let (crowded, mut homes) = (twin(placed[1]), recorded(&placed));
    let settle = |map: &ClusterMap, homes: &[Home]| settled(map, version, ExtentIndex(0), coding, homes, ShardIndex(0));

    homes[0].at = Some(free);
    set(&mut map, &gone, HostState::Down);
    assert_eq!(settle(&map, &homes), None, "its home may still come back");
    set(&mut map, &gone, HostState::Out);
    assert_eq!(settle(&map, &homes), Some(free));

    homes[0].at = Some(crowded);
    let better = settle(&map, &homes).unwrap();
    assert!(!placed.iter().any(|home| map.disks[home].node == map.disks[&better].node), "a host of its own");

    // Its home was given to another shard of the extent: it does not wait for that one.
    set(&mut map, &gone, HostState::Up);
    homes[0].at = Some(free);
    homes[1].at = Some(placed[0]);
    assert_eq!(settle(&map, &homes), Some(free));
}

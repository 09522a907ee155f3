use proptest::prelude::*;

use super::*;
use crate::model::{Home, HostState, Location, MarkedBy};
use crate::types::{InstanceId, RaftId, ShardIndex};

/// A host of a test: datacenter, rack, and the sizes of its disks in GiB.
pub(super) type HostShape = (u8, u8, Vec<u64>);

pub(super) fn map(hosts: &[HostShape]) -> ClusterMap {
    let mut map = ClusterMap::default();
    for (i, (datacenter, rack, disks)) in hosts.iter().enumerate() {
        let name = NodeName(format!("n{i}"));
        let location = Location { datacenter: format!("dc{datacenter}"), rack: format!("r{rack}") };
        let raft_id = RaftId(i as u64);
        let instance = InstanceId(i as u128);
        map.nodes.insert(
            name.clone(),
            NodeRecord {
                name: name.clone(),
                raft_id,
                instance,
                address: String::new(),
                location,
                metadata_low: false,
                state: HostState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
                attempt: None,
                draining: None,
                no_vote: None,
            },
        );
        for (d, size) in disks.iter().enumerate() {
            let id = DiskId(((i as u128 + 1) << 64) | ((d as u128 + 1) * 0x9E37_79B9));
            map.disks.insert(
                id,
                DiskRecord {
                    id,
                    node: name.clone(),
                    path: String::new(),
                    capacity_bytes: size << 30,
                    state: DiskState::Up,
                    marked_by: MarkedBy::Automatic,
                    reason: String::new(),
                },
            );
        }
    }
    map
}

/// `hosts` hosts in one rack with `disks` equal disks each.
pub(super) fn flat(hosts: usize, disks: usize) -> ClusterMap {
    map(&vec![(0, 0, vec![100; disks]); hosts])
}

pub(super) fn coding(k: u8, m: u8) -> Coding {
    Coding { k, m }
}

pub(super) fn homes(map: &ClusterMap, version: u128, coding: Coding) -> Vec<DiskId> {
    place(map, Version(version), ExtentIndex(0), coding).unwrap().homes
}

/// How many of these stand in each domain of a level, most first.
pub(super) fn spread(map: &ClusterMap, level: DomainLevel, homes: &[DiskId]) -> Vec<usize> {
    let mut counts: BTreeMap<Domain<'_>, usize> = BTreeMap::new();
    for home in homes {
        *counts.entry(domain(level, map.node_of_disk(*home).unwrap(), *home)).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// Clusters of two datacenters with up to three racks, up to nine hosts, up to four disks each.
pub(super) fn clusters() -> impl Strategy<Value = Vec<HostShape>> {
    let host = (0_u8..2, 0_u8..3, prop::collection::vec(1_u64..2000, 1..5));
    prop::collection::vec(host, 1..10)
}

proptest! {
    /// The invariants of the module, whatever the cluster looks like.
    #[test]
    fn domains_are_respected(hosts in clusters(), version: u128, k in 1_u8..6, m in 1_u8..4) {
        let (map, coding) = (map(&hosts), coding(k, m));
        let n = coding.total();
        let placed = place(&map, Version(version), ExtentIndex(3), coding);
        if map.disks.len() < n {
            prop_assert_eq!(placed, Err(PlacementError::TooFewDisks { need: n, have: map.disks.len() }));
            return Ok(());
        }
        let Placement { homes, domain: achieved } = placed.unwrap();
        prop_assert_eq!(homes.len(), n);
        prop_assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), n, "never two on one disk");
        let on_hosts = spread(&map, DomainLevel::Host, &homes);
        if hosts.len() >= n {
            prop_assert_eq!(on_hosts[0], 1, "never two on one host while there are enough");
        }
        // Even: no host has two more than one that still has a free disk, unless its rack or datacenter is full.
        let caps = Caps::of(&candidates(&map, Version(version), ExtentIndex(3), Which::Homes), n);
        for node in map.nodes.values() {
            let inside = |level| {
                let mine = domain(level, node, DiskId(0));
                homes.iter().filter(|d| domain(level, map.node_of_disk(**d).unwrap(), DiskId(0)) == mine).count()
            };
            let has = inside(DomainLevel::Host);
            let disks = map.disks.values().filter(|disk| disk.node == node.name).count();
            let full = inside(DomainLevel::Rack) == caps.rack || inside(DomainLevel::Datacenter) == caps.datacenter;
            prop_assert!(has == disks || full || has + 1 >= on_hosts[0], "{} could take one more", node.name);
            prop_assert!(inside(DomainLevel::Rack) <= caps.rack && inside(DomainLevel::Datacenter) <= caps.datacenter);
        }
        for level in DomainLevel::ALL {
            let distinct = spread(&map, level, &homes)[0] == 1;
            prop_assert_eq!(distinct, level >= achieved);
        }
        prop_assert_eq!(achieved, failure_domain(&map, coding), "each shard has a domain of its own if any could");
    }

    /// A disk that goes is replaced by one other disk, and only in the sets it was in.
    #[test]
    fn a_disk_that_goes_moves_only_its_own_shards(hosts in clusters(), version: u128, gone: prop::sample::Index) {
        let before = map(&hosts);
        let coding = coding(2, 2);
        if before.disks.len() <= coding.total() {
 return Ok(());
}
        let gone = *gone.get(&before.disks.keys().copied().collect::<Vec<_>>());
        let mut after = before.clone();
        after.disks.get_mut(&gone).unwrap().state = DiskState::Out;
        let was: BTreeSet<DiskId> = homes(&before, version, coding).into_iter().collect();
        let is: BTreeSet<DiskId> = homes(&after, version, coding).into_iter().collect();
        let caps = |map: &ClusterMap| Caps::of(&candidates(map, Version(version), ExtentIndex(0), Which::Homes), coding.total());
        if !was.contains(&gone) && caps(&before) == caps(&after) {
            prop_assert_eq!(&was, &is, "it was not theirs");
        }
        if caps(&before) == caps(&after) {
            prop_assert!(was.difference(&is).count() <= 1, "{was:?} became {is:?}");
        }
    }

    /// A disk that comes only takes; what it does not take stays where it was.
    #[test]
    fn a_disk_that_comes_only_draws_shards_to_itself(hosts in clusters(), version: u128, new: prop::sample::Index) {
        let after = map(&hosts);
        let coding = coding(2, 1);
        if after.disks.len() <= coding.total() {
 return Ok(());
}
        let new = *new.get(&after.disks.keys().copied().collect::<Vec<_>>());
        let mut before = after.clone();
        before.disks.remove(&new);
        let caps = |map: &ClusterMap| Caps::of(&candidates(map, Version(version), ExtentIndex(0), Which::Homes), coding.total());
        if caps(&before) != caps(&after) {
 return Ok(());
}
        let was: BTreeSet<DiskId> = homes(&before, version, coding).into_iter().collect();
        let is: BTreeSet<DiskId> = homes(&after, version, coding).into_iter().collect();
        let came: Vec<&DiskId> = is.difference(&was).collect();
        // On its host it may push another disk of that host out of its turn: still one place.
        prop_assert!(came.is_empty() || came == [&new], "{was:?} became {is:?}");
    }

    /// One shard lost: its new home collides with no other, keeps apart what can be kept apart, and is the same for all.
    #[test]
    fn a_replacement_keeps_the_domains(hosts in clusters(), version: u128, lost in 0_u8..5) {
        let mut map = map(&hosts);
        let coding = coding(3, 2);
        let n = coding.total();
        if map.disks.len() <= n {
 return Ok(());
}
        let placed = homes(&map, version, coding);
        let recorded: Vec<Home> = placed.iter().map(|disk| Home { at: Some(*disk), wanted: *disk }).collect();
        let choose = |map: &ClusterMap, homes: &[Home]| {
            replacement(map, Version(version), ExtentIndex(0), coding, homes, ShardIndex(lost))
        };
        let home = placed[usize::from(lost)];
        prop_assert_eq!(choose(&map, &recorded), Some(home), "while its wanted home is well, there it belongs");
        map.disks.get_mut(&home).unwrap().state = DiskState::Out;
        let chosen = choose(&map, &recorded).expect("there is a spare disk");
        prop_assert!(!placed.contains(&chosen));
        let mut now = placed.clone();
        now[usize::from(lost)] = chosen;
        let up: BTreeSet<&NodeName> =
            map.disks.values().filter(|disk| disk.state == DiskState::Up).map(|disk| &disk.node).collect();
        if up.len() >= n {
            prop_assert_eq!(spread(&map, DomainLevel::Host, &now)[0], 1);
        }
    }
}

#[test]
fn placement_is_what_it_always_was() {
    let map = map(&[(0, 0, vec![10, 20]), (0, 1, vec![10]), (1, 0, vec![40, 40]), (1, 1, vec![5])]);
    let placed = place(&map, Version(7), ExtentIndex(1), coding(2, 2)).unwrap();
    let names: Vec<&str> = placed.homes.iter().map(|disk| map.disks[disk].node.as_str()).collect();
    assert_eq!((names, placed.domain), (GOLDEN_NODES.to_vec(), DomainLevel::Rack));
    assert_eq!(place(&map, Version(7), ExtentIndex(1), coding(2, 2)).unwrap(), placed);
}

/// A change here moves data of clusters that exist.
const GOLDEN_NODES: [&str; 4] = ["n2", "n0", "n3", "n1"];

#[test]
fn racks_and_datacenters_are_filled_evenly_when_there_are_too_few() {
    // Six hosts in three racks of two: two shards in each rack.
    let three = map(&[0, 0, 1, 1, 2, 2].map(|rack| (0, rack, vec![100, 100])));
    // Eight hosts, six of them in one datacenter: still half and half.
    let lopsided = map(&[0, 0, 0, 0, 0, 0, 1, 1].map(|datacenter| (datacenter, 0, vec![100])));
    for version in 0..200 {
        assert_eq!(spread(&three, DomainLevel::Rack, &homes(&three, version, coding(4, 2))), [2, 2, 2]);
        assert_eq!(spread(&lopsided, DomainLevel::Datacenter, &homes(&lopsided, version, coding(2, 2))), [2, 2]);
    }
}

#[test]
fn racks_of_one_name_in_two_datacenters_are_two() {
    let map = map(&[(0, 7, vec![1]), (1, 7, vec![1])]);
    assert_eq!(place(&map, Version(1), ExtentIndex(0), coding(1, 1)).unwrap().domain, DomainLevel::Datacenter);
    assert_eq!(failure_domain(&map, coding(1, 1)), DomainLevel::Datacenter);
}

#[test]
fn a_disk_is_chosen_in_proportion_to_its_size() {
    // 1+1 of ten hosts, one of them three times as big: about 3/12 of first places, a little less than 1/2 of sets.
    let mut shapes = vec![(0, 0, vec![100]); 9];
    shapes.push((0, 0, vec![300]));
    let map = map(&shapes);
    let rounds = 6000;
    let mut first: BTreeMap<NodeName, u32> = BTreeMap::new();
    for version in 0..rounds {
        *first.entry(map.disks[&homes(&map, version, coding(1, 1))[0]].node.clone()).or_default() += 1;
    }
    for (name, count) in first {
        let share = f64::from(count) / rounds as f64;
        let expected = if name.as_str() == "n9" { 0.25 } else { 1.0 / 12.0 };
        assert!((share - expected).abs() < 0.02, "{name}: {share} instead of {expected}");
    }
}

#[test]
fn only_writable_disks_are_chosen() {
    let mut map = flat(4, 1);
    let states = [DiskState::ReadOnly, DiskState::Down, DiskState::Out];
    for (disk, state) in map.disks.values_mut().zip(states) {
        disk.state = state;
    }
    let refused = place(&map, Version(1), ExtentIndex(0), coding(1, 1));
    assert_eq!(refused, Err(PlacementError::TooFewDisks { need: 2, have: 1 }));
}

#[test]
fn the_failure_domain_is_the_host_only_while_there_are_enough() {
    assert_eq!(failure_domain(&flat(6, 2), coding(4, 2)), DomainLevel::Host);
    assert_eq!(failure_domain(&flat(5, 2), coding(4, 2)), DomainLevel::Disk);
    assert_eq!(failure_domain(&flat(2, 2), coding(2, 2)), DomainLevel::Disk);
    // A host that is down makes no cluster smaller; one that is given up does.
    let mut map = flat(6, 1);
    let disk = *map.disks.keys().next().unwrap();
    map.disks.get_mut(&disk).unwrap().state = DiskState::Down;
    assert_eq!(failure_domain(&map, coding(4, 2)), DomainLevel::Host);
    map.disks.get_mut(&disk).unwrap().state = DiskState::Out;
    assert_eq!(failure_domain(&map, coding(4, 2)), DomainLevel::Disk);
}

#[test]
fn a_write_is_safe_when_any_one_domain_may_go() {
    let six = flat(6, 2);
    let placed = homes(&six, 1, coding(4, 2));
    assert!(survives_any_domain(&six, &placed[..5], coding(4, 2)));
    assert!(!survives_any_domain(&six, &placed[..4], coding(4, 2)));
    // Five on disk, but two on one host: losing that host leaves three.
    let twin = six.disks.values().find(|d| d.node == six.disks[&placed[0]].node && d.id != placed[0]).unwrap().id;
    let crowded = [placed[0], twin, placed[1], placed[2], placed[3]];
    assert!(!survives_any_domain(&six, &crowded, coding(4, 2)));
    // The same disk told twice is one.
    assert!(!survives_any_domain(&six, &[&placed[..4], &placed[..1]].concat(), coding(4, 2)));
    assert!(!survives_any_domain(&six, &[], coding(4, 2)));
    // 2+2 on two hosts: the disk is the domain.
    let two = flat(2, 2);
    let placed = homes(&two, 1, coding(2, 2));
    assert!(survives_any_domain(&two, &placed[..3], coding(2, 2)));
    assert!(!survives_any_domain(&two, &placed[..2], coding(2, 2)));
}

#[test]
fn no_replacement_without_a_spare_disk() {
    let mut map = flat(4, 1);
    let placed = homes(&map, 5, coding(2, 2));
    let recorded: Vec<Home> = placed.iter().map(|disk| Home { at: Some(*disk), wanted: *disk }).collect();
    map.disks.get_mut(&placed[0]).unwrap().state = DiskState::Out;
    let chosen = replacement(&map, Version(5), ExtentIndex(0), coding(2, 2), &recorded, ShardIndex(0));
    assert_eq!(chosen, None);
}

#[test]
fn the_default_coding_follows_the_size_of_the_cluster() {
    let chosen =
        |hosts, disks| default_coding(&flat(hosts, disks)).map(|(coding, warning)| (coding, warning.is_some()));
    assert_eq!(chosen(6, 1), Ok((coding(4, 2), false)));
    assert_eq!(chosen(9, 2), Ok((coding(4, 2), false)));
    assert_eq!(chosen(5, 2), Ok((coding(2, 2), false)));
    assert_eq!(chosen(4, 1), Ok((coding(2, 2), false)));
    assert_eq!(chosen(3, 2), Ok((coding(2, 2), true)));
    assert_eq!(chosen(3, 1), Ok((coding(2, 1), true)));
    assert_eq!(chosen(1, 2), Ok((coding(1, 1), true)));
    assert_eq!(chosen(1, 1), Err(PlacementError::TooFewDisks { need: 2, have: 1 }));
}

#[test]
fn a_chosen_coding_needs_its_disks_and_is_warned_about_too_few_hosts() {
    let room = |hosts, disks, coding| check_room(&flat(hosts, disks), coding);
    assert_eq!(room(1, 2, coding(2, 1)), Err(PlacementError::TooFewDisks { need: 3, have: 2 }));
    assert_eq!(room(2, 2, coding(4, 2)), Err(PlacementError::TooFewDisks { need: 6, have: 4 }));
    assert_eq!(room(6, 1, coding(4, 2)), Ok(None));
    assert!(room(3, 2, coding(4, 2)).unwrap().unwrap().contains("only 3 hosts"));
    assert!(room(1, 3, coding(2, 1)).unwrap().unwrap().contains("only one host"));
    // What is away comes back; what is out does not.
    let mut map = flat(6, 1);
    let disk = *map.disks.keys().next().unwrap();
    map.disks.get_mut(&disk).unwrap().state = DiskState::Down;
    assert_eq!(check_room(&map, coding(4, 2)), Ok(None));
    map.disks.get_mut(&disk).unwrap().state = DiskState::Out;
    assert_eq!(check_room(&map, coding(4, 2)), Err(PlacementError::TooFewDisks { need: 6, have: 5 }));
}

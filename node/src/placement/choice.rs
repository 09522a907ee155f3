//! Which codings a cluster can hold, and what they promise there.

use std::collections::BTreeSet;

use super::{Candidate, Caps, DomainLevel, PlacementError, Which, disks, failure_domain};
use crate::model::{ClusterMap, Coding};

/// The coding for a bucket nobody chose one for, and a warning where it promises less than one would expect.
///
/// # Errors
/// [`PlacementError::TooFewDisks`] when there are not even two writable disks.
pub fn default_coding(map: &ClusterMap) -> Result<(Coding, Option<String>), PlacementError> {
    let (mut hosts, mut count) = (BTreeSet::new(), 0_usize);
    for (_, node) in disks(map, Which::Homes) {
        hosts.insert(&node.name);
        count += 1;
    }
    let coding = match (hosts.len(), count) {
        (6.., _) => return Ok((Coding { k: 4, m: 2 }, None)),
        (4.., _) => return Ok((Coding { k: 2, m: 2 }, None)),
        (_, 4..) => Coding { k: 2, m: 2 },
        (_, 3) => Coding { k: 2, m: 1 },
        (_, 2) => Coding { k: 1, m: 1 },
        (_, have) => return Err(PlacementError::TooFewDisks { need: 2, have }),
    };
    let warning = few_hosts(hosts.len());
    Ok((coding, Some(warning)))
}

/// Whether the disks of a cluster can hold a coding that somebody chose, and a warning where its shards must share hosts.
/// Disks that are only away or read-only for now count: they come back.
///
/// # Errors
/// [`PlacementError::TooFewDisks`] when there are fewer than k+m.
pub fn check_room(map: &ClusterMap, coding: Coding) -> Result<Option<String>, PlacementError> {
    let (mut hosts, mut have) = (BTreeSet::new(), 0_usize);
    for (_, node) in disks(map, Which::Kept) {
        hosts.insert(&node.name);
        have += 1;
    }
    let need = coding.total();
    if have < need {
        return Err(PlacementError::TooFewDisks { need, have });
    }
    Ok((failure_domain(map, coding) == DomainLevel::Disk).then(|| few_hosts(hosts.len())))
}

/// How the shards of an extent stand on the disks that can be written now: on how many hosts, and how many of them on the one
/// that has most. For a map with a disk for each.
pub fn crowding(map: &ClusterMap, coding: Coding) -> (usize, usize) {
    let writable = disks(map, Which::Writable).map(|(disk, node)| Candidate { disk: disk.id, node, cost: 0 });
    let writable: Vec<Candidate<'_>> = writable.collect();
    let hosts: BTreeSet<_> = writable.iter().map(|candidate| &candidate.node.name).collect();
    (hosts.len(), Caps::of(&writable, coding.total()).host)
}

fn few_hosts(hosts: usize) -> String {
    format!(
        "{} with writable disks: the disk is the failure domain, and losing a whole host may make objects unreadable \
         until it is back; four hosts make the host the failure domain",
        if hosts == 1 { "there is only one host".to_owned() } else { format!("there are only {hosts} hosts") },
    )
}

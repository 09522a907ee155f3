//! Whom an agent asks how it is: everybody in a small cluster; in a large one a few that do not become more with its size, unless
//! it holds the lease.
//!
//! Owns: the choice. Must never: leave a host without probers in several failure domains; leave out whom a detector needs by
//! name (a voter that is not asked looks like one that is not reached).
//!
//! Every host is asked by those that it asks: the distances on the ring go both ways. So who a host's probers are does not
//! depend on anybody's choice, and an agent hears from its probers whether its own node answers them. Domains are not looked at:
//! they are known only of hosts that were asked. Near neighbours lie in other racks where names alternate between racks, far ones
//! where they do not.

use std::collections::BTreeSet;

/// Others up to which everybody asks everybody, over every way and in every round: what is said of a cluster of this size is
/// whole, and it costs a host a few dozen small questions a second.
pub const FULL_MATRIX: usize = 64;

/// Neighbours on the ring of the names that are asked to either side: more than racks that names alternate between, in most
/// clusters, or hosts that share a chassis.
pub const RING_NEAR: usize = 8;

/// Steps into which the ring is divided: one host is asked at each. With racks that follow one another in the order of names
/// these lie in so many of them.
pub const RING_STEPS: usize = 16;

/// Hosts in doubt that are asked besides: the three that ill at once make a storm. Not more: of whom an agent knows two thirds must be
/// well before its storm brake lets go, also next to a rack that stays down. Whoever falls is asked by its ring all the same.
pub const MAX_DOUBTFUL: usize = 3;

/// Others that an agent keeps in mind at most, which is what the holder of the lease has to. A cluster of more is refused by the
/// configuration's check: whoever is not kept would be nobody's to convict.
pub const MAX_OTHERS: usize = 1024;

/// Who asks, and what it knows of the others.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its name.
    pub own: &'a str,
    /// All names, its own among them, sorted and each once.
    pub all: &'a [String],
    /// It holds the coordinator lease.
    pub holds: bool,
    /// Those that are needed by name: voters, acceptors of the lease, the leader, the holder. Who is no member is left out.
    pub needed: &'a BTreeSet<String>,
    /// Those that are not beyond doubt: not alive by gossip, or that gave a bad answer when they were asked last.
    pub doubtful: &'a BTreeSet<String>,
}

impl Asker<'_> {
    /// Whom it asks. Never itself.
    pub fn asks(&self) -> BTreeSet<String> {
        let count = self.all.len();
        let at = self.all.binary_search_by(|name| name.as_str().cmp(self.own)).unwrap_or_else(|at| at % count.max(1));
        let member = |distance: usize| &self.all[(at + distance) % count];
        let others = || (1..count).map(member).filter(|name| *name != self.own);
        if self.holds || count <= FULL_MATRIX + 1 {
            return others().cloned().collect();
        }
        let known = |name: &&String| *name != self.own && self.all.binary_search(name).is_ok();
        let mut asked: BTreeSet<String> = self.needed.iter().filter(known).cloned().collect();
        asked.extend(distances(count).into_iter().map(|distance| member(distance).clone()));
        // The nearest first: of many in doubt each is asked by those around it.
        let nearest = (1..=count / 2).flat_map(|distance| [distance, count - distance]).map(member);
        let doubtful = nearest.filter(|name| self.doubtful.contains(*name) && !asked.contains(*name));
        let doubtful: BTreeSet<String> = doubtful.take(MAX_DOUBTFUL).cloned().collect();
        asked.extend(doubtful);
        asked
    }
}

/// How far on the ring of so many those lie that are asked by plan: a set that holds `count - d` with every `d`.
fn distances(count: usize) -> BTreeSet<usize> {
    let near = 1..=RING_NEAR;
    let far = (1..=RING_STEPS / 2).map(|step| step * count / RING_STEPS);
    near.chain(far).flat_map(|distance| [distance, count - distance]).filter(|distance| *distance > 0).collect()
}

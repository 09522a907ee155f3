//! From a plan's places to machines.
//!
//! A plan is drawn before the cluster exists, and its budget needs to know who votes: places 1 to 3 of a plan are the
//! voters, whichever machines became that, and the others follow in the order of their names.

use resilver_sim_kernel::Kernel;

use crate::cluster::Cluster;

/// Which machine stands at which place.
pub(crate) struct Places(Vec<usize>);

impl Places {
    /// Voters first.
    pub(crate) fn of(kernel: &Kernel, cluster: &Cluster, voters: &[String]) -> Places {
        let votes = |index: &usize| voters.contains(&kernel.machine_name(cluster.machine(*index)));
        let (first, rest): (Vec<usize>, Vec<usize>) = (0..cluster.machines().len()).partition(votes);
        Places(first.into_iter().chain(rest).collect())
    }

    /// The index (from 0) of the machine at a place (from 1).
    pub(crate) fn index(&self, place: usize) -> usize {
        self.0[place - 1]
    }

    /// The number in the name (`n4`: 4) of the machine at a place.
    pub(crate) fn number(&self, place: usize) -> usize {
        self.index(place) + 1
    }
}

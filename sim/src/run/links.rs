//! What is wrong with the links of machines, and the kernel's links made so.
//!
//! Owns: which fault each machine's links have now. Invariant: a link is as bad as the worse of its two ends, and whole
//! again only when both are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use resilver_sim_check::Happening;
use resilver_sim_kernel::{Kernel, LinkOptions, MachineId};

/// What is wrong with one machine's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ill {
    /// Nothing gets in.
    pub(crate) no_in: bool,
    /// Nothing gets out.
    pub(crate) no_out: bool,
    /// Transit times.
    pub(crate) latency: Option<(Duration, Duration)>,
    /// How many of a thousand are lost.
    pub(crate) loss_permille: u32,
}

/// One link, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    cut: bool,
    options: LinkOptions,
}

/// All links between the machines of a run.
pub(crate) struct Links {
    machines: Vec<MachineId>,
    ill: BTreeMap<MachineId, Ill>,
    /// From one to another nothing gets through.
    apart: BTreeSet<(MachineId, MachineId)>,
    shown: BTreeMap<(MachineId, MachineId), Link>,
}

impl Links {
    /// Whole ones.
    pub(crate) fn new(machines: Vec<MachineId>) -> Links {
        Links { machines, ill: BTreeMap::new(), apart: BTreeSet::new(), shown: BTreeMap::new() }
    }

    /// Sets what is wrong with a machine's links; what that makes happen.
    pub(crate) fn set(&mut self, kernel: &mut Kernel, machine: MachineId, ill: Option<Ill>) -> Vec<Happening> {
        match ill {
            Some(ill) => self.ill.insert(machine, ill),
            None => self.ill.remove(&machine),
        };
        self.apply(kernel)
    }

    /// Sets whether nothing gets from one machine to another; what that makes happen.
    pub(crate) fn part(
        &mut self,
        kernel: &mut Kernel,
        pairs: &[(MachineId, MachineId)],
        apart: bool,
    ) -> Vec<Happening> {
        for pair in pairs {
            match apart {
                true => self.apart.insert(*pair),
                false => self.apart.remove(pair),
            };
        }
        self.apply(kernel)
    }

    /// Makes all links whole.
    pub(crate) fn mend(&mut self, kernel: &mut Kernel) -> Vec<Happening> {
        self.ill.clear();
        self.apart.clear();
        self.apply(kernel)
    }

    fn wanted(&self, from: MachineId, to: MachineId) -> Link {
        let ill = |machine| self.ill.get(&machine).copied().unwrap_or_default();
        let (here, there) = (ill(from), ill(to));
        let mut options = LinkOptions::default();
        for end in [here, there] {
            if let Some(latency) = end.latency {
                options.latency = options.latency.max(latency);
            }
            options.loss_permille = options.loss_permille.max(end.loss_permille);
        }
        Link { cut: here.no_out || there.no_in || self.apart.contains(&(from, to)), options }
    }

    fn apply(&mut self, kernel: &mut Kernel) -> Vec<Happening> {
        let mut happened = Vec::new();
        for from in self.machines.clone() {
            for to in self.machines.clone().into_iter().filter(|to| *to != from) {
                let (wanted, shown) = (self.wanted(from, to), self.shown.get(&(from, to)).copied().unwrap_or_default());
                if wanted == shown {
                    continue;
                }
                kernel.mend_link(from, to);
                kernel.set_link(from, to, wanted.options);
                if wanted.cut {
                    kernel.cut(from, to);
                }
                let (from_name, to_name) = (kernel.machine_name(from), kernel.machine_name(to));
                match (shown.cut, wanted.cut) {
                    (false, true) => happened.push(Happening::Cut { from: from_name, to: to_name }),
                    (true, false) => happened.push(Happening::Mended { from: from_name, to: to_name }),
                    _ => {}
                }
                self.shown.insert((from, to), wanted);
            }
        }
        happened
    }
}

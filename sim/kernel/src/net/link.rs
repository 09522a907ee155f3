//! Links between machines, one per direction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::machine::MachineId;

/// After this without an answer TCP sends again (Linux's least), and waits twice as long each further time.
pub(crate) const RETRANSMIT_TIMEOUT: Duration = Duration::from_millis(200);
/// Losses in a row stop being drawn here: a run is bounded.
pub(crate) const RETRANSMIT_LIMIT: Duration = Duration::from_secs(4);

/// How a link treats what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Least and greatest transit time. A tick is the floor.
    pub latency: (Duration, Duration),
    /// How many of a thousand segments or datagrams are lost.
    pub loss_permille: u32,
}

impl Default for LinkOptions {
    /// Two racks of one room.
    fn default() -> Self {
        Self { latency: (Duration::from_millis(1), Duration::from_millis(2)), loss_permille: 0 }
    }
}

/// All links. Those never mentioned are as by default.
#[derive(Default)]
pub(crate) struct Links {
    cut: BTreeSet<(MachineId, MachineId)>,
    /// Nothing gets through for who listens at that port of one of the two.
    ports: BTreeSet<(MachineId, MachineId, u16)>,
    options: BTreeMap<(MachineId, MachineId), LinkOptions>,
}

impl Links {
    pub(crate) fn cut(&mut self, from: MachineId, to: MachineId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn mend(&mut self, from: MachineId, to: MachineId) {
        self.cut.remove(&(from, to));
        self.options.remove(&(from, to));
    }

    pub(crate) fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        from != to && self.cut.contains(&(from, to))
    }

    pub(crate) fn cut_port(&mut self, from: MachineId, to: MachineId, port: u16) {
        self.ports.insert((from, to, port));
    }

    pub(crate) fn mend_port(&mut self, from: MachineId, to: MachineId, port: u16) {
        self.ports.remove(&(from, to, port));
    }

    /// Whether what belongs to a stream to that port, or comes from it, is held up.
    pub(crate) fn is_port_cut(&self, from: MachineId, to: MachineId, port: u16) -> bool {
        self.is_cut(from, to) || (from != to && self.ports.contains(&(from, to, port)))
    }

    pub(crate) fn set(&mut self, from: MachineId, to: MachineId, options: LinkOptions) {
        self.options.insert((from, to), options);
    }

    pub(crate) fn options(&self, from: MachineId, to: MachineId) -> LinkOptions {
        let loopback = LinkOptions { latency: (Duration::ZERO, Duration::ZERO), loss_permille: 0 };
        if from == to { loopback } else { self.options.get(&(from, to)).copied().unwrap_or_default() }
    }
}

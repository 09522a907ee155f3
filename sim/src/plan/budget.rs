//! What redundancy bears, kept while a plan is drawn.
//!
//! The figures, for six machines of two disks, coding 4+2, three voters:
//!
//! - **Data is damaged for good on one machine only** (the plan's victim): a put is acknowledged once five of its six
//!   shards are durable, so a second damaged machine could take a shard that no longer has a spare. Both machines would
//!   have to be healed in between, and a scrub alone takes as long as a whole safety phase.
//! - **One voter of three is impaired at a time**, counting one whose metadata was damaged until the end of the run: it is
//!   brought back by a person, who comes when the faults are over.
//! - **Two machines of six are impaired at a time**: that much makes nothing unreadable for good.
//! - **Two agents of six are impaired at a time, one of them beside a voter**: the lease needs a majority of those.
//! - **A node is ended three times in a run at most**: its agent may start it five times within the budget's window, and
//!   some faults end it twice.
//! - **A device, a link, a clock carries one fault at a time**, so that mending one does not mend another.

use std::collections::BTreeMap;

use super::{Cut, Event, Fault, MACHINES, Role, Target, VOTERS};

/// How long a process needs to serve again after its fault is over: its agent notices, starts it, it replays and
/// verifies.
const RECOVERY_MS: u64 = 4_000;
/// Ends of one node that a run may bring.
const ENDS_PER_NODE: usize = 3;
/// Machines impaired at a time.
const MACHINES_IMPAIRED: usize = 2;
/// Agents impaired at a time.
const AGENTS_IMPAIRED: usize = 2;
/// Impaired until the run ends.
const FOR_EVER: u64 = u64::MAX;

/// Who is impaired, from when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Impaired {
    /// `None`: one of the voters, decided when the time comes.
    machine: Option<usize>,
    from: u64,
    until: u64,
}

impl Impaired {
    fn voter(&self) -> bool {
        self.machine.is_none_or(|machine| machine <= VOTERS)
    }

    fn overlaps(&self, other: &Impaired) -> bool {
        self.from < other.until && other.from < self.until
    }
}

/// The account of a plan being drawn.
#[derive(Default)]
pub(super) struct Budget {
    nodes: Vec<Impaired>,
    agents: Vec<Impaired>,
    ends: BTreeMap<usize, usize>,
    busy: BTreeMap<String, Vec<(u64, u64)>>,
    /// Damage beyond redundancy is wanted: only the exclusive use of devices, links and clocks is kept.
    boundless: bool,
}

impl Budget {
    /// Damage beyond redundancy is wanted.
    pub(super) fn boundless() -> Self {
        Self { boundless: true, ..Self::default() }
    }

    /// Takes `event` into the account if it fits.
    pub(super) fn admit(&mut self, event: &Event) -> bool {
        let until = if event.for_ms == 0 { event.at_ms + 1 } else { event.at_ms + event.for_ms };
        let places = places(event);
        let taken = |place: &String| {
            self.busy.get(place).is_some_and(|spans| spans.iter().any(|(from, to)| event.at_ms < *to && *from < until))
        };
        if places.iter().any(taken) || !(self.boundless || self.fits(event)) {
            return false;
        }
        for place in places {
            self.busy.entry(place).or_default().push((event.at_ms, until));
        }
        if let Some(span) = node_span(event) {
            self.nodes.push(span);
        }
        if let Some(span) = agent_span(event) {
            self.agents.push(span);
        }
        for machine in ended(event) {
            *self.ends.entry(machine).or_default() += 1;
        }
        true
    }

    fn fits(&self, event: &Event) -> bool {
        let node = node_span(event).is_none_or(|span| room(&self.nodes, &span, MACHINES_IMPAIRED));
        let agent = agent_span(event).is_none_or(|span| room(&self.agents, &span, AGENTS_IMPAIRED));
        let ends = ended(event).iter().all(|machine| self.ends.get(machine).copied().unwrap_or(0) < ENDS_PER_NODE);
        node && agent && ends
    }
}

/// Whether one more may be impaired: counted against everybody whose span meets it, which is more than at any one moment
/// and therefore on the safe side.
fn room(spans: &[Impaired], new: &Impaired, at_most: usize) -> bool {
    let met: Vec<&Impaired> = spans.iter().filter(|span| span.overlaps(new)).collect();
    let others = met.iter().filter(|span| span.machine.is_none() || span.machine != new.machine);
    let (mut all, mut voters) = (0, 0);
    for other in others {
        all += 1;
        voters += usize::from(other.voter());
    }
    all < at_most && !(new.voter() && voters >= (VOTERS - 1) / 2)
}

/// When the node of which machine does not do its part.
fn node_span(event: &Event) -> Option<Impaired> {
    let until = match (event.fault, event.target) {
        (fault, target) if fault.damages_metadata(target) => FOR_EVER,
        (Fault::Kill(Role::Node | Role::All) | Fault::PowerOff | Fault::Freeze(Role::Node | Role::All), _)
        | (Fault::Hang | Fault::SlowApply { .. } | Fault::Apart { .. } | Fault::Astray { .. } | Fault::Deluded, _)
        | (Fault::KillAtOp { role: Role::Node, .. } | Fault::Partition(_) | Fault::NodesApart { .. }, _)
        // An operator's restart is not here: one that would cost the quorum has to be refused.
        | (Fault::SlowLinks { .. } | Fault::LossyLinks { .. } | Fault::Saturated { .. }, _)
        | (Fault::DiskError(_) | Fault::DiskFull | Fault::DiskSlow { .. }, Target::MetaDisk(_))
        | (Fault::DiskHung | Fault::DiskVanished, Target::MetaDisk(_)) => event.at_ms + event.for_ms + RECOVERY_MS,
        // Whose machine it will be is not known yet: any voter's.
        (Fault::IsolateInGrant { .. }, _) => event.at_ms + event.for_ms + RECOVERY_MS,
        // A keeper that dies leaves its node running; its agent may restart both.
        (Fault::Kill(Role::Keeper), _) => event.at_ms + RECOVERY_MS,
        // One disk of the victim: its machine may be short of shards until they are rebuilt.
        (fault, Target::Disk { .. }) if fault.ails_disk() => event.at_ms + event.for_ms + RECOVERY_MS,
        _ => return None,
    };
    Some(Impaired { machine: event.machine(), from: event.at_ms, until })
}

/// When the agent of which machine does not do its part.
fn agent_span(event: &Event) -> Option<Impaired> {
    let impaired = match event.fault {
        Fault::Kill(role) | Fault::Freeze(role) | Fault::KillAtOp { role, .. } => {
            matches!(role, Role::Agent | Role::All)
        }
        Fault::PowerOff | Fault::Partition(_) | Fault::KillInRecovery { .. } | Fault::IsolateInGrant { .. } => true,
        _ => matches!(event.target, Target::AgentDisk(_)),
    };
    let until = event.at_ms + event.for_ms + RECOVERY_MS;
    impaired.then(|| Impaired { machine: event.machine(), from: event.at_ms, until })
}

/// Machines whose node this may end. A target that is not known yet may be any voter.
fn ended(event: &Event) -> Vec<usize> {
    let ends = match event.fault {
        Fault::Kill(role) | Fault::KillAtOp { role, .. } | Fault::Freeze(role) => role != Role::Agent,
        Fault::PowerOff | Fault::Hang | Fault::OperatorRestart { .. } => true,
        _ => matches!(event.target, Target::MetaDisk(_)),
    };
    match (ends, event.machine()) {
        (false, _) => Vec::new(),
        (true, Some(machine)) => vec![machine],
        (true, None) => (1..=VOTERS).collect(),
    }
}

/// What the event needs for itself.
fn places(event: &Event) -> Vec<String> {
    let machines = |what: &str| match event.machine() {
        Some(machine) => vec![format!("{what} {machine}")],
        None => (1..=MACHINES).map(|machine| format!("{what} {machine}")).collect(),
    };
    match event.fault {
        Fault::Kill(_)
        | Fault::KillAtOp { .. }
        | Fault::PowerOff
        | Fault::Freeze(_)
        | Fault::Hang
        | Fault::SlowApply { .. }
        | Fault::Astray { .. }
        | Fault::Deluded
        | Fault::Saturated { .. }
        | Fault::OperatorRestart { .. } => machines("processes"),
        Fault::OperatorPause => machines("pause"),
        Fault::Partition(Cut::Both | Cut::Inbound | Cut::Outbound | Cut::Flapping { .. })
        | Fault::Apart { .. }
        | Fault::NodesApart { .. }
        | Fault::SlowLinks { .. }
        | Fault::LossyLinks { .. } => machines("links"),
        Fault::ClockJump { .. } | Fault::ClockRate { .. } => machines("clock"),
        Fault::MemoryShort { .. } => machines("memory"),
        Fault::KillInRecovery { .. } => vec!["recovery".to_owned()],
        Fault::IsolateInGrant { .. } => machines("links"),
        // The same verb twice, and two at once, are what is wanted.
        Fault::Asked { .. } | Fault::Tampered { .. } | Fault::Quiet | Fault::OperatorChanges => Vec::new(),
        _ => vec![event.target.to_string()],
    }
}

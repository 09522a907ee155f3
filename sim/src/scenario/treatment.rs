//! What agents must do, and may do, about a fault: a row of the table in `modes.rs`, which `treated` (`sim/src/run/treated.rs`) holds
//! a run to.
//!
//! Owns: shapes. Must never: hold code that runs.

/// Whose agents must find what fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBy {
    /// That of the machine that was struck.
    Struck,
    /// That of the machine that was struck, about all others: to it they are what is gone.
    Alone,
    /// Those of both machines between which something fails, each about the other one.
    Ends,
    /// Those of all machines that were not struck.
    Others,
    /// That of a machine that was not struck, about the one that was: whoever holds the lease.
    Holder,
}

/// Until when it must be over, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heals {
    /// By what agents do: from when it was found.
    Itself(u64),
    /// From the end of the fault.
    AfterFault(u64),
}

/// What agents must do, and may do, about a fault. Steps are the actions of the journal, some with what they are done with:
/// `set_mode read_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Treatment {
    /// The fault, as the counts call it.
    pub(crate) fault: &'static str,
    /// What it must be found as.
    pub(crate) mode: &'static str,
    /// By whom.
    pub(crate) found_by: FoundBy,
    /// How soon, seconds from the fault's begin.
    pub(crate) within_s: u64,
    /// The first step is one of these, `none` among them if nothing may have to be done; none: it is told, and nothing is done.
    pub(crate) first: &'static [&'static str],
    /// All steps that may be taken about it, disruptive ones at the struck machines only.
    pub(crate) steps: &'static [&'static str],
    /// Disruptive ones that may be taken at another machine.
    pub(crate) elsewhere: &'static [&'static str],
    /// Steps that must be among them.
    pub(crate) must: &'static [&'static str],
    /// Modes that it shows as, too.
    pub(crate) also: &'static [&'static str],
    /// Steps that may be taken about those.
    pub(crate) aside: &'static [&'static str],
    /// Until when it must be over.
    pub(crate) heals: Heals,
    /// How often agents compare the members' metadata in such a run; `None`: as usual.
    pub(crate) compare_every_s: Option<u64>,
    /// How often nodes read their stored metadata back in such a run; `None`: as usual.
    pub(crate) reread_every_s: Option<u64>,
    /// Whether disks have counters of their own in such a run.
    pub(crate) smart: bool,
    /// Whether the operator has a pattern of cascades of his own in such a run.
    pub(crate) cascade: bool,
}

impl Treatment {
    /// Nothing else happens, nothing is done.
    pub(crate) const NONE: Treatment = Treatment {
        fault: "",
        mode: "",
        found_by: FoundBy::Struck,
        within_s: 0,
        first: &[],
        steps: &[],
        elsewhere: &[],
        must: &[],
        also: &[],
        aside: &[],
        heals: Heals::AfterFault(0),
        compare_every_s: None,
        reread_every_s: None,
        smart: false,
        cascade: false,
    };
}

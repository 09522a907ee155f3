//! All failure modes, and which of them this version acts on.

use serde::Serialize;

use crate::types::Mode;

/// What this version does about a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ModeStatus {
    /// The mode.
    pub mode: Mode,
    /// Detector and ladder exist.
    pub implemented: bool,
    /// How far, for people.
    pub note: &'static str,
}

/// The table of all modes, in the order of the specification.
pub fn modes() -> Vec<ModeStatus> {
    Mode::ALL.iter().map(|mode| status(*mode)).collect()
}

/// What this version does about one mode.
pub fn status(mode: Mode) -> ModeStatus {
    let note = match mode {
        Mode::ProcessCrash => "starts what is dead; then mends its metadata, then replaces the member",
        Mode::HostDown => "marks down and, after the wait, out; gives nothing up sooner, however little is left",
        Mode::NetworkPartition => "dials anew; the minority side takes no writes; waits for healing",
        Mode::DatabaseCorruption => "sees to it that it serves nobody; brings it back as a learner",
        Mode::LogCorruption => "leaves the log as it is; brings the member back as a learner",
        Mode::SplitBrain => "fences the lower term's node; steps it down, restarts it; a person chooses",
        Mode::TermDivergence => "calms what runs away; elects above all terms; never touches a stored one",
        Mode::StateDivergence => "mends what a majority of three or more calls wrong, twice",
        Mode::Deadlock => "cancels, breaks locks of the dead, moves leadership, restarts; what is hung, too",
        Mode::ResourceExhaustion => {
            "cleans up, pauses, takes no writes, moves leadership; empties a disk with approval"
        }
        Mode::SlowFollower => "pauses, calms, catches up from a snapshot, takes its vote for a while",
        Mode::DiskFailure => "stops writes, detaches, rebuilds elsewhere",
        Mode::DiskDegrading => "tells; empties the disk once two SMART samples and the node's own read errors agree",
        Mode::DataCorruption => "reconstructs and proves; many in a day: a deep scan, and then disk_failure",
        Mode::ClockSkew => "tells from 50 ms on, gives the lease up from 500 ms on",
        Mode::QuorumLoss => "tells, freezes what is disruptive, writes down the way back; forces nothing",
        Mode::CascadingFailure => "tells, folds what follows, freezes disruptive steps; does nothing else",
    };
    ModeStatus { mode, implemented: true, note }
}

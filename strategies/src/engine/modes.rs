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
    let (implemented, note) = match mode {
        Mode::ProcessCrash => (true, "starts what is dead; start and resync, and replacing a member, come later"),
        Mode::DiskFailure => (true, "stops writes, detaches, rebuilds elsewhere"),
        Mode::DiskDegrading => {
            (true, "tells; empties the disk once two SMART samples and the node's own read errors agree")
        }
        Mode::DataCorruption => (true, "reconstructs and proves; the deep scan comes later"),
        Mode::HostDown => {
            (true, "marks down and, after the wait, out; gives nothing up sooner, however little is left")
        }
        Mode::CascadingFailure => (true, "tells, folds what follows, freezes disruptive steps; does nothing else"),
        _ => (false, "comes later"),
    };
    ModeStatus { mode, implemented, note }
}

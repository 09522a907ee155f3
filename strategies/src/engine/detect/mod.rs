//! The detectors: one file per mode. They read facts and say what they mean; nothing here acts.

pub(crate) mod data_corruption;
pub(crate) mod disk_degrading;
pub(crate) mod disk_failure;
pub(crate) mod host_down;
pub(crate) mod process_crash;

use crate::api::Subject;
use crate::engine::facts::Life;
use crate::types::Mode;

/// A detector's reading: this is ill, for these reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symptom {
    pub(crate) mode: Mode,
    pub(crate) subject: Subject,
    /// Which sensor showed it.
    pub(crate) detected_by: String,
    /// What was seen, with numbers.
    pub(crate) evidence: String,
    /// The node's first start by this agent, not a crash.
    pub(crate) initial: bool,
    /// The life of the process that ended.
    pub(crate) life: Option<Life>,
    /// The crash signature.
    pub(crate) signature: Option<String>,
    /// The node says that it has mended it already: only the proof is missing.
    pub(crate) mended: bool,
}

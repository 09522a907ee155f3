//! placeholder
#[cfg(feature = "fault-points")]
pub(crate) fn pass(_: &str) {}

//! Cascades: one failure that drags others along.
//!
//! Owns: the patterns (data: an initial failure, what follows it in which order, within which window), and the detector
//! that finds them among the failures a node reports. Must never: take failures for a cascade because they are near in
//! time; act.
//!
//! **The path of causality.** Every failure names *places*: the hosts and disks that its operation waited for. A place is
//! a host, or one disk of a host. A failure lies on a place when it names it, or names its host without saying which
//! disk. A pattern matches only where one place has all of its failures on it: the initial one first, then each stage
//! after the one before, the last within the window. So
//! - failures that name no place never match: nothing shows that they belong together;
//! - failures of two peers, or of two disks of a host, never match each other;
//! - who *reported* a failure is no place: else everything that one node notices would be one path. What suffered (a
//!   bucket, a lock) is none either: many causes meet in one bucket.
//!
//! An initial failure begins at most one cascade of a pattern, and a host has at most one cascade at a time: what follows
//! on its places is part of it. A pattern found again counts again only with a new initial failure that came after the
//! match before.
//!
//! Bounded: failures per kind and for [`RETENTION`], cascades at a time, times found per pattern and for [`HOUR`].

mod active;
mod detector;
mod found;
mod pattern;
mod place;
mod quorum;

pub use active::MAX_ACTIVE;
pub use detector::{Detector, MAX_PER_KIND};
pub use found::{CascadeStatus, Failure, Found, PatternStatus};
pub use pattern::{Cascades, MAX_PATTERNS, MAX_STAGES, Pattern};
pub use place::{MAX_PLACES, Place};
pub(crate) use quorum::{QuorumWatch, Rule as QuorumRule};

use std::time::Duration;

/// How long failures count. As long as the node keeps them: no pattern can look back further.
pub const RETENTION: Duration = Duration::from_secs(5 * 60);

/// The window in which a pattern found again and again becomes an emergency. Evidence, so no factor scales it.
pub const HOUR: Duration = Duration::from_secs(3600);

//! What is going to run out, and when: trends of slow figures, extrapolated as far as they can be trusted.
//!
//! Owns: the series ([`Samples`]), the line through them ([`fit()`]), what is expected of them ([`Prediction`]), and
//! which of it is worth a record.
//!
//! Must never: act. What comes out is a prediction, and a record of grade 0; whoever wants to do something about it
//! decides by itself, and nothing above grade 1 is done because of a prediction alone.
//!
//! Invariants: nothing is extrapolated further than [`REACH`] times as long as it was watched with full
//! confidence; a prediction is made anew
//! at every review and goes away when it no longer holds; one crossing of a horizon is told once; memory is bounded by
//! [`MAX_SERIES`] series of [`MAX_POINTS`] points.

mod config;
mod fit;
mod samples;
mod trends;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::config::TrendPolicy;
pub use self::fit::{Line, fit};
pub use self::samples::{MAX_POINTS, MAX_SPAN, Point, Samples};
pub use self::trends::{MAX_SERIES, Prediction, REACH, Trends};

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A disk has no room left.
    DiskFull,
    /// The node's process has no memory left.
    MemoryLeak,
    /// A file system can have no more files.
    InodesFull,
    /// The node's process can open nothing more.
    DescriptorLeak,
    /// A disk's canary takes too long.
    LatencyDrift,
    /// A counter reaches its limit.
    CounterDrift,
}

impl Kind {
    /// The name in answers, records and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::MemoryLeak => "memory_leak",
            Self::InodesFull => "inodes_full",
            Self::DescriptorLeak => "descriptor_leak",
            Self::LatencyDrift => "latency_drift",
            Self::CounterDrift => "counter_drift",
        }
    }

    /// What its figures count.
    pub fn unit(self) -> &'static str {
        match self {
            Self::DiskFull => "bytes available",
            Self::MemoryLeak => "bytes resident",
            Self::InodesFull => "inodes free",
            Self::DescriptorLeak => "descriptors open",
            Self::LatencyDrift => "seconds",
            Self::CounterDrift => "counted",
        }
    }

    /// Whether it falls to its end; otherwise it rises to it.
    pub fn falls(self) -> bool {
        matches!(self, Self::DiskFull | Self::InodesFull)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeriesId {
    /// Of what.
    pub kind: Kind,
    /// Of whom: a disk's id, a node's name, `DISK/COUNTER`.
    pub subject: String,
}

/// A sample: what is seen now, and where the end is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How much there is.
    #[serde(with = "exact")]
    pub value: f64,
    /// What it must not reach.
    #[serde(with = "exact")]
    pub end: f64,
}

/// A number by its bits: a checkpoint gives back just the number it was made of, and JSON's digits need not.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// Maps whose keys are no texts, as JSON has them: a list of pairs.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}

/// A duration as people say it: `3d4h`, `5h12m`, `40m`.
pub fn in_words(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (days, hours, minutes) = (minutes / (24 * 60), minutes / 60 % 24, minutes % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, hours) => format!("{hours}h{minutes}m"),
        (days, hours) => format!("{days}d{hours}h"),
    }
}

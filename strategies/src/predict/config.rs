//! The figures of predictions. docs/health-score.md gives every one with its reason.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::config::BadPolicy;

/// When an expected failure is worth a record. Detection: never scaled by a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrendPolicy {
    /// How often a sample is kept. A minute: what is predicted takes hours, and a minute's sample costs nothing.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub sample_every: Duration,
    /// A record only with this much confidence. 0.7: the trend is twice its noise and was watched for long enough.
    pub confidence: f64,
    /// A disk without room, or without inodes, expected within this time is recorded. Three days: a weekend, and the day it takes
    /// to add a disk.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub disk_full_within: Duration,
    /// Memory, or descriptors, of the node's process expected to run out within this time are recorded. A day: a restart at a quiet
    /// hour is enough.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub memory_within: Duration,
    /// A canary expected to take [`latency_limit`](Self::latency_limit) within this time is recorded. A week: a disk that
    /// slows down is replaced in working hours.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub latency_within: Duration,
    /// The canary's time that a drift is extrapolated to. 1 s: a third of what makes a disk suspect.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub latency_limit: Duration,
    /// A counter expected to reach its limit within this time is recorded. A week, as for latency.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub counter_within: Duration,
}

impl Default for TrendPolicy {
    fn default() -> Self {
        let hours = |count: u64| Duration::from_secs(count * 3600);
        Self {
            sample_every: Duration::from_secs(60),
            confidence: 0.7,
            disk_full_within: hours(72),
            memory_within: hours(24),
            latency_within: hours(7 * 24),
            latency_limit: Duration::from_secs(1),
            counter_within: hours(7 * 24),
        }
    }
}

impl TrendPolicy {
    /// How near a kind's end must be for a record.
    pub fn horizon(&self, kind: Kind) -> Duration {
        match kind {
            Kind::DiskFull | Kind::InodesFull => self.disk_full_within,
            Kind::MemoryLeak | Kind::DescriptorLeak => self.memory_within,
            Kind::LatencyDrift => self.latency_within,
            Kind::CounterDrift => self.counter_within,
        }
    }

    /// Refuses figures that nothing can be predicted by.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), BadPolicy> {
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.sample_every) {
            let value = format!("{:?}", self.sample_every);
            return Err(BadPolicy { key: "trends.sample_every", value, want: "1s to 1h expected" });
        }
        // Below a half the record would be wrong as often as right; 1 is reached by nothing that was measured.
        if !(0.5..1.0).contains(&self.confidence) {
            let value = self.confidence.to_string();
            return Err(BadPolicy { key: "trends.confidence", value, want: "0.5 to less than 1 expected" });
        }
        if self.latency_limit.is_zero() {
            return Err(BadPolicy { key: "trends.latency_limit", value: "0".into(), want: "more than 0 expected" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_make_no_sense_are_named() {
        assert!(TrendPolicy::default().check().is_ok());
        let hasty: TrendPolicy = serde_json::from_str(r#"{"sample_every":"10ms"}"#).expect("read");
        assert_eq!(hasty.check().expect_err("too often").key, "trends.sample_every");
        let sure = TrendPolicy { confidence: 1.0, ..TrendPolicy::default() };
        assert_eq!(sure.check().expect_err("never").key, "trends.confidence");
        let blind = TrendPolicy { confidence: f64::NAN, ..TrendPolicy::default() };
        assert!(blind.check().is_err(), "no number is no confidence");
        assert!(serde_json::from_str::<TrendPolicy>(r#"{"samples":"1m"}"#).is_err(), "a typo is refused");
    }
}

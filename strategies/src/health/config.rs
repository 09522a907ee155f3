//! The figures of the health score. docs/health-score.md gives every one with its reason.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::BadPolicy;

/// The heaviest weight that may be set. Weights are shares of a sum: larger numbers would say nothing more.
const MAX_WEIGHT: u32 = 1000;

/// How scores are weighed, and when a low one is recorded. Detection: never scaled by a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthPolicy {
    /// What counts how much in a node's score.
    pub weights: NodeWeights,
    /// What counts how much in the cluster's score.
    pub cluster_weights: ClusterWeights,
    /// A score below this for `alert_after` is recorded once. 50: no two components of the defaults bring a node
    /// that serves there, three at their worst do.
    pub alert_below: u8,
    /// Only from this score on a later fall is recorded again. 70: 20 above `alert_below`, more than most components
    /// hold.
    pub clear_above: u8,
    /// How long a score must stay below `alert_below`, and above `clear_above`. 2 minutes: a restart with its log replay is
    /// over by then.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub alert_after: Duration,
}

/// Shares of a node's score. They need not add up to 100; 0 leaves a component out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeWeights {
    /// 25: shards that wait to be rebuilt are what stands between one more failure and lost data.
    pub redundancy: u32,
    /// 20: disks fail first, and announce it.
    pub disk_health: u32,
    /// 15: what fails now is felt by clients now.
    pub errors: u32,
    /// 15: the same; slow is how grey failures begin.
    pub latency: u32,
    /// 15: what runs out soon is no failure yet.
    pub headroom: u32,
    /// 10: a follower that lags serves, and catches up by itself.
    pub raft: u32,
}

/// Shares of the cluster's score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterWeights {
    /// 40: the data.
    pub redundancy: u32,
    /// 30: without the metadata's quorum no object is found.
    pub quorum: u32,
    /// 30: how the members are, one by one.
    pub members: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            weights: NodeWeights::default(),
            cluster_weights: ClusterWeights::default(),
            alert_below: 50,
            clear_above: 70,
            alert_after: Duration::from_secs(120),
        }
    }
}

impl Default for NodeWeights {
    fn default() -> Self {
        Self { redundancy: 25, disk_health: 20, errors: 15, latency: 15, headroom: 15, raft: 10 }
    }
}

impl Default for ClusterWeights {
    fn default() -> Self {
        Self { redundancy: 40, quorum: 30, members: 30 }
    }
}

impl NodeWeights {
    /// In the order of the reasons.
    pub(super) fn all(&self) -> [u32; 6] {
        [self.redundancy, self.disk_health, self.errors, self.latency, self.headroom, self.raft]
    }
}

impl ClusterWeights {
    /// In the order of the reasons.
    pub(super) fn all(&self) -> [u32; 3] {
        [self.redundancy, self.quorum, self.members]
    }
}

/// How many of 100 points each weight holds. Weights that were never checked and are all 0 hold alike.
pub(super) fn points<const N: usize>(weights: [u32; N]) -> [f64; N] {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    weights.map(|weight| if sum > 0.0 { 100.0 * f64::from(weight) / sum } else { 100.0 / N as f64 })
}

impl HealthPolicy {
    /// Refuses weights and thresholds that no score can be made of.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), BadPolicy> {
        weights("health.weights", &self.weights.all())?;
        weights("health.cluster_weights", &self.cluster_weights.all())?;
        if self.clear_above > 100 {
            let want = "at most 100: a score is 0 to 100";
            return Err(BadPolicy { key: "health.clear_above", value: self.clear_above.to_string(), want });
        }
        if self.alert_below >= self.clear_above {
            let want = "less than health.clear_above expected: one threshold for both would flap";
            return Err(BadPolicy { key: "health.alert_below", value: self.alert_below.to_string(), want });
        }
        Ok(())
    }
}

fn weights(key: &'static str, weights: &[u32]) -> Result<(), BadPolicy> {
    if let Some(heavy) = weights.iter().find(|weight| **weight > MAX_WEIGHT) {
        return Err(BadPolicy { key, value: heavy.to_string(), want: "weights of at most 1000 expected" });
    }
    if weights.iter().all(|weight| *weight == 0) {
        return Err(BadPolicy { key, value: "0 throughout".to_owned(), want: "at least one weight above 0 expected" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares_and_nonsense_is_named() {
        assert_eq!(points([1, 1, 2]), [25.0, 25.0, 50.0]);
        assert!(HealthPolicy::default().check().is_ok());
        let read: HealthPolicy = serde_json::from_str(r#"{"weights":{"latency":0},"alert_after":"5m"}"#).expect("good");
        assert_eq!((read.weights.latency, read.weights.redundancy), (0, 25), "the others keep their defaults");
        let none = NodeWeights { redundancy: 0, disk_health: 0, errors: 0, latency: 0, headroom: 0, raft: 0 };
        let error = HealthPolicy { weights: none, ..HealthPolicy::default() }.check().expect_err("nothing counts");
        assert_eq!(error.to_string(), "health.weights is 0 throughout: at least one weight above 0 expected");
        let flapping = HealthPolicy { alert_below: 70, ..HealthPolicy::default() };
        assert_eq!(flapping.check().expect_err("one threshold").key, "health.alert_below");
        assert!(serde_json::from_str::<HealthPolicy>(r#"{"weights":{"latncy":1}}"#).is_err(), "a typo is refused");
    }
}

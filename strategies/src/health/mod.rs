//! How well a node and the cluster are: one number from 0 to 100, with its reasons.
//!
//! Owns: what costs how much ([`node()`], [`cluster()`]), the weights' defaults ([`HealthPolicy`]), what counts as recent
//! ([`Recent`]) and when a low score is worth a record ([`ScoreWatch`]).
//!
//! Must never: decide about a step. A score is for people, and for choices that hurt nobody when they are wrong.
//!
//! Invariants: a worse input never raises a score; a dead node is 0; what is not known counts as half lost and is said to
//! be unknown, it never counts as good; the reasons' points, and the ceilings, give the number exactly.

mod cluster;
mod config;
mod input;
mod node;
mod recent;
mod verdict;
mod watch;

use serde::{Deserialize, Serialize};

pub use self::cluster::{ClusterInput, MemberInput, Standing, cluster};
pub use self::config::{ClusterWeights, HealthPolicy, NodeWeights};
pub use self::input::{
    Announced, Condition, DiskInput, Latency, NodeInput, Presence, RaftInput, Rate, Rebuild, Service, Usage,
};
pub use self::node::node;
pub use self::recent::{Counted, Recent};
pub use self::watch::{ScoreAlert, ScoreWatch};

/// What a score is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Shards that wait to be rebuilt, and what may still be lost.
    Redundancy,
    /// The disks, as the node's canaries and the cluster map see them.
    DiskHealth,
    /// Questions without an answer, and operations that failed.
    Errors,
    /// How long answers take, against how long they used to.
    Latency,
    /// Room, memory, descriptors.
    Headroom,
    /// The node's part in the metadata, and how far it is behind.
    Raft,
    /// Voters that may still be lost.
    Quorum,
    /// The scores of all members, the dead among them.
    Members,
}

impl Component {
    /// The name in answers and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redundancy => "redundancy",
            Self::DiskHealth => "disk_health",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Headroom => "headroom",
            Self::Raft => "raft",
            Self::Quorum => "quorum",
            Self::Members => "members",
        }
    }
}

/// What one component costs, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Which.
    pub component: Component,
    /// How many of the 100 points it holds.
    pub points: f64,
    /// How many of them are lost.
    pub points_lost: f64,
    /// `false`: it could not be judged, and counts as half lost.
    pub judged: bool,
    /// In words and numbers.
    pub evidence: Vec<String>,
}

/// Something so grave that no sum of good components outweighs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The score is at most this.
    pub at_most: u8,
    /// Why.
    pub why: String,
}

/// A score with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// 0 to 100.
    pub score: u8,
    /// One per component, in a fixed order.
    pub reasons: Vec<Reason>,
    /// What holds the score down, the lowest first.
    pub ceilings: Vec<Ceiling>,
}

impl Score {
    /// Adds the reasons up and lowers the sum to the lowest ceiling. Rounded down: 100 means that nothing is lost.
    fn of(reasons: Vec<Reason>, mut ceilings: Vec<Ceiling>) -> Score {
        ceilings.sort_by_key(|ceiling| ceiling.at_most);
        let lost: f64 = reasons.iter().map(|reason| reason.points_lost).sum();
        let sum = (100.0 - lost + ROUNDING).floor().clamp(0.0, 100.0) as u8;
        let score = ceilings.first().map_or(sum, |ceiling| sum.min(ceiling.at_most));
        Score { score, reasons, ceilings }
    }
}

/// What sums of fractions may be off by, so that a loss of exactly 10 points is shown as 90.
const ROUNDING: f64 = 1e-9;

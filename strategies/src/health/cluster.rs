//! The cluster's score: whether what it keeps can be read, and what may still be lost.
//!
//! It is not the mean of its nodes' scores, and by no means that of those who answer: five nodes at 100 do not make up
//! for a sixth whose loss took the last shard with it. So two of three components look at the whole (how many more hosts
//! may be lost before data, and before the metadata's quorum, cannot be read), the third counts every member that should
//! be there, the dead as 0, and ceilings hold: a cluster that cannot read an object is 0, whatever its nodes are.

use super::config::{ClusterWeights, points};
use super::input::Rate;
use super::verdict::{Verdict, percent, ramp};
use super::{Ceiling, Component, Score};

/// A cluster that cannot bear the next loss is worth at most this.
const NO_SPARE_AT_MOST: u8 = 50;
/// A cluster in which no leader is known is worth at most this: nothing is written or read until there is one.
const NO_LEADER_AT_MOST: u8 = 30;

/// Hosts whose loss data outlasts when the buckets' codings are not known: what every acknowledged put has been promised.
const ASSUMED_PARITY: u32 = 1;

/// What any shard without a home costs of the redundancy, however few.
const MISSING_COSTS: f64 = 0.2;
/// The share of missing shards at which all of it is lost: a disk of twenty.
const MISSING_WORST: f64 = 0.05;
/// What no tolerance at all costs of the quorum, with everybody there: one voter, or two.
const NO_TOLERANCE_COSTS: f64 = 0.5;
/// What a member whose state is not known counts as.
const UNKNOWN_COUNTS: f64 = 50.0;

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its agent gives it this score.
    Scored(u8),
    /// Its agent is silent or gives none, but it lives.
    Lives,
    /// Nobody has said anything yet.
    Unknown,
    /// Its agent says so; or neither its agent nor it itself answers.
    Dead,
}

/// A member of the cluster, as one agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInput {
    /// Its node.
    pub node: String,
    /// Whether it has a vote; not known counts as one.
    pub votes: bool,
    /// How it is.
    pub standing: Standing,
    /// How often its agent was asked lately, and did not answer. `None` for the one who asks.
    pub pings: Option<Rate>,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterInput {
    /// All that should be there.
    pub members: Vec<MemberInput>,
    /// Parity shards of the bucket that has the fewest; `None`: not known.
    pub parity: Option<u32>,
    /// Shards that cannot be read, by metadata.
    pub missing_shards: Option<u64>,
    /// All shards.
    pub shards: Option<u64>,
    /// Whether the metadata has a leader.
    pub leader_known: Option<bool>,
}

/// How many are there, how many are gone.
struct Census {
    members: u64,
    dead: u64,
    voters: u64,
    dead_voters: u64,
}

impl Census {
    fn of(members: &[MemberInput]) -> Census {
        let count = |keep: &dyn Fn(&MemberInput) -> bool| members.iter().filter(|member| keep(member)).count() as u64;
        let dead = |member: &MemberInput| member.standing == Standing::Dead;
        Census {
            members: members.len() as u64,
            dead: count(&dead),
            voters: count(&|member| member.votes),
            dead_voters: count(&|member| member.votes && dead(member)),
        }
    }

    /// Voters that may be lost, when all are there.
    fn tolerated(&self) -> u64 {
        self.voters.saturating_sub(1) / 2
    }
}

/// The cluster's score, as one of its agents sees it.
pub fn cluster(input: &ClusterInput, weights: &ClusterWeights) -> Score {
    let census = Census::of(&input.members);
    let [data, votes, each] = points(weights.all());
    let reasons = vec![
        redundancy(input, &census).reason(Component::Redundancy, data),
        quorum(&census).reason(Component::Quorum, votes),
        members(input).reason(Component::Members, each),
    ];
    Score::of(reasons, ceilings(input, &census))
}

fn parity(input: &ClusterInput) -> (u64, &'static str) {
    match input.parity {
        Some(parity) => (u64::from(parity), "by the weakest bucket's coding"),
        None => (u64::from(ASSUMED_PARITY), "as every put is promised; the codings are not known"),
    }
}

fn ceilings(input: &ClusterInput, census: &Census) -> Vec<Ceiling> {
    let mut ceilings = Vec::new();
    let mut ceiling = |at_most, why: String| ceilings.push(Ceiling { at_most, why });
    let (parity, by) = parity(input);
    let Census { dead, voters, dead_voters, .. } = *census;
    if voters > 0 && dead_voters > census.tolerated() {
        ceiling(0, format!("{dead_voters} of {voters} voters are dead: no quorum, no object can be found"));
    } else if dead_voters > 0 && dead_voters == census.tolerated() {
        ceiling(NO_SPARE_AT_MOST, format!("{dead_voters} of {voters} voters are dead: the next one takes the quorum"));
    }
    if dead > parity {
        ceiling(0, format!("{dead} nodes are dead and data outlasts {parity} ({by}): objects cannot be read"));
    } else if dead > 0 && dead == parity {
        ceiling(NO_SPARE_AT_MOST, format!("{dead} nodes are dead and data outlasts {parity} ({by})"));
    }
    if input.leader_known == Some(false) {
        ceiling(NO_LEADER_AT_MOST, "no leader is known".to_owned());
    }
    if census.members == 0 {
        ceiling(NO_LEADER_AT_MOST, "no member is known".to_owned());
    }
    ceilings
}

fn redundancy(input: &ClusterInput, census: &Census) -> Verdict {
    let mut verdict = Verdict::default();
    let (parity, by) = parity(input);
    let left = parity.saturating_sub(census.dead);
    let gone = if census.dead == 0 { 0.0 } else { census.dead as f64 / parity.max(1) as f64 };
    if census.members > 0 {
        verdict.found(gone, format!("{left} more nodes may be lost, {by}"));
    }
    match (input.missing_shards, input.shards) {
        (None, _) => verdict.unknown("missing shards"),
        (Some(0), _) => verdict.found(0.0, "no shard is missing"),
        (Some(missing), shards) => {
            // Without a total it may be all of them.
            let all = shards.unwrap_or(missing).max(missing);
            let share = missing as f64 / all as f64;
            let lost = MISSING_COSTS + (1.0 - MISSING_COSTS) * ramp(share, 0.0, MISSING_WORST);
            let of = shards.map_or_else(|| "an unknown number of".to_owned(), |shards| shards.max(missing).to_string());
            verdict.found(lost, format!("{missing} of {of} shards are missing"));
        }
    }
    verdict
}

fn quorum(census: &Census) -> Verdict {
    let mut verdict = Verdict::default();
    let Census { voters, dead_voters, .. } = *census;
    if voters == 0 {
        verdict.unknown("the voters");
        return verdict;
    }
    let tolerated = census.tolerated();
    let lost = match (tolerated, dead_voters) {
        (0, 0) => NO_TOLERANCE_COSTS,
        (0, _) => 1.0,
        (tolerated, dead) => dead as f64 / tolerated as f64,
    };
    let left = tolerated.saturating_sub(dead_voters);
    verdict.found(lost, format!("{} of {voters} voters live, {left} more may be lost", voters - dead_voters));
    verdict
}

/// The mean over all that should be there, each as far as its agent answers.
fn members(input: &ClusterInput) -> Verdict {
    let mut verdict = Verdict::default();
    if input.members.is_empty() {
        verdict.unknown("the members");
        return verdict;
    }
    let worth = |member: &MemberInput| {
        let own = match member.standing {
            Standing::Scored(score) => f64::from(score.min(100)),
            Standing::Lives | Standing::Unknown => UNKNOWN_COUNTS,
            Standing::Dead => 0.0,
        };
        own * (1.0 - member.pings.map_or(0.0, Rate::share))
    };
    let mean = input.members.iter().map(worth).sum::<f64>() / input.members.len() as f64;
    verdict.found(1.0 - mean / 100.0, format!("{mean:.1} on average of {} members", input.members.len()));
    let told = |member: &MemberInput| {
        let word = match member.standing {
            Standing::Scored(100) => None,
            Standing::Scored(score) => Some(format!("{score}")),
            Standing::Lives => Some("lives, its score is not known".to_owned()),
            Standing::Unknown => Some("nothing is known yet".to_owned()),
            Standing::Dead => Some("dead".to_owned()),
        };
        let silent = member.pings.map(Rate::share).filter(|share| *share > 0.0);
        let silent = silent.map(|share| format!("{} of pings unanswered", percent(share)));
        let words: Vec<String> = word.into_iter().chain(silent).collect();
        (!words.is_empty()).then(|| format!("{}: {}", member.node, words.join(", ")))
    };
    verdict.say(input.members.iter().filter_map(told).collect());
    verdict
}

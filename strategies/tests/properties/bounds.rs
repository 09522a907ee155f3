//! How much an engine keeps, read from its checkpoint, which holds everything that it knows; and how much it may keep.
//!
//! Most limits are the product's own affair and not public. They are read from where they are written, so that it is the product's
//! figure that holds, and not this test's idea of it.

use resilver_strategies::engine::{Engine, MAX_OPEN, MAX_RECENT};
use resilver_strategies::resume::MAX_HISTORY;
use resilver_strategies::types::Mode;
use serde_json::Value;

/// Lists and maps that are in no table below: fields of a structure, the guards of a step, the figures of one thing.
const FEW: usize = 64;

/// Counters of a disk that never fall, as the detector names them.
const LIFETIME: usize = 9;

macro_rules! limit {
    ($file:literal, $name:literal) => {
        limit(include_str!(concat!("../../src/", $file)), $file, $name)
    };
}

fn limit(source: &str, file: &str, name: &str) -> usize {
    let constant = |line: &str| {
        let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("const ")?;
        line.strip_prefix(name)?.strip_prefix(": usize = ")?.strip_suffix(';')?.parse().ok()
    };
    source.lines().find_map(constant).unwrap_or_else(|| panic!("{file} has no constant {name} any more"))
}

/// Lines of one incident's timeline.
pub fn max_events() -> usize {
    limit!("engine/incidents.rs", "MAX_EVENTS")
}

/// Steps shown of one incident.
pub fn max_steps() -> usize {
    limit!("engine/incidents.rs", "MAX_STEPS")
}

/// Tokens of one incident that are remembered as spent.
pub fn max_spent() -> usize {
    limit!("engine/approval.rs", "MAX_SPENT")
}

/// Patterns of log lines.
pub fn max_lines() -> usize {
    limit!("engine/lines.rs", "MAX_PATTERNS")
}

/// Disks whose corruption is counted.
pub fn max_disks() -> usize {
    limit!("engine/detect/data_corruption.rs", "MAX_DISKS")
}

/// Peers that are remembered.
pub fn max_peers() -> usize {
    limit!("watching.rs", "MAX_OTHERS")
}

/// Kinds of inputs that a recorder remembers for folding.
pub fn max_kinds() -> usize {
    limit!("flight/tape.rs", "MAX_KINDS")
}

/// What an engine keeps, by place in its checkpoint (`*`: any), and how much of it at most.
fn limits() -> Vec<(&'static str, usize)> {
    let (disks, hosts) = (max_disks(), max_peers());
    let per_kind = limit!("cascade/detector.rs", "MAX_PER_KIND");
    let points = limit!("predict/samples.rs", "MAX_POINTS");
    vec![
        ("incidents.open", MAX_OPEN),
        ("incidents.recent", MAX_RECENT),
        ("incidents.*.*.timeline", max_events()),
        ("incidents.*.*.steps", max_steps()),
        ("incidents.*.*.spent", max_spent()),
        ("incidents.*.*.subject.hosts", hosts),
        ("ledger.entries", MAX_HISTORY),
        ("findings.by_disk", disks),
        ("findings.by_disk.*", limit!("engine/detect/data_corruption.rs", "MAX_PER_DISK")),
        ("findings.told", disks),
        ("disks.disks", limit!("engine/detect/disk_failure.rs", "MAX_DISKS")),
        ("disks.rotten", limit!("engine/detect/disk_failure.rs", "MAX_DISKS")),
        ("degrading.counters", limit!("engine/detect/disk_degrading.rs", "MAX_DISKS")),
        ("degrading.counters.*.lifetime", LIFETIME),
        ("degrading.errors", limit!("engine/detect/disk_degrading.rs", "MAX_DISKS")),
        ("lines", max_lines()),
        ("heard", Mode::ALL.len()),
        ("cascades.events.*", per_kind),
        ("cascades.events.*.*.places", limit!("cascade/place.rs", "MAX_PLACES")),
        ("cascades.times.*", limit!("cascade/detector.rs", "MAX_TIMES")),
        ("cascades.active.hosts", limit!("cascade/active.rs", "MAX_ACTIVE")),
        ("quorum.views", max_peers()),
        ("peers", max_peers()),
        ("liveness.hosts", hosts),
        ("storm.nodes", limit!("storm.rs", "MAX_TARGETS")),
        ("falls", hosts),
        ("watches.deadlock.baseline", limit!("engine/detect/deadlock.rs", "MAX_BASELINE")),
        ("watches.lag.committed", limit!("engine/detect/slow_follower.rs", "MAX_SAMPLES")),
        ("watches.terms.rises", limit!("engine/detect/term_divergence.rs", "MAX_RISES")),
        ("watches.leaders.claims", limit!("engine/detect/split_brain.rs", "MAX_CLAIMS")),
        ("watches.voters.voters", limit!("engine/detect/quorum_loss.rs", "MAX_VOTERS")),
        ("watches.voters.logs", limit!("engine/detect/quorum_loss.rs", "MAX_VOTERS")),
        ("watches.partition.cut", limit!("liveness.rs", "MAX_SILENT")),
        ("watches.resources.trends.series", limit!("predict/trends.rs", "MAX_SERIES")),
        ("watches.resources.trends.series.*.*.samples.points", points),
    ]
}

/// The last word of the node is kept as it was said, and the policy as it was written: the node and the person bound those.
const VERBATIM: &[&str] = &["facts", "policy"];

/// The engine's state.
pub fn state(engine: &Engine) -> Value {
    serde_json::from_str(&engine.checkpoint()).expect("a checkpoint is JSON")
}

/// How many there are at a place of the state.
pub fn count(state: &Value, place: &str) -> usize {
    let value = place.split('.').fold(state, |value, name| &value[name]);
    value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len)).unwrap_or(0)
}

/// Holds an engine to all of its limits.
///
/// # Panics
/// When something is longer than it may be.
pub fn hold(engine: &Engine) {
    let limits: Vec<(Vec<&str>, usize)> =
        limits().into_iter().map(|(place, limit)| (place.split('.').collect(), limit)).collect();
    walk(&state(engine), &mut Vec::new(), &limits);
}

fn walk<'a>(value: &'a Value, place: &mut Vec<&'a str>, limits: &[(Vec<&str>, usize)]) {
    if place.len() == 1 && VERBATIM.contains(&place[0]) {
        return;
    }
    let fits = |pattern: &[&str]| {
        pattern.len() == place.len() && pattern.iter().zip(place.iter()).all(|(want, is)| *want == "*" || want == is)
    };
    let limit = limits.iter().find(|(pattern, _)| fits(pattern)).map_or(FEW, |(_, limit)| *limit);
    let inner: Vec<(&str, &Value)> = match value {
        Value::Array(list) => list.iter().map(|value| ("*", value)).collect(),
        Value::Object(map) => map.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        _ => return,
    };
    assert!(inner.len() <= limit, "{} are kept in {}, at most {limit} may be", inner.len(), place.join("."));
    for (name, value) in inner {
        place.push(name);
        walk(value, place, limits);
        place.pop();
    }
}

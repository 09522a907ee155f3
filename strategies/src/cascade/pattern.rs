//! Patterns as data: what ships, what an operator adds, and what is refused of that.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RETENTION;
use crate::config::BadPolicy;
use crate::types::FailureKind;

/// Patterns of an operator's own. Each failure is held against each of them, and each is a label of a metric.
pub const MAX_PATTERNS: usize = 16;
/// Stages behind the initial failure. There are not many more kinds, and each appears once.
pub const MAX_STAGES: usize = 4;
/// Stages that a cascade has at least: one that follows another is a coincidence soon.
const MIN_STAGES: usize = 2;
/// The longest name: it is a label of a metric.
const MAX_NAME: usize = 40;

/// One way in which failures follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Its name in alerts and metrics: lower case letters, digits and `_`.
    pub name: String,
    /// What comes first.
    pub initial: FailureKind,
    /// What follows, in this order.
    pub then: Vec<FailureKind>,
    /// From the initial failure to the last stage, at most 5 minutes: failures are not kept longer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub window: Duration,
}

/// The section `cascades`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cascades {
    /// Times that a pattern is found, or a host convicted, within an hour that make an emergency: twice may be coincidence, and each was
    /// told as critical.
    pub emergency_at: u32,
    /// Patterns beside the three that ship.
    pub patterns: Vec<Pattern>,
}

impl Default for Cascades {
    fn default() -> Self {
        Self { emergency_at: 3, patterns: Vec::new() }
    }
}

impl Pattern {
    /// The patterns that ship.
    pub fn builtin() -> Vec<Self> {
        use FailureKind::{
            AuthTimeout, DiskStateCheckTimeout, FalseQuorumLoss, LockTimeout, PeerUnreachable, UploadFailure,
        };
        let pattern = |name: &str, initial, then: [FailureKind; 2], seconds| Self {
            name: name.to_owned(),
            initial,
            then: then.to_vec(),
            window: Duration::from_secs(seconds),
        };
        vec![
            pattern("peer_locks_keys", PeerUnreachable, [LockTimeout, AuthTimeout], 30),
            pattern("lock_disks_uploads", LockTimeout, [DiskStateCheckTimeout, UploadFailure], 60),
            pattern("peer_disks_quorum", PeerUnreachable, [DiskStateCheckTimeout, FalseQuorumLoss], 45),
        ]
    }

    /// All kinds, the initial one first.
    pub fn kinds(&self) -> impl DoubleEndedIterator<Item = FailureKind> + '_ {
        std::iter::once(self.initial).chain(self.then.iter().copied())
    }

    /// Its stages in words.
    pub fn in_words(&self) -> String {
        self.kinds().map(FailureKind::as_str).collect::<Vec<_>>().join(" → ")
    }
}

impl Cascades {
    /// All patterns, those that ship first.
    pub fn all(&self) -> Vec<Pattern> {
        let mut all = Pattern::builtin();
        all.extend(self.patterns.iter().take(MAX_PATTERNS).cloned());
        all
    }

    /// Refuses patterns that could never match, or would match anything.
    ///
    /// # Errors
    /// The first that is wrong, by name.
    pub fn check(&self) -> Result<(), BadPolicy> {
        let bad = |key, value: String, want| Err(BadPolicy { key, value, want });
        if self.patterns.len() > MAX_PATTERNS {
            let count = format!("a list of {}", self.patterns.len());
            return bad("cascades.patterns", count, "at most 16 expected: each failure is held against each of them");
        }
        if self.emergency_at < 2 {
            let want = "at least 2 expected: the first time is told as critical";
            return bad("cascades.emergency_at", self.emergency_at.to_string(), want);
        }
        let mut names: BTreeSet<String> = Pattern::builtin().into_iter().map(|pattern| pattern.name).collect();
        for pattern in &self.patterns {
            let name = &pattern.name;
            let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
                let want = "1 to 40 lower case letters, digits and `_` expected: it is a label of a metric";
                return bad("cascades.patterns.name", format!("`{name}`"), want);
            }
            if !names.insert(name.clone()) {
                return bad("cascades.patterns.name", format!("`{name}`"), "a name of its own expected: it is taken");
            }
            if !(MIN_STAGES..=MAX_STAGES).contains(&pattern.then.len()) {
                let value = format!("a list of {} in `{name}`", pattern.then.len());
                let want = "2 to 4 kinds expected: a cascade is an initial failure and two or more that follow";
                return bad("cascades.patterns.then", value, want);
            }
            let kinds: BTreeSet<FailureKind> = pattern.kinds().collect();
            if kinds.len() != pattern.then.len() + 1 {
                let value = format!("{} in `{name}`", pattern.in_words());
                return bad("cascades.patterns.then", value, "each kind once expected: none causes itself");
            }
            if pattern.window.is_zero() || pattern.window > RETENTION {
                let value = format!("{:?} in `{name}`", pattern.window);
                let want = "more than 0s and at most 5m expected: failures are kept for 5 minutes";
                return bad("cascades.patterns.window", value, want);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Cascades, String> {
        let read: Cascades = serde_json::from_str(text).map_err(|error| error.to_string())?;
        read.check().map_err(|error| error.to_string())?;
        Ok(read)
    }

    fn with(pattern: &str) -> String {
        read(&format!(r#"{{"patterns":[{pattern}]}}"#)).expect_err("a bad pattern")
    }

    const GOOD: &str = r#"{"name":"slow_disk","initial":"disk_state_check_timeout",
        "then":["lock_timeout","upload_failure"],"window":"90s"}"#;

    #[test]
    fn an_operators_pattern_stands_beside_the_three_that_ship() {
        let cascades = read(&format!(r#"{{"patterns":[{GOOD}]}}"#)).expect("good");
        let names: Vec<String> = cascades.all().into_iter().map(|pattern| pattern.name).collect();
        assert_eq!(names, ["peer_locks_keys", "lock_disks_uploads", "peer_disks_quorum", "slow_disk"]);
        assert_eq!(cascades.patterns[0].window, Duration::from_secs(90));
    }

    #[test]
    fn what_could_never_match_is_refused_with_its_name() {
        let unknown = with(&GOOD.replace("lock_timeout", "moon_phase"));
        assert!(unknown.contains("moon_phase") && unknown.contains("lock_timeout"), "names those known: {unknown}");
        let empty = with(r#"{"name":"x","initial":"lock_timeout","then":[],"window":"9s"}"#);
        assert!(empty.starts_with("cascades.patterns.then is a list of 0 in `x`: 2 to 4 kinds"), "{empty}");
        let zero = with(&GOOD.replace("90s", "0s"));
        assert!(zero.starts_with("cascades.patterns.window is 0ns in `slow_disk`: more than 0s"), "{zero}");
        assert!(with(&GOOD.replace("90s", "6m")).contains("at most 5m"));
        assert!(with(&GOOD.replace("upload_failure", "lock_timeout")).contains("none causes itself"));
        assert!(with(&GOOD.replace("slow_disk", "peer_locks_keys")).contains("it is taken"));
        assert!(with(&GOOD.replace("slow_disk", "Slow disk")).contains("label of a metric"));
    }

    #[test]
    fn too_many_patterns_are_refused() {
        let patterns: Vec<String> = (0..17).map(|number| GOOD.replace("slow_disk", &format!("p{number}"))).collect();
        let error = read(&format!(r#"{{"patterns":[{}]}}"#, patterns.join(","))).expect_err("17");
        assert_eq!(
            error,
            "cascades.patterns is a list of 17: at most 16 expected: each failure is held against each of them"
        );
    }
}

//! When a low score is worth a record: after a while, once, and not again before it was well for a while.

use std::time::Duration;

use super::Score;
use super::config::HealthPolicy;
use crate::record::{Draft, RecordKind};
use crate::types::{Action, Grade, Moment};

/// A score that stayed low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreAlert {
    /// What it is now.
    pub score: u8,
    /// Below what it stayed.
    pub below: u8,
    /// For how long.
    pub lasted: Duration,
}

impl ScoreAlert {
    /// The record of it: whose score it is (`node` or `cluster`), as seen beside which node, and what costs most. Grade 0.
    pub fn draft(&self, scope: &str, node: &str, score: &Score) -> Draft {
        let held = score.ceilings.iter().map(|ceiling| ceiling.why.clone());
        let mut costly: Vec<_> = score.reasons.iter().filter(|reason| reason.points_lost >= 1.0).collect();
        costly.sort_by(|one, other| other.points_lost.total_cmp(&one.points_lost));
        let lost = costly.into_iter().map(|reason| {
            format!(
                "{} lost {:.1} of {:.0}: {}",
                reason.component.as_str(),
                reason.points_lost,
                reason.points,
                reason.evidence.join(", ")
            )
        });
        let why: Vec<String> = held.chain(lost).collect();
        let told = format!("the health of the {scope} has been below {} for {} s", self.below, self.lasted.as_secs());
        let mut draft = Draft::new(RecordKind::Note, Action::Alert)
            .with("node_id", node)
            .with("scope", scope)
            .with("score", self.score)
            .with("evidence", format!("{told}: {}", why.join("; ")));
        draft.grade = Some(Grade::OBSERVE);
        draft
    }
}

/// Watches one score.
#[derive(Clone, Debug, Default)]
pub struct ScoreWatch {
    /// Since when it is where it would change the watch's mind.
    since: Option<Moment>,
    alerted: bool,
}

impl ScoreWatch {
    /// A score was made; an alert when it has been low for long enough, and was not told yet.
    pub fn see(&mut self, now: Moment, score: u8, policy: &HealthPolicy) -> Option<ScoreAlert> {
        let turned = if self.alerted { score >= policy.clear_above } else { score < policy.alert_below };
        if !turned {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) < policy.alert_after {
            return None;
        }
        self.since = None;
        self.alerted = !self.alerted;
        let alert = ScoreAlert { score, below: policy.alert_below, lasted: now.since(since) };
        self.alerted.then_some(alert)
    }

    /// Whether it was told and is not over.
    pub fn is_alerted(&self) -> bool {
        self.alerted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One score every 5 seconds; the seconds at which alerts were given.
    fn alerts(scores: impl IntoIterator<Item = u8>) -> Vec<u64> {
        let (mut watch, policy) = (ScoreWatch::default(), HealthPolicy::default());
        let moments = (0..).map(|step| step * 5);
        moments
            .zip(scores)
            .filter_map(|(secs, score)| watch.see(Moment(Duration::from_secs(secs)), score, &policy).map(|_| secs))
            .collect()
    }

    #[test]
    fn a_score_that_stays_low_is_told_once() {
        assert_eq!(alerts([30; 100]), [120]);
    }

    #[test]
    fn a_restart_is_not_told() {
        let story = [95; 20].into_iter().chain([0; 23]).chain([95; 50]);
        assert!(alerts(story).is_empty(), "115 seconds of a dead node");
    }

    #[test]
    fn a_score_that_swings_about_the_threshold_is_told_once() {
        let story = [30; 30].into_iter().chain((0..500).map(|turn| if turn % 40 < 20 { 45 } else { 69 }));
        assert_eq!(alerts(story).len(), 1);
    }

    #[test]
    fn after_it_was_well_for_a_while_the_next_fall_is_told_again() {
        let story = [30; 30].into_iter().chain([90; 30]).chain([30; 30]);
        assert_eq!(alerts(story).len(), 2);
        let briefly_well = [30; 30].into_iter().chain([90; 10]).chain([30; 60]);
        assert_eq!(alerts(briefly_well).len(), 1, "50 seconds are no while");
    }
}

//! Which of the failures that a node tells are news.
//!
//! Invariant: each failure is told to the engine once, however often the node repeats it, and also when a new process
//! begins to count anew.

use resilver_proto::contract::{FailureEvent, FailurePlace, ObserveResponse};
use resilver_strategies::api::FailureFact;
use resilver_strategies::cascade::Place;

/// The last failure that was told, of which life of the node.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Process id and wall time of its start, as the node says them: only compared, never counted with.
    life: (u32, u64),
    sequence: u64,
}

impl Cursor {
    /// The news of an answer, oldest first.
    pub(crate) fn news(&mut self, answer: &mut ObserveResponse) -> Vec<FailureFact> {
        let life = (answer.pid, answer.started_ms);
        if self.life != life {
            *self = Self { life, sequence: 0 };
        }
        let told = self.sequence;
        let mut news: Vec<FailureFact> = std::mem::take(&mut answer.failures)
            .into_iter()
            .filter(|event| event.sequence > told)
            .map(failure_fact)
            .collect();
        news.sort_by_key(|fact| fact.sequence);
        self.sequence = news.last().map_or(told, |fact| fact.sequence);
        news
    }
}

fn failure_fact(event: FailureEvent) -> FailureFact {
    FailureFact {
        sequence: event.sequence,
        kind: event.kind,
        component: event.component,
        subject: event.subject,
        places: event.places.into_iter().map(place).collect(),
        age_ms: event.age_ms,
    }
}

fn place(place: FailurePlace) -> Place {
    Place { host: place.node, disk: Some(place.disk_id).filter(|disk| !disk.is_empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pid: u32, sequences: &[u64]) -> ObserveResponse {
        let event = |sequence: &u64| FailureEvent {
            sequence: *sequence,
            places: vec![FailurePlace { node: "n3".into(), disk_id: String::new() }],
            ..FailureEvent::default()
        };
        ObserveResponse { pid, failures: sequences.iter().map(event).collect(), ..ObserveResponse::default() }
    }

    fn news(cursor: &mut Cursor, pid: u32, sequences: &[u64]) -> Vec<u64> {
        cursor.news(&mut answer(pid, sequences)).iter().map(|fact| fact.sequence).collect()
    }

    #[test]
    fn a_failure_is_news_once_in_a_life_of_the_node() {
        let mut cursor = Cursor::default();
        assert_eq!(news(&mut cursor, 7, &[1, 2]), [1, 2]);
        assert_eq!(news(&mut cursor, 7, &[1, 2, 3]), [3]);
        assert!(news(&mut cursor, 7, &[2, 3]).is_empty());
        assert!(news(&mut cursor, 7, &[]).is_empty());
        assert_eq!(news(&mut cursor, 8, &[1]), [1], "another process counts anew");
    }

    #[test]
    fn a_place_without_a_disk_is_its_host() {
        let facts = Cursor::default().news(&mut answer(7, &[1]));
        assert_eq!(facts[0].places, [Place::host("n3")]);
    }
}

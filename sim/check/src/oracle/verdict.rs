//! The judgement of a history, key by key, and a name for what is wrong.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::history::{Answer, Call, History, Key, Operation, Outcome, Value};
use super::linear::{Effect, Linear, Op, check};

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bytes that nobody wrote.
    Corrupt,
    /// A content that nobody wrote under this key, or not yet.
    Phantom,
    /// An object that was acknowledged is gone, or cannot be read.
    Lost,
    /// An older content than one that was acknowledged or seen before.
    Stale,
    /// An object that was deleted is back.
    Resurrected,
    /// Answers that contradict each other in another way: a condition judged wrongly.
    Contradiction,
    /// Too many operations at a time to judge: the workload is to be made smaller.
    Undecided,
}

/// A history that no sound store can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// What is wrong.
    pub kind: Kind,
    /// Of which object.
    pub key: Key,
    /// The answer with which it came to light.
    pub found: Box<Operation>,
    /// What makes it wrong, in words.
    pub why: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, begin, end, call, outcome } = &*self.found;
        let (begin, end) = (begin.as_secs_f64(), end.as_secs_f64());
        write!(
            f,
            "{:?} {}: {} (client {client}, t={begin:.3} to {end:.3}: {call:?} → {outcome:?})",
            self.kind, self.key, self.why
        )
    }
}

impl std::error::Error for Anomaly {}

/// Judges a whole history.
///
/// # Errors
/// The first anomaly, by key and time.
pub fn judge(history: &History) -> Result<(), Anomaly> {
    let operations = history.operations();
    for key in history.keys() {
        let ops = operations_on(operations, &key);
        at_sight(operations, &key)?;
        if check(&ops) != Linear::Yes {
            return Err(first_wrong(operations, &key, &ops));
        }
    }
    Ok(())
}

/// What is wrong whatever the order: contents that nobody wrote there, objects that cannot be read.
fn at_sight(operations: &[Operation], key: &str) -> Result<(), Anomaly> {
    let put_of = |value: Value| {
        let is = |call: &Call| matches!(call, Call::Put { key: of, value: put, .. } if of == key && *put == value);
        operations.iter().find(|other| is(&other.call))
    };
    for found in operations {
        let wrong = |kind, why: String| Err(Anomaly { kind, key: key.to_owned(), found: Box::new(found.clone()), why });
        let seen = match (&found.call, &found.outcome) {
            (Call::Get { key: of }, Outcome::Ok(answer)) if of == key => match answer {
                Answer::Corrupt => return wrong(Kind::Corrupt, "nobody wrote these bytes".to_owned()),
                Answer::Unreadable => return wrong(Kind::Lost, "it cannot be read any more".to_owned()),
                Answer::Found { value } => *value,
                Answer::Done | Answer::Refused | Answer::Listed { .. } => None,
            },
            (_, Outcome::Ok(Answer::Listed { keys })) => keys.get(key).copied().flatten(),
            _ => None,
        };
        match seen.map(|value| (value, put_of(value))) {
            Some((value, None)) => return wrong(Kind::Phantom, format!("nobody put content {value} here")),
            Some((value, Some(put))) if put.begin > found.end => {
                return wrong(Kind::Phantom, format!("content {value} was put only later"));
            }
            Some((value, Some(put))) if put.outcome == Outcome::Failed || refused(put) => {
                return wrong(Kind::Phantom, format!("the put of content {value} was refused"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refused(operation: &Operation) -> bool {
    operation.outcome == Outcome::Ok(Answer::Refused)
}

/// What was done to one key, and seen of it.
fn operations_on(operations: &[Operation], key: &str) -> Vec<Op> {
    let mut ops = Vec::new();
    for (origin, operation) in operations.iter().enumerate() {
        let known = Some(operation.end);
        let (effect, end) = match (&operation.call, &operation.outcome) {
            (Call::Put { key: of, value, condition }, outcome) if of == key => match outcome {
                Outcome::Ok(Answer::Refused) => (Effect::Refused(*condition), known),
                Outcome::Ok(_) => (Effect::Write(*value, *condition), known),
                Outcome::Unknown => (Effect::Attempt(*value, *condition), None),
                Outcome::Failed => continue,
            },
            (Call::Delete { key: of }, outcome) if of == key => match outcome {
                Outcome::Ok(_) => (Effect::Delete, known),
                Outcome::Unknown => (Effect::Delete, None),
                Outcome::Failed => continue,
            },
            (Call::Get { key: of }, Outcome::Ok(Answer::Found { value })) if of == key => (Effect::Read(*value), known),
            (Call::List { prefix }, Outcome::Ok(Answer::Listed { keys })) if key.starts_with(prefix) => {
                let effect = match keys.get(key) {
                    None => Effect::Read(None),
                    Some(None) => Effect::Present,
                    Some(value) => Effect::Read(*value),
                };
                (effect, known)
            }
            _ => continue,
        };
        ops.push(Op { begin: operation.begin, end, effect, origin });
    }
    ops
}

/// What was known when an answer came: later operations have not begun, unfinished ones are unknown.
fn until(ops: &[Op], at: Duration) -> Vec<Op> {
    let begun = ops.iter().filter(|op| op.begin <= at);
    begun
        .filter_map(|op| match (op.end, op.effect) {
            (Some(end), Effect::Write(value, condition)) if end > at => {
                Some(Op { end: None, effect: Effect::Attempt(value, condition), ..*op })
            }
            (Some(end), Effect::Delete) if end > at => Some(Op { end: None, ..*op }),
            (Some(end), _) if end > at => None,
            _ => Some(*op),
        })
        .collect()
}

/// The first answer that nothing explains, and a name for what is wrong with it.
fn first_wrong(operations: &[Operation], key: &str, ops: &[Op]) -> Anomaly {
    let mut ended: Vec<(Duration, usize)> = ops.iter().filter_map(|op| Some((op.end?, op.origin))).collect();
    ended.sort_unstable();
    // What begins a history that cannot be explained can often be: what continues one never can.
    let good = ended.partition_point(|(end, _)| check(&until(ops, *end)) == Linear::Yes);
    let (end, origin) = ended[good.min(ended.len() - 1)];
    let verdict = check(&until(ops, end));
    let op = ops.iter().find(|op| op.origin == origin).copied();
    let (kind, why) = match (verdict, op) {
        (Linear::Undecided, _) | (_, None) => (Kind::Undecided, "too many operations at a time".to_owned()),
        (_, Some(op)) => name(ops, &op),
    };
    Anomaly { kind, key: key.to_owned(), found: Box::new(operations[origin].clone()), why }
}

fn name(ops: &[Op], wrong: &Op) -> (Kind, String) {
    let changes = |op: &&Op| matches!(op.effect, Effect::Write(..) | Effect::Delete);
    let before = ops.iter().filter(changes).filter(|op| op.end.is_some_and(|end| end <= wrong.begin));
    let last = before.max_by_key(|op| op.end).map(|op| op.effect);
    match (wrong.effect, last) {
        (Effect::Read(None), Some(Effect::Write(value, _))) => {
            (Kind::Lost, format!("content {value} was acknowledged before, and nobody deleted it"))
        }
        (Effect::Read(None), _) => (Kind::Lost, "its content had been seen before".to_owned()),
        (Effect::Read(Some(_)) | Effect::Present, Some(Effect::Delete)) => {
            (Kind::Resurrected, "it was deleted before".to_owned())
        }
        (Effect::Read(Some(value)), _) => (Kind::Stale, format!("content {value} had been replaced before")),
        (effect, last) => {
            (Kind::Contradiction, format!("{effect:?} cannot follow {last:?}, nor anything that may have been"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Condition;
    use super::*;

    struct Clients(History);

    impl Clients {
        fn does(mut self, begin: u64, end: u64, call: Call, outcome: Outcome) -> Self {
            let (begin, end) = (Duration::from_secs(begin), Duration::from_secs(end));
            self.0.add(Operation { client: 1, begin, end, call, outcome });
            self
        }

        fn put(self, begin: u64, end: u64, value: Value, outcome: Outcome) -> Self {
            let call = Call::Put { key: "b/k".to_owned(), value, condition: Condition::Always };
            self.does(begin, end, call, outcome)
        }

        fn get(self, begin: u64, end: u64, value: Option<Value>) -> Self {
            let answer = Outcome::Ok(Answer::Found { value });
            self.does(begin, end, Call::Get { key: "b/k".to_owned() }, answer)
        }

        fn delete(self, begin: u64, end: u64, outcome: Outcome) -> Self {
            self.does(begin, end, Call::Delete { key: "b/k".to_owned() }, outcome)
        }

        fn list(self, begin: u64, end: u64, keys: &[(&str, Option<Value>)]) -> Self {
            let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            let call = Call::List { prefix: "b/".to_owned() };
            self.does(begin, end, call, Outcome::Ok(Answer::Listed { keys }))
        }

        #[track_caller]
        fn is(self, kind: Kind) {
            let anomaly = judge(&self.0).expect_err("this history is impossible");
            assert_eq!(anomaly.kind, kind, "{anomaly}");
        }

        #[track_caller]
        fn sound(self) {
            judge(&self.0).expect("this history is possible");
        }
    }

    fn clients() -> Clients {
        Clients(History::default())
    }

    const DONE: Outcome = Outcome::Ok(Answer::Done);

    #[test]
    fn a_sound_history_passes() {
        let first = clients().get(0, 1, None).put(1, 2, 1, DONE).get(3, 4, Some(1)).list(4, 5, &[("b/k", Some(1))]);
        let second = first.put(6, 20, 2, Outcome::Unknown).get(7, 8, Some(1)).get(30, 31, Some(2));
        second.delete(32, 33, DONE).list(34, 35, &[]).put(36, 37, 3, Outcome::Failed).get(38, 39, None).sound();
    }

    #[test]
    fn a_lost_object_is_found() {
        clients().put(0, 1, 1, DONE).get(2, 3, None).is(Kind::Lost);
        clients().put(0, 1, 1, DONE).list(2, 3, &[]).is(Kind::Lost);
        // Acknowledged to nobody, but seen.
        clients().put(0, 1, 1, Outcome::Unknown).get(2, 3, Some(1)).get(4, 5, None).is(Kind::Lost);
        let mut lost = clients().put(0, 1, 1, DONE);
        lost.0.read_back(Duration::from_secs(9), "b/k", Answer::Unreadable);
        lost.is(Kind::Lost);
    }

    #[test]
    fn a_stale_object_is_found() {
        clients().put(0, 1, 1, DONE).put(2, 3, 2, DONE).get(4, 5, Some(1)).is(Kind::Stale);
        let seen = clients().put(0, 1, 1, DONE).put(2, 30, 2, Outcome::Unknown).get(4, 5, Some(2));
        seen.get(6, 7, Some(1)).is(Kind::Stale);
    }

    #[test]
    fn a_phantom_is_found() {
        clients().get(0, 1, Some(7)).is(Kind::Phantom);
        clients().get(0, 1, Some(1)).put(2, 3, 1, DONE).is(Kind::Phantom);
        clients().put(0, 1, 1, Outcome::Failed).get(2, 3, Some(1)).is(Kind::Phantom);
        clients().list(0, 1, &[("b/x", Some(7))]).is(Kind::Phantom);
    }

    #[test]
    fn a_resurrected_object_is_found() {
        let deleted = || clients().put(0, 1, 1, DONE).delete(2, 3, DONE);
        deleted().get(4, 5, Some(1)).is(Kind::Resurrected);
        deleted().list(4, 5, &[("b/k", None)]).is(Kind::Resurrected);
        clients().put(0, 1, 1, DONE).delete(2, 3, Outcome::Unknown).get(4, 5, Some(1)).sound();
    }

    #[test]
    fn corrupt_bytes_are_found() {
        let corrupt = Outcome::Ok(Answer::Corrupt);
        clients().put(0, 1, 1, DONE).does(2, 3, Call::Get { key: "b/k".to_owned() }, corrupt).is(Kind::Corrupt);
    }

    #[test]
    fn a_condition_judged_wrongly_is_found() {
        let create = |value| Call::Put { key: "b/k".to_owned(), value, condition: Condition::Absent };
        clients().does(0, 1, create(1), DONE).does(2, 3, create(2), DONE).is(Kind::Contradiction);
        clients().does(0, 1, create(1), Outcome::Ok(Answer::Refused)).is(Kind::Contradiction);
        clients().does(0, 3, create(1), DONE).does(0, 3, create(2), Outcome::Ok(Answer::Refused)).sound();
    }

    #[test]
    fn the_answer_that_brought_it_to_light_is_named() {
        let history =
            clients().put(0, 1, 1, DONE).get(2, 3, Some(1)).get(4, 5, None).put(6, 7, 2, DONE).get(8, 9, Some(2));
        let anomaly = judge(&history.0).expect_err("lost in between");
        assert_eq!(anomaly.found.begin, Duration::from_secs(4));
        assert!(anomaly.to_string().starts_with("Lost b/k: content 1 was acknowledged before"), "{anomaly}");
    }
}

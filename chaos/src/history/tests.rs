//! Histories that are sound, each classic anomaly, and a comparison with a judge too simple to be wrong.

mod brute;
mod generated;

use std::collections::BTreeMap;
use std::time::Duration;

use super::compile::steps;
use super::search::run_within;
use super::*;

/// A history written down by hand; times are in seconds.
#[derive(Clone, Default)]
struct Told(History);

const DONE: Outcome = Outcome::Ok(Answer::Done);
const REFUSED: Outcome = Outcome::Ok(Answer::Refused);

impl Told {
    fn does(mut self, begin: u64, end: u64, call: Call, outcome: Outcome) -> Self {
        let (begin, end) = (Duration::from_secs(begin), Duration::from_secs(end));
        let client = self.0.operations.len();
        self.0.operations.push(Operation { client, begin, end, call, outcome });
        self
    }

    fn puts(self, begin: u64, end: u64, key: &str, value: Value, condition: Condition, outcome: Outcome) -> Self {
        self.does(begin, end, Call::Put { key: key.to_owned(), value, condition }, outcome)
    }

    fn put(self, begin: u64, end: u64, key: &str, value: Value) -> Self {
        self.puts(begin, end, key, value, Condition::Always, DONE)
    }

    fn lost_put(self, begin: u64, end: u64, key: &str, value: Value) -> Self {
        self.puts(begin, end, key, value, Condition::Always, Outcome::Unknown)
    }

    fn get(self, begin: u64, end: u64, key: &str, value: Option<Value>) -> Self {
        self.does(begin, end, Call::Get { key: key.to_owned() }, Outcome::Ok(Answer::Found(value)))
    }

    fn delete(self, begin: u64, end: u64, key: &str, outcome: Outcome) -> Self {
        self.does(begin, end, Call::Delete { key: key.to_owned() }, outcome)
    }

    fn list(self, begin: u64, end: u64, found: &[(&str, Value)]) -> Self {
        let found: BTreeMap<Key, Value> = found.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        self.does(begin, end, Call::List { prefix: String::new() }, Outcome::Ok(Answer::Listed(found)))
    }

    #[track_caller]
    fn sound(self) {
        assert!(brute::sound(&self.0), "the simple judge must agree");
        judge(&self.0).unwrap();
    }

    /// The clients (numbered by their operation) left in the smallest window.
    #[track_caller]
    fn unsound(self) -> Vec<usize> {
        assert!(!brute::sound(&self.0), "the simple judge must agree");
        match judge(&self.0) {
            Err(Unsound::NotLinearizable(window)) => {
                assert!(!brute::sound(&History { operations: window.operations.clone() }), "{window}");
                window.operations.iter().map(|operation| operation.client).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn told() -> Told {
    Told::default()
}

#[test]
fn one_thing_after_the_other_is_sound() {
    told()
        .get(0, 1, "a", None)
        .put(2, 3, "a", 1)
        .get(4, 5, "a", Some(1))
        .list(6, 7, &[("a", 1)])
        .puts(8, 9, "a", 2, Condition::Is(1), DONE)
        .puts(10, 11, "a", 3, Condition::Absent, REFUSED)
        .delete(12, 13, "a", DONE)
        .list(14, 15, &[])
        .sound();
}

#[test]
fn during_a_put_either_content_may_be_seen_but_never_new_then_old() {
    let puts = || told().put(0, 1, "a", 1).put(2, 9, "a", 2);
    puts().get(3, 4, "a", Some(1)).get(5, 6, "a", Some(2)).sound();
    assert_eq!(puts().get(3, 4, "a", Some(2)).get(5, 6, "a", Some(1)).unsound(), [0, 1, 2, 3]);
}

#[test]
fn a_stale_read_is_found_with_nothing_else_around_it() {
    let noise = told().put(0, 1, "b", 7).get(0, 1, "a", None).put(1, 2, "a", 9);
    let stale = noise.put(3, 4, "a", 1).get(5, 6, "a", Some(1)).put(7, 8, "a", 2).get(9, 10, "b", Some(7));
    assert_eq!(stale.get(11, 12, "a", Some(1)).get(13, 14, "a", Some(2)).unsound(), [3, 5, 7]);
}

#[test]
fn a_lost_update_is_found() {
    assert_eq!(told().put(0, 1, "a", 1).get(2, 3, "a", None).unsound(), [0, 1]);
    assert_eq!(told().put(0, 1, "a", 1).list(2, 3, &[]).unsound(), [0, 1]);
    // Two who both replaced the same content: one of them was overwritten without having been seen.
    let both = told().put(0, 1, "a", 1).puts(2, 5, "a", 2, Condition::Is(1), DONE);
    assert_eq!(both.puts(2, 5, "a", 3, Condition::Is(1), DONE).unsound(), [0, 1, 2]);
}

#[test]
fn a_resurrected_delete_is_found() {
    let deleted = || told().put(0, 1, "a", 1).delete(2, 3, "a", DONE);
    assert_eq!(deleted().get(4, 5, "a", Some(1)).unsound(), [0, 1, 2]);
    assert_eq!(deleted().list(4, 5, &[("a", 1)]).unsound(), [0, 1, 2]);
    told().put(0, 1, "a", 1).delete(2, 3, "a", Outcome::Unknown).get(4, 5, "a", Some(1)).sound();
}

#[test]
fn a_phantom_is_found() {
    assert_eq!(told().get(0, 1, "a", Some(7)).unsound(), [0]);
    assert_eq!(told().get(0, 1, "a", Some(1)).put(2, 3, "a", 1).unsound().len(), 1, "seen before it was put");
    assert_eq!(told().list(0, 1, &[("never", 7)]).unsound(), [0]);
    let refused = told().put(0, 1, "a", 1).puts(2, 3, "a", 2, Condition::Absent, REFUSED);
    assert!(refused.get(4, 5, "a", Some(2)).unsound().contains(&2));
    let failed = told().puts(0, 1, "a", 1, Condition::Always, Outcome::Failed).get(2, 3, "a", Some(1));
    assert!(failed.unsound().contains(&1));
}

#[test]
fn two_winners_of_a_conditional_put_are_found() {
    let create = |told: Told, value, outcome| told.puts(0, 5, "a", value, Condition::Absent, outcome);
    create(create(told(), 1, DONE), 2, REFUSED).sound();
    assert_eq!(create(create(told(), 1, DONE), 2, DONE).unsound(), [0, 1]);
    assert_eq!(create(told(), 1, REFUSED).unsound(), [0], "there was nothing to refuse it");
    create(told().lost_put(0, 1, "a", 9), 1, REFUSED).sound();
}

#[test]
fn a_listing_that_mixes_two_states_is_found() {
    let moved = || told().put(0, 1, "a", 1).put(0, 1, "b", 2).put(2, 3, "a", 3).put(4, 5, "b", 4);
    moved().list(2, 5, &[("a", 3), ("b", 2)]).sound();
    // Each key alone may be as it says; both at once never were.
    let mixed = moved().list(2, 5, &[("a", 1), ("b", 4)]);
    judge(&History { operations: mixed.0.operations[..4].to_vec() }).unwrap();
    assert!(mixed.unsound().contains(&4));
    // Two listings that saw two changes in different orders.
    let two = told().put(0, 9, "a", 1).put(0, 9, "b", 2).list(0, 9, &[("a", 1)]).list(0, 9, &[("b", 2)]);
    assert_eq!(two.unsound(), [0, 1, 2, 3]);
}

#[test]
fn an_unknown_put_may_come_late_or_never_but_not_go_again() {
    let unknown = || told().put(0, 1, "a", 1).lost_put(2, 3, "a", 2);
    unknown().get(8, 9, "a", Some(1)).sound();
    unknown().get(4, 5, "a", Some(1)).get(8, 9, "a", Some(2)).sound();
    assert_eq!(unknown().get(4, 5, "a", Some(2)).get(8, 9, "a", Some(1)).unsound(), [0, 1, 2, 3]);
    // Seen, overwritten, and there again: a retry of somebody's that buried a newer put.
    let buried = unknown().get(4, 5, "a", Some(2)).put(6, 7, "a", 3).get(8, 9, "a", Some(2));
    assert!(buried.unsound().contains(&3));
}

#[test]
fn an_unknown_put_may_be_what_another_of_unknown_outcome_replaced() {
    // Nobody saw 1, but 2 was put in its place: so 1 had been there.
    let swapped = told().lost_put(0, 1, "a", 1).puts(2, 3, "a", 2, Condition::Is(1), Outcome::Unknown);
    swapped.clone().get(4, 5, "a", Some(2)).sound();
    swapped.get(4, 5, "a", Some(2)).get(6, 7, "a", Some(1)).unsound();
}

#[test]
fn keys_are_judged_alone_unless_a_listing_shows_them_together() {
    let two = told().put(0, 1, "a", 1).put(0, 1, "b", 2).does(
        0,
        1,
        Call::List { prefix: "a".to_owned() },
        Outcome::Ok(Answer::Listed(BTreeMap::new())),
    );
    assert_eq!(together(&two.0).len(), 2);
    assert_eq!(together(&two.list(2, 3, &[("a", 1), ("b", 2)]).0).len(), 1);
}

#[test]
fn a_search_that_was_given_up_is_no_verdict() {
    // Twelve creations of which nobody knows the outcome, and an impossible answer: every subset would have to be tried.
    let mut told = told();
    for value in 0..12 {
        told = told.lost_put(0, 1, "a", value);
    }
    told = told.puts(2, 3, "a", 50, Condition::Is(99), REFUSED).get(4, 5, "a", Some(77));
    let keys = ["a".to_owned()].into();
    assert_eq!(run_within(&steps(&told.0.operations, &keys), 100), Linear::Undecided { looked_at: 100 });
    assert!(matches!(judge(&told.0), Err(Unsound::NotLinearizable(_))), "with more patience it is decided");
}

#[test]
fn long_histories_with_many_unknown_puts_are_decided() {
    let mut told = told();
    for number in 0..100 {
        let at = number * 10;
        told = told.lost_put(at, at + 1, "a", 10_000 + number).put(at + 1, at + 3, "a", number);
        told = told.get(at + 2, at + 5, "a", Some(number)).list(at + 4, at + 6, &[("a", number)]);
    }
    judge(&told.0).unwrap();
    let stale = told.get(6000, 6001, "a", Some(98));
    let Err(Unsound::NotLinearizable(window)) = judge(&stale.0) else { panic!("a stale read at the end") };
    assert!(window.operations.len() <= 4, "{window}");
}

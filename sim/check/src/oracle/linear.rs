//! Whether operations on one register can be put into one order that explains every answer.
//!
//! The search of Wing and Gong with Lowe's memory: it tries every operation that may come first, and remembers which
//! sets of operations in which state came to nothing. Pure; bounded by [`MAX_STEPS`].

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Condition, Value};

/// Sets of operations looked at for one key. A key of a thousand operations with few at a time needs some thousands.
const MAX_STEPS: usize = 2_000_000;

/// The same for an order without what nobody knows the outcome of: it is there at once, or not at all.
const FEW_STEPS: usize = 100_000;

/// What an operation does to the register, or shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Writes, if the condition holds.
    Write(Value, Condition),
    /// Was refused: the condition did not hold.
    Refused(Condition),
    /// Writes if the condition holds, does nothing if not: nobody knows which.
    Attempt(Value, Condition),
    /// Deletes.
    Delete,
    /// Shows the content.
    Read(Option<Value>),
    /// Shows that there is something.
    Present,
}

/// One operation on a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) begin: Duration,
    /// `None`: its outcome is unknown; it may take effect at any later time, or never.
    pub(super) end: Option<Duration>,
    pub(super) effect: Effect,
    /// Its place in the history.
    pub(super) origin: usize,
}

/// The search's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linear {
    Yes,
    No,
    /// Given up.
    Undecided,
}

/// Whether `ops` can be put into one order.
///
/// What nobody knows the outcome of may never have happened. So an order without it explains every answer, too, and is found
/// much sooner where an outage left many of them; only when there is none they are tried as well.
pub(super) fn check(ops: &[Op]) -> Linear {
    let search = |keeps: &dyn Fn(&Op) -> bool, most: usize| {
        let mut ops: Vec<Op> = ops.iter().copied().filter(|op| keeps(op)).collect();
        ops.sort_by_key(|op| (op.begin, op.end.unwrap_or(Duration::MAX)));
        Search { taken: Bits::new(ops.len()), ops, dead: BTreeSet::new(), most }.run()
    };
    let seen = |op: &Op| op.end.is_some() || sees(op, ops);
    let seen_or_delete = |op: &Op| op.effect == Effect::Delete || seen(op);
    let soon = |keeps: &dyn Fn(&Op) -> bool| search(keeps, FEW_STEPS) == Linear::Yes;
    if soon(&seen) || soon(&seen_or_delete) {
        return Linear::Yes;
    }
    search(&|op| matters(op, ops), MAX_STEPS)
}

/// Whether somebody saw what this may have written.
fn sees(op: &Op, ops: &[Op]) -> bool {
    let Effect::Attempt(value, _) = op.effect else { return false };
    ops.iter().any(|other| match other.effect {
        Effect::Read(seen) => seen == Some(value),
        Effect::Write(_, Condition::Is(seen)) | Effect::Attempt(_, Condition::Is(seen)) => seen == value,
        _ => false,
    })
}

/// A write that nobody knows the outcome of and nobody ever saw explains nothing, unless it is a refusal that needs
/// explaining.
fn matters(op: &Op, ops: &[Op]) -> bool {
    let explained = |other: &Op| matches!(other.effect, Effect::Refused(_) | Effect::Present);
    !matches!(op.effect, Effect::Attempt(..)) || sees(op, ops) || ops.iter().any(explained)
}

/// The state after an operation; `None`: it cannot have happened in this state.
fn apply(state: Option<Value>, effect: Effect) -> Option<Option<Value>> {
    let holds = |condition: Condition| match condition {
        Condition::Always => true,
        Condition::Absent => state.is_none(),
        Condition::Is(value) => state == Some(value),
    };
    match effect {
        Effect::Write(value, condition) => holds(condition).then_some(Some(value)),
        Effect::Attempt(value, condition) => Some(if holds(condition) { Some(value) } else { state }),
        Effect::Refused(condition) => (!holds(condition)).then_some(state),
        Effect::Delete => Some(None),
        Effect::Read(seen) => (state == seen).then_some(state),
        Effect::Present => state.is_some().then_some(state),
    }
}

/// A set of operations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

struct Search {
    /// By when they began.
    ops: Vec<Op>,
    taken: Bits,
    /// What came to nothing: these operations taken, in this state.
    dead: BTreeSet<(Bits, Option<Value>)>,
    /// How many of those at most.
    most: usize,
}

/// One operation taken, and where to go on if that comes to nothing.
struct Turn {
    op: usize,
    /// Its place in the order in which operations are tried.
    place: usize,
    before: Option<Value>,
}

impl Search {
    fn run(mut self) -> Linear {
        let mut state = None;
        let mut path: Vec<Turn> = Vec::new();
        let mut from = 0;
        loop {
            if self.complete() {
                return Linear::Yes;
            }
            if let Some((place, op, after)) = self.next(from, state) {
                path.push(Turn { op, place, before: state });
                self.taken.flip(op);
                state = after;
                from = 0;
                continue;
            }
            if from == 0 && self.dead.len() >= self.most {
                return Linear::Undecided;
            }
            self.dead.insert((self.taken.clone(), state));
            let Some(turn) = path.pop() else { return Linear::No };
            self.taken.flip(turn.op);
            state = turn.before;
            from = turn.place + 1;
        }
    }

    /// All operations whose end was seen are taken.
    fn complete(&self) -> bool {
        self.ops.iter().enumerate().all(|(at, op)| op.end.is_none() || self.taken.has(at))
    }

    /// The next operation from `from` on that may come now: no other one that is not taken ended before it began. First those
    /// that are known to have happened, then those that nobody knows of: few of them ever did.
    fn next(&mut self, from: usize, state: Option<Value>) -> Option<(usize, usize, Option<Value>)> {
        let open = |(at, _): &(usize, &Op)| !self.taken.has(*at);
        let first_end = self.ops.iter().enumerate().filter(open).filter_map(|(_, op)| op.end).min()?;
        let count = self.ops.len();
        for place in from..2 * count {
            let (known, at) = (place < count, place % count);
            let op = self.ops[at];
            if known != op.end.is_some() || op.begin > first_end || self.taken.has(at) {
                continue;
            }
            let Some(after) = apply(state, op.effect) else { continue };
            self.taken.flip(at);
            let dead = self.dead.contains(&(self.taken.clone(), after));
            self.taken.flip(at);
            if !dead {
                return Some((place, at, after));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(begin: u64, end: u64, effect: Effect) -> Op {
        let end = (end > 0).then(|| Duration::from_secs(end));
        Op { begin: Duration::from_secs(begin), end, effect, origin: 0 }
    }

    const ALWAYS: Condition = Condition::Always;

    #[test]
    fn reads_see_the_last_write_and_during_a_write_either() {
        let writes = [op(0, 1, Effect::Write(1, ALWAYS)), op(2, 6, Effect::Write(2, ALWAYS))];
        let with = |reads: &[Op]| check(&[&writes, reads].concat());
        let read = |begin, end, value| op(begin, end, Effect::Read(Some(value)));
        assert_eq!(with(&[read(3, 4, 1), read(4, 5, 2)]), Linear::Yes);
        assert_eq!(with(&[read(3, 4, 2), read(5, 6, 1)]), Linear::No, "never new, then old");
        assert_eq!(with(&[read(7, 8, 1)]), Linear::No);
        assert_eq!(with(&[op(7, 8, Effect::Read(None))]), Linear::No);
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never() {
        let ops = [op(0, 1, Effect::Write(1, ALWAYS)), op(2, 0, Effect::Attempt(2, ALWAYS))];
        let with = |reads: &[Op]| check(&[&ops, reads].concat());
        assert_eq!(with(&[op(8, 9, Effect::Read(Some(1)))]), Linear::Yes);
        assert_eq!(with(&[op(3, 4, Effect::Read(Some(1))), op(8, 9, Effect::Read(Some(2)))]), Linear::Yes);
        assert_eq!(with(&[op(3, 4, Effect::Read(Some(2))), op(8, 9, Effect::Read(Some(1)))]), Linear::No);
        assert_eq!(with(&[op(0, 1, Effect::Read(Some(2)))]), Linear::No, "not before it began");
    }

    #[test]
    fn conditions_are_judged_in_order() {
        let create = |begin, end, value| op(begin, end, Effect::Write(value, Condition::Absent));
        assert_eq!(check(&[create(0, 5, 1), create(0, 5, 2)]), Linear::No, "one creation only");
        let refused = op(0, 5, Effect::Refused(Condition::Absent));
        assert_eq!(check(&[create(0, 5, 1), refused]), Linear::Yes);
        assert_eq!(check(&[refused]), Linear::No, "there was nothing to refuse it");
        let unknown = op(0, 0, Effect::Attempt(1, ALWAYS));
        assert_eq!(check(&[unknown, refused]), Linear::Yes, "an unknown write explains it");
        let swap = op(6, 7, Effect::Write(2, Condition::Is(1)));
        assert_eq!(check(&[create(0, 5, 1), swap, op(8, 9, Effect::Read(Some(2)))]), Linear::Yes);
    }

    #[test]
    fn a_deleted_object_stays_deleted() {
        let ops = [op(0, 1, Effect::Write(1, ALWAYS)), op(2, 3, Effect::Delete)];
        assert_eq!(check(&[&ops[..], &[op(4, 5, Effect::Read(None))]].concat()), Linear::Yes);
        assert_eq!(check(&[&ops[..], &[op(4, 5, Effect::Read(Some(1)))]].concat()), Linear::No);
        assert_eq!(check(&[&ops[..], &[op(4, 5, Effect::Present)]].concat()), Linear::No);
    }

    /// Found by the simulator (`restore`, seed 7012): the only voter was down for 24 s, and what clients asked for meanwhile was
    /// more than the search could order, although none of it ever happened.
    #[test]
    fn an_outage_full_of_unknown_writes_and_deletes_is_decided() {
        let mut ops = vec![op(0, 1, Effect::Write(1, ALWAYS))];
        for number in 0..60 {
            let condition = if number % 3 == 0 { Condition::Absent } else { ALWAYS };
            ops.push(op(2 + number, 0, Effect::Attempt(100 + number, condition)));
            ops.push(op(2 + number, 0, Effect::Delete));
        }
        ops.push(op(70, 71, Effect::Refused(Condition::Absent)));
        ops.push(op(72, 73, Effect::Present));
        ops.push(op(74, 75, Effect::Read(Some(1))));
        assert_eq!(check(&ops), Linear::Yes);
        let deleted = [&ops[..], &[op(76, 77, Effect::Read(None))]].concat();
        assert_eq!(check(&deleted), Linear::Yes, "one of the deletes came late");
    }

    #[test]
    fn long_histories_with_many_unknown_writes_are_decided() {
        let mut ops = Vec::new();
        for number in 0..500 {
            ops.push(op(number * 10, 0, Effect::Attempt(10_000 + number, ALWAYS)));
            ops.push(op(number * 10 + 1, number * 10 + 3, Effect::Write(number, ALWAYS)));
            ops.push(op(number * 10 + 2, number * 10 + 5, Effect::Read(Some(number))));
        }
        assert_eq!(check(&ops), Linear::Yes);
        ops.push(op(6000, 6001, Effect::Read(Some(498))));
        assert_eq!(check(&ops), Linear::No);
    }
}

//! Locks: who gets one, in which order, under which token; what a token that was overtaken may still do (nothing).

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(5);

fn path(name: &str) -> LockPath {
    LockPath::parse(name).unwrap()
}

/// A question of the process `life` of node `n1`.
fn owner(life: u128) -> LockOwner {
    LockOwner { node: "n1".into(), life: LifeId(life), label: "test".into() }
}

fn acquire(name: &str, life: u128, queue: bool) -> Command {
    Command::AcquireLock { path: path(name), owner: owner(life), lease: LEASE, queue }
}

fn release(name: &str, life: u128, token: u64) -> Command {
    Command::ReleaseLock { path: path(name), owner: owner(life), token: LockToken(token) }
}

fn renew(name: &str, life: u128, token: u64) -> Command {
    Command::RenewLock { path: path(name), owner: owner(life), token: LockToken(token) }
}

fn break_lock(name: &str, token: u64, round: Option<u64>) -> Command {
    let fence = round.map(|round| Fence { epoch: 1, round, holder: "n1".into() });
    Command::BreakLock { path: path(name), token: LockToken(token), reason: "test".into(), fence }
}

fn locked(token: u64) -> Outcome {
    Outcome::Locked { token: LockToken(token) }
}

fn lost(name: &str, token: u64) -> Outcome {
    refused(Refusal::LockLost { path: path(name), token: LockToken(token) })
}

impl Story {
    /// The lives that hold and wait, in order.
    fn line(&self, name: &str) -> Vec<u128> {
        let table = self.state.locks();
        let record = table.get(&path(name));
        let waiting = record.iter().flat_map(|record| &record.queue).map(|waiter| waiter.owner.life.0);
        record.iter().map(|record| record.holder.owner.life.0).chain(waiting).collect()
    }

    fn stamp(&self, name: &str, at: usize) -> u64 {
        let table = self.state.locks();
        let record = table.get(&path(name)).expect("held");
        if at == 0 { record.holder.stamp } else { record.queue[at - 1].stamp }
    }
}

/// Memory says what the table says; nobody is in one line twice, and no token is above the last drawn.
pub(super) async fn check(story: &Story) {
    let stored = story
        .state
        .read(|txn| super::super::locks::read_locks(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?))
        .await
        .unwrap();
    let table = story.state.locks();
    assert_eq!(*table, stored);
    for record in table.locks.values() {
        let everybody = record.queue.iter().map(|waiter| &waiter.owner).chain([&record.holder.owner]);
        assert_eq!(everybody.collect::<BTreeSet<_>>().len(), record.queue.len() + 1, "{record:?}");
        assert!(record.holder.token <= table.counters.token && record.queue.len() <= MAX_WAITERS);
    }
}

#[tokio::test]
async fn a_lock_goes_from_hand_to_hand_in_the_order_of_asking_and_each_token_is_higher() {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(acquire("a", 1, true)).await, locked(1));
    assert_eq!(story.run(acquire("a", 2, true)).await, Outcome::Queued { before: 0 });
    assert_eq!(story.run(acquire("a", 3, true)).await, Outcome::Queued { before: 1 });
    assert_eq!(story.run(acquire("other", 4, true)).await, locked(2), "tokens are of all locks together");
    assert_eq!(story.line("a"), [1, 2, 3]);

    assert_eq!(story.run(release("a", 1, 1)).await, Outcome::Done);
    assert_eq!(story.line("a"), [2, 3]);
    assert_eq!(story.run(acquire("a", 2, true)).await, locked(3), "who waited asks again, and has it");
    assert_eq!(story.run(release("a", 2, 3)).await, Outcome::Done);
    assert_eq!(story.run(release("a", 3, 4)).await, Outcome::Done);
    assert_eq!(story.line("a"), [0u128; 0], "free");
    assert_eq!(story.run(acquire("a", 1, false)).await, locked(5), "never 1 again");
}

#[tokio::test]
async fn asking_twice_neither_takes_a_lock_twice_nor_a_second_place_in_the_queue() {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(acquire("a", 1, true)).await, locked(1));
    let first = story.stamp("a", 0);
    assert_eq!(story.run(acquire("a", 1, true)).await, locked(1));
    assert!(story.stamp("a", 0) > first, "its lease counts from the second question");
    story.run(acquire("a", 2, true)).await;
    let waiting = story.stamp("a", 1);
    assert_eq!(story.run(acquire("a", 2, true)).await, Outcome::Queued { before: 0 });
    assert!(story.stamp("a", 1) > waiting);
    assert_eq!(story.line("a"), [1, 2]);
}

#[tokio::test]
async fn who_does_not_want_to_wait_is_told_who_has_it() {
    let mut story = Story::cluster().await;
    story.run(acquire("a", 1, true)).await;
    let held = Refusal::LockHeld { path: path("a"), owner: owner(1), token: LockToken(1) };
    assert_eq!(held.to_string(), "lock a is held by test on n1 (token 1)");
    assert_eq!(story.run(acquire("a", 2, false)).await, refused(held));
    assert_eq!(story.line("a"), [1]);
}

#[tokio::test]
async fn only_the_owner_with_the_token_renews_and_releases() {
    let mut story = Story::cluster().await;
    story.run(acquire("a", 1, true)).await;
    for (life, token) in [(2, 1), (1, 2), (1, 0)] {
        assert_eq!(story.run(renew("a", life, token)).await, lost("a", token));
        assert_eq!(story.run(release("a", life, token)).await, lost("a", token));
    }
    assert_eq!(story.run(renew("none", 1, 1)).await, lost("none", 1));
    assert_eq!(story.run(renew("a", 1, 1)).await, locked(1));
    assert_eq!(story.run(release("a", 1, 1)).await, Outcome::Done);
    assert_eq!(story.run(release("a", 1, 1)).await, lost("a", 1), "once");
}

#[tokio::test]
async fn a_lease_that_is_over_passes_the_lock_on_and_one_that_was_renewed_does_not() {
    let mut story = Story::cluster().await;
    story.run(acquire("a", 1, true)).await;
    story.run(acquire("a", 2, true)).await;
    let measured = story.stamp("a", 0);
    story.run(renew("a", 1, 1)).await;
    let expire = |stamp| Command::ExpireLock { path: path("a"), stamp };
    assert_eq!(story.run(expire(measured)).await, refused(Refusal::LockMoved), "the renewal was applied first");
    assert_eq!(story.line("a"), [1, 2]);

    assert_eq!(story.run(expire(story.stamp("a", 0))).await, Outcome::Done);
    assert_eq!(story.line("a"), [2]);
    assert_eq!(story.run(renew("a", 1, 1)).await, lost("a", 1));
    assert_eq!(story.run(Command::ExpireLock { path: path("none"), stamp: 1 }).await, refused(Refusal::LockMoved));
}

#[tokio::test]
async fn a_waiter_that_went_silent_loses_its_place_and_one_that_gives_up_leaves_nothing() {
    let mut story = Story::cluster().await;
    for life in 1..=4 {
        story.run(acquire("a", life, true)).await;
    }
    let silent = story.stamp("a", 1);
    assert_eq!(story.run(Command::ExpireLock { path: path("a"), stamp: silent }).await, Outcome::Done);
    assert_eq!(story.line("a"), [1, 3, 4]);
    let withdraw = |life| Command::WithdrawLock { path: path("a"), owner: owner(life) };
    assert_eq!(story.run(withdraw(3)).await, Outcome::Done);
    assert_eq!(story.line("a"), [1, 4]);
    // Granted while its question to leave was on its way: it does not keep what it does not know of.
    story.run(release("a", 1, 1)).await;
    assert_eq!(story.line("a"), [4]);
    assert_eq!(story.run(withdraw(4)).await, Outcome::Done);
    assert_eq!(story.line("a"), [0u128; 0]);
    assert_eq!(story.run(withdraw(4)).await, Outcome::Done, "twice is as good as once");
}

#[tokio::test]
async fn what_a_broken_holder_still_sends_under_its_token_is_refused() {
    let mut story = Story::cluster().await;
    story.run(acquire("config/bucket/x", 1, true)).await;
    story.run(acquire("config/bucket/x", 2, true)).await;
    let under = |token, name: &str| Command::UnderLock {
        path: path("config/bucket/x"),
        token: LockToken(token),
        command: Box::new(bucket(name)),
    };
    assert!(matches!(story.run(under(1, "one")).await, Outcome::Bucket(_)));

    assert_eq!(story.run(break_lock("config/bucket/x", 9, None)).await, lost("config/bucket/x", 9));
    let broken = story.run(break_lock("config/bucket/x", 1, None)).await;
    assert_eq!(broken, Outcome::Broken { token: LockToken(2) });
    assert_eq!(story.line("config/bucket/x"), [2]);
    // Its owner was not dead after all, or its last words were still on their way.
    assert_eq!(story.run(under(1, "late")).await, lost("config/bucket/x", 1));
    assert!(story.state.bucket(&"late".into()).await.unwrap().is_none());
    assert_eq!(story.run(renew("config/bucket/x", 1, 1)).await, lost("config/bucket/x", 1));
    assert!(matches!(story.run(under(3, "three")).await, Outcome::Bucket(_)), "the next holder's is done");
    assert_eq!(story.run(break_lock("config/bucket/x", 1, None)).await, lost("config/bucket/x", 1), "not it again");

    // Nobody waits: it is free, and the token has moved on all the same.
    assert_eq!(story.run(break_lock("config/bucket/x", 3, None)).await, Outcome::Broken { token: LockToken(4) });
    assert_eq!(story.run(under(3, "later")).await, lost("config/bucket/x", 3));
    assert_eq!(story.run(acquire("config/bucket/x", 5, false)).await, locked(5));
}

#[tokio::test]
async fn an_agent_whose_fence_was_overtaken_breaks_nothing() {
    let mut story = Story::cluster().await;
    story.run(acquire("a", 1, true)).await;
    story.run(mark(11, DiskState::Down, MarkedBy::Automatic, Some(7))).await;
    let stale = story.run(break_lock("a", 1, Some(6))).await;
    assert!(matches!(stale, Outcome::Refused(Refusal::StaleFence { .. })), "{stale:?}");
    assert_eq!(story.line("a"), [1]);
    // A higher one counts from now on, even of a command that comes to nothing.
    assert_eq!(story.run(break_lock("a", 99, Some(8))).await, lost("a", 99));
    let stale = story.run(break_lock("a", 1, Some(7))).await;
    assert!(matches!(stale, Outcome::Refused(Refusal::StaleFence { .. })), "{stale:?}");
    assert!(matches!(story.run(break_lock("a", 1, Some(8))).await, Outcome::Broken { .. }));
}

#[tokio::test]
async fn there_is_an_end_to_queues_and_to_locks() {
    let mut story = Story::cluster().await;
    for life in 0..=MAX_WAITERS as u128 {
        story.run(acquire("a", life, true)).await;
    }
    assert_eq!(story.run(acquire("a", 99, true)).await, refused(Refusal::LockQueueFull(path("a"))));
    for lock in 1..MAX_LOCKS {
        assert!(matches!(story.run(acquire(&format!("n/{lock}"), 1, true)).await, Outcome::Locked { .. }));
    }
    assert_eq!(story.run(acquire("over", 1, true)).await, refused(Refusal::TooManyLocks));
    let eternal = Command::AcquireLock {
        path: path("n/1"),
        owner: owner(1),
        lease: Duration::from_secs(u64::from(u32::MAX)),
        queue: false,
    };
    story.run(eternal).await;
    assert_eq!(story.state.locks().get(&path("n/1")).unwrap().holder.lease, MAX_LEASE);
}

#[tokio::test]
async fn locks_and_their_counters_outlast_a_restart_and_travel_in_a_snapshot() {
    let mut story = Story::cluster().await;
    story.run(acquire("a", 1, true)).await;
    story.run(acquire("a", 2, true)).await;
    story.run(acquire("gone", 3, true)).await;
    story.run(release("gone", 3, 2)).await;
    let before = story.state.locks();

    let file = story.dir.path().join("snapshot");
    story.state.export(&file, "s1".into()).await.unwrap();
    let mut other = Story::blank().await;
    let mut changes = other.state.lock_changes();
    other.state.install(&file).await.unwrap();
    assert!(changes.has_changed().unwrap(), "who follows the locks is told");
    assert_eq!(*changes.borrow_and_update(), before);
    (other.index, other.sequence) = (story.index, 1000);
    assert_eq!(other.run(acquire("b", 4, true)).await, locked(3), "token 2 was let go and is not used again");

    story.state.flush().await.unwrap();
    story.state.close().await;
    story.state = State::open(&story.host, &story.path(), OWNER).await.unwrap();
    assert_eq!(story.state.locks(), before);
    assert_eq!(story.run(acquire("b", 4, true)).await, locked(3));
}

#[tokio::test]
async fn a_database_from_before_there_were_locks_gets_the_table_when_it_is_opened() {
    let story = Story::cluster().await;
    story.state.flush().await.unwrap();
    story.state.close().await;
    {
        let database = redb::Database::open(story.path()).unwrap();
        let txn = database.begin_write().unwrap();
        assert!(txn.delete_table(LOCKS).unwrap());
        txn.commit().unwrap();
    }
    let state = State::open(&story.host, &story.path(), OWNER).await.unwrap();
    let mut story = Story { state, ..story };
    assert!(story.state.locks().locks.is_empty());
    assert_eq!(story.run(acquire("a", 1, true)).await, locked(1));
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u128, bool),
    Release(u128),
    Withdraw(u128),
    Expire(usize),
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    let life = 1u128..5;
    prop_oneof![
        (life.clone(), any::<bool>()).prop_map(|(life, queue)| Step::Acquire(life, queue)),
        life.clone().prop_map(Step::Release),
        life.prop_map(Step::Withdraw),
        (0usize..4).prop_map(Step::Expire),
        Just(Step::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Against a plain line of people: the first has it, the others come in order, and nobody ever gets an old token.
    #[test]
    fn whatever_is_asked_in_whatever_order_the_line_is_a_line(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut story = Story::cluster().await;
            let mut line: Vec<u128> = Vec::new();
            let mut highest = 0;
            for step in &steps {
                let table = story.state.locks();
                let held = table.get(&path("a"));
                let token = held.map_or(0, |record| record.holder.token.0);
                let head = line.first().copied();
                match *step {
                    Step::Acquire(life, queue) => {
                        story.run(acquire("a", life, queue)).await;
                        if !line.contains(&life) && (queue || line.is_empty()) {
                            line.push(life);
                        }
                    }
                    Step::Release(life) => {
                        let outcome = story.run(release("a", life, token)).await;
                        assert_eq!(outcome == Outcome::Done, head == Some(life));
                        if head == Some(life) {
                            line.remove(0);
                        }
                    }
                    Step::Withdraw(life) => {
                        story.run(Command::WithdrawLock { path: path("a"), owner: owner(life) }).await;
                        line.retain(|other| *other != life);
                    }
                    Step::Expire(at) => {
                        let stamp = if at < line.len() { story.stamp("a", at) } else { u64::MAX };
                        let outcome = story.run(Command::ExpireLock { path: path("a"), stamp }).await;
                        assert_eq!(outcome == Outcome::Done, at < line.len());
                        if at < line.len() {
                            line.remove(at);
                        }
                    }
                    Step::Break => {
                        let outcome = story.run(break_lock("a", token, None)).await;
                        assert_eq!(matches!(outcome, Outcome::Broken { .. }), head.is_some());
                        if head.is_some() {
                            line.remove(0);
                        }
                    }
                }
                assert_eq!(story.line("a"), line, "{step:?}");
                let now = story.state.locks().get(&path("a")).map(|record| record.holder.token.0);
                match (now, line.first() == head.as_ref()) {
                    (Some(now), true) => assert_eq!(now, token, "the same holder, the same token"),
                    (Some(now), false) => assert!(now > highest, "{now} after {highest}"),
                    (None, _) => {}
                }
                highest = highest.max(now.unwrap_or(0));
            }
        });
    }
}

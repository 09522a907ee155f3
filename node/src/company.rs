//! Work in company: what is asked for while some of it is under way goes together afterwards ("group commit"). Small steps
//! whose cost is the trip (a call, a sync, an entry of the log) share it then.
//!
//! Owns: who waits, and what is under way. Must never: put more into a company than its bound; let one who goes away take
//! others' work with it; keep anybody waiting longer than its time to gather, or when the work panicked.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};

/// What a company does: one answer for each that is in it, in their order.
type Work<T, R> = dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Vec<R>> + Send>> + Send + Sync;

/// One thing that is done in company. Cheap to clone.
pub(crate) struct Company<T, R> {
    inner: Arc<Inner<T, R>>,
}

impl<T, R> Clone for Company<T, R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<T, R> {
    work: Box<Work<T, R>>,
    /// How much goes together, in what [`Company::join`] is told each weighs.
    most: usize,
    /// How long the first waits for others; zero: it goes at once.
    gather: Duration,
    /// What each company takes one permit of.
    turns: Option<Arc<Semaphore>>,
    state: Mutex<State<T, R>>,
    /// Enough wait.
    full: Notify,
}

struct State<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    under_way: bool,
}

struct Waiting<T, R> {
    item: T,
    weight: usize,
    since: Instant,
    answer: oneshot::Sender<R>,
}

impl<T: Send + 'static, R: Send + 'static> Company<T, R> {
    /// Up to `most` together, and what comes within `gather` of the first: where the work takes no longer than it takes for the
    /// next to come, there would be no company otherwise. One that weighs more goes alone.
    pub(crate) fn new<F>(most: usize, gather: Duration, work: impl Fn(Vec<T>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        let state = Mutex::new(State { waiting: VecDeque::new(), under_way: false });
        let work = Box::new(move |items| Box::pin(work(items)) as Pin<Box<dyn Future<Output = Vec<R>> + Send>>);
        Self { inner: Arc::new(Inner { work, most, gather, turns: None, state, full: Notify::new() }) }
    }

    /// Each company waits for a permit, and holds it until its work has ended.
    pub(crate) fn in_turn(self, turns: Arc<Semaphore>) -> Self {
        let inner = Arc::into_inner(self.inner).expect("it is new");
        Self { inner: Arc::new(Inner { turns: Some(turns), ..inner }) }
    }

    /// Does this with whatever else is asked for. `None`: the work panicked, or ended with the runtime.
    ///
    /// Who is dropped before its turn is left out; after that its work is done all the same, for nobody.
    pub(crate) async fn join(&self, item: T, weight: usize) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut state = self.inner.lock();
            // Who went away must not be kept for as long as something hangs.
            state.waiting.retain(|waiting| !waiting.answer.is_closed());
            state.waiting.push_back(Waiting { item, weight, since: Instant::now(), answer });
            if state.weight() >= self.inner.most {
                self.inner.full.notify_one();
            }
            !std::mem::replace(&mut state.under_way, true)
        };
        // Not under the lock: a runtime that is shutting down drops what it is given at once.
        if begins {
            tokio::spawn(Self::work(Driver { inner: Arc::clone(&self.inner), ended: false }));
        }
        answered.await.ok()
    }

    async fn work(mut driver: Driver<T, R>) {
        loop {
            driver.inner.gathered().await;
            // Whoever goes away before its turn need not be done any more.
            let turn = driver.inner.turns.clone();
            let _turn = match turn {
                Some(turns) => turns.acquire_owned().await.ok(),
                None => None,
            };
            let Some((items, answers)) = driver.inner.next() else {
                driver.ended = true;
                return;
            };
            let results = (driver.inner.work)(items).await;
            debug_assert_eq!(results.len(), answers.len(), "one answer for each");
            for (answer, result) in answers.into_iter().zip(results) {
                // Who went away needs none.
                let _ = answer.send(result);
            }
        }
    }
}

impl<T, R> Inner<T, R> {
    /// Waits for those who go with the first.
    async fn gathered(&self) {
        loop {
            let full = self.full.notified();
            let first = {
                let state = self.lock();
                if state.weight() >= self.most { None } else { state.waiting.front().map(|first| first.since) }
            };
            let Some(until) = first.map(|since| since + self.gather) else { return };
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => return,
                // It may be of an earlier crowd.
                () = full => {}
            }
        }
    }

    /// Who goes next; `None`: nobody waits, and nothing is under way any more.
    fn next(&self) -> Option<(Vec<T>, Vec<oneshot::Sender<R>>)> {
        let mut state = self.lock();
        let (mut items, mut answers, mut weight) = (Vec::new(), Vec::new(), 0);
        while let Some(first) = state.waiting.pop_front() {
            if first.answer.is_closed() {
                continue;
            }
            if !items.is_empty() && weight + first.weight > self.most {
                state.waiting.push_front(first);
                break;
            }
            weight += first.weight;
            items.push(first.item);
            answers.push(first.answer);
        }
        state.under_way = !items.is_empty();
        state.under_way.then_some((items, answers))
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, R> State<T, R> {
    fn weight(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.weight).sum()
    }
}

/// Whoever works for the company. When that ends in a panic, those who wait are told, and the next begins anew.
struct Driver<T, R> {
    inner: Arc<Inner<T, R>>,
    /// Nobody waits any more: whoever joins from now on has a driver of his own.
    ended: bool,
}

impl<T, R> Drop for Driver<T, R> {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.inner.lock();
            state.under_way = false;
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    /// Which went together.
    type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Doubles numbers, each company once it is let go on.
    fn doubling(most: usize, gather: Duration) -> (Company<u32, u32>, Arc<Semaphore>, Seen) {
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (passing, noting) = (Arc::clone(&gate), Arc::clone(&seen));
        let company = Company::new(most, gather, move |items: Vec<u32>| {
            let (passing, noting) = (Arc::clone(&passing), Arc::clone(&noting));
            async move {
                noting.lock().unwrap().push(items.clone());
                passing.acquire().await.unwrap().forget();
                assert!(!items.contains(&13), "unlucky");
                items.into_iter().map(|item| 2 * item).collect()
            }
        });
        (company, gate, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_alone_and_who_came_meanwhile_goes_together_up_to_the_bound() {
        let (company, gate, seen) = doubling(3, Duration::ZERO);
        let asked = |items: Vec<u32>| {
            let company = company.clone();
            let all = async move {
                join_all(items.into_iter().map(|item| company.join(item, if item == 6 { 9 } else { 1 }))).await
            };
            tokio::spawn(all)
        };
        let first = asked(vec![1]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*seen.lock().unwrap(), [[1]], "it waited for nobody");
        let others = asked((2..=6).collect());
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.add_permits(9);
        assert_eq!(first.await.unwrap(), [Some(2)]);
        assert_eq!(others.await.unwrap(), [4, 6, 8, 10, 12].map(Some));
        assert_eq!(*seen.lock().unwrap(), [vec![1], vec![2, 3, 4], vec![5], vec![6]], "what weighs more goes alone");
        assert_eq!(company.join(7, 1).await, Some(14), "and it begins again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_waits_for_company_as_long_as_it_may_and_not_when_enough_are_there() {
        let gather = Duration::from_millis(5);
        let (company, gate, seen) = doubling(3, gather);
        gate.add_permits(99);
        let began = Instant::now();
        assert_eq!(company.join(1, 1).await, Some(2));
        assert_eq!(began.elapsed(), gather);
        let began = Instant::now();
        join_all((2..=7).map(|item| company.join(item, 1))).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(*seen.lock().unwrap(), [vec![1], vec![2, 3, 4], vec![5, 6, 7]]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_before_its_turn_is_left_out_and_after_it_harms_nobody() {
        let (company, gate, seen) = doubling(3, Duration::ZERO);
        let asked = |item| {
            let company = company.clone();
            tokio::spawn(async move { company.join(item, 1).await })
        };
        let first = asked(1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (second, third) = (asked(2), asked(3));
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.abort();
        second.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.add_permits(9);
        assert_eq!(third.await.unwrap(), Some(6));
        assert_eq!(*seen.lock().unwrap(), [[1], [3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_company_waits_for_its_turn_and_who_goes_away_meanwhile_is_left_out() {
        let (company, gate, seen) = doubling(3, Duration::ZERO);
        gate.add_permits(99);
        let turns = Arc::new(Semaphore::new(0));
        let company = company.in_turn(Arc::clone(&turns));
        let asked = |item| {
            let company = company.clone();
            tokio::spawn(async move { company.join(item, 1).await })
        };
        let (first, second) = (asked(1), asked(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        turns.add_permits(1);
        assert_eq!(second.await.unwrap(), Some(4));
        assert_eq!(*seen.lock().unwrap(), [[2]]);
    }

    /// A driver that had ended cleared what its successor had under way: whoever had joined in between was told of a panic.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_joins_while_the_last_company_ends_is_not_forgotten() {
        let company = Company::new(4, Duration::ZERO, |items: Vec<u32>| async move { items });
        let asked = (0..8).map(|who| {
            let company = company.clone();
            tokio::spawn(async move {
                for item in 0..20_000 {
                    assert_eq!(company.join(item, 1).await, Some(item), "{who}");
                }
            })
        });
        for ended in join_all(asked).await {
            ended.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_work_keeps_nobody_waiting() {
        let (company, gate, _) = doubling(1, Duration::ZERO);
        gate.add_permits(9);
        let all = join_all([13, 1].map(|item| company.join(item, 1))).await;
        assert_eq!(all, [None, None]);
        assert_eq!(company.join(2, 1).await, Some(4), "the next begins anew");
    }
}

//! A crash at any moment never costs anything acknowledged, and is never taken for damage.

use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;

use super::*;

/// How a run ends.
#[derive(Clone, Debug)]
enum End {
    /// The process is killed.
    Kill,
    /// The power fails; the seed decides what remains.
    Power(u64),
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![1 => Just(End::Kill), 3 => any::<u64>().prop_map(End::Power)]
}

impl End {
    fn befall(&self, disk: &MemDisk) {
        match self {
            End::Kill => disk.kill(),
            End::Power(seed) => disk.power_failure(*seed),
        }
    }
}

/// What the folder may hold: what was acknowledged, or that and the act under way when the crash came.
struct Possible(Vec<Model>);

impl Possible {
    /// Settles which of them it is. From then on it must stay: somebody may have acted on it.
    async fn settle(&mut self, opened: &Opened) -> Model {
        let content = opened.content().await.unwrap();
        assert!(self.0.contains(&content), "the folder holds {content:?}, possible was {:?}", self.0);
        self.0 = vec![content.clone()];
        content
    }
}

/// Runs drafts until a change fails.
async fn run(opened: &Opened, drafts: &mut impl Iterator<Item = Draft>, possible: &mut Possible, serial: &mut u64) {
    let mut model = possible.settle(opened).await;
    for draft in drafts {
        let act = draft.act(&model, serial);
        let after = model.after(&act);
        match opened.perform(&act).await {
            Ok(()) => {
                model = after;
                possible.0 = vec![model.clone()];
            }
            Err(error) => {
                assert!(matches!(error, LogError::Io { .. }), "{error}");
                possible.0.push(after);
                let again = opened.perform(&act).await;
                assert!(matches!(again, Err(LogError::Poisoned { .. })), "{again:?}");
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_crash_at_any_point_loses_nothing_acknowledged(
        drafts in prop::collection::vec(draft(), 5..60),
        runs in prop::collection::vec((0u64..50, end()), 1..8),
    ) {
        block_on(async {
            let disk = MemDisk::default();
            let mut possible = Possible(vec![Model::default()]);
            let (mut drafts, mut serial) = (drafts.into_iter(), 0);
            for (changes, end) in &runs {
                disk.fail_after(*changes);
                match open(&disk).await {
                    Ok(opened) => run(&opened, &mut drafts, &mut possible, &mut serial).await,
                    Err(error) => assert!(!error.is_lost(), "{error}"),
                }
                end.befall(&disk);
            }
            possible.settle(&open(&disk).await.unwrap()).await;
            // And once more: what recovery wrote is as good as what it read.
            possible.settle(&open(&disk).await.unwrap()).await;
        });
    }

    #[test]
    fn a_future_dropped_at_any_await_is_a_crash_like_any_other(
        drafts in prop::collection::vec(draft(), 1..30),
        polls in 0usize..40,
        end in end(),
    ) {
        block_on(async {
            let (disk, model) = build(&drafts[1..]).await;
            let opened = open(&disk).await.unwrap();
            let act = drafts[0].act(&model, &mut 1_000_000);
            let done = polled(opened.perform(&act), polls).await;
            if done.is_none() && polls > 0 && disk.changes() > 0 {
                let again = opened.perform(&act).await;
                let after = model.after(&act);
                let told = matches!(again, Err(LogError::Poisoned { .. }) | Err(LogError::Gap { .. }));
                assert!(told || after == model || again.is_ok(), "{again:?}");
                if again.is_ok() {
                    // It had not begun to write, or there was nothing to write.
                    assert_eq!(Opened { voted: after.voted.clone(), ..opened }.content().await.unwrap(), after);
                }
            }
            end.befall(&disk);
            let mut possible = Possible(match done {
                Some(result) => { result.unwrap(); vec![model.after(&act)] }
                None => vec![model.after(&act), model],
            });
            possible.settle(&open(&disk).await.unwrap()).await;
        });
    }
}

/// Polls a future so many times, then drops it.
async fn polled<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Every single change of a run that meets new segments, truncation, purge, reset and votes is the last one once.
#[test]
fn every_change_of_a_full_life_may_be_the_last() {
    let life = [
        Draft::Vote,
        Draft::Append(vec![900; 10]),
        Draft::Truncate(40),
        Draft::Append(vec![1200; 6]),
        Draft::Purge(50),
        Draft::Vote,
        Draft::Append(vec![10; 30]),
        Draft::Truncate(0),
        Draft::Append(vec![4080; 3]),
        Draft::Reset(7),
        Draft::Append(vec![700; 5]),
        Draft::Purge(110),
        Draft::Append(vec![700; 2]),
    ];
    block_on(async {
        let mut changes = 0;
        loop {
            for end in [End::Kill, End::Power(changes), End::Power(changes + 1), End::Power(changes + 2)] {
                let disk = MemDisk::default();
                disk.fail_after(changes);
                let mut possible = Possible(vec![Model::default()]);
                let mut drafts = life.iter().cloned();
                if let Ok(opened) = open(&disk).await {
                    run(&opened, &mut drafts, &mut possible, &mut 0).await;
                }
                if drafts.next().is_none() && possible.0.len() == 1 {
                    return;
                }
                end.befall(&disk);
                let opened = open(&disk).await.unwrap();
                let model = possible.settle(&opened).await;

                // What the next run acknowledges stands on what this one left, synced or not.
                opened.vote.write(Bytes::from_static(b"after the crash")).await.unwrap();
                disk.power_failure(changes);
                let voted = Some(Bytes::from_static(b"after the crash"));
                assert_eq!(open(&disk).await.unwrap().content().await.unwrap(), Model { voted, ..model });
            }
            changes += 1;
            assert!(changes < 10_000, "a life of a few acts takes a few hundred changes");
        }
    });
}

/// What a crash left behind the end is told once, and does not come back.
#[test]
fn a_torn_tail_is_told_and_cleared() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[100])).await.unwrap();
        disk.fail_after(1);
        opened.log.append(records(1, &[50, 50])).await.unwrap_err();
        disk.kill();
        let opened = open(&disk).await.unwrap();
        assert_eq!((opened.log.next(), opened.recovered.torn_bytes), (1, 2 * 66));
        assert_eq!(open(&disk).await.unwrap().recovered.torn_bytes, 0);
    });
}

/// The making of a fresh log, cut short twice, in every way: it is still fresh, and nothing of it is taken for a loss.
#[test]
fn a_creation_cut_short_again_and_again_is_taken_up() {
    block_on(async {
        for (first, second, seed) in (0..15).flat_map(|a| (0..15).flat_map(move |b| (0..20).map(move |c| (a, b, c)))) {
            let disk = MemDisk::default();
            for (changes, end) in [(first, End::Kill), (second, End::Power(seed))] {
                disk.fail_after(changes);
                let opened = open(&disk).await;
                assert!(!opened.is_err_and(|error| error.is_lost()));
                end.befall(&disk);
            }
            let opened = open(&disk).await.unwrap();
            assert_eq!(opened.content().await.unwrap(), Model::default());
        }
    });
}

/// Found by the property above: the process is killed with slot A written but not synced, the next one mends slot B, and
/// the power fails before its sync. Slot A must have been synced first, or both are torn.
#[test]
fn mending_one_slot_never_risks_the_other() {
    block_on(async {
        for (killed_at, failed_at, seed) in
            (0..8).flat_map(|a| (0..8).flat_map(move |b| (0..40).map(move |c| (a, b, c))))
        {
            let disk = MemDisk::default();
            let opened = open(&disk).await.unwrap();
            let mut possible = Possible(vec![Model::default()]);
            disk.fail_after(killed_at);
            let mut drafts = [Draft::Append(vec![10]), Draft::Vote].into_iter();
            run(&opened, &mut drafts, &mut possible, &mut 0).await;
            disk.kill();
            disk.fail_after(failed_at);
            if let Ok(opened) = open(&disk).await {
                possible.settle(&opened).await;
            }
            disk.power_failure(seed);
            possible.settle(&open(&disk).await.unwrap()).await;
        }
    });
}

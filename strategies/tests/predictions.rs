//! What is foreseen and what is not: days of samples from a seeded generator, many times over. A trend is found before
//! its end comes, and nothing else is ever taken for one.

#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;
use std::time::Duration;

use resilver_strategies::predict::{Kind, MAX_SERIES, Prediction, Sample, SeriesId, TrendPolicy, Trends};
use resilver_strategies::types::{Grade, Moment, Now};

const GIB: f64 = (1u64 << 30) as f64;
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How many stories of each kind: what fails once in a hundred is found.
const RUNS: u64 = 150;
const DAY: u64 = 24 * 60;
/// How often a story's reader looks, in minutes. The agent looks each minute; this keeps the tests quick.
const LOOK: u64 = 7;

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `from` to `to`.
    fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, about 0: twelve even ones make it.
    fn noise(&mut self, sigma: f64) -> f64 {
        sigma * ((0..12).map(|_| self.between(0.0, 1.0)).sum::<f64>() - 6.0)
    }
}

fn now(minute: u64) -> Now {
    Now { mono: Moment(Duration::from_secs(60 * minute)), wall_ms: EPOCH_MS + 60_000 * minute }
}

fn disk() -> SeriesId {
    SeriesId { kind: Kind::DiskFull, subject: "d1".into() }
}

/// Feeds a story minute by minute; every record that came of it, with its minute.
fn play(id: &SeriesId, end: f64, minutes: u64, mut value: impl FnMut(u64) -> f64) -> (Vec<(u64, Prediction)>, Trends) {
    let mut trends = Trends::new(TrendPolicy::default());
    let mut told = Vec::new();
    for minute in 0..minutes {
        trends.feed(now(minute).mono, id.clone(), Sample { value: value(minute), end });
        if minute % LOOK == 0 {
            told.extend(trends.review(now(minute)).into_iter().map(|prediction| (minute, prediction)));
        }
    }
    (told, trends)
}

/// Many stories of a disk of 100 GiB none of which may be taken for the beginning of its end.
fn never(story: impl Fn(&mut Dice) -> Box<dyn FnMut(u64, &mut Dice) -> f64>) {
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let mut available = story(&mut dice);
        let (told, _) = play(&disk(), 0.0, DAY, |minute| available(minute, &mut dice).max(0.0) * GIB);
        assert!(told.is_empty(), "seed {seed}: {told:?}");
    }
}

#[test]
fn noise_is_no_trend() {
    never(|dice| {
        let (level, sigma) = (dice.between(5.0, 90.0), dice.between(0.001, 0.15));
        Box::new(move |_, dice| level * (1.0 + dice.noise(sigma)))
    });
}

#[test]
fn compaction_is_no_trend() {
    never(|dice| {
        let level = dice.between(10.0, 90.0);
        let (period, tooth) = (dice.between(5.0, 600.0), level * dice.between(0.01, 0.12));
        let (begin, sigma) = (dice.between(0.0, period), dice.between(0.0, 0.1 * tooth));
        Box::new(move |minute, dice| {
            let along = ((minute as f64 + begin) % period) / period;
            level - tooth * along + dice.noise(sigma)
        })
    });
}

#[test]
fn once_its_teeth_were_seen_even_a_great_sawtooth_is_no_trend() {
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let (period, tooth) = (dice.between(60.0, 300.0), dice.between(20.0, 80.0));
        let (told, trends) = play(&disk(), 0.0, 3 * DAY, |minute| {
            GIB * (90.0 - tooth * ((minute as f64) % period) / period + dice.noise(0.2))
        });
        let late: Vec<_> = told.iter().filter(|(minute, _)| *minute as f64 > 2.0 * period).collect();
        assert!(late.is_empty(), "seed {seed}, period {period}: {late:?}");
        assert!(trends.predictions().is_empty(), "seed {seed}: {:?}", trends.predictions());
    }
}

#[test]
fn a_daily_wave_is_no_trend() {
    never(|dice| {
        let level = dice.between(20.0, 80.0);
        let (swing, phase) = (level * dice.between(0.01, 0.12) / 2.0, dice.between(0.0, TAU));
        Box::new(move |minute, dice| {
            level + swing * (phase + TAU * minute as f64 / DAY as f64).sin() + dice.noise(0.05)
        })
    });
}

#[test]
fn a_step_is_no_trend() {
    never(|dice| {
        let (level, at) = (dice.between(40.0, 90.0), dice.between(1.0, DAY as f64));
        let (down, sigma) = (dice.between(1.0, level - 10.0), dice.between(0.0, 0.3));
        Box::new(move |minute, dice| level - if minute as f64 >= at { down } else { 0.0 } + dice.noise(sigma))
    });
}

#[test]
fn a_load_that_wanders_is_no_trend() {
    never(|dice| {
        let mut level = dice.between(30.0, 90.0);
        let sigma = level * dice.between(0.000_01, 0.000_5);
        Box::new(move |_, dice| {
            level += dice.noise(sigma);
            level
        })
    });
}

#[test]
fn too_few_points_are_no_trend() {
    let (told, trends) = play(&disk(), 0.0, 11, |minute| GIB * (100.0 - 5.0 * minute as f64));
    assert!(told.is_empty() && trends.predictions().is_empty(), "however steep: {:?}", trends.predictions());
}

#[test]
fn a_disk_that_fills_is_told_once_in_time_and_with_the_right_time() {
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let (level, hours) = (dice.between(20.0, 90.0), dice.between(3.0, 60.0));
        let per_minute = level / (hours * 60.0);
        let sigma = level * dice.between(0.000_1, 0.01);
        let end = (hours * 60.0) as u64;
        let available =
            |minute: u64, dice: &mut Dice| GIB * (level - per_minute * minute as f64 + dice.noise(sigma)).max(0.0);
        let (told, _) = play(&disk(), 0.0, end, |minute| available(minute, &mut dice));
        assert_eq!(told.len(), 1, "seed {seed}, {hours} h: {told:?}");
        let (minute, prediction) = &told[0];
        assert!(*minute < end / 2, "seed {seed}: told in minute {minute} of {end}");
        let (expected, true_left) = (prediction.expected_in_ms as f64 / 60_000.0, (end - minute) as f64);
        assert!((expected / true_left - 1.0).abs() < 0.25, "seed {seed}: {expected} min, and it was {true_left}");
        assert!((0.7..=1.0).contains(&prediction.confidence), "{prediction:?}");
    }
}

#[test]
fn a_leak_is_found_and_its_sawtooth_of_requests_is_not_what_is_told() {
    let id = SeriesId { kind: Kind::MemoryLeak, subject: "n1".into() };
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let (own, leak) = (dice.between(0.1, 0.5), dice.between(0.1, 1.0) / 60.0);
        let (told, _) = play(&id, 8.0 * GIB, 5 * 60, |minute| {
            GIB * (own + leak * minute as f64 + 0.01 * (minute % 5) as f64 + dice.noise(0.01))
        });
        let left = (8.0 - own) / leak;
        // Beyond the day that a leak is told ahead, nothing is told; at its edge either is right.
        match left {
            left if left < 15.0 * 60.0 => assert_eq!(told.len(), 1, "seed {seed}, {left} min: {told:?}"),
            left if left > 32.0 * 60.0 => assert!(told.is_empty(), "seed {seed}: {told:?}"),
            _ => assert!(told.len() <= 1, "seed {seed}: {told:?}"),
        }
    }
}

#[test]
fn a_canary_that_slows_down_and_a_counter_that_climbs_are_told() {
    let canary = SeriesId { kind: Kind::LatencyDrift, subject: "d1".into() };
    let mut dice = Dice(7);
    let (told, _) = play(&canary, 1.0, DAY, |minute| 0.004 + 0.000_4 * minute as f64 + dice.noise(0.01).abs());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1.draft("n1").text("disk_id"), Some("d1"));

    let counter = SeriesId { kind: Kind::CounterDrift, subject: "d1/reallocated_sectors".into() };
    let (told, _) = play(&counter, 40.0, DAY, |minute| (minute / 60) as f64);
    assert_eq!(told.len(), 1, "one an hour: {told:?}");
    assert_eq!(told[0].1.draft("n1").text("disk_id"), Some("d1"));
    let (told, _) = play(&counter, 40.0, DAY, |minute| if minute < 600 { 3.0 } else { 11.0 });
    assert!(told.is_empty(), "eight at once are a step: {told:?}");
}

#[test]
fn what_no_longer_holds_goes_away_and_is_told_again_only_after_quiet() {
    let mut trends = Trends::new(TrendPolicy::default());
    let mut told = 0;
    let mut left = 60.0;
    let mut shown_after_the_end = 0;
    // Two hours of an upload that would fill the disk by evening; it ends; a day later there is another.
    for minute in 0..2 * DAY {
        let uploading = minute < 120 || (DAY..DAY + 120).contains(&minute);
        left = if minute == 600 {
            60.0
        } else if uploading {
            left - 0.1
        } else {
            left
        };
        trends.feed(now(minute).mono, disk(), Sample { value: left * GIB, end: 0.0 });
        told += trends.review(now(minute)).len();
        let expected = trends.predictions().iter().any(|prediction| prediction.within_horizon);
        if (240..DAY).contains(&minute) {
            shown_after_the_end += usize::from(expected);
        }
    }
    assert_eq!(shown_after_the_end, 0, "two hours after the upload nobody expects a full disk");
    assert_eq!(told, 1, "the second upload is a burst in a day that was quiet");
}

#[test]
fn a_series_that_is_fed_no_more_is_forgotten_and_so_is_its_prediction() {
    let (_, mut trends) = play(&disk(), 0.0, 300, |minute| GIB * (50.0 - 0.1 * minute as f64));
    assert_eq!(trends.predictions().len(), 1);
    assert!(trends.review(now(300 + 60)).is_empty());
    assert!(trends.predictions().is_empty(), "the disk was taken away an hour ago");
}

#[test]
fn a_process_that_was_restarted_begins_anew() {
    let id = SeriesId { kind: Kind::MemoryLeak, subject: "n1".into() };
    let (_, mut trends) = play(&id, 8.0 * GIB, 300, |minute| GIB * (1.0 + 0.01 * minute as f64));
    assert_eq!(trends.predictions().len(), 1);
    trends.forget(&id);
    trends.feed(now(300).mono, id, Sample { value: GIB, end: 8.0 * GIB });
    trends.review(now(300));
    assert!(trends.predictions().is_empty());
}

#[test]
fn a_record_of_a_prediction_is_no_step() {
    let (told, _) = play(&disk(), 0.0, 300, |minute| GIB * (50.0 - 0.1 * minute as f64));
    let draft = told[0].1.draft("n1");
    assert_eq!((draft.grade, draft.step, draft.incident.as_ref()), (Some(Grade::OBSERVE), None, None));
    assert_eq!((draft.text("prediction"), draft.text("reason")), (Some("disk_full"), Some("resource_exhaustion")));
}

#[test]
fn memory_is_bounded_however_many_disks_there_are() {
    let mut trends = Trends::new(TrendPolicy::default());
    for number in 0..MAX_SERIES + 50 {
        let id = SeriesId { kind: Kind::DiskFull, subject: format!("d{number}") };
        trends.feed(now(0).mono, id, Sample { value: 1.0, end: 0.0 });
    }
    let of = |number: usize| SeriesId { kind: Kind::DiskFull, subject: format!("d{number}") };
    assert!(trends.usual(&of(MAX_SERIES - 1), 1).is_some() && trends.usual(&of(MAX_SERIES), 1).is_none());
}

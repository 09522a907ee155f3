//! Every transition of lock health and every rate, and what must not be one.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Story {
    book: Book,
    now: Instant,
}

fn path(name: &str) -> LockPath {
    LockPath::parse(name).unwrap()
}

impl Story {
    fn new() -> Self {
        Self { book: Book::default(), now: Instant::now() }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn on(&mut self, name: &str, attempts: &[Attempt]) -> Health {
        for attempt in attempts {
            self.book.note(&path(name), *attempt, self.now);
        }
        self.book.health(&path(name), self.now)
    }

    fn health(&self) -> Health {
        self.book.health(&path("a"), self.now)
    }

    fn admit(&mut self) -> Result<usize, Unhealthy> {
        self.book.admit(&path("a"), self.now).map(<[Duration]>::len)
    }
}

use Attempt::{Answered, TimedOut};

#[test]
fn a_path_nobody_asked_for_is_healthy_and_is_retried_three_times() {
    let mut story = Story::new();
    assert_eq!(story.health(), Health::Healthy);
    let pauses = story.book.admit(&path("a"), story.now).unwrap();
    assert_eq!(pauses, [100, 200, 400].map(Duration::from_millis));
    assert_eq!([Health::Healthy, Health::Degraded, Health::Unhealthy].map(Health::value), [1.0, 0.5, 0.0]);
}

#[test]
fn answers_alone_never_make_a_path_anything_but_healthy() {
    let mut story = Story::new();
    assert_eq!(story.on("a", &[Answered; 100]), Health::Healthy);
    assert_eq!(story.admit(), Ok(3));
}

#[test]
fn a_timeout_degrades_a_path_for_thirty_seconds_and_no_longer() {
    let mut story = Story::new();
    assert_eq!(story.on("a", &[Answered, TimedOut]), Health::Degraded);
    assert_eq!(story.admit(), Ok(1), "fewer retries");
    assert!(story.book.admit(&path("a"), story.now).unwrap()[0] > Duration::from_millis(400), "longer delays");
    assert_eq!(story.on("a", &[Answered]), Health::Degraded, "an answer does not undo it");
    story.after(RECENT - Duration::from_millis(1));
    assert_eq!(story.health(), Health::Degraded);
    story.after(Duration::from_millis(1));
    assert_eq!(story.health(), Health::Healthy);
    assert_eq!(story.admit(), Ok(3));
}

#[test]
fn the_third_timeout_in_a_row_makes_it_unhealthy_and_an_answer_in_between_does_not_count_on() {
    let mut story = Story::new();
    assert_eq!(story.on("a", &[TimedOut, TimedOut]), Health::Degraded);
    assert_eq!(story.on("a", &[Answered, TimedOut, TimedOut]), Health::Degraded);
    assert_eq!(story.on("a", &[TimedOut]), Health::Unhealthy);
    let refused = story.admit().unwrap_err();
    assert_eq!(refused, Unhealthy::InARow { timeouts: 3, next: PROBE_EVERY });
    assert_eq!(refused.to_string(), "the last 3 attempts at it timed out; the next one is let through in 5000 ms");
}

#[test]
fn half_of_ten_makes_it_unhealthy_four_of_ten_and_half_of_nine_do_not() {
    // Two in a row at most: the other rule stays out of it.
    let pair = [TimedOut, TimedOut, Answered, Answered];
    let mut nine = Story::new();
    assert_eq!(nine.on("a", &[&pair[..], &pair[..], &[TimedOut]].concat()), Health::Degraded, "5 of 9");
    assert_eq!(nine.on("a", &[Answered]), Health::Unhealthy, "5 of 10");
    assert!(matches!(nine.admit(), Err(Unhealthy::TooMany { timeouts: 5, attempts: 10, .. })));

    let mut four = Story::new();
    assert_eq!(four.on("a", &[&pair[..], &pair[..], &[Answered, Answered]].concat()), Health::Degraded, "4 of 10");

    let mut eleven = Story::new();
    let five = [TimedOut, TimedOut, Answered, TimedOut, TimedOut, Answered];
    assert_eq!(eleven.on("a", &[&five[..], &[Answered; 4], &[TimedOut]].concat()), Health::Degraded, "5 of 11");
}

#[test]
fn time_alone_does_not_make_an_unhealthy_path_well_but_being_forgotten_does() {
    let mut story = Story::new();
    story.on("a", &[TimedOut; 3]);
    story.after(RECENT * 2);
    assert_eq!(story.health(), Health::Unhealthy);
    story.after(FORGOTTEN_AFTER - RECENT * 2 - Duration::from_millis(1));
    assert_eq!(story.health(), Health::Unhealthy);
    story.after(Duration::from_millis(1));
    assert_eq!(story.health(), Health::Healthy);
    assert_eq!(story.admit(), Ok(3));
    assert!(story.book.figures(story.now).is_empty());
    assert_eq!(story.on("a", &[TimedOut]), Health::Degraded, "it begins anew, not with a fourth");
}

#[test]
fn what_is_touched_is_not_forgotten() {
    let mut story = Story::new();
    for _ in 0..5 {
        story.on("a", &[TimedOut]);
        story.after(FORGOTTEN_AFTER - SECOND);
    }
    assert_eq!(story.health(), Health::Unhealthy);
}

#[test]
fn one_attempt_in_five_seconds_finds_out_whether_an_unhealthy_path_is_well_again() {
    let mut story = Story::new();
    story.on("a", &[TimedOut; 3]);
    assert!(story.admit().is_err());
    story.after(PROBE_EVERY - SECOND);
    assert!(matches!(story.admit(), Err(Unhealthy::InARow { timeouts: 3, next: SECOND })));
    story.after(SECOND);
    assert_eq!(story.admit(), Ok(0), "one attempt, no retry");
    assert!(story.admit().is_err(), "and only one caller's");
    assert_eq!(story.on("a", &[TimedOut]), Health::Unhealthy);
    story.after(PROBE_EVERY);
    assert_eq!(story.admit(), Ok(0));
    assert_eq!(story.on("a", &[Answered]), Health::Degraded, "its last timeout is recent");
    assert_eq!(story.admit(), Ok(1));
    story.after(RECENT);
    assert_eq!(story.health(), Health::Healthy);
}

#[test]
fn a_probe_whose_caller_vanished_is_followed_by_another() {
    let mut story = Story::new();
    story.on("a", &[TimedOut; 3]);
    story.after(PROBE_EVERY);
    assert_eq!(story.admit(), Ok(0));
    // Nothing is ever noted of it.
    story.after(PROBE_EVERY);
    assert_eq!(story.admit(), Ok(0));
}

#[test]
fn a_probe_that_is_answered_begins_the_rate_anew() {
    let mut story = Story::new();
    story.on("a", &[TimedOut; REMEMBERED_ATTEMPTS]);
    story.after(PROBE_EVERY);
    assert_eq!(story.admit(), Ok(0));
    assert_eq!(story.on("a", &[Answered]), Health::Degraded, "twenty timeouts are not outvoted one by one");
}

#[test]
fn the_rate_is_of_the_last_twenty_attempts() {
    let mut story = Story::new();
    let four = [TimedOut, TimedOut, Answered, TimedOut, TimedOut, Answered];
    story.on("a", &four);
    story.on("a", &[Answered; REMEMBERED_ATTEMPTS]);
    story.after(RECENT);
    // The four are out of the window: two more are two of twenty.
    assert_eq!(story.on("a", &[TimedOut, TimedOut, Answered]), Health::Degraded);
    assert_eq!(story.book.figures(story.now)[0].timeouts, 6, "the counter counts on");
}

#[test]
fn one_path_says_nothing_of_another() {
    let mut story = Story::new();
    assert_eq!(story.on("a", &[TimedOut; 3]), Health::Unhealthy);
    assert_eq!(story.on("b", &[Answered]), Health::Healthy);
    assert_eq!(story.book.admit(&path("b"), story.now).unwrap().len(), 3);
}

#[test]
fn metrics_show_the_sixty_four_busiest_and_the_worst_of_the_rest() {
    let mut story = Story::new();
    for number in 0..SHOWN_PATHS {
        story.on(&format!("busy/{number:02}"), &[Answered; 3]);
    }
    assert_eq!(story.book.figures(story.now).len(), SHOWN_PATHS, "nothing else, nothing summed up");
    story.on("rare/1", &[TimedOut]);
    story.on("rare/2", &[Answered]);
    story.on("busy/07", &[TimedOut]);
    let figures = story.book.figures(story.now);
    assert_eq!(figures.len(), SHOWN_PATHS + 1);
    assert_eq!(figures[0], Figure { path: "busy/07".into(), health: Health::Degraded, timeouts: 1 });
    let other = figures.last().unwrap();
    assert_eq!(*other, Figure { path: OTHER.into(), health: Health::Degraded, timeouts: 1 });
    // A lock of that very name is no second series under it.
    story.on(OTHER, &[TimedOut; 5]);
    let figures = story.book.figures(story.now);
    assert_eq!(figures.len(), SHOWN_PATHS + 1);
    assert_eq!(*figures.last().unwrap(), Figure { path: OTHER.into(), health: Health::Unhealthy, timeouts: 6 });
}

#[test]
fn there_is_an_end_to_the_paths_that_are_remembered() {
    let mut story = Story::new();
    story.on("first", &[TimedOut; 3]);
    for number in 0..MAX_PATHS {
        story.after(Duration::from_millis(1));
        story.on(&format!("n/{number}"), &[Answered]);
    }
    assert_eq!(story.book.paths.len(), MAX_PATHS);
    assert_eq!(story.book.health(&path("first"), story.now), Health::Healthy, "the longest untouched went");
    assert_eq!(story.book.health(&path(&format!("n/{}", MAX_PATHS - 1)), story.now), Health::Healthy);
}

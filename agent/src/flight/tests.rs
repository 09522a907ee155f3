//! The recorder with real files: what is written is decided the same when it is read, whatever becomes of the files.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test looks at its own files")]

use std::path::Path;
use std::time::Duration;

use resilver_strategies::api::{ExitClass, NodeFact, Observation, ProcessFact};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::EngineOptions;
use resilver_strategies::types::Authority;
use tempfile::TempDir;

use super::*;
use crate::options::Options;

fn options(dir: &Path, max_bytes: u64) -> Options {
    let text = format!(
        r#"{{"name":"n1","node_address":"127.0.0.1:1","address":"127.0.0.1:2","http":"127.0.0.1:3","dir":"{}",
            "flight":{{"max_bytes":{max_bytes}}}}}"#,
        dir.display()
    );
    serde_json::from_str(&text).expect("options")
}

/// An engine that is recorded, with time that is moved by hand.
struct Flown {
    engine: Engine,
    recorder: Recorder,
    ms: u64,
}

impl Flown {
    fn new(recorder: Recorder) -> Flown {
        let policy = PolicyConfig::default();
        let engine = Engine::new(EngineOptions { node: "n1".into(), domain: "host n1".into(), policy });
        Flown { engine, recorder, ms: 0 }
    }

    fn give(&mut self, input: Input) {
        self.ms += 100;
        let now = Now { mono: Moment(Duration::from_millis(self.ms)), wall_ms: 1_700_000_000_000 + self.ms };
        let kept = self.recorder.note(&self.engine, now, &input);
        let commands = self.engine.handle(now, input);
        self.recorder.keep(now, kept, &commands);
    }

    /// A process that runs, is killed, and is not started, because nobody does what the engine commands.
    fn story(&mut self) {
        self.give(Input::Observed(Observation::Process(ProcessFact::Running { pid: 7, start_ticks: 70 })));
        for beat in 0..20 {
            let fact = NodeFact { pid: 7, phase: "healthy".into(), epoch: beat, ..NodeFact::default() };
            self.give(Input::Observed(Observation::Heartbeat(Box::new(fact))));
            (0..9).for_each(|_| self.give(Input::Tick));
        }
        let exit = ExitClass::Signal(9);
        let last_error = String::new();
        let fact = ProcessFact::Exited { pid: 7, start_ticks: 70, exit, last_error, deliberate: false };
        self.give(Input::Observed(Observation::Process(fact)));
    }
}

async fn recorded(dir: &Path) -> Vec<std::path::PathBuf> {
    let host = resilver_host::real::host();
    let (recorder, writer) = Recorder::open(&host, &options(dir, DEFAULT_BYTES)).await.expect("it can be used");
    let writing = tokio::spawn(writer.run());
    let mut flown = Flown::new(recorder);
    flown.story();
    drop(flown);
    writing.await.expect("the writer ends with the main loop");
    files(dir)
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("flight")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_was_recorded_is_decided_the_same() {
    let dir = TempDir::new().unwrap();
    let segments = recorded(dir.path()).await;
    assert_eq!(segments.len(), 1);
    let host = resilver_host::real::host();
    for place in [dir.path().to_owned(), dir.path().join("flight"), segments[0].clone()] {
        let report = replay(&host, &place, None).await.expect("a recording");
        assert!(report.same && report.notes.is_empty(), "{report:#?}");
        assert_eq!(report.inputs, 1 + 200 + 1);
        assert_eq!(report.recorded_decisions, 2, "opened, and begun: {report:#?}");
    }
    let mut shadow = PolicyConfig::default();
    shadow.authority.grades.all = Some(Authority::Shadow);
    let report = replay(&host, dir.path(), Some(shadow)).await.expect("a recording");
    assert!(!report.same);
}

#[tokio::test]
async fn a_segment_that_was_cut_or_damaged_is_read_as_far_as_it_goes() {
    let dir = TempDir::new().unwrap();
    let host = resilver_host::real::host();
    let segments = recorded(dir.path()).await;
    let whole = std::fs::read(&segments[0]).unwrap();
    std::fs::write(&segments[0], &whole[..whole.len() - 40]).unwrap();
    let report = replay(&host, dir.path(), None).await.expect("what is left");
    assert!(report.inputs > 50 && report.inputs < 202, "{report:#?}");
    assert!(report.notes[0].contains("it ends early"), "{:?}", report.notes);
    assert!(report.same, "what is there is decided the same: {report:#?}");

    let mut flipped = whole.clone();
    let at = flipped.len() - 60;
    flipped[at] ^= 0x55;
    std::fs::write(&segments[0], &flipped).unwrap();
    let report = replay(&host, dir.path(), None).await;
    assert!(report.map_or(true, |report| !report.notes.is_empty()), "a flipped bit is told");

    std::fs::write(&segments[0], b"no recording at all").unwrap();
    let error = replay(&host, dir.path(), None).await.expect_err("nothing");
    assert!(matches!(error, FlightError::Unreadable(_)), "{error}");
    std::fs::remove_file(&segments[0]).unwrap();
    assert!(matches!(replay(&host, dir.path(), None).await, Err(FlightError::Nothing { .. })));
}

#[tokio::test]
async fn a_new_life_goes_on_with_a_segment_of_its_own_and_the_oldest_go() {
    let dir = TempDir::new().unwrap();
    recorded(dir.path()).await;
    let two = recorded(dir.path()).await;
    assert_eq!(two.len(), 2, "{two:?}");
    let host = resilver_host::real::host();
    let report = replay(&host, dir.path(), None).await.expect("both");
    assert!(report.same && report.restarts == 1 && report.segments == 2, "{report:#?}");
    // Segments that fill what is allowed: the oldest make room.
    for (index, path) in two.iter().enumerate() {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(SEGMENT_BYTES - index as u64).unwrap();
    }
    let (recorder, writer) = Recorder::open(&host, &options(dir.path(), MIN_BYTES)).await.expect("it can be used");
    let writing = tokio::spawn(writer.run());
    let mut flown = Flown::new(recorder);
    flown.story();
    drop(flown);
    writing.await.unwrap();
    let left = files(dir.path());
    assert_eq!(left.len(), 2, "one whole and the new one: {left:?}");
    assert!(left[1].ends_with("000000000003.jsonl.gz"), "{left:?}");
    let bytes: u64 = left.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= MIN_BYTES, "{bytes}");
}

/// The main loop must never wait for a disk that hangs: nobody takes the lines here.
#[tokio::test]
async fn what_does_not_fit_is_lost_and_counted_and_the_engine_goes_on() {
    let dir = TempDir::new().unwrap();
    let host = resilver_host::real::host();
    let (recorder, writer) = Recorder::open(&host, &options(dir.path(), DEFAULT_BYTES)).await.expect("it can be used");
    let mut flown = Flown::new(recorder);
    for _ in 0..MAX_WAITING + 100 {
        flown.give(Input::Tick);
    }
    assert!(flown.recorder.lost > 90, "{}", flown.recorder.lost);
    let writing = tokio::spawn(writer.run());
    tokio::task::yield_now().await;
    while flown.recorder.out.capacity() < MAX_WAITING {
        tokio::task::yield_now().await;
    }
    let lost = flown.recorder.lost;
    flown.ms += u64::try_from(BEGIN_AGAIN.as_millis()).unwrap();
    flown.story();
    drop(flown);
    writing.await.unwrap();
    let report = replay(&host, dir.path(), None).await.expect("both sides of the gap");
    assert_eq!((report.lost, report.restarts), (lost, 1), "{report:#?}");
    assert!(report.same, "{report:#?}");
}

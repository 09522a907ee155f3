//! Processes that run one seed each, some at a time.
//!
//! The one place of the simulator that touches the real machine: it starts processes, waits for them by the real clock
//! and reads what they left in a folder. It runs in the parent only, whose clock and randomness are nobody's.
#![allow(clippy::disallowed_methods, reason = "the parent lives on the real machine and simulates nothing")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Exit;
use crate::outcome::Outcome;

/// What one process is to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    /// The seed.
    pub(crate) seed: u64,
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Kept events, as on the command line.
    pub(crate) only: Option<String>,
    /// The planted bug's name.
    pub(crate) plant: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It ran, well or not.
    Judged(Box<Outcome>),
    /// It did not: it crashed, hung or could not begin.
    Broken(String),
}

/// How long one seed may take on the real clock: a loaded machine needs seconds, a run that hangs never ends.
pub(crate) const WALL_BOUND: Duration = Duration::from_secs(300);
/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How much of what a broken process said is shown.
const SHOWN_BYTES: usize = 2_000;

struct Running {
    job: Job,
    child: Child,
    began: Instant,
    out: PathBuf,
    err: PathBuf,
}

/// Runs jobs, so many at a time.
pub(crate) struct Pool {
    at_once: usize,
    running: Vec<Running>,
    dir: PathBuf,
    started: u64,
}

impl Pool {
    /// A pool with a folder of its own for what its processes say.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(at_once: usize) -> std::io::Result<Pool> {
        // Numbered: a pool that ends takes its folder with it, and must not take another's.
        static POOLS: AtomicU32 = AtomicU32::new(0);
        let number = POOLS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("resilver-sim-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Pool { at_once: at_once.max(1), running: Vec::new(), dir, started: 0 })
    }

    /// Whether another job can begin now.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < self.at_once
    }

    /// Begins a job.
    ///
    /// # Errors
    /// When no process can be started.
    pub(crate) fn begin(&mut self, job: Job) -> std::io::Result<()> {
        self.started += 1;
        let (out, err) =
            (self.dir.join(format!("{}.out", self.started)), self.dir.join(format!("{}.err", self.started)));
        let child =
            command(&job)?.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?).spawn()?;
        self.running.push(Running { job, child, began: Instant::now(), out, err });
        Ok(())
    }

    /// Waits for the next job that ends. `None`: nothing runs.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<(Job, Ended)>> {
        while !self.running.is_empty() {
            for at in 0..self.running.len() {
                let running = &mut self.running[at];
                let status = running.child.try_wait()?;
                let late = running.began.elapsed() > WALL_BOUND;
                if status.is_none() && !late {
                    continue;
                }
                if status.is_none() {
                    // By its handle, and waited for: it is ours and it is gone afterwards.
                    running.child.kill()?;
                    running.child.wait()?;
                }
                let running = self.running.swap_remove(at);
                let ended = match status.and_then(|status| status.code()) {
                    Some(code) if code == Exit::Passed as i32 || code == Exit::Failed as i32 => read(&running.out),
                    Some(code) => Ended::Broken(format!("it ended with {code}: {}", tail(&running.err))),
                    None if late => Ended::Broken(format!("it was not done after {} s", WALL_BOUND.as_secs())),
                    None => Ended::Broken(format!("a signal ended it: {}", tail(&running.err))),
                };
                // Leftovers in a temporary folder harm nobody.
                let _ = std::fs::remove_file(&running.out);
                let _ = std::fs::remove_file(&running.err);
                return Ok(Some((running.job, ended)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for running in &mut self.running {
            // It may have ended by itself.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The command of a job: this very executable with the hidden verb.
///
/// # Errors
/// When the executable's path is not known.
pub(crate) fn command(job: &Job) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one", "--seed", &job.seed.to_string(), "--scenario", &job.scenario]);
    if let Some(only) = &job.only {
        command.args(["--only", only]);
    }
    if let Some(plant) = &job.plant {
        command.args(["--plant", plant]);
    }
    // Nothing of the caller's environment reaches a run: the same seed is the same run everywhere.
    command.env_clear();
    Ok(command)
}

/// A stopwatch on the real clock.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn read(path: &Path) -> Ended {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match serde_json::from_str(&text) {
        Ok(outcome) => Ended::Judged(Box::new(outcome)),
        Err(error) => Ended::Broken(format!("its verdict cannot be read ({error}): {}", shortened(&text))),
    }
}

fn tail(path: &Path) -> String {
    shortened(&std::fs::read_to_string(path).unwrap_or_default())
}

fn shortened(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(SHOWN_BYTES);
    text.chars().skip(skip).collect::<String>().trim().to_owned()
}

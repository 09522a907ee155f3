//! What clients feel when a host loses its power, and how soon the others route around it: on hosts of their own, because
//! a killed process says goodbye and a dead host does not.

mod scene;
mod traffic;

use std::path::Path;
use std::time::Duration;

use resilver_host::Host;
use serde::Serialize;
use tokio::time::Instant;

use super::Figures;
use crate::hosts::Shape;
use scene::Scene;
use traffic::{Request, Traffic};

/// What is measured.
#[derive(Clone, Debug)]
pub struct PowerLossOptions {
    /// Times that each host loses its power.
    pub runs: usize,
    /// How large the cluster is.
    pub shape: Shape,
    /// How long a host is without power: longer than it takes to notice, to convict and to elect.
    pub outage: Duration,
    /// Length of the upload that a host's power is lost in; 0: none.
    pub upload_bytes: u64,
}

/// One case over all its runs.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Which.
    pub case: &'static str,
    /// Requests of clients that failed or read something else than was stored, over all runs.
    pub errors: usize,
    /// What the first of them said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Requests in all.
    pub requests: usize,
    /// The longest request of each run, of those under way during the outage.
    pub stall_ms: Option<Figures>,
    /// When the last of the other nodes had opened its circuit.
    pub breaker_open_ms: Option<Figures>,
    /// When, after the power was back, all circuits were closed again.
    pub breaker_closed_ms: Option<Figures>,
    /// When, after the power was back, the node served and nothing was missing.
    pub back_ms: Option<Figures>,
    /// What 99 of 100 answers about the cluster's state took during the outage.
    pub status_p99_ms: Option<Figures>,
    /// The upload of that case: what it took.
    pub upload_ms: Option<Figures>,
    /// When the disk of that case was out of service: its node asks it nothing any more. `None` in an outage that is
    /// shorter than the 10 s that take.
    pub disk_out_ms: Option<Figures>,
}

/// Who loses its power, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Follower,
    Leader,
    DuringUpload,
    /// Nothing that it says arrives, and it hears everything.
    Mute,
    /// Of all packets to and from it, so many of a hundred are lost.
    Lossy,
    /// One of its disks hangs; all else of it is well.
    HangingDisk,
}

/// What a bad cable or an overfull switch loses, in percent.
const LOSS_PERCENT: u8 = 30;

impl What {
    const ALL: [Self; 6] =
        [Self::Follower, Self::Leader, Self::DuringUpload, Self::Mute, Self::Lossy, Self::HangingDisk];

    fn name(self) -> &'static str {
        match self {
            Self::Follower => "power off, follower",
            Self::Leader => "power off, leader",
            Self::DuringUpload => "power off at 45% of an upload",
            Self::Mute => "one-way partition, follower",
            Self::Lossy => "30% packet loss, follower",
            Self::HangingDisk => "hanging disk, follower",
        }
    }
}

/// What one run gave.
#[derive(Default)]
struct Run {
    requests: Vec<Request>,
    breaker_open_ms: Option<f64>,
    breaker_closed_ms: Option<f64>,
    back_ms: Option<f64>,
    status_ms: Vec<f64>,
    upload_ms: Option<f64>,
    disk_out_ms: Option<f64>,
    upload_error: Option<String>,
}

/// Runs every case on one cluster of its own in `dir`.
///
/// # Errors
/// When the hosts cannot be made, or the cluster does not become whole between two runs.
pub async fn run(
    host: &Host,
    dir: &Path,
    binary: &Path,
    options: &PowerLossOptions,
    say: &dyn Fn(&str),
) -> anyhow::Result<Vec<Case>> {
    let scene = Scene::open(host, dir, binary, options.shape).await?;
    let mut cases = Vec::new();
    for what in What::ALL {
        if what == What::DuringUpload && options.upload_bytes == 0 {
            continue;
        }
        let mut runs = Vec::new();
        for number in 0..options.runs {
            let run = once(&scene, what, number, options).await?;
            say(&told(what, number, &run));
            runs.push(run);
        }
        cases.push(Case::over(what.name(), runs));
    }
    scene.close().await?;
    Ok(cases)
}

/// One outage, from a whole cluster to a whole cluster.
async fn once(scene: &Scene, what: What, number: usize, options: &PowerLossOptions) -> anyhow::Result<Run> {
    let victim = scene.victim(what == What::Leader, number).await?;
    let doors = scene.doors_without(victim).await?;
    let traffic = Traffic::start(&doors);
    tokio::time::sleep(scene::WARM_UP).await;
    let upload = (what == What::DuringUpload).then(|| scene.upload(&doors[0], options.upload_bytes));
    if let Some(upload) = &upload {
        upload.await_share(scene::UPLOAD_SHARE).await;
    }
    let off = Instant::now();
    match what {
        What::Follower | What::Leader | What::DuringUpload => scene.power_off(victim).await?,
        What::Mute => scene.mute(victim).await?,
        What::Lossy => scene.lose(victim, LOSS_PERCENT).await?,
        What::HangingDisk => scene.hang_disk(victim).await?,
    }
    let disk_out = async {
        let watched = what == What::HangingDisk;
        if watched { scene.await_disk_out(victim, off, off + options.outage).await } else { None }
    };
    let (seen, disk_out_ms) = tokio::join!(scene.watch_outage(victim, off, options.outage), disk_out);
    let mut run =
        Run { breaker_open_ms: seen.breaker_open_ms, status_ms: seen.status_ms, disk_out_ms, ..Run::default() };
    if let Some(upload) = upload {
        // It goes on while the host is away, and is to be right before the host is back.
        match upload.finish(&doors[doors.len() - 1]).await {
            Ok(took) => run.upload_ms = Some(ms(took)),
            Err(error) => run.upload_error = Some(format!("the upload: {error:#}")),
        }
    }
    let on = Instant::now();
    match what {
        What::Follower | What::Leader | What::DuringUpload => scene.power_on(victim).await?,
        What::Mute | What::Lossy => scene.mend().await?,
        What::HangingDisk => scene.clear_disk(victim).await?,
    }
    run.breaker_closed_ms = scene.await_breakers_closed(victim, on).await;
    run.back_ms = Some(scene.await_whole(on).await?);
    run.requests = traffic.stop(off).await;
    Ok(run)
}

impl Case {
    fn over(case: &'static str, runs: Vec<Run>) -> Self {
        let errors = |run: &Run| {
            run.requests
                .iter()
                .filter_map(|request| request.error.clone())
                .chain(run.upload_error.clone())
                .collect::<Vec<_>>()
        };
        let all: Vec<String> = runs.iter().flat_map(errors).collect();
        let row = |name: &str, of: &dyn Fn(&Run) -> Option<f64>| {
            Figures::over(&format!("{case}: {name}"), "ms", runs.iter().filter_map(of).collect())
        };
        Self {
            case,
            errors: all.len(),
            first_error: all.first().cloned(),
            requests: runs.iter().map(|run| run.requests.len()).sum(),
            stall_ms: row("longest request", &|run| longest_ms(&run.requests)),
            breaker_open_ms: row("all circuits open", &|run| run.breaker_open_ms),
            breaker_closed_ms: row("all circuits closed again", &|run| run.breaker_closed_ms),
            back_ms: row("whole again", &|run| run.back_ms),
            status_p99_ms: row("99 of 100 status answers", &|run| percentile(run.status_ms.clone(), 99)),
            upload_ms: row("the upload", &|run| run.upload_ms),
            disk_out_ms: row("the disk out of service", &|run| run.disk_out_ms),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {} errors in {} requests\n", self.case, self.errors, self.requests);
        let rows = [
            &self.stall_ms,
            &self.breaker_open_ms,
            &self.status_p99_ms,
            &self.upload_ms,
            &self.disk_out_ms,
            &self.breaker_closed_ms,
            &self.back_ms,
        ];
        for figures in rows.into_iter().flatten() {
            text.push_str(&format!("  {}\n", figures.line()));
        }
        if let Some(error) = &self.first_error {
            text.push_str(&format!("  the first error: {error}\n"));
        }
        text
    }
}

fn longest_ms(requests: &[Request]) -> Option<f64> {
    requests.iter().map(|request| ms(request.ended - request.begun)).max_by(f64::total_cmp)
}

fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn told(what: What, number: usize, run: &Run) -> String {
    let errors = run.requests.iter().filter(|request| request.error.is_some()).count();
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0} ms"));
    format!(
        "{}, run {}: {errors} of {} requests failed, longest {}, circuits open after {}, back after {}",
        what.name(),
        number + 1,
        run.requests.len(),
        figure(longest_ms(&run.requests)),
        figure(run.breaker_open_ms),
        figure(run.back_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_of_what_was_measured() {
        assert_eq!(percentile((1..=200).map(f64::from).rev().collect(), 99), Some(199.0));
        assert_eq!(percentile(vec![7.0], 99), Some(7.0));
        assert_eq!(percentile(Vec::new(), 99), None);
    }

    #[test]
    fn an_upload_that_failed_is_an_error() {
        let run = Run { upload_error: Some("the upload: broken".to_owned()), ..Run::default() };
        let case = Case::over("upload", vec![run]);
        assert_eq!((case.errors, case.first_error.as_deref()), (1, Some("the upload: broken")));
    }
}

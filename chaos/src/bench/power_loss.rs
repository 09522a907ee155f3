//! What clients feel when a host loses its power, and how soon the others route around it: on hosts of their own, because
//! a killed process says goodbye and a dead host does not.
//!
//! Owns: the cases, and one outage from a whole cluster to a whole cluster.

mod boto3;
mod case;
pub mod cost;
mod evidence;
mod saturated;
mod scene;
mod times;
mod traffic;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_host::Host;
use tokio::time::Instant;

use crate::hosts::Shape;
use case::Run;
pub use case::{Case, table};
pub use evidence::{Cascade, Evidence};
use scene::Scene;
use times::ms;
pub use times::{Tail, Times};
use traffic::{Request, Traffic};
use upload::UploadTask;

/// What is measured.
#[derive(Clone, Debug)]
pub struct PowerLossOptions {
    /// Times that each case is made.
    pub runs: usize,
    /// How large the cluster is.
    pub shape: Shape,
    /// How long a host is without power: longer than it takes to notice, to convict and to elect.
    pub outage: Duration,
    /// Length of the upload that a host's power is lost in; 0: none.
    pub upload_bytes: u64,
    /// How long a host's processor is taken.
    pub saturation: Duration,
    /// Downloads at a time meanwhile.
    pub downloads: usize,
    /// Cases to make, by key; empty: all.
    pub only: Vec<String>,
    /// Cases to leave out, by key.
    pub skip: Vec<String>,
    /// Who the clients are.
    pub client: Client,
}

/// Whose requests are measured. Downloads beside a saturated host and the upload are always our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// Our own, in this process.
    BuiltIn,
    /// boto3 in this Python, on a host without a node.
    Boto3(PathBuf),
}

/// Who loses what, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Follower,
    Leader,
    DuringUpload,
    /// The same host again and again.
    Thrice,
    /// Others take its processor.
    Saturated,
    /// Nothing that it says arrives, and it hears everything.
    Mute,
    /// Of all packets to and from it, so many of a hundred are lost.
    Lossy,
    /// A disk of it hangs instead of failing.
    HangingDisk,
}

/// What a bad cable or an overfull switch loses, in percent.
const LOSS_PERCENT: u8 = 30;
/// Power losses of one host, in the case of several: the third within an hour is an emergency.
const TIMES: usize = 3;

impl What {
    /// Every case, its key for commands, and its name for people, in the order in which they are made.
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Follower, "follower", "power off, follower"),
        (Self::Leader, "leader", "power off, leader"),
        (Self::DuringUpload, "upload", "power off at 45% of an upload"),
        (Self::Thrice, "thrice", "power off three times, follower"),
        (Self::Saturated, "saturated", "saturated peer, downloads"),
        (Self::Mute, "mute", "one-way partition, follower"),
        (Self::Lossy, "lossy", "30% packet loss, follower"),
        (Self::HangingDisk, "disk", "hanging disk, follower"),
    ];
}

/// The keys of all cases.
pub fn case_keys() -> impl Iterator<Item = &'static str> {
    What::ALL.into_iter().map(|(_, key, _)| key)
}

impl PowerLossOptions {
    fn wants(&self, what: What, key: &str) -> bool {
        let named = |keys: &[String]| keys.iter().any(|named| named == key);
        let possible = what != What::DuringUpload || self.upload_bytes > 0;
        possible && (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
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
    let mut shape = options.shape;
    if let Client::Boto3(python) = &options.client {
        boto3::check(host, python).await?;
        shape.clients = 1;
    }
    // The disk that hangs is slower than others even while it does not: it gets a cluster of its own.
    let behind_faults = Shape { faulty_disk: Some(shape.disks), ..shape };
    let mut cases = Vec::new();
    for (shape, hanging) in [(shape, false), (behind_faults, true)] {
        let wanted =
            |(what, key, _): &(What, &str, &str)| (*what == What::HangingDisk) == hanging && options.wants(*what, key);
        let mut wanted = What::ALL.into_iter().filter(wanted).peekable();
        if wanted.peek().is_none() {
            continue;
        }
        let scene = Scene::open(host, &dir.join(if hanging { "disk" } else { "hosts" }), binary, shape).await?;
        for (what, _, name) in wanted {
            let mut runs = Vec::new();
            for number in 0..options.runs {
                let run = once(&scene, what, number, options).await?;
                say(&run.told(name, number));
                runs.push(run);
            }
            let own = what == What::Saturated || options.client == Client::BuiltIn;
            cases.push(Case::over(name, if own { "built-in" } else { "boto3" }, runs));
        }
        scene.close().await?;
    }
    Ok(cases)
}

/// One run of a case, from a whole cluster to a whole cluster.
async fn once(scene: &Scene, what: What, number: usize, options: &PowerLossOptions) -> anyhow::Result<Run> {
    if what == What::Saturated {
        return saturated::once(scene, number, options).await;
    }
    let victim = scene.victim(what == What::Leader, number).await?;
    let mut run = Run::default();
    let times = if what == What::Thrice { TIMES } else { 1 };
    for _ in 0..times {
        run.add(outage(scene, what, victim, options).await?);
    }
    Ok(run)
}

/// One outage of one host.
async fn outage(scene: &Scene, what: What, victim: usize, options: &PowerLossOptions) -> anyhow::Result<Run> {
    let dies = matches!(what, What::Follower | What::Leader | What::DuringUpload | What::Thrice);
    let doors = scene.doors_without(victim)?;
    let (journals, rebuilt) = (scene.journals().await, scene.rebuilt().await);
    let load = match &options.client {
        Client::BuiltIn => Load::BuiltIn(Traffic::start(&doors)),
        Client::Boto3(python) => Load::Boto3(scene.boto3(python, victim).await?),
    };
    tokio::time::sleep(scene::WARM_UP).await;
    let upload = (what == What::DuringUpload).then(|| UploadTask::start(&doors[0], options.upload_bytes));
    if let Some(upload) = &upload {
        upload.await_share(upload::SHARE).await;
    }
    let off = Instant::now();
    match what {
        What::Mute => scene.mute(victim).await?,
        What::Lossy => scene.lose(victim, LOSS_PERCENT).await?,
        What::HangingDisk => scene.hang_disk(victim).await?,
        _ => scene.power_off(victim).await?,
    }
    let disk_out = async {
        let watched = what == What::HangingDisk;
        if watched { scene.await_disk_out(victim, off, off + options.outage).await } else { None }
    };
    let (seen, disk_out_ms) = tokio::join!(scene.watch_outage(victim, off, options.outage), disk_out);
    let mut run = Run {
        breaker_open_ms: seen.breaker_open_ms,
        counted_ms: seen.counted_ms,
        status_ms: seen.status_ms,
        disk_out_ms,
        ..Run::default()
    };
    if let Some(upload) = upload {
        // It goes on while the host is away, and is to be right before the host is back.
        match upload.finish(&doors[doors.len() - 1]).await {
            Ok(took) => run.upload_ms = Some(ms(took)),
            Err(error) => run.upload_error = Some(format!("the upload: {error:#}")),
        }
        run.stored_meanwhile += options.upload_bytes.div_ceil(upload::PART_BYTES);
    }
    let on = Instant::now();
    match what {
        _ if dies => scene.power_on(victim).await?,
        What::HangingDisk => scene.clear_disk(victim).await?,
        _ => scene.mend().await?,
    }
    run.breaker_closed_ms = scene.await_breakers_closed(victim, on).await;
    run.back_ms = Some(scene.await_whole(on).await?);
    run.requests = load.stop(off).await?;
    run.stored_meanwhile += run.requests.iter().filter(|request| request.stores).count() as u64;
    run.rebuilt_shards = scene::rebuilt_between(&rebuilt, &scene.rebuilt().await, dies.then_some(victim));
    run.evidence = scene.evidence(journals).await?;
    run.evidence.convicted.extend(seen.convicted);
    Ok(run)
}

/// Clients at work.
enum Load {
    BuiltIn(Traffic),
    Boto3(boto3::Load),
}

impl Load {
    async fn stop(self, since: Instant) -> anyhow::Result<Vec<Request>> {
        match self {
            Self::BuiltIn(traffic) => Ok(traffic.stop(since).await),
            Self::Boto3(load) => load.stop(since).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_made_when_it_is_named_or_none_is_and_never_when_it_is_left_out() {
        let options = |only: &[&str], skip: &[&str], upload_bytes| PowerLossOptions {
            runs: 1,
            shape: Shape::new(4, 1),
            outage: Duration::ZERO,
            upload_bytes,
            saturation: Duration::ZERO,
            downloads: 1,
            only: only.iter().map(|key| (*key).to_owned()).collect(),
            skip: skip.iter().map(|key| (*key).to_owned()).collect(),
            client: Client::BuiltIn,
        };
        let made = |options: PowerLossOptions| {
            let wanted = What::ALL.into_iter().filter(|(what, key, _)| options.wants(*what, key));
            wanted.map(|(_, key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(made(options(&[], &[], 1)), case_keys().collect::<Vec<_>>());
        assert_eq!(made(options(&["mute", "leader"], &["leader"], 1)), ["mute"]);
        assert!(!made(options(&[], &["thrice"], 0)).iter().any(|key| ["thrice", "upload"].contains(key)));
    }
}

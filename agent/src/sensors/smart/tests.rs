//! The sensor against files and programs of this machine: what is read, what is told apart, and what stays unknown.

#![allow(clippy::disallowed_methods)] // tests are the outside world

use std::time::SystemTime;

use resilver_strategies::api::{DiskFact, NodeFact};
use tempfile::TempDir;

use super::*;
use crate::timebase::Timebase;

/// As `smartctl -x --json` lays it out; the figures are these tests' own.
fn json(pending: u64) -> String {
    format!(
        r#"{{"json_format_version":[1,0],"smartctl":{{"version":[7,4],"exit_status":0}},
        "device":{{"name":"/dev/sdq","type":"sat","protocol":"ATA"}},"model_name":"RSV TEST","serial_number":"T1",
        "smart_status":{{"passed":true}},"ata_smart_attributes":{{"table":[
        {{"id":5,"name":"Reallocated_Sector_Ct","value":100,"worst":100,"thresh":10,"when_failed":"","raw":{{"value":0,"string":"0"}}}},
        {{"id":197,"name":"Current_Pending_Sector","value":100,"worst":100,"thresh":0,"when_failed":"","raw":{{"value":{pending},"string":"{pending}"}}}}]}}}}"#
    )
}

struct Bench {
    dir: TempDir,
    sensor: SmartSensor,
    facts: mpsc::Receiver<Input>,
    last: BTreeMap<String, Last>,
}

impl Bench {
    fn new(options: impl FnOnce(&Path) -> SmartSource) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("smart")).unwrap();
        let host = resilver_host::real::host();
        let text = r#"{"name":"n1","node_address":"a:1","address":"a:2","http":"a:3","dir":"/nowhere"}"#;
        let own: crate::options::Options = serde_json::from_str(text).unwrap();
        assert_eq!(own.interval, Duration::from_secs(600));
        let health = Arc::new(HealthDesk::new(&own, &Timebase::new(&host)));
        let (out, facts) = mpsc::channel(16);
        let sensor = SmartSensor {
            host,
            options: options(dir.path()),
            policy: own.policy.smart.clone(),
            interval: Duration::from_secs(600),
            dir: dir.path().join("agent"),
            view: watch::channel(View::new()).1,
            health,
            telemetry: Arc::new(Telemetry::new()),
            out,
        };
        Self { dir, sensor, facts, last: BTreeMap::new() }
    }

    /// With this disk's outputs as `d1.json` in the folder, by the map.
    fn mapped() -> Self {
        Self::new(|dir| SmartSource {
            folder: Some(dir.join("smart")),
            devices: BTreeMap::from([(PathBuf::from("/data/d1"), PathBuf::from("d1.json"))]),
            ..SmartSource::default()
        })
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join("smart").join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    async fn look(&mut self) -> SmartView {
        let source = self.sensor.source();
        self.sensor.look(&source, "d1", Path::new("/data/d1"), &mut self.last).await
    }

    async fn unknown(&mut self) -> String {
        let view = self.look().await;
        assert_eq!((view.verdict, view.sampled_ms, view.counters.len()), (SmartVerdict::Unknown, None, 0), "{view:?}");
        view.reasons.concat()
    }
}

fn dated(file: &Path, ago: Duration) {
    std::fs::File::options().write(true).open(file).unwrap().set_modified(SystemTime::now() - ago).unwrap();
}

#[tokio::test]
async fn a_disk_that_passes_with_sectors_pending_is_degrading_and_every_listener_hears_it() {
    let mut bench = Bench::mapped();
    bench.write("d1.json", &json(8));
    let view = bench.look().await;
    assert_eq!((view.verdict, view.counters["pending_sectors"]), (SmartVerdict::Degrading, 8), "{view:?}");
    assert!(view.sampled_ms.is_some() && view.source.ends_with("smart/d1.json"), "{view:?}");
    bench.sensor.tell(view).await;
    let Some(Input::Observed(Observation::Smart(fact))) = bench.facts.recv().await else { panic!("a fact") };
    assert_eq!(
        (fact.disk.as_str(), fact.verdict, fact.counters["pending_sectors"]),
        ("d1", SmartVerdict::Degrading, 8)
    );
    assert_eq!(fact.good_for_ms, 3_600_000, "six intervals");
    assert_eq!(bench.sensor.health.smart_views().len(), 1);
    assert!(bench.sensor.telemetry.render().contains(r#"resilver_disk_smart_verdict{disk="d1"} 0.5"#));
    let gone = SmartView::unknown("d1", Path::new("/data/d1"), Duration::from_secs(1));
    bench.sensor.tell(gone).await;
    assert!(!bench.sensor.telemetry.render().contains("resilver_disk_smart_verdict{"), "nothing known, no figure");
}

#[tokio::test]
async fn what_is_missing_broken_or_stale_is_unknown_and_says_why() {
    let mut bench = Bench::mapped();
    assert!(bench.unknown().await.contains("No such file"));
    bench.write("d1.json", &json(0)[..40]);
    let broken = bench.look().await;
    assert_eq!(broken.verdict, SmartVerdict::Unknown);
    assert!(!broken.reasons.is_empty());
    let file = bench.write("d1.json", &json(8));
    dated(&file, Duration::from_secs(2 * 3600));
    let why = bench.unknown().await;
    assert!(why.contains("s old, and counts for 3600 s"), "{why}");
    dated(&file, Duration::from_secs(600));
    assert_eq!(bench.look().await.verdict, SmartVerdict::Degrading, "and is believed again when it is young");
}

/// By default the limits are those that `disk smart --parse` goes by; a configuration's own reach the verdict.
#[tokio::test]
async fn limits_of_the_configuration_decide_what_a_counter_means() {
    assert_eq!(smart_limits(&SmartPolicy::default()), resilver_smart::Policy::default());
    let mut bench = Bench::mapped();
    bench.write("d1.json", &json(0).replace(r#""value":0,"string":"0""#, r#""value":8,"string":"8""#));
    assert_eq!(bench.look().await.verdict, SmartVerdict::Degrading);
    bench.sensor.policy.reallocated_failing = 7;
    assert_eq!(bench.look().await.verdict, SmartVerdict::Failing);
    bench.sensor.policy.stale_intervals = 2;
    assert_eq!(bench.look().await.good_for, Duration::from_secs(1200));
}

/// A clock that is wrong by a year must not keep a dead helper's last word alive.
#[tokio::test(start_paused = true)]
async fn a_sample_that_stands_still_grows_stale_whatever_its_date_says() {
    let bench = Bench::mapped();
    let read = |sampled_ms| Read { output: bytes::Bytes::new(), sampled_ms, source: String::new() };
    let stale = Duration::from_secs(3600);
    let ahead = bench.sensor.host.clock.now().as_millis() + 365 * 24 * 3_600_000;
    let mut last = BTreeMap::new();
    assert_eq!(bench.sensor.too_old("d1", &read(ahead), stale, &mut last), None);
    tokio::time::advance(Duration::from_secs(3601)).await;
    assert!(bench.sensor.too_old("d1", &read(ahead), stale, &mut last).is_some());
    assert_eq!(bench.sensor.too_old("d1", &read(ahead + 1), stale, &mut last), None, "another sample");
}

#[tokio::test]
async fn a_device_is_found_by_its_name_and_two_files_of_one_name_are_told() {
    let mut bench = Bench::new(|dir| SmartSource {
        folder: Some(dir.join("smart")),
        devices: BTreeMap::from([(PathBuf::from("/data/d1"), PathBuf::from("/dev/nvme9n1"))]),
        ..SmartSource::default()
    });
    let why = bench.unknown().await;
    assert!(why.contains("no file for nvme9n1: nvme9n1.json, nvme9n1.txt, nvme9.json, nvme9.txt"), "{why}");
    bench.write("nvme9.json", &json(1));
    assert_eq!(bench.look().await.verdict, SmartVerdict::Degrading);
    bench.write("nvme9n1.txt", "smartctl 7.4\n");
    let why = bench.unknown().await;
    assert!(why.contains("both have the name of nvme9n1"), "{why}");
}

#[tokio::test]
async fn a_disk_that_lies_nowhere_is_unknown_and_names_the_key() {
    let mut bench =
        Bench::new(|dir| SmartSource { folder: Some(dir.to_owned()), command: None, devices: BTreeMap::new() });
    let source = bench.sensor.source();
    let view = bench.sensor.look(&source, "d1", Path::new("/proc"), &mut bench.last).await;
    assert!(view.reasons[0].contains("agent.smart.devices"), "{view:?}");
}

/// A script of this test's own in the place of `smartctl`.
fn command(script: &'static str) -> impl FnOnce(&Path) -> SmartSource {
    move |dir: &Path| {
        let file = dir.join("ask");
        std::fs::write(&file, script).unwrap();
        SmartSource {
            folder: None,
            command: Some(vec!["/bin/sh".to_owned(), file.display().to_string(), "first".to_owned()]),
            devices: BTreeMap::from([(PathBuf::from("/data/d1"), PathBuf::from("/dev/sdq"))]),
        }
    }
}

#[tokio::test]
async fn a_command_is_asked_about_the_device_and_its_output_is_read_whatever_its_status() {
    let script = r#"[ "$*" = "first --json -x /dev/sdq" ] || exit 9
printf '%s' '{"smartctl":{"exit_status":4},"device":{"protocol":"ATA"},"ata_smart_attributes":{"table":[{"id":197,"name":"Current_Pending_Sector","value":1,"worst":1,"thresh":0,"when_failed":"","raw":{"value":3,"string":"3"}}]}}'
exit 4"#;
    let mut bench = Bench::new(command(script));
    let first = bench.look().await;
    assert_eq!((first.verdict, first.counters["pending_sectors"]), (SmartVerdict::Degrading, 3), "{first:?}");
    assert!(first.source == "/bin/sh /dev/sdq", "{first:?}");
    assert!(!bench.sensor.dir.join("output").exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_command_that_says_nothing_or_too_much_is_unknown() {
    let mut silent = Bench::new(command("exit 2"));
    assert_eq!(silent.unknown().await, "it printed nothing and ended with 2");
    let mut endless = Bench::new(command("exec yes 'RSV RSV RSV RSV RSV RSV RSV RSV'"));
    let why = endless.unknown().await;
    assert!(why.contains("it printed more than") && why.contains("was ended"), "{why}");
    let mut absent = Bench::new(|_| SmartSource {
        command: Some(vec!["/nowhere/smartctl".to_owned()]),
        devices: BTreeMap::from([(PathBuf::from("/data/d1"), PathBuf::from("/dev/sdq"))]),
        folder: None,
    });
    assert!(absent.unknown().await.starts_with("it cannot be run"));
}

#[tokio::test]
async fn the_nodes_disks_are_looked_at_as_soon_as_they_are_known_and_a_silent_node_keeps_them() {
    let mut bench = Bench::mapped();
    bench.write("d1.json", &json(0));
    let (tell, view) = watch::channel(View::new());
    bench.sensor.view = view;
    bench.sensor.interval = Duration::from_millis(20);
    let (stop, shutdown) = watch::channel(false);
    let Bench { sensor, mut facts, dir, .. } = bench;
    let running = tokio::spawn(sensor.run(shutdown));
    let disk = DiskFact { disk: "d1".into(), path: "/data/d1".into(), ..DiskFact::default() };
    tell.send_modify(|view| view.node.fact = Some(NodeFact { disks: vec![disk], ..NodeFact::default() }));
    let mut verdict = async || match facts.recv().await {
        Some(Input::Observed(Observation::Smart(fact))) => fact.verdict,
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict().await, SmartVerdict::Ok);
    tell.send_modify(|view| view.node.fact = None);
    assert_eq!(verdict().await, SmartVerdict::Ok, "its disks are looked at all the same");
    stop.send_replace(true);
    running.await.unwrap();
    drop(dir);
}

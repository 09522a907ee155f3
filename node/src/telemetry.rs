//! The node's metrics. Names are those of docs/metrics.md; gauges are read when Prometheus asks, so that nothing is kept
//! up to date for nobody.
//!
//! Invariant: the number of series grows with disks and peers only; locks have so many and no more
//! ([`SHOWN_PATHS`](crate::locks::health::SHOWN_PATHS)).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::control::{Shared, observe_now};
use crate::model::HostState;
use crate::peers::{CircuitState, Profile};

/// What Prometheus reads.
///
/// # Errors
/// When a metric cannot be registered or encoded: a bug.
pub(crate) fn scrape(shared: &Shared) -> Result<String, prometheus::Error> {
    let page = Page::new()?;
    let seen = observe_now(shared);
    page.gauge("resilver_node_phase", "1 for the phase the node is in", &["phase"])?
        .with_label_values(&[seen.phase.as_str()])
        .set(1);
    page.gauge("resilver_node_start_time_milliseconds", "wall time of the node's start", &[])?
        .with_label_values::<&str>(&[])
        .set(int(seen.started_ms));
    let took =
        page.gauge("resilver_start_step_milliseconds", "what a step of the node's start took, so far", &["step"])?;
    let left = page.gauge("resilver_start_step_left", "what is left of a step, in its own unit", &["step"])?;
    for step in &seen.start_steps {
        took.with_label_values(&[step.name.as_str()]).set(int(step.millis));
        let rest = if step.finished { 0 } else { step.total.saturating_sub(step.done) };
        left.with_label_values(&[step.name.as_str()]).set(int(rest));
    }
    if let Some(raft) = &seen.raft {
        let role = page.gauge("resilver_raft_role", "1 for the role the node has in Raft", &["role"])?;
        role.with_label_values(&[raft.role.as_str()]).set(1);
        for (name, help, value) in [
            ("resilver_raft_term", "Raft term", raft.term),
            ("resilver_raft_committed_index", "highest committed index known here", raft.committed),
            ("resilver_raft_applied_index", "highest applied index", raft.applied),
            ("resilver_raft_last_log_index", "highest index in the log", raft.last_log),
        ] {
            page.gauge(name, help, &[])?.with_label_values::<&str>(&[]).set(int(value));
        }
        if let Some(vote) = &raft.vote {
            let help = "term of the vote on this node's disk";
            page.gauge("resilver_raft_vote_term", help, &[])?.with_label_values::<&str>(&[]).set(int(vote.term));
        }
        let help = "on a leader: committed entries that a member's log is not known to have";
        let lag = page.gauge("resilver_raft_replication_lag_entries", help, &["peer"])?;
        for peer in raft.replication.iter().filter(|peer| peer.id != raft.id && !peer.node.is_empty()) {
            lag.with_label_values(&[peer.node.as_str()]).set(int(raft.committed.saturating_sub(peer.matched)));
        }
    }
    if let Some(repair) = &seen.repair {
        page.gauge("resilver_shards_missing", "shards of the cluster that cannot be read, by metadata", &[])?
            .with_label_values::<&str>(&[])
            .set(int(repair.missing_shards));
        page.gauge("resilver_repair_queue", "shards waiting for repair on this node", &[])?
            .with_label_values::<&str>(&[])
            .set(int(repair.queue));
        let repaired = page.counter("resilver_repair_shards_total", "shards repaired by this node", &["result"])?;
        repaired.with_label_values(&["completed"]).inc_by(repair.completed);
        repaired.with_label_values(&["failed"]).inc_by(repair.failed);
        page.counter("resilver_scrubbed_bytes_total", "bytes read by the scrub", &[])?
            .with_label_values::<&str>(&[])
            .inc_by(repair.scrubbed_bytes);
    }
    let hosts = page.gauge("resilver_hosts", "hosts by what the cluster map says of them", &["state"])?;
    for state in HostState::ALL.map(HostState::as_str) {
        let count = seen.nodes.iter().filter(|node| node.state == state).count();
        hosts.with_label_values(&[state]).set(int(count as u64));
    }
    if let Some(core) = shared.core.get() {
        let name = "resilver_circuit_breaker_state";
        let circuits = page.gauge(name, "1 for the state of the circuit to a peer", &["peer", "profile", "state"])?;
        for node in core.meta.map().nodes.values().filter(|node| node.name != shared.name) {
            for profile in Profile::ALL {
                let now = shared.peers.circuit(&node.address, profile);
                for state in CircuitState::ALL {
                    let label = [node.name.as_str(), profile.as_str(), state.as_str()];
                    circuits.with_label_values(&label).set(i64::from(state == now));
                }
            }
        }
        let asked = core.meta.asked();
        let help = "questions to the voters whether they miss the leader, too, by what came of them";
        let questions = page.counter("resilver_raft_pre_votes_total", help, &["result"])?;
        for (result, count) in [("backed", &asked.backed), ("refused", &asked.refused)] {
            questions.with_label_values(&[result]).inc_by(count.load(Ordering::Relaxed));
        }
        let detours = core.gateway.detours();
        for (name, help, count) in [
            ("resilver_reads_hedged_total", "reads for which one shard more was read", &detours.hedged_reads),
            ("resilver_homes_given_up_total", "homes that an upload went on without", &detours.homes_given_up),
            ("resilver_stand_ins_total", "shards put on a stand-in for their home", &detours.stand_ins),
        ] {
            page.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(count.load(Ordering::Relaxed));
        }
        let (took, late) = core.gateway.key_reads().figures();
        page.float("resilver_config_read_duration_seconds", "the last read of an access key", &[])?
            .with_label_values::<&str>(&[])
            .set(took.as_secs_f64());
        page.counter("resilver_config_read_timeouts_total", "reads of an access key that were given up", &[])?
            .with_label_values::<&str>(&[])
            .inc_by(late);
        let (paths, retries, late) = core.locks.figures();
        for (name, help, count) in [
            ("resilver_config_lock_retries_total", "further attempts at a lock after one timed out", retries),
            ("resilver_config_lock_timeouts_total", "attempts at a lock that timed out", late),
        ] {
            page.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(count);
        }
        let help = "how asking for a lock goes: 1 healthy, 0.5 degraded, 0 unhealthy";
        let health = page.float("resilver_lock_health_status", help, &["path"])?;
        let late = page.counter("resilver_lock_health_timeouts_total", "attempts that timed out", &["path"])?;
        for figure in &paths {
            health.with_label_values(&[figure.path.as_str()]).set(figure.health.value());
            late.with_label_values(&[figure.path.as_str()]).inc_by(figure.timeouts);
        }
        let done = core.repair.anti_entropy();
        let help = "what the comparison of disks with the metadata did";
        let compared = page.counter("resilver_anti_entropy_total", help, &["what"])?;
        for (what, count) in [
            ("passes", done.passes),
            ("folders_read", done.folders_read),
            ("ranges_examined", done.ranges_examined),
            ("missing", done.missing),
            ("full_passes", done.full_passes),
        ] {
            compared.with_label_values(&[what]).inc_by(count);
        }
        let spent = core.repair.timings();
        let seconds = page.float("resilver_repair_seconds_total", "time the rebuilding tasks spent", &["phase"])?;
        for (phase, nanos) in [
            ("read and wire", spent.read_nanos),
            ("crc", spent.crc_nanos),
            ("decode", spent.decode_nanos),
            ("write", spent.write_nanos),
            ("verify", spent.verify_nanos),
        ] {
            seconds.with_label_values(&[phase]).set(Duration::from_nanos(nanos).as_secs_f64());
        }
    }
    let name = "resilver_cascading_failure_events_total";
    let failures = page.counter(name, "failures that cascades are read from", &["type", "component"])?;
    for (kind, count) in shared.peers.failures().counts() {
        failures.with_label_values(&[kind.as_str(), kind.component()]).inc_by(count);
    }
    if let Some(door) = &shared.door {
        let counts = door.counts();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let answers = page.counter("resilver_s3_answers_total", "answers of the S3 door, by class", &["class"])?;
        for (class, count) in ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(&counts.answers) {
            answers.with_label_values(&[class]).inc_by(read(count));
        }
        page.gauge("resilver_s3_connections", "connections to the S3 door", &[])?
            .with_label_values::<&str>(&[])
            .set(int(read(&counts.connections)));
        page.counter("resilver_s3_connections_refused_total", "connections refused, all others being at work", &[])?
            .with_label_values::<&str>(&[])
            .inc_by(read(&counts.refused));
    }
    let used = page.gauge("resilver_disk_used_bytes", "bytes in shards", &["disk"])?;
    let available = page.gauge("resilver_disk_available_bytes", "bytes that can still be written", &["disk"])?;
    let shards = page.gauge("resilver_disk_shards", "shards on the disk", &["disk"])?;
    let healthy = page.gauge("resilver_disk_healthy", "1 when the disk's canary answers", &["disk"])?;
    let errors = page.counter("resilver_disk_errors_total", "input/output errors of the disk", &["disk"])?;
    let canary = page.float("resilver_disk_canary_age_seconds", "age of the canary's last answer", &["disk"])?;
    let took =
        page.float("resilver_disk_state_check_duration_seconds", "the last check of the disk's state", &["disk"])?;
    let late = page.counter("resilver_disk_state_check_timeouts_total", "checks that took over 3 s", &["disk"])?;
    for volume in shared.disks.get().into_iter().flat_map(|disks| disks.volumes()) {
        let (path, status) = (volume.path().display().to_string(), volume.status());
        took.with_label_values(&[path.as_str()]).set(status.check_took.as_secs_f64());
        late.with_label_values(&[path.as_str()]).inc_by(status.late_checks);
    }
    let foreground =
        page.float("resilver_disk_foreground_use", "part of the disk's time that clients take", &["disk"])?;
    let held = page.gauge("resilver_repair_held", "shards that wait for clients of their disk", &["disk"])?;
    for disk in seen.repair.iter().flat_map(|repair| &repair.held) {
        held.with_label_values(&[disk.path.as_str()]).set(int(disk.shards));
    }
    for disk in &seen.disks {
        let label = [disk.path.as_str()];
        foreground.with_label_values(&label).set(f64::from(disk.foreground_percent) / 100.0);
        used.with_label_values(&label).set(int(disk.used_bytes));
        available.with_label_values(&label).set(int(disk.available_bytes));
        shards.with_label_values(&label).set(int(disk.objects));
        healthy.with_label_values(&label).set(i64::from(disk.health == "ok"));
        errors.with_label_values(&label).inc_by(disk.errors);
        canary.with_label_values(&label).set(Duration::from_millis(disk.canary_age_ms).as_secs_f64());
    }
    page.text()
}

/// One answer under construction.
struct Page(Registry);

impl Page {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self(Registry::new()))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn float(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let metric = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Prometheus counts in signed numbers; nothing here comes near the edge.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

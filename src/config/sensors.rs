//! Checks of `agent.sensors`.

use std::collections::BTreeSet;
use std::time::Duration;

use resilver_agent::options::{LogSource, SensorOptions};
use resilver_strategies::types::Mode;

use crate::exit::Failure;

/// How often a sensor may look: more often would be a load of its own, and in an hour a host is lost and back.
const PERIODS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// How often members are compared: each comparison is an entry of the log and an answer of every member.
const COMPARISONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Logs that are followed: each has a task of its own.
const MAX_LOGS: usize = 32;

/// Patterns of a log: every line is held against each.
const MAX_PATTERNS: usize = 64;

/// The first thing that is wrong.
pub(super) fn check(sensors: &SensorOptions) -> Result<(), Failure> {
    for (key, time) in [
        ("host_every", sensors.host_every),
        ("process_every", sensors.process_every),
        ("canary_every", sensors.canary_every),
        ("logs_every", sensors.logs_every),
    ] {
        if !PERIODS.contains(&time) {
            return wrong(
                &format!("{key} is {}", humantime::format_duration(time)),
                "use 100ms to 1h, or leave it out",
            );
        }
    }
    if let Some(time) = sensors.replicas_every.filter(|time| !COMPARISONS.contains(time)) {
        let time = humantime::format_duration(time);
        return wrong(&format!("replicas_every is {time}"), "use 1s to 1d, or leave it out for `interval`");
    }
    if sensors.logs.len() > MAX_LOGS {
        return wrong(&format!("logs has {} logs", sensors.logs.len()), &format!("name {MAX_LOGS} at most"));
    }
    let mut names = BTreeSet::new();
    sensors.logs.iter().try_for_each(|source| check_log(source, &mut names))
}

fn check_log<'a>(source: &'a LogSource, names: &mut BTreeSet<&'a str>) -> Result<(), Failure> {
    match (&source.file, &source.unit) {
        (Some(file), None) if file.is_absolute() => {}
        (Some(_), None) => return wrong("logs has a `file` that is no absolute path", "write it from / on"),
        (None, Some(unit)) if !unit.is_empty() && !unit.starts_with('-') => {}
        (None, Some(_)) => return wrong("logs has a `unit` without a name", "for example unit: resilver-node.service"),
        _ => return wrong("logs names neither or both of `file` and `unit`", "each entry follows one of them"),
    }
    if source.patterns.is_empty() || source.patterns.len() > MAX_PATTERNS {
        return wrong(
            &format!("logs has an entry with {} patterns", source.patterns.len()),
            &format!("name 1 to {MAX_PATTERNS}: without one nothing would ever be told"),
        );
    }
    for pattern in &source.patterns {
        if pattern.name.is_empty() || !names.insert(&pattern.name) {
            return wrong(
                &format!("logs has the pattern {:?} twice, or without a name", pattern.name),
                "name each once",
            );
        }
        if pattern.contains.is_empty() || pattern.contains.iter().chain(&pattern.without).any(String::is_empty) {
            return wrong(
                &format!("logs: the pattern {} has no text, or an empty one, which every line has", pattern.name),
                "say what must be in the line under `contains`",
            );
        }
        if let Some(mode) = pattern.mode.filter(|mode| !mode.is_told_by_logs()) {
            let told: Vec<&str> =
                Mode::ALL.iter().filter(|mode| mode.is_told_by_logs()).map(|mode| mode.as_str()).collect();
            return wrong(
                &format!(
                    "logs: the pattern {} names {mode}, which is judged by comparing hosts: a line of one host's log says \
                     nothing of it",
                    pattern.name
                ),
                &format!("leave `mode` out, and people are told; or name one of {}", told.join(", ")),
            );
        }
    }
    Ok(())
}

fn wrong(what: &str, next: &str) -> Result<(), Failure> {
    Err(Failure::usage(format!("agent.sensors.{what}")).next(next))
}

#[cfg(test)]
mod tests {
    use resilver_agent::options::LogPattern;

    use super::*;

    fn told(change: impl FnOnce(&mut SensorOptions)) -> String {
        let pattern = LogPattern { name: "io".into(), contains: vec!["I/O error".into()], without: vec![], mode: None };
        let log = LogSource { file: Some("/var/log/kern.log".into()), unit: None, patterns: vec![pattern] };
        let mut sensors = SensorOptions { logs: vec![log], ..SensorOptions::default() };
        check(&sensors).unwrap();
        change(&mut sensors);
        check(&sensors).unwrap_err().to_string()
    }

    #[test]
    fn what_could_never_tell_anything_or_would_tell_everything_is_refused() {
        assert!(told(|sensors| sensors.canary_every = Duration::ZERO).contains("canary_every"));
        assert!(told(|sensors| sensors.replicas_every = Some(Duration::from_millis(1))).contains("replicas_every"));
        assert!(told(|sensors| sensors.logs[0].file = Some("kern.log".into())).contains("absolute"));
        assert!(told(|sensors| sensors.logs[0].unit = Some("x.service".into())).contains("both"));
        assert!(told(|sensors| sensors.logs[0].patterns.clear()).contains("0 patterns"));
        assert!(told(|sensors| sensors.logs[0].patterns[0].contains.clear()).contains("no text"));
        assert!(told(|sensors| sensors.logs[0].patterns[0].without = vec![String::new()]).contains("empty"));
        let of_others = told(|sensors| sensors.logs[0].patterns[0].mode = Some(Mode::QuorumLoss));
        assert!(
            of_others.contains("the pattern io names quorum_loss")
                && of_others.contains("disk_failure, disk_degrading")
        );
        assert!(told(|sensors| sensors.logs.push(sensors.logs[0].clone())).contains("twice"));
    }
}

//! Checks that need more than one key, or more than a type.
//!
//! Owns: what a configuration must fulfil before anything is opened. Must never: look at the machine: the same file is
//! right or wrong everywhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use resilver_agent::options::{Options as AgentOptions, Peer, SmartSource};
use resilver_node::options::{Options as NodeOptions, S3Options};
use resilver_strategies::config::SmartPolicy;
use resilver_strategies::watching::MAX_OTHERS;

use super::{Config, PolicyConfig};
use crate::exit::Failure;

/// The longest name of a node: it is part of file names, metrics and incident ids.
const MAX_NAME: usize = 63;

/// How often slow sensors may look: more often than once a second would be no slow sensor, and in a day a disk can die.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The first thing that is wrong.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    if let Some(node) = &config.node {
        check_node(node)?;
    }
    if let Some(agent) = &config.agent {
        check_agent(agent, config.node.as_ref())?;
    }
    if let Some(time) = config.interval {
        interval("interval", time)?;
    }
    check_nodes(&config.nodes)?;
    check_gossip(config)?;
    if let (Some(agent), false) = (&config.agent, config.nodes.is_empty())
        && !config.nodes.iter().any(|peer| peer.id == agent.name)
    {
        return Err(Failure::usage(format!("nodes: does not list {}, the node of this host", agent.name))
            .next("list all members, this one included: the agents hold their lease among them"));
    }
    config.policy().check().map_err(|error| Failure::usage(error.to_string()))?;
    let Some(agent) = &config.agent else { return Ok(()) };
    looks_often_enough(agent, &config.policy())?;
    samples_often_enough(agent, config.interval.unwrap_or(agent.interval), &config.policy().smart)
}

/// Samples in a row are to be had while what the node failed to read still counts.
fn samples_often_enough(agent: &AgentOptions, every: Duration, smart: &SmartPolicy) -> Result<(), Failure> {
    let take = every * smart.samples;
    if agent.smart.is_none() || smart.errors_within >= take {
        return Ok(());
    }
    let said = |time: Duration| humantime::format_duration(time).to_string();
    Err(Failure::usage(format!(
        "smart.errors_within is {}, and {} samples take {} (one each `interval`)",
        said(smart.errors_within),
        smart.samples,
        said(take)
    ))
    .next("raise smart.errors_within, or lower `interval`: what the node failed to read would be forgotten before they agree"))
}

/// What is judged by looks of the last so many seconds needs two of them in that time; and figures that count heartbeats mean those
/// that are asked for.
fn looks_often_enough(agent: &AgentOptions, policy: &PolicyConfig) -> Result<(), Failure> {
    let said = |time: Duration| humantime::format_duration(time).to_string();
    let heartbeat = policy.detection.heartbeat;
    if agent.heartbeat_interval > heartbeat {
        return Err(Failure::usage(format!(
            "agent.heartbeat_interval is {}, and detection.heartbeat is {}",
            said(agent.heartbeat_interval),
            said(heartbeat)
        ))
        .next("raise both together: what counts in heartbeats would count answers that never come"));
    }
    let host = policy.deadlock.good_for.min(policy.resources.good_for);
    for (key, every, good_for) in [
        ("host_every", agent.sensors.host_every, host),
        ("canary_every", agent.sensors.canary_every, policy.deadlock.good_for),
    ] {
        if every * 2 > good_for {
            return Err(Failure::usage(format!(
                "agent.sensors.{key} is {}, and what it sees counts for {}",
                said(every),
                said(good_for)
            ))
            .next("look at least twice in that time, or raise `good_for` of `deadlock` and `resources` with it"));
        }
    }
    Ok(())
}

/// Whether slow sensors may look that often.
pub(crate) fn interval(key: &str, time: Duration) -> Result<(), Failure> {
    if INTERVALS.contains(&time) {
        return Ok(());
    }
    let time = humantime::format_duration(time);
    Err(Failure::usage(format!("{key} is {time}: 1s to 1d expected")).next("leave it out for the default, 10m"))
}

fn check_node(node: &NodeOptions) -> Result<(), Failure> {
    name("node.name", &node.name)?;
    address("node.address", &node.address)?;
    address("node.http", &node.http)?;
    if node.address == node.http {
        return Err(Failure::usage(format!("node.address and node.http are both {}", node.address))
            .next("give them different ports"));
    }
    if let Some(s3) = &node.s3 {
        check_s3(s3, node)?;
    }
    for to in &node.join {
        address("node.join", to)?;
    }
    if node.disks.is_empty() {
        return Err(Failure::usage("node.disks is empty").next("name at least one folder, each on a disk of its own"));
    }
    let mut seen = BTreeSet::new();
    for disk in &node.disks {
        if !seen.insert(disk) {
            return Err(Failure::usage(format!("node.disks lists {} twice", disk.display()))
                .next("one folder per disk: two shards of an object must not share one"));
        }
    }
    let overlap = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    if let Some(disk) = node.disks.iter().find(|disk| overlap(disk, &node.data_dir)) {
        return Err(Failure::usage(format!(
            "node.data_dir {} and the disk {} lie in each other",
            node.data_dir.display(),
            disk.display()
        ))
        .next("keep metadata beside the disks, not on one: losing a disk must not lose a voter"));
    }
    if let Some((aside, disk)) =
        node.aside.iter().find_map(|aside| Some((aside, node.disks.iter().find(|disk| aside.starts_with(disk))?)))
    {
        return Err(Failure::usage(format!("recovery.dir {} lies on the disk {}", aside.display(), disk.display()))
            .next("name a folder beside `node.data_dir`, or leave it out"));
    }
    node.deadlines.check().map_err(|error| {
        Failure::usage(format!("node.{error}")).next("leave a deadline out for its default: `resilver config schema`")
    })?;
    if node.repair.in_flight == 0 {
        return Err(Failure::usage("node.repair.in_flight is 0: nothing would ever be repaired").next("use 1 or more"));
    }
    let rates = [
        &node.repair.rate_bytes_per_second,
        &node.scrub.rate_bytes_per_second,
        &node.metadata_scrub.rate_bytes_per_second,
    ];
    if rates.contains(&&0) {
        return Err(
            Failure::usage("a rate_bytes_per_second is 0: the work would never end").next("use 1000000 or more")
        );
    }
    if node.metadata_scrub.period.is_zero() {
        return Err(Failure::usage("node.metadata_scrub.period is 0: the metadata would be read without end")
            .next("use 1h or more"));
    }
    if node.repair.full_check_period.is_zero() {
        return Err(
            Failure::usage("node.repair.full_check_period is 0: the disks would have no rest").next("use 1h or more")
        );
    }
    Ok(())
}

fn check_s3(s3: &S3Options, node: &NodeOptions) -> Result<(), Failure> {
    address("node.s3.address", &s3.address)?;
    for (key, other) in [("node.address", &node.address), ("node.http", &node.http)] {
        if *other == s3.address {
            return Err(
                Failure::usage(format!("node.s3.address and {key} are both {other}")).next("give them different ports")
            );
        }
    }
    if let Some(domain) = &s3.domain {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let bare = domain.trim_matches('.') == domain && !domain.is_empty() && domain.chars().all(fits);
        if !bare {
            return Err(Failure::usage(format!("node.s3.domain is `{domain}`: not the name of a domain")).next(
                "write it bare and in lower case, without scheme, port or bucket: s3.example.com stands for \
                 BUCKET.s3.example.com",
            ));
        }
    }
    for (key, limit) in [
        ("max_connections", s3.max_connections),
        ("max_requests", s3.max_requests),
        ("max_requests_per_key", s3.max_requests_per_key),
    ] {
        if limit == 0 {
            return Err(Failure::usage(format!("node.s3.{key} is 0: nobody would ever be answered"))
                .next("use 1 or more, or leave `node.s3` out on a node that is to serve no clients"));
        }
    }
    if s3.region.is_empty() || !s3.region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Failure::usage(format!("node.s3.region is `{}`", s3.region))
            .next("use letters, digits and `-`: every client signs with it; us-east-1 is what they use by default"));
    }
    Ok(())
}

fn check_agent(agent: &AgentOptions, node: Option<&NodeOptions>) -> Result<(), Failure> {
    name("agent.name", &agent.name)?;
    address("agent.node_address", &agent.node_address)?;
    address("agent.address", &agent.address)?;
    address("agent.http", &agent.http)?;
    agent.smart.as_ref().map_or(Ok(()), check_smart)?;
    super::sensors::check(&agent.sensors)?;
    for (key, value, least) in [
        ("agent.journal.max_bytes", agent.journal.max_bytes, resilver_agent::journal::MIN_BYTES),
        ("agent.flight.max_bytes", agent.flight.max_bytes, resilver_agent::flight::MIN_BYTES),
    ] {
        if value < least {
            return Err(Failure::usage(format!("{key} is {value}: at least {least} expected")).next(
                "leave it out for the default; nothing is reserved for the flight recorder with `enabled: false`",
            ));
        }
    }
    let Some(node) = node else { return Ok(()) };
    if node.name != agent.name {
        return Err(Failure::usage(format!("agent.name is {}, but node.name is {}", agent.name, node.name))
            .next("an agent goes by the name of the node it guards"));
    }
    if node.address != agent.node_address {
        return Err(Failure::usage(format!(
            "agent.node_address is {}, but node.address is {}",
            agent.node_address, node.address
        ))
        .next("they must be the same: the agent would guard another node"));
    }
    if let Some(disk) = node.disks.iter().find(|disk| agent.dir.starts_with(disk)) {
        return Err(Failure::usage(format!("agent.dir {} lies on the disk {}", agent.dir.display(), disk.display()))
            .next("keep the agent's state off the disks it may have to detach"));
    }
    Ok(())
}

fn check_smart(smart: &SmartSource) -> Result<(), Failure> {
    let wrong = |what: &str, next: &str| Err(Failure::usage(format!("agent.smart {what}")).next(next));
    let is_device = |device: &Path| device.starts_with("/dev");
    match (&smart.folder, &smart.command) {
        (None, None) => wrong("names neither `folder` nor `command`", "name one of them; docs/smart.md has examples"),
        (Some(_), Some(_)) => {
            wrong("names both `folder` and `command`", "keep one: which to believe is nobody's guess")
        }
        (Some(_), None) => Ok(()),
        (None, Some(command)) if !command.first().is_some_and(|program| program.starts_with('/')) => {
            wrong("has a `command` without an absolute path", "for example command: [/usr/sbin/smartctl]")
        }
        (None, Some(_)) => match smart.devices.iter().find(|(_, device)| !is_device(device)) {
            Some((disk, device)) => wrong(
                &format!(
                    "names {} for the disk {}: a command is asked about devices",
                    device.display(),
                    disk.display()
                ),
                "write /dev/…, or use `folder`",
            ),
            None => Ok(()),
        },
    }
}

/// Datagrams go to numbers: a name that is looked up when a host is in trouble may be in trouble, too.
fn check_gossip(config: &Config) -> Result<(), Failure> {
    let Some(gossip) = config.agent.as_ref().and_then(|agent| agent.gossip.as_ref()) else { return Ok(()) };
    let number = |key: &str, value: &str| match value.parse::<std::net::SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(()),
        _ => Err(Failure::usage(format!("{key} is `{value}`: no address and port in numbers"))
            .next("write ADDRESS:PORT, for example 10.0.0.1:7946, for every member")),
    };
    number("agent.gossip.listen", &gossip.listen)?;
    let mut seen = BTreeSet::new();
    for peer in &config.nodes {
        let address = peer.gossip.as_deref().unwrap_or_default();
        number(&format!("nodes: gossip of {}", peer.id), address)?;
        if !seen.insert(address) {
            return Err(Failure::usage(format!("nodes: the gossip address {address} is listed twice"))
                .next("every agent has a gossip address of its own"));
        }
    }
    Ok(())
}

fn check_nodes(nodes: &[Peer]) -> Result<(), Failure> {
    let most = MAX_OTHERS + 1;
    if nodes.len() > most {
        return Err(Failure::usage(format!("nodes: {} are listed, {most} at most", nodes.len()))
            .next("make two clusters of it: an agent keeps so many others in mind, and of one more nobody would notice that it is gone"));
    }
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for peer in nodes {
        name("nodes: id", &peer.id)?;
        for (key, value) in [("address", Some(&peer.address)), ("agent", Some(&peer.agent)), ("api", peer.api.as_ref())]
        {
            let Some(value) = value else { continue };
            address(&format!("nodes: {key} of {}", peer.id), value)?;
            if !addresses.insert(value) {
                return Err(Failure::usage(format!("nodes: {value} is listed twice"))
                    .next("every node and every agent has an address of its own"));
            }
        }
        if !names.insert(&peer.id) {
            return Err(Failure::usage(format!("nodes: two entries are named {}", peer.id))
                .next("names are unique in a cluster"));
        }
    }
    Ok(())
}

/// `host:port` with a port that can be reached.
fn address(key: &str, value: &str) -> Result<(), Failure> {
    let wrong = |why: &str| {
        Err(Failure::usage(format!("{key} is `{value}`: {why}")).next("write host:port, for example 10.0.0.1:7400"))
    };
    let Some((host, port)) = value.rsplit_once(':') else { return wrong("a port is missing") };
    if host.is_empty() {
        return wrong("a host is missing; others must be able to reach it");
    }
    if host.contains('/') || host.contains(char::is_whitespace) {
        return wrong("not host:port");
    }
    match port.parse::<u16>() {
        Ok(0) => wrong("port 0 cannot be reached by others"),
        Ok(_) => Ok(()),
        Err(_) => wrong("the port is no number from 1 to 65535"),
    }
}

fn name(key: &str, value: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts = value.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if starts && value.len() <= MAX_NAME && value.chars().all(fits) {
        return Ok(());
    }
    Err(Failure::usage(format!("{key} is `{value}`"))
        .next(format!("use letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most {MAX_NAME}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn complaint(text: &str) -> String {
        let mut config: Config = parse(Path::new("r.yaml"), text).expect("it parses");
        config.anchor(Path::new("/etc"));
        check(&config).expect_err("it is refused").to_string()
    }

    const NODE: &str = "node: { name: n1, address: 'h:1', http: 'h:2', data_dir: /d/meta, disks: [/d/disk1] }\n";

    #[test]
    fn a_good_one_passes() {
        let config: Config = parse(Path::new("r.yaml"), NODE).expect("it parses");
        assert_eq!(check(&config), Ok(()));
    }

    #[test]
    fn each_mistake_names_key_and_value() {
        let with = |from: &str, to: &str| complaint(&NODE.replace(from, to));
        assert!(with("h:1", "h").contains("node.address is `h`: a port is missing"));
        assert!(with("h:1", "h:99999").contains("no number from 1 to 65535"));
        assert!(with("[/d/disk1]", "[]").contains("node.disks is empty"));
        assert!(with("[/d/disk1]", "[/a, /a]").contains("lists /a twice"));
        assert!(with("/d/meta", "/d/disk1/meta").contains("lie in each other"));
        assert!(with("name: n1", "name: 'n 1'").contains("node.name is `n 1`"));
        assert!(
            with("disks:", "deadlines: { note: 1ms }, disks:").contains("node.deadlines.note is 1ms: 100ms at least")
        );
        let s3 = |s3: &str| with("disks:", &format!("s3: {{ {s3} }}, disks:"));
        assert!(s3("address: 'h'").contains("node.s3.address is `h`: a port is missing"));
        assert!(s3("address: 'h:2'").contains("node.s3.address and node.http are both h:2"));
        assert!(s3("address: 'h:3', domain: 'http://s3'").contains("not the name of a domain"));
        assert!(s3("address: 'h:3', max_requests: 0").contains("node.s3.max_requests is 0"));
        assert!(s3("address: 'h:3', region: ''").contains("node.s3.region is ``"));
        let agent = "agent: { name: n2, node_address: 'h:1', address: 'h:3', http: 'h:4', dir: /d/agent }\n";
        assert!(complaint(&format!("{NODE}{agent}")).contains("agent.name is n2, but node.name is n1"));
        let smart = |smart: &str| {
            complaint(&format!(
                "{NODE}{}",
                agent.replace("n2", "n1").replace("node_address", &format!("smart: {smart}, node_address"))
            ))
        };
        assert!(smart("{}").contains("agent.smart names neither `folder` nor `command`"));
        assert!(smart("{ folder: /f, command: [/usr/sbin/smartctl] }").contains("names both"));
        assert!(smart("{ command: [smartctl] }").contains("without an absolute path"));
        let device = smart("{ command: [/usr/sbin/smartctl], devices: { /d/disk1: sda.json } }");
        assert!(device.contains("names sda.json for the disk /d/disk1"), "{device}");
        let seldom = agent.replace("n2", "n1").replace("node_address", "smart: { folder: /f }, node_address");
        let seldom = complaint(&format!("{NODE}{seldom}interval: 20h\n"));
        assert!(seldom.contains("smart.errors_within is 1day, and 2 samples take 1day 16h"), "{seldom}");
        assert!(complaint(&format!("{NODE}smart: {{ samples: 1 }}\n")).contains("smart.samples is 1: 2 to 100"));
        assert!(complaint(&format!("{NODE}interval: 10ms\n")).contains("interval is 10ms: 1s to 1d expected"));
        let host = |at: usize| format!("  - {{ id: n{at}, address: 'h{at}:1', agent: 'h{at}:3' }}\n");
        let nodes = |count: usize| format!("{NODE}nodes:\n{}", (1..=count).map(host).collect::<String>());
        assert!(complaint(&nodes(MAX_OTHERS + 2)).contains("nodes: 1026 are listed, 1025 at most"));
        let most: Config = parse(Path::new("r.yaml"), &nodes(MAX_OTHERS + 1)).expect("it parses");
        assert_eq!(check(&most), Ok(()));
        let kept = complaint(&format!("{NODE}recovery: {{ dir: /d/disk1/kept }}\n"));
        assert!(kept.contains("recovery.dir /d/disk1/kept lies on the disk /d/disk1"), "{kept}");
        let gossip = |listen: &str, of_n2: &str| {
            let keys = format!("gossip: {{ listen: '{listen}', key_file: /k }}, node_address");
            let agent = agent.replace("n2", "n1").replace("node_address", &keys);
            let nodes = format!(
                "nodes:\n  - {{ id: n1, address: 'h:1', agent: 'h:3', gossip: '10.0.0.1:7' }}\n  \
                 - {{ id: n2, address: 'i:1', agent: 'i:3'{of_n2} }}\n"
            );
            complaint(&format!("{NODE}{agent}{nodes}"))
        };
        assert!(gossip("host:7", "").contains("agent.gossip.listen is `host:7`: no address and port in numbers"));
        assert!(gossip("10.0.0.1:7", "").contains("nodes: gossip of n2 is ``"));
        assert!(gossip("10.0.0.1:7", ", gossip: '10.0.0.1:7'").contains("10.0.0.1:7 is listed twice"));
    }
}

//! More than anybody could have room for, at once: fresh findings, disks, counters, failures, lines and peers by the hundred.

use proptest::prelude::*;
use resilver_strategies::api::{
    DiskFact, FailureFact, Input, LogMatchFact, Observation, OperatorCommand, PeerFact, SilenceFact, SmartFact,
    SmartVerdict,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::liveness::MAX_SILENT;
use resilver_strategies::types::{FailureKind, Mode};

use crate::common::{finding, peer};
use crate::story::Story;

/// One kind of flood, and how much of it.
#[derive(Clone, Copy, Debug)]
pub enum Flood {
    /// Corrupt shards of as many objects, on as many disks as given.
    Findings(u16, u16),
    /// Disks that nobody has heard of, all of them gone.
    Disks(u16),
    /// Counters of as many disks.
    Counters(u16),
    /// Failures on as many hosts, in one answer.
    Failures(u16),
    /// Lines of as many patterns.
    Lines(u16),
    /// Peers that nobody has heard of, each of which misses as many hosts.
    Peers(u16),
    /// The own term rises, as often.
    Terms(u16),
    /// Wrong tokens, as often: each few of them withdraw an offer.
    Tokens(u16),
    /// Seconds in which everybody answers.
    Pass(u8),
}

pub fn flood() -> impl Strategy<Value = Flood> {
    prop_oneof![
        3 => (100u16..500, 1u16..400).prop_map(|(count, disks)| Flood::Findings(count, disks)),
        2 => (100u16..500).prop_map(Flood::Disks),
        1 => (100u16..400).prop_map(Flood::Counters),
        2 => (100u16..900).prop_map(Flood::Failures),
        1 => (20u16..100).prop_map(Flood::Lines),
        1 => (20u16..40).prop_map(Flood::Peers),
        1 => (4u16..16).prop_map(Flood::Terms),
        1 => (10u16..40).prop_map(Flood::Tokens),
        3 => (1u8..6).prop_map(Flood::Pass),
    ]
}

impl Story {
    pub fn floods(&mut self, flood: Flood) {
        match flood {
            Flood::Findings(count, disks) => {
                for _ in 0..count {
                    self.findings += 1;
                    let (number, disk) = (self.findings, self.findings % u64::from(disks));
                    self.bench.fact.findings.push(finding(number, &format!("f{disk}"), &format!("flood{number}")));
                }
                self.second();
            }
            Flood::Disks(count) => {
                self.samples += 1;
                let disk = |number: u16| DiskFact {
                    disk: format!("s{}-{number}", self.samples),
                    path: "/data/x".into(),
                    state: "up".into(),
                    health: "gone".into(),
                    ..DiskFact::default()
                };
                let disks: Vec<DiskFact> = (0..count).map(disk).collect();
                self.bench.fact.disks.truncate(2);
                self.bench.fact.disks.extend(disks);
                // Convicted by the third look.
                (0..3).for_each(|_| self.second());
            }
            Flood::Counters(count) => {
                for number in 0..count {
                    self.samples += 1;
                    self.bench.observe(Observation::Smart(SmartFact {
                        disk: format!("c{number}"),
                        verdict: SmartVerdict::Degrading,
                        reasons: vec!["pending".into()],
                        counters: [("pending_sectors".to_owned(), 8)].into(),
                        sampled_ms: Some(self.samples),
                        source: "x.json".into(),
                        good_for_ms: 3_600_000,
                    }));
                }
            }
            Flood::Failures(count) => {
                let kinds = [FailureKind::PeerUnreachable, FailureKind::LockTimeout, FailureKind::AuthTimeout];
                let event = |number: u16| FailureFact {
                    kind: kinds[usize::from(number) % 3].as_str().to_owned(),
                    places: (0..20).map(|more| Place::host(format!("m{}", number / 3 + more))).collect(),
                    ..FailureFact::default()
                };
                self.bench.observe(Observation::Failures { events: (0..count).map(event).collect() });
            }
            Flood::Lines(count) => {
                for number in 0..count {
                    let (pattern, line) = (format!("p{number}"), "task stuck".to_owned());
                    let fact = LogMatchFact { pattern, mode: Some(Mode::Deadlock), line, count: 1 };
                    self.bench.observe(Observation::LogMatch(fact));
                }
            }
            Flood::Peers(count) => {
                for number in 0..count {
                    self.samples += 1;
                    // The sensor takes no longer list for a word.
                    let silent = (0..usize::from(count).min(MAX_SILENT)).map(|host| SilenceFact {
                        node: format!("q{host}"),
                        agent_ms: 20_000,
                        node_ms: 20_000,
                        domain: format!("host q{host}"),
                    });
                    let silent = Some(silent.collect());
                    let fact = PeerFact { silent, ..peer(&format!("p{}-{number}", self.samples)) };
                    self.bench.observe(Observation::Peer(fact));
                }
            }
            Flood::Terms(count) => {
                for _ in 0..count {
                    self.bench.fact.raft.iter_mut().for_each(|raft| raft.term += 1);
                    self.second();
                }
            }
            Flood::Tokens(count) => {
                let open: Vec<_> = self.bench.engine.incidents().into_iter().take(1).map(|open| open.id).collect();
                for number in 0..count {
                    for incident in &open {
                        self.watcher.given = Some("guessed".into());
                        let (owner, token_sha256) = ("ada".to_owned(), "guessed".to_owned());
                        let incident = incident.clone();
                        let command = OperatorCommand::Approve { owner, incident, token_sha256 };
                        self.bench.give(Input::Operator(command));
                        self.look();
                    }
                    self.draw_all(number);
                }
            }
            Flood::Pass(seconds) => self.pass(u64::from(seconds)),
        }
        self.look();
    }

    /// The agent draws whatever token it is asked for.
    fn draw_all(&mut self, number: u16) {
        for (at, incident) in std::mem::take(&mut self.watcher.offers).into_iter().enumerate() {
            let token_sha256 = format!("f{number}-{at}-{}", self.seconds);
            self.bench.give(Input::Offered { incident, token_sha256 });
            self.look();
        }
    }
}

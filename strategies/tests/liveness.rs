//! Whom the evidence convicts, and, mostly, whom it must not.

use std::time::Duration;

use resilver_strategies::api::{PeerFact, SilenceFact, SwimState};
use resilver_strategies::config::{FAST_FACTOR, PolicyConfig, Profile};
use resilver_strategies::liveness::{Liveness, MAX_SILENT, Verdict};
use resilver_strategies::types::Moment;

/// Agent n1 (rack a) looking at n2 to n6 once a second.
struct Town {
    liveness: Liveness,
    ms: u64,
    /// Hosts whose agent and node answer n1.
    heard: Vec<&'static str>,
    /// What each other agent tells of the victim, n6: `None`: it hears it; else how long it has been silent for it.
    silent_for: Vec<(&'static str, u64)>,
    /// Agents that say nothing about silence.
    mute: Vec<&'static str>,
    swim: Option<SwimState>,
}

const VICTIM: &str = "n6";

fn rack(name: &str) -> String {
    let rack = match name {
        "n1" | "n2" => "a",
        "n3" | "n4" => "b",
        _ => "c",
    };
    format!("rack {rack}")
}

fn silence(agent_ms: u64, node_ms: u64) -> SilenceFact {
    SilenceFact { node: VICTIM.into(), agent_ms, node_ms, domain: rack(VICTIM) }
}

impl Town {
    fn new() -> Town {
        Town::with(PolicyConfig::default())
    }

    fn with(policy: PolicyConfig) -> Town {
        let mut town = Town {
            liveness: Liveness::new("n1", &rack("n1"), &policy),
            ms: 0,
            heard: vec!["n2", "n3", "n4", "n5", "n6"],
            silent_for: Vec::new(),
            mute: Vec::new(),
            swim: None,
        };
        town.pass(5);
        town
    }

    fn now(&self) -> Moment {
        Moment(Duration::from_millis(self.ms))
    }

    /// One look at one host.
    fn fact(&self, name: &'static str) -> PeerFact {
        if !self.heard.contains(&name) {
            let swim = if name == VICTIM { self.swim } else { None };
            return PeerFact { node: name.into(), node_answers: Some(false), swim, ..PeerFact::default() };
        }
        let told = self.silent_for.iter().find(|(prober, _)| *prober == name);
        let silent = told.map(|(_, ms)| silence(*ms, *ms)).into_iter().collect();
        PeerFact {
            node: name.into(),
            agent_answers: true,
            node_alive: Some(true),
            node_phase: "healthy".into(),
            domain: rack(name),
            silent: (!self.mute.contains(&name)).then_some(silent),
            ..PeerFact::default()
        }
    }

    /// So many seconds pass, each with a look at everybody.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.ms += 1000;
            self.liveness.pulse(self.now());
            for name in ["n2", "n3", "n4", "n5", "n6"] {
                self.liveness.observe(self.now(), &self.fact(name));
            }
            for (_, ms) in &mut self.silent_for {
                *ms += 1000;
            }
        }
    }

    /// The victim's power is gone, for everybody.
    fn power_off(&mut self) {
        self.heard.retain(|name| *name != VICTIM);
        self.silent_for = ["n2", "n3", "n4", "n5"].map(|name| (name, 0)).to_vec();
    }

    fn verdict(&self) -> Verdict {
        self.liveness.judge(self.now(), VICTIM).verdict
    }

    fn evidence(&self) -> String {
        self.liveness.judge(self.now(), VICTIM).evidence
    }
}

#[test]
fn a_host_that_loses_its_power_is_suspected_after_3_s_and_convicted_after_15_s() {
    let mut town = Town::new();
    assert_eq!(town.verdict(), Verdict::Heard);
    town.power_off();
    town.pass(2);
    assert_eq!(town.verdict(), Verdict::Heard, "two missed looks are nothing yet");
    town.pass(1);
    assert_eq!(town.verdict(), Verdict::Suspected, "{}", town.evidence());
    town.pass(11);
    assert_eq!(town.verdict(), Verdict::Suspected, "{}", town.evidence());
    town.pass(2);
    assert_eq!(town.verdict(), Verdict::Convicted, "{}", town.evidence());
    assert!(town.evidence().contains("5 of 6 agents heard") && town.evidence().contains("n3 (rack b)"));
}

#[test]
fn no_factor_makes_a_conviction_faster() {
    let fast = PolicyConfig::of(Profile::Fast);
    assert!(fast.factor >= FAST_FACTOR);
    let mut town = Town::with(fast);
    town.power_off();
    town.pass(14);
    assert_eq!(town.verdict(), Verdict::Suspected);
}

#[test]
fn a_host_with_a_dead_agent_or_a_dead_node_is_there() {
    let mut town = Town::new();
    for (agent_answers, node_alive, node_answers) in [(false, None, Some(true)), (true, Some(false), Some(false))] {
        for _ in 0..30 {
            town.heard.retain(|name| *name != VICTIM);
            town.ms += 1000;
            town.liveness.pulse(town.now());
            let fact = PeerFact { node: VICTIM.into(), agent_answers, node_alive, node_answers, ..PeerFact::default() };
            town.liveness.observe(town.now(), &fact);
        }
        assert_eq!(town.verdict(), Verdict::Heard, "agent {agent_answers}, node {node_answers:?}");
    }
}

#[test]
fn a_saturated_host_that_answers_now_and_then_is_never_convicted() {
    let mut town = Town::new();
    for _ in 0..10 {
        town.power_off();
        town.pass(12);
        assert_eq!(town.verdict(), Verdict::Suspected);
        // One late answer, of its node alone.
        let late = PeerFact { node: VICTIM.into(), node_answers: Some(true), ..PeerFact::default() };
        town.liveness.observe(town.now(), &late);
        town.silent_for.iter_mut().for_each(|(_, ms)| *ms = 0);
        assert_eq!(town.verdict(), Verdict::Heard);
    }
}

#[test]
fn a_host_that_somebody_hears_is_cut_off_and_not_down() {
    let mut town = Town::new();
    town.power_off();
    town.silent_for.retain(|(prober, _)| *prober != "n5");
    town.pass(60);
    assert_eq!(town.verdict(), Verdict::Partition);
    assert!(town.evidence().ends_with("but heard by n5"), "{}", town.evidence());
    // And when only gossip has heard of it.
    town.silent_for.push(("n5", 60_000));
    town.swim = Some(SwimState::Alive);
    town.pass(1);
    assert_eq!(town.verdict(), Verdict::Partition);
    town.swim = Some(SwimState::Down);
    town.pass(1);
    assert_eq!(town.verdict(), Verdict::Convicted, "{}", town.evidence());
}

#[test]
fn an_agent_that_stood_still_convicts_nobody_by_the_silence_of_its_own_sleep() {
    let mut town = Town::new();
    // The host was there all the time; this process was stopped for a minute, and wakes to unanswered questions.
    town.ms += 60_000;
    town.power_off();
    town.silent_for.iter_mut().for_each(|(_, ms)| *ms = 60_000);
    town.liveness.pulse(town.now());
    assert_eq!(town.verdict(), Verdict::Unknown);
    let told = town.liveness.silences(town.now()).expect("not too many");
    assert!(told.iter().all(|silence| silence.agent_ms == 0), "nor does it tell others of such a silence: {told:?}");
    assert!(!told.is_empty(), "nor claim to hear whom it has not heard since");
    town.pass(14);
    assert_ne!(town.verdict(), Verdict::Convicted, "{}", town.evidence());
    town.pass(2);
    assert_eq!(town.verdict(), Verdict::Convicted, "awake for 15 s it counts again: {}", town.evidence());
}

#[test]
fn one_prober_alone_convicts_nobody() {
    let mut town = Town::new();
    town.power_off();
    town.silent_for.clear();
    town.mute = vec!["n2", "n3", "n4", "n5"];
    town.pass(60);
    assert_eq!(town.verdict(), Verdict::Suspected);
    assert!(town.evidence().contains("silent for nobody else"), "{}", town.evidence());
}

#[test]
fn two_probers_in_one_failure_domain_are_one() {
    let mut town = Town::new();
    town.power_off();
    town.silent_for.retain(|(prober, _)| *prober == "n2");
    town.mute = vec!["n3", "n4", "n5"];
    town.pass(60);
    assert_eq!(town.verdict(), Verdict::Suspected);
    assert!(town.evidence().contains("a second prober in another domain than rack a"), "{}", town.evidence());
}

#[test]
fn a_second_prober_must_have_missed_it_for_15_s_itself() {
    let mut town = Town::new();
    town.power_off();
    town.pass(20);
    assert_eq!(town.verdict(), Verdict::Convicted);
    town.silent_for.iter_mut().for_each(|(_, ms)| *ms = 4000);
    town.pass(1);
    assert_eq!(town.verdict(), Verdict::Suspected, "{}", town.evidence());
}

#[test]
fn words_older_than_a_probe_round_count_for_nothing() {
    let mut town = Town::new();
    town.power_off();
    town.pass(20);
    assert_eq!(town.verdict(), Verdict::Convicted);
    // Time passes without a look at anybody (but this process runs on).
    for _ in 0..3 {
        town.ms += 800;
        town.liveness.pulse(town.now());
    }
    assert_eq!(town.verdict(), Verdict::Suspected);
    assert!(town.evidence().contains("silent for nobody else"), "{}", town.evidence());
}

#[test]
fn a_minority_never_convicts_the_majority() {
    let mut town = Town::new();
    // n1 and n2 are cut off from the other four, and see all of them silent, each for a minute.
    town.heard = vec!["n2"];
    let all = ["n3", "n4", "n5", "n6"];
    for second in 0..60 {
        town.ms += 1000;
        town.liveness.pulse(town.now());
        for name in all {
            town.liveness.observe(town.now(), &town.fact(name));
        }
        let silent = all.map(|name| SilenceFact { node: name.into(), ..silence(second * 1000, second * 1000) });
        let n2 = PeerFact { silent: Some(silent.to_vec()), domain: "rack z".into(), ..town.fact("n2") };
        town.liveness.observe(town.now(), &n2);
        for name in all {
            let judged = town.liveness.judge(town.now(), name);
            assert_ne!(judged.verdict, Verdict::Convicted, "{name}: {judged}");
        }
    }
    assert!(town.evidence().contains("only 2 of 6 agents heard"), "{}", town.evidence());
}

#[test]
fn half_of_the_agents_are_no_majority() {
    let mut town = Town::new();
    town.power_off();
    town.heard.retain(|name| ["n2", "n3"].contains(name));
    town.pass(60);
    assert_eq!(town.verdict(), Verdict::Suspected);
    assert!(town.evidence().contains("only 3 of 6"), "{}", town.evidence());
}

#[test]
fn a_prober_that_hears_hardly_anybody_is_no_witness() {
    let mut town = Town::new();
    town.power_off();
    town.mute = vec!["n2", "n4", "n5"];
    town.silent_for.clear();
    let lost = |host: &str| SilenceFact { node: host.into(), ..silence(60_000, 60_000) };
    for _ in 0..30 {
        town.pass(1);
        let n3 = PeerFact { silent: Some(["n2", "n5", VICTIM].map(lost).to_vec()), ..town.fact("n3") };
        town.liveness.observe(town.now(), &n3);
        assert_ne!(town.verdict(), Verdict::Convicted, "{}", town.evidence());
    }
}

#[test]
fn whoever_hears_almost_nobody_says_nothing_about_silence() {
    let mut liveness = Liveness::new("n0", "host n0", &PolicyConfig::default());
    let now = |ms| Moment(Duration::from_millis(ms));
    for index in 1..=MAX_SILENT + 1 {
        let told = liveness.silences(now(0)).expect("not too many");
        assert_eq!(told.len(), index - 1);
        liveness.observe(now(0), &PeerFact { node: format!("n{index}"), ..PeerFact::default() });
    }
    assert_eq!(liveness.silences(now(0)), None);
}

//! Is a host there? Own looks, other agents' words and gossip, weighed.
//!
//! Owns: the verdict on every other host, with its evidence. Fast suspicion, slow conviction: a *suspected* host is routed
//! around, a *convicted* one is recovered from.
//!
//! Must never: convict on one prober's word; on silence that was measured while this process stood still itself; on words
//! older than a probe round; from a minority of the agents; or a host that anybody hears. What is unknown convicts
//! nobody.
//!
//! Times here are detection: a policy's factor does not scale them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{PeerFact, SilenceFact, SwimState};
use crate::config::PolicyConfig;
use crate::types::Moment;
use crate::watching::MAX_OTHERS;

/// Hosts that one agent names as heard, when it does not look at everybody: whom it asks by plan and in doubt are half as many.
pub const MAX_HEARD: usize = 128;
/// Silent hosts one agent tells of. Who does not hear more than these has lost its own network, and says nothing.
pub const MAX_SILENT: usize = 64;
/// A gap between two inputs that is no matter of a busy machine any more: this process stood still. The agent's main
/// loop gives an input every second, and may wait two for a disk.
const STOOD_STILL: Duration = Duration::from_millis(3500);

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was not looked at for long enough.
    Unknown,
    /// Its agent or its node answers.
    Heard,
    /// Neither answers this agent; nobody says yet that it is there, or that it is not.
    Suspected,
    /// Neither answers this agent, but somebody hears it: the network is broken, not the host.
    Partition,
    /// Long silent for two probers in different failure domains, and heard by nobody.
    Convicted,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The numbers, for people.
    pub evidence: String,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.evidence)
    }
}

/// What another agent said, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Word {
    at: Moment,
    silent: Vec<SilenceFact>,
    /// Whom it hears; `None`: everybody who is not silent.
    #[serde(default)]
    heard: Option<Vec<String>>,
}

impl Word {
    fn on(&self, host: &str) -> Option<&SilenceFact> {
        self.silent.iter().find(|silence| silence.node == host)
    }

    /// Not to call it silent says that it is heard only by who looks at it.
    fn hears(&self, host: &str) -> bool {
        self.on(host).is_none() && self.heard.as_ref().is_none_or(|heard| heard.iter().any(|known| known == host))
    }

    /// Whether it hears more than half of those it looks at, itself among them. `agents`: how many there are to look at for one
    /// that leaves nobody out.
    fn hears_most(&self, agents: usize) -> bool {
        let agents = self.heard.as_ref().map_or(agents, |heard| heard.len() + self.silent.len() + 1);
        self.silent.len() * 2 < agents
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Host {
    /// Silence counts from here at the earliest: the first look, or when this process went on after standing still.
    since: Moment,
    agent: Option<Moment>,
    node: Option<Moment>,
    domain: String,
    swim: Option<SwimState>,
    word: Option<Word>,
}

impl Host {
    fn silence(&self, now: Moment) -> (Duration, Duration) {
        let since = |heard: Option<Moment>| now.since(heard.map_or(self.since, |heard| heard.max(self.since)));
        (since(self.agent), since(self.node))
    }

    fn heard_within(&self, now: Moment, limit: Duration) -> bool {
        let within = |heard: Option<Moment>| heard.is_some_and(|heard| now.since(heard) < limit);
        within(self.agent) || within(self.node)
    }
}

/// Watches all other hosts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Liveness {
    own: String,
    domain: String,
    suspect_after: Duration,
    convict_after: Duration,
    fresh_within: Duration,
    hosts: BTreeMap<String, Host>,
    /// How many others there are, when they are not all looked at; 0: nobody has said so.
    #[serde(default)]
    others: usize,
    last: Option<Moment>,
}

impl Liveness {
    /// One that has seen nobody. `domain`: this host's failure domain.
    pub fn new(own: &str, domain: &str, policy: &PolicyConfig) -> Self {
        Self {
            own: own.to_owned(),
            domain: domain.to_owned(),
            suspect_after: policy.detection.suspect_after,
            convict_after: policy.detection.convict_after,
            fresh_within: policy.fresh_within(),
            ..Self::default()
        }
    }

    /// Goes on by other figures, with what was seen so far.
    pub fn adopt(&mut self, policy: &PolicyConfig) {
        self.suspect_after = policy.detection.suspect_after;
        self.convict_after = policy.detection.convict_after;
        self.fresh_within = policy.fresh_within();
    }

    /// Time passes. To be called before anything else is done with an input: a gap means that this process stood still,
    /// and the silence it seems to have measured is its own.
    pub fn pulse(&mut self, now: Moment) {
        if self.last.is_some_and(|last| now.since(last) > STOOD_STILL) {
            for host in self.hosts.values_mut() {
                host.since = now;
                host.word = None;
            }
        }
        self.last = Some(now);
    }

    /// There are so many others, of which some may not be looked at. Whoever is dropped is not looked at any more: it is neither
    /// silent nor heard from now on.
    pub fn watch(&mut self, others: usize, dropped: &[String]) {
        self.others = others;
        for host in dropped {
            self.hosts.remove(host);
        }
    }

    fn is_partial(&self) -> bool {
        self.hosts.len() < self.others
    }

    /// Whether a host is one of those that are not looked at here.
    pub fn is_left_out(&self, host: &str) -> bool {
        self.is_partial() && host != self.own && !self.hosts.contains_key(host)
    }

    /// Whom this agent hears, for others; `None`: everybody whom it does not call silent.
    pub fn heard(&self, now: Moment) -> Option<Vec<String>> {
        let heard = self.hosts.iter().filter(|(_, host)| host.heard_within(now, self.suspect_after));
        self.is_partial().then(|| heard.map(|(name, _)| name.clone()).collect())
    }

    /// A look at another host.
    pub fn observe(&mut self, now: Moment, fact: &PeerFact) {
        if fact.node == self.own || (!self.hosts.contains_key(&fact.node) && self.hosts.len() >= MAX_OTHERS) {
            return;
        }
        let host = self.hosts.entry(fact.node.clone()).or_insert_with(|| Host {
            since: now,
            agent: None,
            node: None,
            domain: String::new(),
            swim: None,
            word: None,
        });
        if fact.agent_answers {
            host.agent = Some(now);
        }
        if fact.node_alive == Some(true) || fact.node_answers == Some(true) {
            host.node = Some(now);
        }
        host.swim = fact.swim;
        if !fact.domain.is_empty() {
            host.domain.clone_from(&fact.domain);
        }
        host.word = fact.silent.clone().map(|silent| Word { at: now, silent, heard: fact.heard.clone() });
        for silence in fact.silent.iter().flatten().filter(|silence| !silence.domain.is_empty()) {
            // Hearsay: an agent that began after the host was gone was never told by the host itself.
            if let Some(host) = self.hosts.get_mut(&silence.node).filter(|host| host.domain.is_empty()) {
                host.domain.clone_from(&silence.domain);
            }
        }
    }

    /// The verdict on a host.
    pub fn judge(&self, now: Moment, name: &str) -> Judgement {
        let of = |verdict, evidence| Judgement { verdict, evidence };
        let Some(host) = self.hosts.get(name) else {
            return of(Verdict::Unknown, format!("{name} is no host that is looked at"));
        };
        let (agent, node) = host.silence(now);
        let own = format!("agent silent for {:.1} s, node for {:.1} s", agent.as_secs_f64(), node.as_secs_f64());
        if host.heard_within(now, self.suspect_after) {
            return of(Verdict::Heard, own);
        }
        let silent = agent.min(node);
        if silent < self.suspect_after {
            return of(Verdict::Unknown, format!("{own}: not looked at for {} s yet", self.suspect_after.as_secs()));
        }
        let hearing = self.hearing(now, name, host);
        if !hearing.is_empty() {
            return of(Verdict::Partition, format!("{own}, but heard by {}", hearing.join(", ")));
        }
        let limit = self.convict_after.as_secs();
        if silent < self.convict_after {
            return of(Verdict::Suspected, format!("{own}, convicted after {limit} s"));
        }
        let (heard, agents) = self.majority(now);
        if heard * 2 <= agents {
            return of(
                Verdict::Suspected,
                format!("{own}; only {heard} of {agents} agents heard: a minority convicts nobody"),
            );
        }
        let witnesses = self.witnesses(now, name);
        let named: Vec<String> = witnesses.iter().map(|(name, domain, _)| format!("{name} ({domain})")).collect();
        if !witnesses.iter().any(|(_, domain, _)| *domain != self.domain) {
            let besides = if named.is_empty() { "nobody else".to_owned() } else { named.join(", ") };
            let why = format!(
                "{own}; silent for {besides}, too: a second prober in another domain than {} is needed",
                self.domain
            );
            return of(Verdict::Suspected, why);
        }
        let gossip = host.swim.map_or("none", SwimState::as_str);
        of(
            Verdict::Convicted,
            format!(
                "{own}, limit {limit} s; silent for {}, too; heard by nobody (gossip: {gossip}); {heard} of {agents} agents heard",
                named.join(", ")
            ),
        )
    }

    /// The hosts that are not heard, and since when.
    pub fn silent(&self, now: Moment) -> impl Iterator<Item = (&str, Moment)> {
        let silent = self.hosts.iter().filter(move |(_, host)| !host.heard_within(now, self.suspect_after));
        silent.map(|(name, host)| {
            let heard = host.agent.max(host.node).unwrap_or(host.since);
            (name.as_str(), heard.max(host.since))
        })
    }

    /// Whether its process runs, by any word: it can be given work again.
    pub fn node_answers(&self, now: Moment, name: &str) -> bool {
        let node = self.hosts.get(name).and_then(|host| host.node);
        node.is_some_and(|heard| now.since(heard) < self.suspect_after)
    }

    /// The failure domain of a host; the host itself when it was never told.
    pub fn domain(&self, name: &str) -> String {
        let known = self.hosts.get(name).map(|host| host.domain.as_str()).filter(|domain| !domain.is_empty());
        known.map_or_else(|| format!("host {name}"), str::to_owned)
    }

    /// Whom this agent does not hear, for others. `None`: too many, this host's own network is what is broken; or it is about to
    /// look at everybody, and has not yet.
    pub fn silences(&self, now: Moment) -> Option<Vec<SilenceFact>> {
        if self.is_partial() && self.hosts.len() > MAX_HEARD {
            return None;
        }
        let silent = self.hosts.iter().filter(|(_, host)| !host.heard_within(now, self.suspect_after));
        let told: Vec<SilenceFact> = silent
            .map(|(name, host)| {
                let (agent, node) = host.silence(now);
                let ms = |silence: Duration| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                SilenceFact { node: name.clone(), agent_ms: ms(agent), node_ms: ms(node), domain: host.domain.clone() }
            })
            .take(MAX_SILENT + 1)
            .collect();
        (told.len() <= MAX_SILENT).then_some(told)
    }

    fn fresh_words<'a>(&'a self, now: Moment, but: &'a str) -> impl Iterator<Item = (&'a String, &'a Host, &'a Word)> {
        let others = self.hosts.iter().filter(move |(name, _)| *name != but);
        others.filter_map(move |(name, host)| {
            let word = host.word.as_ref().filter(|word| now.since(word.at) <= self.fresh_within)?;
            Some((name, host, word))
        })
    }

    /// Who hears a host that this agent does not hear.
    fn hearing(&self, now: Moment, name: &str, host: &Host) -> Vec<String> {
        let words = self.fresh_words(now, name).filter(|(_, _, word)| word.hears(name));
        let mut hearing: Vec<String> = words.map(|(prober, _, _)| prober.clone()).collect();
        if host.swim == Some(SwimState::Alive) {
            hearing.push("gossip".to_owned());
        }
        hearing
    }

    /// Other probers for whom a host has been silent long enough. One that does not hear half the agents itself is no
    /// witness: it may be the one that is cut off.
    fn witnesses(&self, now: Moment, name: &str) -> Vec<(&str, String, Duration)> {
        // A witness that leaves nobody out looks at all there are, also where this agent does not.
        let agents = self.others.max(self.hosts.len()) + 1;
        let words = self.fresh_words(now, name).filter(|(_, _, word)| word.hears_most(agents));
        let silence = |(prober, _, word): (&'_ String, &Host, &Word)| {
            let told = word.on(name)?;
            let silent = Duration::from_millis(told.agent_ms.min(told.node_ms)) + now.since(word.at);
            let (prober, _) = self.hosts.get_key_value(prober)?;
            (silent >= self.convict_after).then(|| (prober.as_str(), self.domain(prober), silent))
        };
        words.filter_map(silence).collect()
    }

    /// How many agents this one hears, itself included, and how many there are.
    fn majority(&self, now: Moment) -> (usize, usize) {
        let hears = |host: &&Host| host.agent.is_some_and(|heard| now.since(heard) < self.suspect_after);
        (self.hosts.values().filter(hears).count() + 1, self.hosts.len() + 1)
    }
}

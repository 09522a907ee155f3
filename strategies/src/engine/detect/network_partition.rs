//! `network_partition`: hosts that this one does not hear while somebody else does; and being on the minority side of it. Agents may
//! well hear each other while their nodes do not: then a node hears no leader ([`Unled`]).
//!
//! Never: takes a host that nobody hears for cut off (that is `host_down`); calls this side the minority while a leader is seen, or
//! while the voters are not known; takes a term that runs away for a cut (that is `term_divergence`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{MemberFact, NodeFact, RaftFact};
use crate::config::PolicyConfig;
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::detect::leader::{Around, hears_leader};
use crate::lease::majority;
use crate::liveness::{Liveness, MAX_SILENT, Verdict};
use crate::types::Moment;

/// Whom a node does not hear although its agent does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Unled {
    held: Held,
    /// Who leads, by the word of a quorum; none: nobody does.
    leader: Option<String>,
    /// The leader, or, without one, all other voters whose nodes run.
    hosts: Vec<String>,
    /// Of how many voters.
    voters: usize,
}

impl Unled {
    fn look(&mut self, now: Moment, around: Around<'_>, fact: &NodeFact, led: Option<(&str, u64)>, gap: Duration) {
        let raft = fact.raft.as_ref().filter(|raft| takes_part(fact, around.own) && !hears_leader(raft));
        let cut = raft.is_some_and(|raft| match led {
            // A term above the leader's is no cut.
            Some((name, term)) => name != around.own && raft.term <= term,
            None => self.runs_without(now, around, fact, raft),
        });
        self.leader = led.map(|(name, _)| name.to_owned());
        if let (true, Some(leader)) = (cut, &self.leader) {
            self.hosts = vec![leader.clone()];
        }
        self.held.look(now, cut, gap);
    }

    /// Nobody leads, as far as anybody says, and a majority of the voters' nodes run.
    fn runs_without(&mut self, now: Moment, around: Around<'_>, fact: &NodeFact, raft: &RaftFact) -> bool {
        let Around { own, peers, within, .. } = around;
        let running = |name: &&str| *name == own || peers.is_alive(now, within, name);
        self.voters = voters(fact).count();
        self.hosts.clear();
        self.hosts.extend(voters(fact).filter(running).filter(|name| *name != own).map(str::to_owned));
        let runs = self.hosts.len() + usize::from(voters(fact).any(|name| name == own));
        runs >= majority(self.voters) && !self.hosts.is_empty() && !around.anybody_sees(now, Some(raft))
    }

    fn lasts(&self, policy: &PolicyConfig) -> bool {
        self.held.lasts(policy.partition.unled_after, 3)
    }

    fn told(&self) -> String {
        let (time, hosts) = (self.held.time().as_secs(), self.hosts.join(", "));
        match &self.leader {
            Some(leader) => {
                format!(
                    "this node hears no leader for {time} s, though {leader} leads by a quorum's word and its agent is heard"
                )
            }
            None => format!(
                "no node hears a leader for {time} s, though those of {hosts} run, of {} voters: they do not reach each other, \
                 or none of them is elected",
                self.voters
            ),
        }
    }
}

/// The voters of the cluster map that are not given up.
fn voters(fact: &NodeFact) -> impl Iterator<Item = &str> {
    let counts = |member: &&MemberFact| member.role == "voter" && member.state != "out";
    fact.members.iter().filter(counts).map(|member| member.node.as_str())
}

/// A member that hears its leader when all is well.
fn takes_part(fact: &NodeFact, own: &str) -> bool {
    let member = fact.members.iter().any(|member| member.node == own && member.state != "out");
    member && !matches!(fact.phase.as_str(), "starting" | "lost_voter" | "stopping")
}

/// What was seen of the network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Since when each host is cut off from this one.
    cut: BTreeMap<String, Held>,
    minority: Held,
    majority: Held,
    /// Voters heard, the own node among them, of how many.
    voters: (usize, usize),
    whole: Held,
    #[serde(default)]
    unled: Unled,
}

impl Watch {
    /// `led`: who leads by a quorum's word, and its term.
    pub(crate) fn look(
        &mut self,
        now: Moment,
        around: Around<'_>,
        fact: Option<&NodeFact>,
        led: Option<(&str, u64)>,
        policy: &PolicyConfig,
    ) {
        let Around { own, peers, liveness, within } = around;
        let gap = policy.detection.heartbeat * 10;
        let silent: Vec<&str> = liveness.silent(now).map(|(host, _)| host).take(MAX_SILENT).collect();
        self.cut.retain(|host, _| silent.contains(&host.as_str()));
        for host in &silent {
            let cut = liveness.judge(now, host).verdict == Verdict::Partition;
            match self.cut.get_mut(*host) {
                Some(held) => held.look(now, cut, gap),
                None if cut => self.cut.entry((*host).to_owned()).or_default().look(now, true, gap),
                None => {}
            }
        }
        let Some(fact) = fact else { return };
        let (mut heard, mut all) = (0, 0);
        for voter in voters(fact) {
            all += 1;
            heard += usize::from(voter == own || peers.is_heard(now, within, voter));
        }
        self.voters = (heard, all);
        self.unled.look(now, around, fact, led, gap);
        let seen = around.own_sees(now, fact.raft.as_ref());
        let minority = all > 0 && heard < majority(all) && !seen;
        let leader = seen && fact.raft.as_ref().is_none_or(hears_leader);
        self.minority.look(now, minority, gap);
        self.majority.look(now, all > 0 && heard >= majority(all) && leader, gap);
        // Both ways: they are heard, and do not say that they miss this host.
        let missed = fact.members.iter().any(|member| member.node != own && peers.misses_us(&member.node));
        self.whole.look(now, silent.is_empty() && !missed && leader, gap);
    }

    /// Whom the own node does not hear, for long enough, although the agents hear each other; and what is seen of that.
    pub(crate) fn unled(&self, policy: &PolicyConfig) -> Option<(&[String], String)> {
        self.unled.lasts(policy).then(|| (self.unled.hosts.as_slice(), self.unled.told()))
    }

    /// Others are led, and the own node is not.
    fn aside(&self, policy: &PolicyConfig) -> bool {
        self.unled.leader.is_some() && self.unled.lasts(policy)
    }

    /// It is asked no more: not to be heard is no cut then.
    pub(crate) fn forget(&mut self, host: &str) {
        self.cut.remove(host);
    }

    /// Hosts that are cut off from this one for long enough.
    pub(crate) fn cut_off(&self, policy: &PolicyConfig) -> Vec<String> {
        let long = |held: &Held| held.lasts(policy.partition.confirm_after, 2);
        self.cut.iter().filter(|(_, held)| long(held)).map(|(host, _)| host.clone()).collect()
    }

    /// Whether this host is on the minority side, with the numbers: by the agents that are heard, or by its node, which no leader
    /// reaches while others are led.
    pub(crate) fn minority(&self, policy: &PolicyConfig) -> (bool, String) {
        if self.aside(policy) {
            return (true, self.unled.told());
        }
        let (heard, all) = self.voters;
        let time = self.minority.time();
        let told = format!("{heard} of {all} voters heard, and no leader, for {:.0} s", time.as_secs_f64());
        (self.hears_few(policy), told)
    }

    /// Whether too few of the voters are heard.
    pub(crate) fn hears_few(&self, policy: &PolicyConfig) -> bool {
        self.minority.lasts(policy.partition.minority_after, 2)
    }

    /// Whether all that were lost are back, or gone for another reason.
    pub(crate) fn state(&self, now: Moment, hosts: &[String], liveness: &Liveness, policy: &PolicyConfig) -> State {
        let (minority, told) = self.minority(policy);
        if minority {
            return State::Ill(format!("minority side: {told}"));
        }
        if let Some((_, told)) = self.unled(policy) {
            return State::Ill(told);
        }
        // Whom this agent asks no more, it does not judge any more: the rest decides, and the network as it is.
        let hosts = || hosts.iter().filter(|host| !liveness.is_left_out(host));
        let judged = |host: &String| liveness.judge(now, host);
        let cut = hosts().map(|host| (host, judged(host))).find(|(_, judged)| judged.verdict == Verdict::Partition);
        if let Some((host, judged)) = cut {
            return State::Ill(format!("{host}: {judged}"));
        }
        let healed_after = policy.scaled(policy.partition.healed_after).max(Duration::from_secs(2));
        let back = hosts().all(|host| judged(host).verdict == Verdict::Heard);
        if back && self.whole.lasts(healed_after, 2) {
            return State::Well;
        }
        let gone = |host: &String| matches!(judged(host).verdict, Verdict::Convicted | Verdict::Heard);
        match hosts().all(gone) && !back && self.majority.lasts(healed_after, 2) {
            true => State::Over("those that are not heard are heard by nobody: that is host_down's".to_owned()),
            false => State::Unknown("all hosts to be heard both ways for long enough, and a leader to be seen"),
        }
    }
}

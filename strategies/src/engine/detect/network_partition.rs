//! `network_partition`: hosts that this one does not hear while somebody else does; and being on the minority side of it.
//!
//! Never: takes a host that nobody hears for cut off (that is `host_down`); calls this side the minority while a leader is seen, or
//! while the voters are not known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::NodeFact;
use crate::config::PolicyConfig;
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::detect::leader::Around;
use crate::engine::peers::Peers;
use crate::lease::majority;
use crate::liveness::{Liveness, MAX_SILENT, Verdict};
use crate::types::Moment;

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
}

impl Watch {
    pub(crate) fn look(
        &mut self,
        now: Moment,
        own: &str,
        fact: Option<&NodeFact>,
        peers: &Peers,
        liveness: &Liveness,
        policy: &PolicyConfig,
    ) {
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
        let names = fact.members.iter().filter(|member| member.role == "voter" && member.state != "out");
        let (mut heard, mut all) = (0, 0);
        for voter in names {
            all += 1;
            heard += usize::from(voter.node == own || peers.is_heard(now, policy.detection.suspect_after, &voter.node));
        }
        self.voters = (heard, all);
        let within = policy.detection.suspect_after;
        let leader = Around { own, peers, liveness, within }.own_sees(now, fact.raft.as_ref());
        let minority = all > 0 && heard < majority(all) && !leader;
        self.minority.look(now, minority, gap);
        self.majority.look(now, all > 0 && heard >= majority(all) && leader, gap);
        // Both ways: they are heard, and do not say that they miss this host.
        let missed = fact.members.iter().any(|member| member.node != own && peers.misses_us(&member.node));
        self.whole.look(now, silent.is_empty() && !missed && leader, gap);
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

    /// Whether this host is on the minority side, with the numbers.
    pub(crate) fn minority(&self, policy: &PolicyConfig) -> (bool, String) {
        let (heard, all) = self.voters;
        let time = self.minority.time();
        let told = format!("{heard} of {all} voters heard, and no leader, for {:.0} s", time.as_secs_f64());
        (self.minority.lasts(policy.partition.minority_after, 2), told)
    }

    /// Whether all that were lost are back, or gone for another reason.
    pub(crate) fn state(&self, now: Moment, hosts: &[String], liveness: &Liveness, policy: &PolicyConfig) -> State {
        let (minority, told) = self.minority(policy);
        if minority {
            return State::Ill(format!("minority side: {told}"));
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

//! `quorum_loss`: a majority of the metadata's voters cannot be reached, and nobody names a leader that anybody hears.
//!
//! Never: calls a quorum lost while anybody sees a leader, or while the voters are not known; says that something is to be forced.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::NodeFact;
use crate::config::PolicyConfig;
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::detect::leader::Around;
use crate::lease::majority;
use crate::types::Moment;

/// How long a survivor's last word is shown: that it is old is shown with it. There are 7 voters at most.
const MAX_VOTERS: usize = 16;

/// What was seen of the voters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    lost: Held,
    there: Held,
    /// No leader that lives is named by anybody that is heard, and somebody is.
    leaderless: Held,
    /// Voters, and whether each was reached.
    voters: BTreeMap<String, bool>,
    /// Each voter's last (term, index), as its node said.
    logs: BTreeMap<String, (u64, u64)>,
}

impl Watch {
    /// `fact`: the node's last word, whether it answers now is `answers`.
    pub(crate) fn look(
        &mut self,
        now: Moment,
        around: Around<'_>,
        fact: Option<&NodeFact>,
        answers: bool,
        policy: &PolicyConfig,
    ) {
        let gap = policy.detection.heartbeat * 10;
        let Around { own, peers, within, .. } = around;
        let raft = fact.filter(|_| answers).and_then(|fact| fact.raft.as_ref());
        let named = around.anybody_sees(now, raft);
        self.leaderless.look(now, !named && peers.answering(now, within) > 0, gap);
        let Some(fact) = fact else { return };
        self.voters.clear();
        for voter in
            fact.members.iter().filter(|member| member.role == "voter" && member.state != "out").take(MAX_VOTERS)
        {
            let reached = if voter.node == own {
                answers && fact.raft.is_some()
            } else {
                peers.is_alive(now, within, &voter.node)
            };
            let raft = if voter.node == own { fact.raft.as_ref() } else { peers.raft_of(now, within, &voter.node) };
            if let Some(raft) = raft {
                self.logs.insert(voter.node.clone(), (raft.last_log_term, raft.last_log));
            }
            self.voters.insert(voter.node.clone(), reached);
        }
        self.logs.retain(|node, _| self.voters.contains_key(node));
        let (reached, all) = self.reached();
        self.lost.look(now, all > 0 && reached < majority(all) && !named, gap);
        self.there.look(now, all > 0 && reached >= majority(all) && named, gap);
    }

    fn reached(&self) -> (usize, usize) {
        (self.voters.values().filter(|reached| **reached).count(), self.voters.len())
    }

    /// For how long nobody has named a leader.
    pub(crate) fn leaderless(&self) -> Duration {
        self.leaderless.time()
    }

    /// Each voter's last (term, index) as known here, for whoever has to choose.
    pub(crate) fn survivors(&self) -> String {
        let mut told = String::new();
        for (node, reached) in &self.voters {
            let there = if *reached { "reached" } else { "not reached" };
            let _ = match self.logs.get(node) {
                Some((term, index)) => write!(told, "{node} ({term}, {index}) {there}; "),
                None => write!(told, "{node} (unknown) {there}; "),
            };
        }
        told.trim_end_matches("; ").to_owned()
    }

    pub(crate) fn state(&self, policy: &PolicyConfig, back_for: Duration) -> State {
        let (reached, all) = self.reached();
        if self.lost.lasts(policy.quorum.lost_after, 3) {
            let time = self.lost.time().as_secs();
            return State::Ill(format!(
                "{reached} of {all} voters reached and no leader named by anybody that anybody hears, for {time} s: {}",
                self.survivors()
            ));
        }
        match self.there.lasts(back_for, 2) {
            true => State::Well,
            false => State::Unknown("a leader, and a majority of the voters, for long enough"),
        }
    }
}

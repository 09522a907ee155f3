//! Who stands for election, and when. openraft 0.9 has no pre-vote: a voter that hears no leader raises its term at once,
//! again and again, and deposes the leader when it is back. Its own elections are therefore off ([`super::raft`]); a voter
//! that has heard nobody for long enough first asks the others whether they miss the leader, too (Ongaro, "Consensus:
//! bridging theory and practice", 9.6), and stands only when a quorum does.
//!
//! Owns: the timing of elections, the question and its answer. Must never: change a term or a vote by asking or answering.
//!
//! Invariant: what is backed here is what [`openraft`]'s own vote would be granted, so that a backed candidate can win: the
//! log is compared, and a leader's lease is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::Fatal;
use openraft::storage::RaftLogStorage;
use openraft::{LogId, ServerState};
use rand::RngCore;
use resilver_host::Rng;
#[cfg(feature = "planted-bugs")]
use resilver_host::planted::damage;
use resilver_host::planted::{Bug, bug};
use resilver_proto::internal::{PreVoteRequest, PreVoteResponse};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

use super::heard::Heard;
use super::log_store::LogAdapter;
use super::network::Links;
use super::raft::{Node, Raft, Tuning};
use super::{MetaError, wire};
use crate::peers::Profile;
use crate::types::RaftId;

/// Where a member stands in the matter of elections, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    state: ServerState,
    /// The last word of a leader, of a candidate that got this member's vote, or of itself as a candidate. None since the
    /// start.
    spoken: Option<Instant>,
    /// That word was a leader's.
    led: bool,
    /// Raft's membership: every set needs a majority of its own.
    pub(super) quorums: Vec<BTreeSet<Node>>,
    /// Where the membership says the voters are.
    pub(super) addresses: BTreeMap<Node, String>,
}

impl Standing {
    fn votes(&self, own: Node) -> bool {
        self.quorums.iter().any(|voters| voters.contains(&own))
    }

    fn alone(&self, own: Node) -> bool {
        self.quorums.iter().all(|voters| voters.iter().all(|voter| *voter == own))
    }

    /// Until when nobody else is backed: a leader has its lease, a candidate the time an election takes.
    fn quiet_until(&self, tuning: &Tuning) -> Option<Instant> {
        self.spoken.map(|spoken| spoken + if self.led { tuning.election_max } else { tuning.election_min })
    }

    /// When this member stands, if nothing is heard until then. `draw` tells voters apart.
    fn due(&self, own: Node, tuning: &Tuning, draw: Duration, round: &Round) -> Instant {
        if self.alone(own) && !round.tried {
            return round.since;
        }
        let lease = if self.led { tuning.election_max } else { Duration::ZERO };
        self.spoken.map_or(round.since, |spoken| round.since.max(spoken + lease)) + draw
    }
}

/// One try of a member at becoming leader.
struct Round {
    /// The try before, or when it became possible to try.
    since: Instant,
    /// There was a try before.
    tried: bool,
    /// The log says already why it came to nothing.
    told: bool,
}

impl Round {
    fn first() -> Self {
        Self { since: Instant::now(), tried: false, told: false }
    }
}

/// Why somebody is not backed, in words for its log.
fn refusal(
    standing: &Standing,
    now: Instant,
    tuning: &Tuning,
    own: Option<&LogId<Node>>,
    asker: Option<&LogId<Node>>,
) -> Option<String> {
    if standing.quiet_until(tuning).is_some_and(|until| now <= until) {
        let ago = standing.spoken.map_or(0, |spoken| now.saturating_duration_since(spoken).as_millis());
        let who = match (standing.state, standing.led) {
            (ServerState::Leader, _) => "a quorum answered it as their leader",
            (_, true) => "it heard the leader",
            (_, false) => "it took part in an election",
        };
        return Some(format!("{who} {ago} ms ago"));
    }
    if asker < own {
        let index = |id: Option<&LogId<Node>>| id.map_or(0, |id| id.index);
        return Some(format!("its log goes further: to {}, and not to {}", index(own), index(asker)));
    }
    None
}

/// What became of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Backed,
    Refused(String),
    Silent(String),
}

/// A quorum does not back this member: each voter that spoke against it, or did not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotBacked(BTreeMap<Node, String>);

impl fmt::Display for NotBacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too few voters would elect this member")?;
        for (number, (member, why)) in self.0.iter().enumerate() {
            let before = if number == 0 { ": " } else { "; " };
            write!(f, "{before}member {member}: {why}")?;
        }
        Ok(())
    }
}

/// How often a quorum was asked, by what came of it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// It backed this member, which stood.
    pub(crate) backed: AtomicU64,
    /// It did not.
    pub(crate) refused: AtomicU64,
}

/// Why a member does not stand that was told not to.
pub(super) const QUIET: &str = "this member is quiet: it was told not to stand for election";

/// One member's part in elections.
pub(super) struct Elections {
    pub(super) raft: Raft,
    pub(super) log: LogAdapter,
    pub(super) links: Arc<Links>,
    pub(super) tuning: Tuning,
    /// Leadership is being handed over: this member does not stand.
    pub(super) yielding: watch::Receiver<bool>,
    pub(super) asked: Asked,
    /// A person or an agent said that this member does not stand.
    pub(super) quiet: watch::Sender<bool>,
    /// When to stand.
    pub(super) draws: Mutex<Rng>,
    /// When a leader was heard.
    pub(super) heard: Heard,
    /// What this member found of its own metadata.
    pub(super) stored: super::spare::Found,
}

impl Elections {
    pub(super) fn own(&self) -> Node {
        self.links.ids.raft_id.0
    }

    /// Whether this member was told not to stand.
    pub(super) fn is_quiet(&self) -> bool {
        *self.quiet.borrow()
    }

    /// A time between the shortest and the longest, so that two voters seldom stand at once.
    fn draw(&self) -> Duration {
        #[cfg(feature = "planted-bugs")]
        if let Some(every) = damage::astray(self.own()) {
            return every;
        }
        let (least, most) = (self.tuning.election_min, self.tuning.election_max);
        let span = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX).max(1);
        let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        least + Duration::from_millis(draws.next_u64() % span)
    }

    pub(super) async fn standing(&self) -> Result<Standing, Fatal<Node>> {
        let mut standing = self
            .raft
            .with_raft_state(|state| {
                let effective = state.membership_state.effective();
                let voters: BTreeSet<Node> = effective.voter_ids().collect();
                let addresses = effective.nodes().filter(|(id, _)| voters.contains(id));
                Standing {
                    state: state.server_state,
                    spoken: state.vote_last_modified(),
                    led: state.vote_ref().is_committed(),
                    quorums: effective.membership().get_joint_config().clone(),
                    addresses: addresses.map(|(id, node)| (*id, node.addr.clone())).collect(),
                }
            })
            .await?;
        if standing.state == ServerState::Leader {
            // Nobody leads it: what counts is the last word of its quorum.
            let age = self.raft.metrics().borrow().millis_since_quorum_ack;
            let acknowledged = age.and_then(|age| Instant::now().checked_sub(Duration::from_millis(age)));
            standing.spoken = standing.spoken.max(acknowledged);
        }
        self.heard.note(standing.spoken, standing.led);
        Ok(standing)
    }

    /// How long ago a leader was heard; of one that heard none since its start, for how long it runs. `None`: it leads.
    pub(super) async fn unheard(&self) -> Option<Duration> {
        let standing = self.standing().await.ok()?;
        (standing.state != ServerState::Leader).then(|| self.heard.age())
    }

    /// When the leader, or the quorum of this one, was heard last.
    pub(super) async fn last_word(&self) -> Option<Instant> {
        self.standing().await.ok()?.spoken
    }

    pub(super) async fn last_log(&self) -> Result<Option<LogId<Node>>, String> {
        let state = self.log.clone().get_log_state().await.map_err(|error| error.to_string())?;
        Ok(state.last_log_id)
    }

    /// Whether this member would back the asker, whose log ends at `asker`.
    pub(super) async fn answer(&self, asker: Option<LogId<Node>>) -> Result<PreVoteResponse, String> {
        let standing = self.standing().await.map_err(|fatal| fatal.to_string())?;
        let own = self.last_log().await?;
        let why = refusal(&standing, Instant::now(), &self.tuning, own.as_ref(), asker.as_ref());
        let stored = self.stored.get().into();
        Ok(PreVoteResponse { backed: why.is_none(), why: why.unwrap_or_default(), stored })
    }

    /// Stands for election if a quorum would have it.
    ///
    /// # Errors
    /// [`MetaError::Refused`] with each voter's reason; nothing was changed then.
    pub(super) async fn stand(&self) -> Result<(), MetaError> {
        let stopped = |fatal: Fatal<Node>| MetaError::Stopped { reason: fatal.to_string() };
        let standing = self.standing().await.map_err(stopped)?;
        if standing.state == ServerState::Leader {
            return Ok(());
        }
        if self.is_quiet() {
            return Err(MetaError::Refused { detail: QUIET.to_owned() });
        }
        if !standing.votes(self.own()) {
            return Err(MetaError::Refused { detail: "this member does not vote, so it cannot lead".to_owned() });
        }
        if !self.stands_unasked()
            && let Err(not_backed) = self.ask(&standing).await
        {
            self.asked.refused.fetch_add(1, Ordering::Relaxed);
            return Err(MetaError::Refused { detail: not_backed.to_string() });
        }
        self.asked.backed.fetch_add(1, Ordering::Relaxed);
        self.raft.trigger().elect().await.map_err(stopped)
    }

    /// A mistake that the simulator plants, for good or for a while.
    fn stands_unasked(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        if damage::astray(self.own()).is_some() {
            return true;
        }
        bug(Bug::StandUnasked)
    }

    /// Asks all voters at once, for as long as an election waits for its votes.
    async fn ask(&self, standing: &Standing) -> Result<(), NotBacked> {
        let own = self.own();
        let mut answers = BTreeMap::from([(own, Answer::Backed)]);
        let last = match self.last_log().await {
            Ok(last) => last,
            Err(error) => return Err(NotBacked(BTreeMap::from([(own, format!("its log cannot be read: {error}"))]))),
        };
        let mut asked = JoinSet::new();
        for (member, address) in standing.addresses.iter().filter(|(member, _)| **member != own) {
            let (links, member, deadline) = (self.links.clone(), *member, self.tuning.election_min);
            let address = links.address(RaftId(member)).unwrap_or_else(|| address.clone());
            asked.spawn(async move { (member, ask_one(&links, RaftId(member), &address, last, deadline).await) });
        }
        while !backed(&standing.quorums, &answers) {
            match asked.join_next().await {
                Some(Ok((member, answer))) => _ = answers.insert(member, answer),
                Some(Err(_)) => {}
                None => return Err(NotBacked(against(answers))),
            }
        }
        Ok(())
    }

    /// Stands whenever it is due, until `stop` or the end of Raft.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let stopping = stop.wait_for(|stop| *stop);
        tokio::select! {
            _ = stopping => {}
            fatal = self.keep_standing() => tracing::debug!(%fatal, "raft has ended, and elections with it"),
        }
    }

    async fn keep_standing(&self) -> Fatal<Node> {
        let mut round = Round::first();
        loop {
            if let Err(fatal) = self.may_stand().await {
                return fatal;
            }
            let spoken = match self.silence(&round).await {
                Ok(Some(standing)) => standing.spoken,
                Ok(None) => {
                    round = Round::first();
                    continue;
                }
                Err(fatal) => return fatal,
            };
            // Somebody was heard since: another silence, of which is told anew.
            let told = round.told && spoken <= Some(round.since);
            round = Round { since: Instant::now(), tried: true, told };
            if *self.yielding.borrow() || self.is_quiet() {
                continue;
            }
            match self.stand().await {
                Ok(()) => round.told = false,
                Err(MetaError::Stopped { .. }) => return Fatal::Stopped,
                // Said once per silence: it is asked again after every draw, and a silence may last for days.
                Err(error) if !told => {
                    tracing::info!(%error, "no leader is heard here, and this member does not stand for election");
                    round.told = true;
                }
                Err(error) => tracing::debug!(%error, "not backed again"),
            }
        }
    }

    /// Waits until this member has a vote and does not lead.
    async fn may_stand(&self) -> Result<(), Fatal<Node>> {
        let own = self.own();
        let mut metrics = self.raft.metrics();
        let may = metrics.wait_for(|metrics| {
            let votes = metrics.membership_config.membership().voter_ids().any(|voter| voter == own);
            metrics.running_state.is_err() || (votes && metrics.state != ServerState::Leader)
        });
        // An error means that Raft is gone.
        may.await.map_or(Err(Fatal::Stopped), |metrics| metrics.running_state.clone())
    }

    /// Waits until this member is due to stand; `None` when it leads, or has no vote any more, before that.
    async fn silence(&self, round: &Round) -> Result<Option<Standing>, Fatal<Node>> {
        let (own, draw) = (self.own(), self.draw());
        loop {
            let standing = self.standing().await?;
            if standing.state == ServerState::Leader || !standing.votes(own) {
                return Ok(None);
            }
            let due = standing.due(own, &self.tuning, draw, round);
            if due <= Instant::now() {
                return Ok(Some(standing));
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Whether every set of voters has a majority that backs.
fn backed(quorums: &[BTreeSet<Node>], answers: &BTreeMap<Node, Answer>) -> bool {
    let backs = |voter: &&Node| answers.get(voter) == Some(&Answer::Backed);
    quorums.iter().all(|voters| voters.iter().filter(backs).count() > voters.len() / 2)
}

/// Those who did not back, and why.
fn against(answers: BTreeMap<Node, Answer>) -> BTreeMap<Node, String> {
    let why = |(member, answer)| match answer {
        Answer::Backed => None,
        Answer::Refused(why) => Some((member, why)),
        Answer::Silent(why) => Some((member, format!("no answer, {why}"))),
    };
    answers.into_iter().filter_map(why).collect()
}

async fn ask_one(
    links: &Links,
    member: RaftId,
    address: &str,
    last: Option<LogId<Node>>,
    deadline: Duration,
) -> Answer {
    match question(links, member, address, last, deadline).await {
        Ok(PreVoteResponse { backed: true, .. }) => Answer::Backed,
        Ok(PreVoteResponse { why, .. }) => Answer::Refused(why),
        Err(why) => Answer::Silent(why),
    }
}

/// Asks one voter whether it would have this member as its leader, which changes nothing.
///
/// # Errors
/// It did not answer, and why.
pub(super) async fn question(
    links: &Links,
    member: RaftId,
    address: &str,
    last: Option<LogId<Node>>,
    deadline: Duration,
) -> Result<PreVoteResponse, String> {
    let last_log = wire::encode(&last).map_err(|error| error.to_string())?;
    let mut client = links.client(address, Profile::Control).map_err(|error| error.to_string())?;
    let request = PreVoteRequest { envelope: Some(links.ids.envelope(member)), last_log };
    match tokio::time::timeout(deadline, client.pre_vote(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        // A program from before there was such a question would vote without it.
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            Ok(PreVoteResponse { backed: true, ..PreVoteResponse::default() })
        }
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => {
            links.peers.drop_channel(address, Profile::Control);
            Err(format!("none within {} ms", deadline.as_millis()))
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    const LEASE: Duration = Duration::from_millis(700);
    const DRAW: Duration = Duration::from_millis(500);

    fn tuning() -> Tuning {
        Tuning { election_min: Duration::from_millis(400), election_max: LEASE, ..Tuning::default() }
    }

    fn voters<const N: usize>(voters: [Node; N]) -> BTreeSet<Node> {
        BTreeSet::from(voters)
    }

    fn standing(spoken: Option<Instant>, led: bool) -> Standing {
        let quorums = vec![voters([1, 2, 3])];
        Standing { state: ServerState::Follower, spoken, led, quorums, addresses: BTreeMap::new() }
    }

    fn log(term: u64, index: u64) -> LogId<Node> {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn first(since: Instant) -> Round {
        Round { since, tried: false, told: false }
    }

    #[tokio::test(start_paused = true)]
    async fn who_heard_the_leader_backs_nobody_until_its_lease_is_over() {
        let heard = Instant::now();
        let backs = |standing: &Standing, after: Duration| {
            refusal(standing, heard + after, &tuning(), Some(&log(2, 9)), Some(&log(2, 9)))
        };
        let follower = standing(Some(heard), true);
        let told = backs(&follower, Duration::from_millis(120)).expect("refused");
        assert_eq!(told, "it heard the leader 120 ms ago");
        assert!(backs(&follower, LEASE).is_some());
        assert_eq!(backs(&follower, LEASE + Duration::from_millis(1)), None);
        // A candidate that got the vote is given the time of an election, no more.
        let voted = standing(Some(heard), false);
        assert!(backs(&voted, Duration::from_millis(400)).is_some());
        assert_eq!(backs(&voted, Duration::from_millis(401)), None);
        assert_eq!(backs(&standing(None, true), Duration::ZERO), None, "since its start it heard nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_the_longer_log_backs_no_shorter_one() {
        let now = Instant::now();
        let silent = standing(None, true);
        let refused = |own, asker| refusal(&silent, now, &tuning(), Some(&own), Some(&asker)).is_some();
        assert!(refused(log(2, 9), log(2, 8)));
        assert!(refused(log(3, 4), log(2, 9)), "the later term counts before the index");
        assert!(!refused(log(2, 9), log(2, 9)));
        assert!(!refused(log(2, 9), log(3, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_waits_for_lease_and_draw_and_a_lone_one_for_nothing() {
        let start = Instant::now();
        let heard = start + Duration::from_secs(5);
        let due = |standing: &Standing, round: &Round| standing.due(1, &tuning(), DRAW, round) - start;
        assert_eq!(due(&standing(Some(heard), true), &first(start)), Duration::from_secs(5) + LEASE + DRAW);
        assert_eq!(due(&standing(Some(heard), false), &first(start)), Duration::from_secs(5) + DRAW);
        assert_eq!(due(&standing(None, true), &first(start)), DRAW, "a start gives its leader a draw to be heard");
        let again = Round { since: start + Duration::from_secs(9), tried: true, told: true };
        assert_eq!(due(&standing(Some(heard), true), &again), Duration::from_secs(9) + DRAW);
        let lone = Standing { quorums: vec![voters([1])], ..standing(Some(heard), true) };
        assert_eq!(due(&lone, &first(start)), Duration::ZERO);
        assert_eq!(
            due(&lone, &Round { since: start, tried: true, told: false }),
            Duration::from_secs(5) + LEASE + DRAW
        );
    }

    #[test]
    fn every_set_of_a_joint_membership_needs_its_own_majority() {
        let answers = |backing: &[Node]| backing.iter().map(|member| (*member, Answer::Backed)).collect();
        let joint = [voters([1, 2, 3]), voters([3, 4, 5])];
        assert!(backed(&joint, &answers(&[1, 3, 4])));
        assert!(!backed(&joint, &answers(&[1, 2, 3])), "one of three in the second");
        assert!(!backed(&[voters([1, 2, 3, 4])], &answers(&[1, 2])), "half is no majority");
        let mut answers: BTreeMap<_, _> = answers(&[1]);
        answers.insert(2, Answer::Refused("it heard the leader 3 ms ago".to_owned()));
        answers.insert(3, Answer::Silent("none within 400 ms".to_owned()));
        let told = NotBacked(against(answers)).to_string();
        assert_eq!(
            told,
            "too few voters would elect this member: member 2: it heard the leader 3 ms ago; \
             member 3: no answer, none within 400 ms"
        );
    }
}

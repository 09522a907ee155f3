//! What can happen, and under which policy: drawn, with what leads far more often than what leads nowhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use resilver_strategies::config::{GradeTable, PolicyConfig, Profile};
use resilver_strategies::types::Authority;

/// What falls ill, and stays so until all is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// The process ends.
    Process,
    /// The process runs, and answers nobody.
    Hung,
    /// A host is gone: nobody hears it.
    Host,
    /// Two hosts of different domains are gone at once.
    Hosts,
    /// A host is not heard here, and is heard elsewhere.
    CutOff,
    /// This host hears no majority any more; those that it hears hear the rest.
    Minority,
    /// The node lost its vote with its database.
    Database,
    /// Or with its log.
    Log,
    /// The own node and another lead, each with a quorum's word.
    TwoLeaders,
    /// The own term runs away.
    Term,
    /// The own term goes back.
    TermBack,
    /// Another voter's term runs away, while the own node leads.
    Stray,
    /// The own replica is not what the others have.
    Replica,
    /// No canary comes through, and an operation is old.
    Operation,
    /// A lock is held too long, by somebody who lives or by nobody who does.
    Lock(bool),
    /// A volume is short of room.
    Short,
    /// It is full.
    Room,
    /// Memory runs out.
    Memory,
    /// Cores are busy.
    Cores,
    /// What is committed is applied late.
    Lag,
    /// A disk is gone.
    DiskGone,
    /// A disk fails, and still answers.
    DiskFails,
    /// A disk's counters are bad, and reads fail.
    Counters,
    /// A shard is corrupt.
    Rot,
    /// Many are, on one disk.
    RotAllOver,
    /// The clock is off.
    Clock,
    /// Most voters are gone.
    Quorum,
    /// One failure drags others along.
    Cascade,
}

/// All of them.
pub const ILLS: &[Ill] = &[
    Ill::Process,
    Ill::Hung,
    Ill::Host,
    Ill::Hosts,
    Ill::CutOff,
    Ill::Minority,
    Ill::Database,
    Ill::Log,
    Ill::TwoLeaders,
    Ill::Term,
    Ill::TermBack,
    Ill::Stray,
    Ill::Replica,
    Ill::Operation,
    Ill::Lock(true),
    Ill::Lock(false),
    Ill::Short,
    Ill::Room,
    Ill::Memory,
    Ill::Cores,
    Ill::Lag,
    Ill::DiskGone,
    Ill::DiskFails,
    Ill::Counters,
    Ill::Rot,
    Ill::RotAllOver,
    Ill::Clock,
    Ill::Quorum,
    Ill::Cascade,
];

/// How those answer whom the engine asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, and it shows.
    Well,
    /// Done, they say, and nothing shows it.
    Hollow,
    /// It failed; a slot: refused.
    Badly,
    /// A guard at the place of effect refused: nothing was done.
    Refused,
    /// Not at all.
    Never,
}

/// How the world answers, until it changes its manner.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The holder of the lease, asked for slots.
    pub slots: Answer,
    /// Who does the steps.
    pub steps: Answer,
    /// Who looks for proofs.
    pub proofs: Answer,
    /// Somebody approves whatever is offered.
    pub approves: bool,
}

impl Manner {
    /// Everything goes as it should.
    pub const KIND: Manner = Manner { slots: Answer::Well, steps: Answer::Well, proofs: Answer::Well, approves: true };
}

/// A person's word.
#[derive(Clone, Copy, Debug)]
pub enum Token {
    /// What was offered last.
    Newest,
    /// One that was offered before: used, withdrawn or stale.
    Old,
    /// One that nobody drew.
    Wrong,
    /// Of an incident that is none.
    Nowhere,
}

/// Turns of a story that chance alone takes too seldom.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// A person approves during a pause that lasts longer than the approval.
    LateBegin,
    /// A person gives a token that was drawn too long ago.
    LateToken,
    /// A host goes, and the lease with it, some seconds after the conviction.
    Handover(u8),
    /// A pause comes between a slot that is granted and its step.
    PauseAfterGrant,
    /// Somebody starts the node while the agent is paused, and it does not come to serve.
    StartedByHand,
    /// Somebody looks after a disk while the agent is paused, and leaves it read-only.
    MendedByHand,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Happens {
    /// Ticks alone: nobody says anything.
    Wait(u16),
    /// The machine sleeps: no tick either.
    Sleep(u16),
    /// Heartbeats alone.
    Beat(u8),
    /// Heartbeats that are not answered.
    Miss(u8),
    /// Seconds in which everybody says what they have to say, and answers in their manner.
    Pass(u8),
    Falls(Ill),
    Turn(Turn),
    /// Everything is as it was.
    Well,
    /// The own node leads, or follows.
    Leads(bool),
    Manner(Manner),
    Lease(bool),
    Dies(i32),
    Stops,
    Runs,
    Vanishes,
    Disk(bool, u8, u8),
    /// A corrupt shard was found; the node says that it has mended it, or not.
    Finding(bool),
    Pause(u16),
    Resume,
    Restart,
    /// A person has a dead node started.
    StartDead,
    Finish(u8),
    Proof(bool),
    Slot(bool),
    /// The agent draws the token that the engine asked for.
    Offered,
    Approve(Token),
    Fails(u8, u8),
    Smart(u8),
    ReadFails,
    AgentDies,
    /// The node's process is as the kernel says.
    State(u8),
    Canary(u8),
    /// Members are compared, and this one differs or not.
    Compared(bool),
    /// What the node says of itself.
    Says(u8),
    /// How Raft is here.
    Raft(u8),
    /// How a peer is, and what it says.
    Peer(u8, u8),
    /// A peer is not heard any more, or again; others hear it, or not.
    Silent(u8, bool, bool),
    /// The node does (or does not) show what was asked of it.
    Shows(bool),
    Line,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![6 => Just(Answer::Well), 2 => Just(Answer::Hollow), 4 => Just(Answer::Badly), 2 => Just(Answer::Refused), 1 => Just(Answer::Never)]
}

fn manner() -> impl Strategy<Value = Manner> {
    (answer(), answer(), answer(), any::<bool>()).prop_map(|(slots, steps, proofs, approves)| Manner {
        slots,
        steps,
        proofs,
        approves,
    })
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![6 => Just(Token::Newest), 3 => Just(Token::Old), 1 => Just(Token::Wrong), 1 => Just(Token::Nowhere)]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        Just(Turn::LateBegin),
        Just(Turn::LateToken),
        (0u8..12).prop_map(Turn::Handover),
        Just(Turn::PauseAfterGrant),
        Just(Turn::StartedByHand),
        Just(Turn::MendedByHand),
    ]
}

pub fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        16 => (5u8..60).prop_map(Happens::Pass),
        4 => (60u8..200).prop_map(Happens::Pass),
        12 => select(ILLS).prop_map(Happens::Falls),
        8 => turn().prop_map(Happens::Turn),
        5 => Just(Happens::Well),
        3 => any::<bool>().prop_map(Happens::Leads),
        8 => manner().prop_map(Happens::Manner),
        4 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(Happens::Lease),
        2 => (0u16..10_000).prop_map(Happens::Wait),
        1 => prop_oneof![Just(4u16), Just(601), Just(3601)].prop_map(Happens::Sleep),
        2 => (1u8..12).prop_map(Happens::Beat),
        1 => (1u8..8).prop_map(Happens::Miss),
        2 => prop_oneof![Just(9), Just(11)].prop_map(Happens::Dies),
        1 => Just(Happens::Stops),
        2 => Just(Happens::Runs),
        1 => Just(Happens::Vanishes),
        3 => (any::<bool>(), 0u8..5, 0u8..4).prop_map(|(which, state, health)| Happens::Disk(which, state, health)),
        2 => any::<bool>().prop_map(Happens::Finding),
        2 => (1u16..600).prop_map(Happens::Pause),
        2 => Just(Happens::Resume),
        1 => Just(Happens::Restart),
        1 => Just(Happens::StartDead),
        4 => (0u8..4).prop_map(Happens::Finish),
        3 => any::<bool>().prop_map(Happens::Proof),
        3 => any::<bool>().prop_map(Happens::Slot),
        2 => Just(Happens::Offered),
        4 => token().prop_map(Happens::Approve),
        3 => (0u8..6, 0u8..4).prop_map(|(kind, place)| Happens::Fails(kind, place)),
        2 => (0u8..6).prop_map(Happens::Smart),
        1 => Just(Happens::ReadFails),
        1 => Just(Happens::AgentDies),
        2 => (0u8..5).prop_map(Happens::State),
        2 => (0u8..3).prop_map(Happens::Canary),
        1 => any::<bool>().prop_map(Happens::Compared),
        4 => (0u8..9).prop_map(Happens::Says),
        4 => (0u8..8).prop_map(Happens::Raft),
        4 => (0u8..4, 0u8..9).prop_map(|(who, how)| Happens::Peer(who, how)),
        3 => (0u8..4, any::<bool>(), any::<bool>()).prop_map(|(who, gone, heard)| Happens::Silent(who, gone, heard)),
        2 => any::<bool>().prop_map(Happens::Shows),
        1 => Just(Happens::Line),
    ]
}

/// A story of so many things at most.
pub fn story(most: usize) -> impl Strategy<Value = Vec<Happens>> {
    vec(happens(), 1..most)
}

/// What a person has configured.
#[derive(Clone, Debug)]
pub struct Drawn {
    fast: bool,
    grades: GradeTable,
}

impl Drawn {
    pub fn policy(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::of(if self.fast { Profile::Fast } else { Profile::Production });
        policy.authority.grades = self.grades.clone();
        policy
    }
}

/// Mostly automatic: who only looks reaches nothing.
pub fn drawn() -> impl Strategy<Value = Drawn> {
    let all = |authority| GradeTable { all: Some(authority), ..GradeTable::default() };
    let each =
        proptest::array::uniform5(select(Authority::ALL)).prop_map(|[relieve, restart, resync, realign, repair]| {
            GradeTable {
                relieve: Some(relieve),
                restart: Some(restart),
                resync: Some(resync),
                realign: Some(realign),
                repair: Some(repair),
                ..GradeTable::default()
            }
        });
    let grades = prop_oneof![
        6 => Just(all(Authority::Auto)),
        3 => Just(all(Authority::Approve)),
        1 => Just(all(Authority::Shadow)),
        1 => Just(all(Authority::Observe)),
        1 => Just(GradeTable::default()),
        2 => each,
    ];
    (any::<bool>(), grades).prop_map(|(fast, grades)| Drawn { fast, grades })
}

//! Reading small runs of several shards of one disk of a peer in one call: what is asked for while a call is under way goes
//! together in the next. Of a rebuild of small shards the calls are the greater part of the cost.
//!
//! Owns: a company per disk. Must never: gather what a client waits for (one slow shard holds the others of its call up), or
//! what lies on several disks (one that hangs would take the others of its node with it); ask for more than
//! [`GATHERED_BLOCKS`] at a time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use resilver_proto::internal::{Block, GetManyRequest, ShardRun, ShardRunAnswer};
use tonic::{Code, Status};

use super::home::RemoteHome;
use super::{BLOCKS_PER_MESSAGE, TransportError, wire};
use crate::company::Company;
use crate::types::{DiskId, ShardKey};

/// Blocks of one call at most: 2 MiB, a quarter of what a message may hold. The calls of a rebuild are shared by a dozen shards
/// then, and the message holds nobody up for long.
pub(super) const GATHERED_BLOCKS: usize = 32;

/// How long the first run waits for others: a disk of a peer is asked for some 150 to 400 runs a second by a rebuild on two cores, so
/// that a few go together, and a rebuild of one shard alone may well take this longer. 5 and 20 ms made no difference that noise
/// would let through.
const GATHER: Duration = Duration::from_millis(10);

/// One run of blocks.
pub(super) struct Asked {
    pub(super) home: RemoteHome,
    pub(super) disk: DiskId,
    pub(super) key: ShardKey,
    pub(super) first: u32,
    pub(super) blocks: u32,
}

/// What came of a run: its blocks, and what ended it early.
pub(super) struct Gathered {
    pub(super) blocks: Vec<Block>,
    pub(super) failure: Option<TransportError>,
}

/// `None`: the peer runs an older release, which answers one run a call.
type Answer = Option<Result<Gathered, TransportError>>;

/// See the module.
#[derive(Default)]
pub(super) struct Gatherer {
    disks: Mutex<BTreeMap<DiskId, Company<Asked, Answer>>>,
}

impl Gatherer {
    /// Whether a run is small enough.
    pub(super) fn takes(blocks: u32) -> bool {
        (1..=BLOCKS_PER_MESSAGE as u32).contains(&blocks)
    }

    /// Asks the home for a run, in company.
    pub(super) async fn get(&self, asked: Asked) -> Answer {
        let (disk, weight) = (asked.disk, asked.blocks as usize);
        let company = {
            let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
            disks.entry(disk).or_insert_with(|| Company::new(GATHERED_BLOCKS, GATHER, call)).clone()
        };
        let lost =
            || Some(Err(TransportError::Disk { disk, detail: "the call that asked for it panicked".to_owned() }));
        company.join(asked, weight).await.unwrap_or_else(lost)
    }
}

/// One call, for one disk.
async fn call(asked: Vec<Asked>) -> Vec<Answer> {
    // The latest knows best how the peer is reached.
    let Some(last) = asked.last() else { return Vec::new() };
    let home = last.home.clone();
    let run =
        |asked: &Asked| ShardRun { id: Some(wire::to_id(asked.key)), first_block: asked.first, blocks: asked.blocks };
    let runs = asked.iter().map(run).collect();
    let request = GetManyRequest { envelope: Some(home.envelope.clone()), disk_id: last.disk.to_string(), runs };
    let mut client = home.client();
    let deadline = home.deadlines().first_block;
    let Ok(answer) = tokio::time::timeout(deadline, client.get_many(request)).await else {
        home.timed_out();
        let stalled = |asked: &Asked| TransportError::Stalled { disk: asked.disk, after: deadline };
        return asked.iter().map(|asked| Some(Err(stalled(asked)))).collect();
    };
    home.account(answer.as_ref().err());
    match answer {
        Ok(answer) => {
            let mut answers = answer.into_inner().answers.into_iter();
            asked
                .iter()
                .map(|asked| Some(answers.next().map_or_else(|| Err(short(asked)), |a| Ok(read(asked, a)))))
                .collect()
        }
        Err(status) if status.code() == Code::Unimplemented => asked.iter().map(|_| None).collect(),
        Err(status) => asked.iter().map(|asked| Some(Err(told(asked, &status)))).collect(),
    }
}

fn read(asked: &Asked, answer: ShardRunAnswer) -> Gathered {
    let code = i32::try_from(answer.code).map_or(Code::Unknown, Code::from_i32);
    let failure = (code != Code::Ok).then(|| told(asked, &Status::new(code, answer.detail)));
    Gathered { blocks: answer.blocks, failure }
}

fn told(asked: &Asked, status: &Status) -> TransportError {
    TransportError::from_status(status, &asked.home.node, asked.disk, asked.key)
}

fn short(asked: &Asked) -> TransportError {
    let detail = "it answered fewer runs than it was asked for".to_owned();
    TransportError::Refused { node: asked.home.node.clone(), detail }
}

//! One side of a comparison: this member, or another one that is asked.
//!
//! Must never: be asked for a moment that is not kept: it says so, and whoever compares begins anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resilver_proto::encoded_bytes;
use resilver_proto::internal::{
    Checkpoint as CheckpointMessage, DigestsRequest, DigestsResponse, RangeDigest, RecordsRequest,
    StateRecord as RecordMessage, Stretch as StretchMessage,
};

use super::verdict::Said;
use super::{Checkpoint, ReplicaError};
use crate::meta::network::Links;
use crate::peers::Profile;
use crate::state::{Held, Range, State, StateRecord, Stretch, Sum, fold, root};
use crate::types::RaftId;

/// How long a member may take to say what it keeps: it may have entries to apply first.
const ASK: Duration = Duration::from_secs(10);
/// How long it may take to read every record anew: some seconds for a million objects on a busy machine.
const ASK_STORED: Duration = Duration::from_secs(100);
/// Records in one message, and their bytes.
pub(super) const PAGE: (usize, usize) = (1000, 1024 * 1024);

/// Who is asked.
pub(super) enum Side<'a> {
    /// This member.
    Own(&'a State, Held),
    /// Another.
    Other(&'a Arc<Links>, RaftId),
}

/// What is asked about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) at: &'a Checkpoint,
    /// Leaves made anew from what is stored, instead of those that were kept in step.
    pub(super) stored: bool,
}

/// An answer, with what it weighed on the wire.
pub(super) struct Weighed<T> {
    pub(super) answer: T,
    pub(super) bytes: u64,
}

impl Side<'_> {
    /// What it says of everything.
    pub(super) async fn said(&self, subject: Subject<'_>) -> Result<Said, ReplicaError> {
        match self {
            Side::Own(state, held) => {
                let leaves = state.leaves(held, subject.stored).await?;
                Ok(Said { index: held.applied.index, applied: held.applied.note.clone(), root: root(&leaves) })
            }
            Side::Other(links, member) => {
                let everything = (vec![u8::MAX], None);
                let answer = digests(links, *member, subject, 0, &everything).await?.answer;
                let root = answer.root.unwrap_or_default();
                Ok(Said { index: answer.index, applied: answer.applied.to_vec(), root: sum_of(&root)? })
            }
        }
    }

    /// Its ranges of one level in a stretch.
    pub(super) async fn ranges(
        &self,
        subject: Subject<'_>,
        level: u32,
        stretch: &Stretch,
    ) -> Result<Weighed<Vec<Range>>, ReplicaError> {
        match self {
            Side::Own(state, held) => {
                let leaves = state.leaves(held, subject.stored).await?;
                Ok(Weighed { answer: fold(&leaves, level, stretch), bytes: 0 })
            }
            Side::Other(links, member) => {
                let Weighed { answer, bytes } = digests(links, *member, subject, level, stretch).await?;
                let range = |range: RangeDigest| Ok(Range { sum: sum_of(&range)?, start: range.start.to_vec() });
                let answer = answer.ranges.into_iter().map(range).collect::<Result<_, ReplicaError>>()?;
                Ok(Weighed { answer, bytes })
            }
        }
    }

    /// Its records in a stretch; an error when there are more than `most`.
    pub(super) async fn records(
        &self,
        at: &Checkpoint,
        stretch: &Stretch,
        values: bool,
        most: usize,
    ) -> Result<Weighed<Vec<StateRecord>>, ReplicaError> {
        match self {
            Side::Own(state, held) => {
                let (found, more) = state.records(held, stretch.clone(), values, (most, usize::MAX)).await?;
                match more {
                    None => Ok(Weighed { answer: found, bytes: 0 }),
                    Some(_) => Err(ReplicaError::TooMany { limit: most }),
                }
            }
            Side::Other(links, member) => {
                let asked = async {
                    let mut client = client(links, *member)?;
                    let request = RecordsRequest {
                        envelope: Some(links.ids.envelope(*member)),
                        checkpoint: Some(at.into()),
                        stretch: Some(message_of(stretch)),
                        values,
                    };
                    let mut stream = client.records(request).await.map_err(refused(*member))?.into_inner();
                    let (mut found, mut bytes) = (Vec::new(), 0);
                    while let Some(page) = stream.message().await.map_err(refused(*member))? {
                        bytes += encoded_bytes(&page);
                        for record in page.records {
                            found.push(record_of(record)?);
                        }
                        if found.len() > most {
                            return Err(ReplicaError::TooMany { limit: most });
                        }
                    }
                    Ok(Weighed { answer: found, bytes })
                };
                in_time(*member, ASK, asked).await
            }
        }
    }
}

async fn digests(
    links: &Arc<Links>,
    member: RaftId,
    subject: Subject<'_>,
    level: u32,
    stretch: &Stretch,
) -> Result<Weighed<DigestsResponse>, ReplicaError> {
    let asked = async {
        let mut client = client(links, member)?;
        let request = DigestsRequest {
            envelope: Some(links.ids.envelope(member)),
            checkpoint: Some(subject.at.into()),
            stretch: Some(message_of(stretch)),
            level,
            stored: subject.stored,
        };
        let answer = client.digests(request).await.map_err(refused(member))?.into_inner();
        Ok(Weighed { bytes: encoded_bytes(&answer), answer })
    };
    in_time(member, if subject.stored { ASK_STORED } else { ASK }, asked).await
}

async fn in_time<T>(
    member: RaftId,
    limit: Duration,
    asked: impl Future<Output = Result<T, ReplicaError>>,
) -> Result<T, ReplicaError> {
    let late = |_| ReplicaError::Silent { member, detail: format!("no answer within {} s", limit.as_secs()) };
    tokio::time::timeout(limit, asked).await.map_err(late)?
}

pub(super) fn client(
    links: &Links,
    member: RaftId,
) -> Result<resilver_proto::internal::raft_client::RaftClient<tonic::transport::Channel>, ReplicaError> {
    let unknown = || ReplicaError::Silent { member, detail: "it has no address".to_owned() };
    let address = links.address(member).ok_or_else(unknown)?;
    let bad = |error: crate::peers::BadAddress| ReplicaError::Silent { member, detail: error.to_string() };
    links.client(&address, Profile::Bulk).map_err(bad)
}

pub(super) fn refused(member: RaftId) -> impl Fn(tonic::Status) -> ReplicaError {
    move |status| ReplicaError::Silent { member, detail: status.message().to_owned() }
}

fn message_of((from, to): &Stretch) -> StretchMessage {
    StretchMessage { from: from.clone().into(), to: to.clone().map(Bytes::from) }
}

pub(super) fn stretch_of(message: Option<StretchMessage>) -> Stretch {
    let message = message.unwrap_or_default();
    (message.from.to_vec(), message.to.map(|to| to.to_vec()))
}

impl From<&Checkpoint> for CheckpointMessage {
    fn from(at: &Checkpoint) -> Self {
        Self { id: at.id.to_be_bytes().to_vec().into(), index: at.index }
    }
}

pub(super) fn digest_of(range: &Range) -> RangeDigest {
    let sum = range.sum.digest.to_be_bytes().to_vec().into();
    RangeDigest { start: range.start.clone().into(), sum, records: range.sum.records }
}

fn number(bytes: &[u8]) -> Result<u128, ReplicaError> {
    let unreadable = |_| ReplicaError::Unreadable { detail: format!("a digest of {} bytes", bytes.len()) };
    <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes).map_err(unreadable)
}

fn sum_of(range: &RangeDigest) -> Result<Sum, ReplicaError> {
    Ok(Sum { digest: number(&range.sum)?, records: range.records })
}

pub(super) fn record_message(record: StateRecord) -> RecordMessage {
    let digest = record.digest.to_be_bytes().to_vec().into();
    RecordMessage { place: record.place.into(), digest, value: record.value.into() }
}

fn record_of(record: RecordMessage) -> Result<StateRecord, ReplicaError> {
    Ok(StateRecord { digest: number(&record.digest)?, place: record.place.to_vec(), value: record.value.to_vec() })
}

//! Members of the metadata compared, and this one mended: what the contract says of it, in its words.
//!
//! Owns: the telling. Must never: judge; that is done in [`crate::meta::replicas`].

use std::sync::Arc;

use resilver_proto::common::Fence as FenceMessage;
use resilver_proto::contract::{ChecksumDifference, CompareChecksumsRequest, MemberDigest, Progress};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::Status;

use super::recovery::ProgressStream;
use super::{Shared, meta_status};
use crate::meta::Meta;
use crate::meta::replicas::{Comparison, Differences, Mending, ReplicaError, Standing, Step, Verdict};
use crate::state::in_words;
use crate::types::{Fence, NodeName};

/// Messages waiting for a caller that is slow to read.
const MESSAGES_IN_FLIGHT: usize = 64;

type Compared = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<ChecksumDifference, Status>> + Send>>;

pub(super) fn status_of(error: ReplicaError) -> Status {
    match error {
        ReplicaError::Refused(_) | ReplicaError::TooMany { .. } => Status::failed_precondition(error.to_string()),
        ReplicaError::Damaged(_) => Status::data_loss(error.to_string()),
        ReplicaError::Meta(error) => meta_status(&error),
        other => Status::unavailable(other.to_string()),
    }
}

/// Compares all, and names what differs.
pub(super) fn compare(shared: &Arc<Shared>, request: CompareChecksumsRequest) -> Result<Compared, Status> {
    let meta = shared.core()?.meta.clone();
    let (tell, told) = mpsc::channel(MESSAGES_IN_FLIGHT);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = tell_comparison(&meta, &request, &tell) => outcome,
            () = tell.closed() => return,
        };
        if let Err(error) = outcome {
            let _ = tell.send(Err(status_of(error))).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(told)))
}

async fn tell_comparison(
    meta: &Meta,
    request: &CompareChecksumsRequest,
    tell: &mpsc::Sender<Result<ChecksumDifference, Status>>,
) -> Result<(), ReplicaError> {
    // Whoever does not listen any more ends this from outside.
    let say = async |message| drop(tell.send(Ok(message)).await);
    let compared = meta.compare(request.stored).await?;
    for standing in &compared.standings {
        say(ChecksumDifference { member: Some(member_of(standing)), ..ChecksumDifference::default() }).await;
    }
    let mut last = ChecksumDifference { finished: true, index: compared.at.index, ..ChecksumDifference::default() };
    for (left, right) in pairs(&compared, &request.with_node) {
        let Differences { found, more, wire_bytes } =
            meta.differences(&compared.at, request.stored, &left, &right).await?;
        last.wire_bytes += wire_bytes;
        last.more |= more;
        let digest =
            |digest: Option<u128>| digest.map(|digest| digest.to_be_bytes().to_vec().into()).unwrap_or_default();
        for difference in found {
            let message = ChecksumDifference {
                range: in_words(&difference.place),
                here: digest(difference.left),
                there: digest(difference.right),
                node: left.to_string(),
                other: right.to_string(),
                ..ChecksumDifference::default()
            };
            say(message).await;
        }
    }
    meta.release(&compared.at);
    say(last).await;
    Ok(())
}

/// Whose differences are named: each that is wrong beside one that is right; without a majority, all beside the first; or all
/// beside the one that was asked for.
fn pairs(compared: &Comparison, with: &str) -> Vec<(NodeName, NodeName)> {
    let heard: Vec<&Standing> = compared.standings.iter().filter(|it| it.said.is_ok()).collect();
    let beside = match with {
        "" => heard.iter().find(|it| it.verdict == Verdict::Right).or(heard.first()),
        name => heard.iter().find(|it| it.node.as_str() == name),
    };
    let Some(beside) = beside else { return Vec::new() };
    let differs = heard.iter().filter(|it| it.said.as_ref().ok() != beside.said.as_ref().ok());
    differs.map(|it| (it.node.clone(), beside.node.clone())).collect()
}

fn member_of(standing: &Standing) -> MemberDigest {
    let (digest, records, detail) = match &standing.said {
        Ok(said) => (said.root.digest.to_be_bytes().to_vec(), said.root.records, String::new()),
        Err(detail) => (Vec::new(), 0, detail.clone()),
    };
    let (node, verdict) = (standing.node.to_string(), standing.verdict.as_str().to_owned());
    MemberDigest { node, verdict, digest: digest.into(), records, detail }
}

/// Makes this member's state like the majority's. Begun, it goes on without whoever asked.
pub(super) fn mend(
    shared: &Arc<Shared>,
    mending: Mending,
    fence: Option<FenceMessage>,
) -> Result<ProgressStream, Status> {
    let meta = shared.core()?.meta.clone();
    let fence = fence.map(Fence::from);
    // A handful of messages in all.
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let say = |step: Step| drop(tell.send(Ok(progress_of(step))));
        let outcome = meta.resync(mending, fence, &say).await;
        let last = match outcome {
            Ok(None) => Ok(finished(0, "this member's state is the majority's: there was nothing to mend".to_owned())),
            Ok(Some(mended)) => {
                let what = match mended.records {
                    0 => "the whole state was".to_owned(),
                    records => format!("{records} records were"),
                };
                let message = format!(
                    "{what} made like {}'s at entry {}; compared once more, every record read anew, it is the majority's",
                    mended.from, mended.index
                );
                Ok(finished(mended.records, message))
            }
            Err(error) => Err(status_of(error)),
        };
        match &last {
            Ok(progress) => tracing::info!(operation = "resync", "{}", progress.message),
            Err(status) => tracing::warn!(operation = "resync", "not mended: {}", status.message()),
        }
        let _ = tell.send(last);
    });
    Ok(Box::pin(UnboundedReceiverStream::new(told)))
}

fn finished(done: u64, message: String) -> Progress {
    Progress { phase: "proven".to_owned(), done, total: done, finished: true, message, ..Progress::default() }
}

fn progress_of(step: Step) -> Progress {
    let (phase, total, message) = match step {
        Step::Comparing => ("comparing", 0, "every member reads its records and says what they come to".to_owned()),
        Step::Stopped { index, from } => {
            ("stopped", 0, format!("applying stands still at entry {index}, to be compared with {from}"))
        }
        Step::Writing { records: 0 } => ("writing", 0, "the whole state".to_owned()),
        Step::Writing { records } => ("writing", records, format!("{records} records differ")),
        Step::Proving => ("proving", 0, "applying goes on; all members are compared once more".to_owned()),
    };
    Progress { phase: phase.to_owned(), total, message, ..Progress::default() }
}

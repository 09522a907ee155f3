//! One attempt of one operation against one node, and what its client may conclude from the answer.
//!
//! Must never: retry. A retry hides what is to be judged; an application's retries are operations of their own here.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use resilver_host::Host;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{DeleteRequest, GetRequest, ListRequest, PutBegin, PutRequest, get_response, put_request};
use resilver_proto::transport::{self, MAX_MESSAGE_BYTES};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::content::{self, Value};
use crate::cluster::{BUCKET, node_address};

/// Data per message of a put.
const CHUNK_BYTES: usize = 128 * 1024;
/// How long a client waits for one attempt: longer than an election, shorter than most faults.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Keys of one page.
const PAGE: u32 = 1_000;
/// What a refusal says that promises that nothing was done, under a code that says less.
const PROMISE: &str = "nothing was stored";

/// When a put may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Always.
    Always,
    /// Only when there is nothing.
    IfAbsent,
    /// Only over this version, which has this value.
    IfVersion {
        /// As the store names it.
        version: String,
        /// As the oracle knows it.
        value: Value,
    },
}

/// How a change ended, as its client can know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed<T> {
    /// Done.
    Done(T),
    /// Not done because its condition did not hold.
    ConditionFailed,
    /// Certainly not done.
    Not(String),
    /// Nobody can say, and it may still happen.
    Unknown(String),
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen<T> {
    /// An answer.
    Found(T),
    /// The answer that there is nothing.
    Absent,
    /// An answer that no client ever wrote.
    Corrupt(String),
    /// No answer.
    Refused(String),
}

/// The store through one node.
pub(crate) struct Door {
    /// Whose door.
    pub(crate) node: String,
    store: StoreClient<Channel>,
}

impl Door {
    /// A door that connects when it is first used.
    pub(crate) fn new(host: &Host, node: &str) -> Result<Door, tonic::transport::Error> {
        let channel = transport::channel(&host.net, &node_address(node), transport::Profile::Bulk)?;
        let store = StoreClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Door { node: node.to_owned(), store })
    }

    /// Puts; the version it got.
    pub(crate) async fn put(&self, key: &str, bytes: Bytes, condition: &Condition) -> Changed<String> {
        let begin = PutBegin {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            if_absent: *condition == Condition::IfAbsent,
            if_version: version_of(condition),
            size_bytes: Some(bytes.len() as u64),
        };
        let mut messages = vec![PutRequest { of: Some(put_request::Of::Begin(begin)) }];
        messages.extend((0..bytes.len()).step_by(CHUNK_BYTES).map(|at| {
            let end = bytes.len().min(at + CHUNK_BYTES);
            PutRequest { of: Some(put_request::Of::Data(bytes.slice(at..end))) }
        }));
        let mut store = self.store.clone();
        let answer = within(store.put(stream::iter(messages))).await;
        changed(answer.map(|answer| answer.into_inner().version))
    }

    /// Deletes; whether there was anything.
    pub(crate) async fn delete(&self, key: &str) -> Changed<bool> {
        let request = DeleteRequest { bucket: BUCKET.to_owned(), key: key.to_owned(), if_version: String::new() };
        let mut store = self.store.clone();
        changed(within(store.delete(request)).await.map(|answer| answer.into_inner().existed))
    }

    /// Reads whole; the value and its version.
    pub(crate) async fn get(&self, key: &str) -> Seen<(Value, String)> {
        let request = GetRequest { bucket: BUCKET.to_owned(), key: key.to_owned(), offset: 0, length: 0 };
        let mut store = self.store.clone();
        let read = async {
            let mut answer = store.get(request).await?.into_inner();
            let (mut version, mut bytes) = (String::new(), Vec::new());
            while let Some(message) = answer.message().await? {
                match message.of {
                    Some(get_response::Of::Head(head)) => version = head.version,
                    Some(get_response::Of::Data(data)) => bytes.extend_from_slice(&data),
                    None => {}
                }
            }
            Ok((version, bytes))
        };
        match within(read).await {
            Ok((version, bytes)) => match content::judge(key, &bytes) {
                Ok(value) => Seen::Found((value, version)),
                Err(why) => Seen::Corrupt(why),
            },
            Err(status) => unseen(&status),
        }
    }

    /// The keys that begin with `prefix`, of one moment: one page, which is more than a run writes.
    pub(crate) async fn list(&self, prefix: &str) -> Seen<Vec<String>> {
        let request =
            ListRequest { bucket: BUCKET.to_owned(), prefix: prefix.to_owned(), after: String::new(), limit: PAGE };
        let mut store = self.store.clone();
        match within(store.list(request)).await.map(tonic::Response::into_inner) {
            Ok(page) if page.truncated => Seen::Corrupt(format!("a page of {} keys is truncated", page.objects.len())),
            Ok(page) => Seen::Found(page.objects.into_iter().map(|object| object.key).collect()),
            Err(status) => unseen(&status),
        }
    }
}

fn version_of(condition: &Condition) -> String {
    match condition {
        Condition::IfVersion { version, .. } => version.clone(),
        Condition::Always | Condition::IfAbsent => String::new(),
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {} ms", DEADLINE.as_millis()))))
}

/// What an answer to a change allows to conclude. Only what a node promises counts as "not done"; a code that a broken
/// connection also has never does.
fn changed<T>(answer: Result<T, Status>) -> Changed<T> {
    let status = match answer {
        Ok(done) => return Changed::Done(done),
        Err(status) => status,
    };
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::FailedPrecondition => Changed::ConditionFailed,
        Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted | Code::Aborted => Changed::Not(why),
        Code::Unavailable if status.message().contains(PROMISE) => Changed::Not(why),
        _ => Changed::Unknown(why),
    }
}

fn unseen<T>(status: &Status) -> Seen<T> {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::NotFound => Seen::Absent,
        // The gateway found that what it read is not what was stored, and says so: refused, not wrong.
        _ => Seen::Refused(why),
    }
}

//! Talking to nodes: whoever answers first will do, each attempt has a deadline.
//!
//! Owns: connections of one verb. Must never: repeat a call that changes something. [`Nodes::ask`] is for reads;
//! what writes goes once to a node chosen by [`Nodes::serving`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use resilver_host::Host;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::replica_repair_client::ReplicaRepairClient;
use resilver_proto::contract::{ObserveRequest, ObserveResponse};
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{StatusRequest, StatusResponse};
use resilver_proto::transport::{MAX_MESSAGE_BYTES, Profile, channel};
use tonic::transport::Channel;
use tonic::{Code as Grpc, Status};

use crate::discover::{Found, Member};
use crate::exit::{Code, Failure};

/// How long a read may take at one node before the next is asked. A linearizable read waits for a leader: an election
/// takes up to two seconds.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a node may take to say that it is there. It needs nobody else for that.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// How long a change may take: longer than the node itself retries (10 s), so that its answer is heard.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(15);

/// The longest reason shown of a node that did not answer: a line, not what it quotes of others.
const MAX_REASON_CHARS: usize = 200;

/// A connection to one node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    channel: Channel,
}

impl Node {
    /// Its object store.
    pub(crate) fn store(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Its membership.
    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Its locks: the cluster's.
    pub(crate) fn locks(&self) -> LocksClient<Channel> {
        LocksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What its agent uses.
    pub(crate) fn control(&self) -> NodeControlClient<Channel> {
        NodeControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What is done about the metadata without a quorum.
    pub(crate) fn meta_recovery(&self) -> MetaRecoveryClient<Channel> {
        MetaRecoveryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What makes its data whole.
    pub(crate) fn replicas(&self) -> ReplicaRepairClient<Channel> {
        ReplicaRepairClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What brings it back.
    pub(crate) fn recovery(&self) -> NodeRecoveryClient<Channel> {
        NodeRecoveryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// How this node is by its own account, soon or not at all. Answered in every phase, in a cluster or not.
    pub(crate) async fn look(&self) -> Result<ObserveResponse, Status> {
        within(LOOK_DEADLINE, async { self.control().observe(ObserveRequest {}).await }).await
    }
}

/// Connections to all members of one cluster, made when first used.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    source: String,
}

impl Nodes {
    /// The members of `found`.
    ///
    /// # Errors
    /// [`Code::Usage`] when an address is none.
    pub(crate) fn new(host: &Host, found: &Found) -> Result<Nodes, Failure> {
        let nodes = found.members.iter().map(|member| connect(host, member)).collect::<Result<_, _>>()?;
        Ok(Nodes { nodes, source: found.source.display().to_string() })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Node] {
        &self.nodes
    }

    /// The one of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Asks one node after the other until one answers. For reads only: a call may be made more than once.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when none answered, or what the first answer refused.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        call: impl AsyncFn(Node) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.ask_within(CALL_DEADLINE, doing, call).await
    }

    /// As [`Nodes::ask`], for what takes longer than an ordinary read.
    ///
    /// # Errors
    /// As [`Nodes::ask`].
    pub(crate) async fn ask_within<T>(
        &self,
        deadline: Duration,
        doing: &str,
        call: impl AsyncFn(Node) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut silent = Vec::new();
        for node in &self.nodes {
            match within(deadline, call(node.clone())).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_silence(&status) => silent.push((node.name.clone(), status)),
                Err(status) => return Err(Failure::from_status(doing, &node.name, &status)),
            }
        }
        Err(self.nobody(doing, &silent))
    }

    /// The first node to say that it serves clients: for what must not be sent twice.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when none does.
    pub(crate) async fn serving(&self, doing: &str) -> Result<Node, Failure> {
        let mut looks: FuturesUnordered<_> = self
            .nodes
            .iter()
            .map(|node| async move { (node, node.control().observe(ObserveRequest {}).await) })
            .collect();
        let mut silent = Vec::new();
        let mut isolated = Vec::new();
        let mut reading = None;
        let deadline = tokio::time::sleep(LOOK_DEADLINE);
        tokio::pin!(deadline);
        loop {
            let answer = tokio::select! {
                () = &mut deadline => break,
                answer = looks.next() => answer,
            };
            match answer {
                Some((node, Ok(seen))) => match seen.into_inner() {
                    seen if seen.phase == "healthy" && matches!(seen.mode.as_str(), "" | "read_write") => {
                        return Ok(node.clone());
                    }
                    // Good enough where no other answers: it refuses what it does not take, and says why.
                    seen if seen.phase == "healthy" && seen.mode == "read_only" => reading = Some(node.clone()),
                    seen if seen.phase == "healthy" => {
                        isolated.push(format!("{} is {} ({})", node.name, seen.mode, seen.mode_reason));
                    }
                    seen => isolated.push(format!("{} is {} ({})", node.name, seen.phase, seen.phase_detail)),
                },
                Some((node, Err(status))) => silent.push((node.name.clone(), status)),
                None => break,
            }
        }
        if let Some(node) = reading {
            return Ok(node);
        }
        match isolated.is_empty() {
            true => Err(self.nobody(doing, &silent)),
            false => Err(Failure::new(Code::Unreachable, format!("could not {doing}: no node serves clients now"))
                .next(isolated.join("; "))
                .next("see `resilver status`; a new cluster needs `resilver cluster init`")),
        }
    }

    /// The whole cluster's state, as the first node that answers gathers it. One that is in no cluster, or lost its place in it,
    /// knows only itself: it counts when nobody knows more.
    ///
    /// # Errors
    /// As [`Nodes::ask`].
    pub(crate) async fn status(&self) -> Result<StatusResponse, Failure> {
        let outside = Mutex::new(None);
        let asked = self.ask("read the cluster's status", async |node: Node| {
            let answer = node.cluster().status(StatusRequest { local: false }).await?;
            if answer.get_ref().cluster_id.is_empty() {
                let mut outside = outside.lock().unwrap_or_else(PoisonError::into_inner);
                outside.get_or_insert(answer.into_inner());
                return Err(Status::unavailable("it is in no cluster"));
            }
            Ok(answer)
        });
        let asked = asked.await;
        match outside.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(outside) if asked.is_err() => Ok(outside),
            _ => asked,
        }
    }

    fn nobody(&self, doing: &str, silent: &[(String, Status)]) -> Failure {
        let mut lines = format!("could not {doing}: none of {} nodes answered ({})", self.nodes.len(), self.source);
        for (name, status) in silent {
            lines.push_str(&format!("\n  {name}: {}", short(status)));
        }
        Failure::new(Code::Unreachable, lines)
            .next("are they running? `resilver up` for a local cluster, else the service")
    }
}

/// Runs a call under a deadline; a deadline that passed reads like any other status.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {}", humantime::format_duration(deadline)))),
    }
}

/// Whether a status means that the node itself did not answer, or is not ready to: the next may.
pub(crate) fn is_silence(status: &Status) -> bool {
    matches!(status.code(), Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::Cancelled)
        || (status.code() == Grpc::Unknown && std::error::Error::source(status).is_some())
}

fn short(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    // The transport says "transport error"; what a person needs ("connection refused") is at the end of the chain.
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    match text.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn connect(host: &Host, member: &Member) -> Result<Node, Failure> {
    let channel = channel(&host.net, &member.address, Profile::Bulk).map_err(|error| {
        Failure::usage(format!("node {} has no usable address `{}`: {error}", member.name, member.address))
            .next("addresses are written host:port")
    })?;
    Ok(Node { name: member.name.clone(), channel })
}

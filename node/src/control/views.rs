//! What the other nodes say of themselves, for the status: asked side by side, and answered with what is there.
//!
//! Owns: the last answer of each node, and the rule how long a status waits for a better one. Must never: have two
//! questions to one node under way (a silent node would collect them), or pass an old answer off as a fresh one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{ObserveRequest, ObserveResponse};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::deadlines::Deadlines;
use crate::model::NodeRecord;
use crate::peers::{Peers, Profile};
use crate::types::NodeName;

/// What was said longer ago than this is not told any more.
const YOUNG: Duration = Duration::from_secs(5);

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// What it said, if that is worth telling.
    pub(crate) answer: Option<ObserveResponse>,
    /// How long ago it last said anything; `None`: never to us.
    pub(crate) age: Option<Duration>,
}

#[derive(Clone, Default)]
struct Heard {
    last: Option<(Instant, Arc<ObserveResponse>)>,
    /// Questions that ended, and whether the last of them was answered.
    ended: u64,
    answered: bool,
    asking: bool,
}

/// See the module.
pub(crate) struct Views {
    /// How long one question may take.
    question: Duration,
    /// After this the status tells what was said before, and when.
    patience: Duration,
    nodes: Mutex<BTreeMap<NodeName, Arc<watch::Sender<Heard>>>>,
}

impl Views {
    /// Nothing is known yet.
    pub(crate) fn new(deadlines: &Deadlines) -> Self {
        Self { question: deadlines.status_of_node, patience: deadlines.status, nodes: Mutex::default() }
    }

    /// What another node says of itself, or said a moment ago.
    pub(crate) async fn of(&self, peers: &Peers, node: &NodeRecord) -> View {
        let heard =
            self.nodes.lock().unwrap_or_else(PoisonError::into_inner).entry(node.name.clone()).or_default().clone();
        let before = heard.borrow().clone();
        let begun = heard.send_if_modified(|heard| !std::mem::replace(&mut heard.asking, true));
        if begun {
            tokio::spawn(question(peers.clone(), node.address.clone(), heard.clone(), self.question));
        }
        let silent = peers.is_silent(&node.address);
        let mut changes = heard.subscribe();
        let ended = timeout(self.patience, changes.wait_for(|heard| heard.ended > before.ended)).await;
        let now = match ended {
            Ok(Ok(now)) => now.clone(),
            // Of a node that is silent it is not told what it said before.
            _ => Heard { answered: before.answered && !silent, ..before },
        };
        let age = age(&now);
        let told = now.answered && age.is_some_and(|age| age < YOUNG);
        View { answer: now.last.filter(|_| told).map(|(_, answer)| (*answer).clone()), age }
    }
}

fn age(heard: &Heard) -> Option<Duration> {
    heard.last.as_ref().map(|(at, _)| at.elapsed())
}

async fn question(peers: Peers, address: String, heard: Arc<watch::Sender<Heard>>, limit: Duration) {
    let answer = async {
        let mut client = NodeControlClient::new(peers.channel(&address, Profile::Control).ok()?);
        Some(client.observe(ObserveRequest {}).await.ok()?.into_inner())
    };
    let answer = timeout(limit, answer).await.unwrap_or_else(|_| {
        peers.drop_channel(&address, Profile::Control);
        None
    });
    heard.send_modify(|heard| {
        heard.asking = false;
        heard.ended += 1;
        heard.answered = answer.is_some();
        if let Some(answer) = answer {
            heard.last = Some((Instant::now(), Arc::new(answer)));
        }
    });
}

//! People: an operator who asks for things in the middle of trouble, and the person on call, who does what the product
//! leaves to people and nothing else. Both come through the door that people have, the agents' HTTP.
//!
//! A node whose metadata disk failed for longer than the starts in its budget is given up to a person, by design
//! (failure-modes.md, `process_crash`): once the disk is mended, somebody says `resilver node restart`. So does the person
//! on call, for nodes whose agent shows an escalated `process_crash`. For a node that says it is a lost voter, somebody says
//! `resilver node rejoin`; that door is the node's own.
//!
//! Must never: touch a node that its agent has not given up and that does not say itself that it is lost (the person on
//! call; an operator asks for what the plan says).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::{ObserveRequest, RejoinRequest};
use resilver_proto::store::set_bucket_request::Quota;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{CreateBucketRequest, PutBegin, PutRequest, SetBucketRequest, put_request};
use resilver_proto::{transport, web};
use resilver_sim_kernel::Program;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cluster::{agent_http, node_address};
use crate::plan::MACHINES;

/// Between two looks at the pager.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long one question may take, and how long a restart may.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
const RESTART_DEADLINE: Duration = Duration::from_secs(30);
/// How long somebody watches a node come back before looking elsewhere.
const REJOIN_DEADLINE: Duration = Duration::from_secs(30);
/// The bucket of an operator's own, between two changes of it, and its quota.
const OWN_BUCKET: &str = "notes";
const CHANGE_EVERY: Duration = Duration::from_millis(200);
const MUCH: u64 = 1 << 40;
/// The mode of a node that does not run.
const PROCESS_CRASH: &str = "process_crash";

/// An operator's wish: `resilver node restart NODE` at the agent of `through`.
pub(crate) fn restart_node(through: String, node: String) -> Program {
    Arc::new(move |host, _| {
        let (through, node) = (through.clone(), node.clone());
        Box::pin(async move { restart(&host, &through, &node, "operator").await })
    })
}

/// An operator's wish: `resilver pause --for` at the agent of `through`.
pub(crate) fn pause(through: String, length: Duration) -> Program {
    Arc::new(move |host, _| {
        let through = through.clone();
        Box::pin(async move {
            let length = format!("{}ms", length.as_millis());
            let body = json!({ "owner": "operator", "reason": "looking at it", "for": length });
            post(&host, &through, "/api/v1/pause", &body, ASK_DEADLINE).await
        })
    })
}

/// An operator at work through the node of `through`, for so long: changes a bucket's quota again and again, and uploads into it,
/// with more patience than the clients have.
pub(crate) fn change_bucket(through: String, length: Duration) -> Program {
    Arc::new(move |host, _| {
        let through = through.clone();
        Box::pin(async move {
            let Ok(channel) = transport::channel(&host.net, &node_address(&through), transport::Profile::Bulk) else {
                return 1;
            };
            let mut store = StoreClient::new(channel);
            let own = CreateBucketRequest {
                bucket: OWN_BUCKET.to_owned(),
                if_absent: true,
                ..CreateBucketRequest::default()
            };
            let work = async {
                // That this and all of what follows is refused while nobody leads is what it is about.
                let _ = store.create_bucket(own).await;
                tokio::join!(changes(store.clone()), uploads(store.clone()))
            };
            let _ = tokio::time::timeout(length, work).await;
            0
        })
    })
}

async fn changes(mut store: StoreClient<Channel>) {
    // More than a run can store: nothing is refused for it.
    for quota in MUCH.. {
        let quota = Some(Quota::QuotaBytes(quota));
        let _ = store
            .set_bucket(SetBucketRequest { bucket: OWN_BUCKET.to_owned(), quota, ..SetBucketRequest::default() })
            .await;
        tokio::time::sleep(CHANGE_EVERY).await;
    }
}

async fn uploads(mut store: StoreClient<Channel>) {
    loop {
        let begin = PutBegin { bucket: OWN_BUCKET.to_owned(), key: "note".to_owned(), ..PutBegin::default() };
        let parts = [put_request::Of::Begin(begin), put_request::Of::Data("looked at it".into())];
        let parts = parts.map(|part| PutRequest { of: Some(part) });
        let _ = store.put(futures_util::stream::iter(parts)).await;
        tokio::time::sleep(CHANGE_EVERY).await;
    }
}

/// The person on call: looks at every agent and every node until killed, restarts what was given up, and brings back who
/// lost his vote; `rejoined` counts those.
pub(crate) fn on_call(rejoined: Arc<AtomicU64>) -> Program {
    Arc::new(move |host, _| {
        let rejoined = rejoined.clone();
        Box::pin(async move {
            loop {
                for number in 1..=MACHINES {
                    let name = format!("n{number}");
                    if is_lost(&host, &name).await && rejoin(&host, &name).await {
                        rejoined.fetch_add(1, Ordering::Relaxed);
                    } else if given_up(&host, &name).await {
                        // A refusal (no lease yet, another step under way) is met again at the next look.
                        restart(&host, &name, &name, "on call").await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    })
}

/// Whether the agent of `name` has escalated a node that does not run. A lost voter is escalated too, and no restart helps
/// it: its process runs.
async fn given_up(host: &Host, name: &str) -> bool {
    let Some(incidents) = ask(host, name, "/api/v1/incidents").await else { return false };
    let open: BTreeSet<String> = incidents
        .get("incidents")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|incident| text(incident, "mode") == PROCESS_CRASH && text(incident, "state") == "escalated")
        .map(|incident| text(incident, "id"))
        .collect();
    !open.is_empty() && !runs(host, name).await
}

/// Whether the node says that it lost its vote.
async fn is_lost(host: &Host, name: &str) -> bool {
    let Ok(channel) = transport::channel(&host.net, &node_address(name), transport::Profile::Control) else {
        return false;
    };
    let mut client = NodeControlClient::new(channel);
    let seen = tokio::time::timeout(ASK_DEADLINE, client.observe(ObserveRequest {})).await;
    seen.is_ok_and(|seen| seen.is_ok_and(|seen| seen.get_ref().phase == "lost_voter"))
}

/// `resilver node rejoin NODE`. Whether it said that the node serves again.
async fn rejoin(host: &Host, name: &str) -> bool {
    let Ok(channel) = transport::channel(&host.net, &node_address(name), transport::Profile::Control) else {
        return false;
    };
    let others = (1..=MACHINES).map(|number| format!("n{number}")).filter(|other| other != name);
    let members = others.map(|other| node_address(&other)).collect();
    let request = RejoinRequest { fence: None, members, reason: "its metadata is damaged".to_owned() };
    let followed = async {
        let mut messages = NodeRecoveryClient::new(channel).rejoin(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if message.finished {
                return Ok(true);
            }
        }
        Ok::<_, tonic::Status>(false)
    };
    let outcome = tokio::time::timeout(REJOIN_DEADLINE, followed).await;
    tracing::info!(?outcome, name, "a lost voter was to come back");
    matches!(outcome, Ok(Ok(true)))
}

/// Whether the node answers on its port at all.
async fn runs(host: &Host, name: &str) -> bool {
    let address = node_address(name);
    matches!(tokio::time::timeout(ASK_DEADLINE, host.net.connect(&address)).await, Ok(Ok(_)))
}

async fn ask(host: &Host, name: &str, path: &str) -> Option<Value> {
    let (_, body) = web::call(&host.net, &agent_http(name), path, None, ASK_DEADLINE).await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// Asks the agent of `through` to restart `node`. 0: done.
async fn restart(host: &Host, through: &str, node: &str, owner: &str) -> i32 {
    let body = json!({ "owner": owner, "reason": "it was ill" });
    post(host, through, &format!("/api/v1/nodes/{node}/restart"), &body, RESTART_DEADLINE).await
}

/// 0: done. 1: refused, failed, or no answer: all of which an operator has to expect.
async fn post(host: &Host, through: &str, path: &str, body: &Value, deadline: Duration) -> i32 {
    let answer = web::call(&host.net, &agent_http(through), path, Some(body.to_string().into()), deadline).await;
    tracing::info!(?answer, through, path, "an operator asked");
    i32::from(!matches!(answer, Ok((200, _))))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

//! People: an operator who asks for things in the middle of trouble, and the person on call, who does what the product
//! leaves to people and nothing else. Both come through the door that people have, the agents' HTTP.
//!
//! A node whose metadata disk failed for longer than the starts in its budget is given up to a person, by design
//! (failure-modes.md, `process_crash`): once the disk is mended, somebody says `resilver node restart`. So does the person
//! on call, for nodes whose agent shows an escalated `process_crash`.
//!
//! Must never: touch a node that its agent has not given up (the person on call; an operator asks for what the plan says).

use std::collections::BTreeSet;
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::web;
use resilver_sim_kernel::Program;
use serde_json::{Value, json};

use crate::cluster::agent_http;
use crate::plan::MACHINES;

/// Between two looks at the pager.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long one question may take, and how long a restart may.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
const RESTART_DEADLINE: Duration = Duration::from_secs(30);
/// The mode of a node that does not run.
const PROCESS_CRASH: &str = "process_crash";

/// An operator's wish: `resilver node restart NODE` at the agent of `through`.
pub(crate) fn restart_node(through: String, node: String) -> Program {
    std::sync::Arc::new(move |host, _| {
        let (through, node) = (through.clone(), node.clone());
        Box::pin(async move { restart(&host, &through, &node, "operator").await })
    })
}

/// An operator's wish: `resilver pause --for` at the agent of `through`.
pub(crate) fn pause(through: String, length: Duration) -> Program {
    std::sync::Arc::new(move |host, _| {
        let through = through.clone();
        Box::pin(async move {
            let length = format!("{}ms", length.as_millis());
            let body = json!({ "owner": "operator", "reason": "looking at it", "for": length });
            post(&host, &through, "/api/v1/pause", &body, ASK_DEADLINE).await
        })
    })
}

/// The person on call: looks at every agent until killed, and restarts what was given up.
pub(crate) fn on_call() -> Program {
    std::sync::Arc::new(|host, _| {
        Box::pin(async move {
            loop {
                for number in 1..=MACHINES {
                    let name = format!("n{number}");
                    if given_up(&host, &name).await {
                        // A refusal (no lease yet, another step under way) is met again at the next look.
                        restart(&host, &name, &name, "on call").await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    })
}

/// Whether the agent of `name` has escalated a node that does not run. A lost voter is escalated too, and a restart
/// does not help it: its process runs.
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

/// Whether the node answers on its port at all.
async fn runs(host: &Host, name: &str) -> bool {
    let address = crate::cluster::node_address(name);
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

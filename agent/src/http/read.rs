//! What can be read.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use resilver_strategies::api::{IncidentId, NodeFact, ProcessFact};
use resilver_strategies::engine::{Partial, Pause};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::error::Problem;
use crate::health::HealthView;
use crate::journal::{JournalError, MAX_PAGE, OfIncident, sequence_of};
use crate::lease::LeaseView;
use crate::main_loop::{Question, Request};
use crate::sensors::UnreadLog;
use crate::state::{JournalView, PeerView};

/// How long the main loop may be away: the slowest thing it waits for is a sync of the journal, given up after 2 s.
const LIVE_WITHIN: Duration = Duration::from_secs(15);

/// How long a look at the engine may take: it is in memory, behind at most one sync of the journal.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// Records of one page when the request names no limit.
const DEFAULT_PAGE: usize = 100;

pub(super) async fn livez(State(api): State<Arc<Api>>) -> Response {
    let away = api.view.borrow().beat.elapsed();
    if away <= LIVE_WITHIN {
        return "ok\n".into_response();
    }
    Problem::unavailable(format!("the main loop has not come round for {} s", away.as_secs())).into_response()
}

pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    if !api.view.borrow().journal.lost {
        return "ok\n".into_response();
    }
    Problem::unavailable("the journal cannot be synced: the agent only relieves; check the disk of its folder")
        .into_response()
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.telemetry.render()).into_response()
}

/// `GET /api/v1/status`.
#[derive(Serialize)]
pub(super) struct Status {
    name: String,
    version: &'static str,
    pid: u32,
    started_ms: u64,
    uptime_ms: u64,
    /// Policy times are divided by this; 1: production.
    factor: f64,
    node: NodeStatus,
    lease: LeaseView,
    /// Why it would not act, one reason each; empty: nothing holds it back.
    held_back: Vec<String>,
    /// The engine's own account; null when the main loop is held up.
    engine: Value,
    paused: Option<Pause>,
    incidents_open: usize,
    journal: JournalView,
    /// Logs of `agent.sensors.logs` that are not read, with the reason.
    unread_logs: Vec<UnreadLog>,
    peers: Vec<PeerView>,
    /// How many of the others are asked, when not all are: `peers` are these.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<Partial>,
}

#[derive(Serialize)]
struct NodeStatus {
    /// running | ended | absent | unknown.
    state: &'static str,
    address: String,
    http: Option<String>,
    pid: Option<u32>,
    start_ticks: Option<u64>,
    heartbeat_age_ms: Option<u64>,
    last_exit: Option<ProcessFact>,
    /// Its last answer; null while it does not run or has not answered.
    fact: Option<NodeFact>,
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let engine = look(&api, Question::Status).await.unwrap_or(Value::Null);
    let view = api.view.borrow().clone();
    let held_back = held_back(&engine, &view.journal, &api.lease.view());
    let process = match view.node.process {
        Some(ProcessFact::Running { pid, start_ticks }) => Some((pid, start_ticks)),
        _ => None,
    };
    Json(Status {
        name: api.options.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        pid: api.pid,
        started_ms: api.started_ms,
        uptime_ms: u64::try_from(api.time.uptime().as_millis()).unwrap_or(u64::MAX),
        factor: api.options.policy.factor,
        node: NodeStatus {
            state: view.node.state(),
            address: api.options.node_address.clone(),
            http: api.options.node_http.clone(),
            pid: process.map(|(pid, _)| pid),
            start_ticks: process.map(|(_, start_ticks)| start_ticks),
            heartbeat_age_ms: view.node.heartbeat_age_ms(),
            last_exit: view.node.last_exit.clone(),
            fact: view.node.fact.clone().filter(|_| view.node.alive()),
        },
        lease: api.lease.view(),
        held_back,
        engine,
        paused: view.paused,
        incidents_open: view.open,
        journal: view.journal,
        unread_logs: api.logs.unread(),
        peers: api.peers.list(),
        partial: api.peers.partial(),
    })
}

/// The engine's reasons, and those that only the agent around it knows.
fn held_back(engine: &Value, journal: &JournalView, lease: &LeaseView) -> Vec<String> {
    let said = engine.get("held_back").and_then(Value::as_array).into_iter().flatten();
    let mut reasons: Vec<String> = said.filter_map(Value::as_str).map(str::to_owned).collect();
    if engine.is_null() {
        reasons.push(format!("the main loop did not answer within {} s", LOOK_DEADLINE.as_secs()));
    }
    if journal.lost {
        reasons.push("the journal cannot be synced: only grade 1, and no lease".to_owned());
    }
    if lease.is_unheld() {
        reasons.push("nobody is known to hold the lease: no disruptive step, and none for other hosts".to_owned());
    }
    reasons
}

pub(super) async fn incidents(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    Ok(Json(serde_json::json!({ "incidents": look(&api, Question::Incidents).await? })))
}

pub(super) async fn health(State(api): State<Arc<Api>>) -> Json<HealthView> {
    Json(api.health.view())
}

pub(super) async fn predictions(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(serde_json::json!({ "node": api.options.name, "predictions": api.health.predictions() }))
}

pub(super) async fn smart(State(api): State<Arc<Api>>) -> Json<Value> {
    let configured = api.options.smart.is_some();
    Json(serde_json::json!({ "node": api.options.name, "configured": configured, "disks": api.health.smart_views() }))
}

/// `GET /api/v1/sensors`: what each sensor of the own host and node saw last, and how long ago.
pub(super) async fn sensors(State(api): State<Arc<Api>>) -> Json<Value> {
    let seen = api.view.borrow().node.seen.told();
    Json(serde_json::json!({ "node": api.options.name, "sensors": seen }))
}

pub(super) async fn plan(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    Ok(Json(look(&api, Question::Plan).await?))
}

pub(super) async fn cascades(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    Ok(Json(look(&api, Question::Cascades).await?))
}

pub(super) async fn incident(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let incident = IncidentId(id.clone());
    if incident.number().is_none() {
        return Err(Problem::bad_request(format!("{id} names no incident: NODE-NUMBER expected")));
    }
    let known = look(&api, Question::Explain(incident)).await?;
    let OfIncident { records, left_out } = api.journal.of_incident(&id).await.map_err(unreadable)?;
    if known.is_null() && records.is_empty() {
        return Err(Problem::not_found(format!("no incident {id} here: `resilver incident list` names them")));
    }
    let left_out = serde_json::json!(left_out);
    // The records are JSON already: parsing them would only change their bytes.
    let body = format!(r#"{{"explanation":{known},"records":[{}],"left_out":{left_out}}}"#, records.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Looks at the engine, through the main loop.
async fn look(api: &Api, question: Question) -> Result<Value, Problem> {
    let (answer, seen) = oneshot::channel();
    let asked = api.requests.send(Request::Look { question, answer });
    let looked = async {
        asked.await.ok()?;
        seen.await.ok()
    };
    let away = || Problem::unavailable(format!("the main loop did not answer within {} s", LOOK_DEADLINE.as_secs()));
    timeout(LOOK_DEADLINE, looked).await.ok().flatten().ok_or_else(away)
}

#[derive(Deserialize)]
pub(super) struct JournalQuery {
    /// Only records after this sequence.
    #[serde(default)]
    after: u64,
    /// At most this many.
    limit: Option<usize>,
    /// `lines`: the stored lines themselves, whose bytes the hash chain covers.
    format: Option<String>,
}

pub(super) async fn journal(
    State(api): State<Arc<Api>>,
    Query(query): Query<JournalQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let page = read(&api, query.after, limit).await?;
    match query.format.as_deref() {
        Some("lines") => {
            let text: String = page.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect();
            Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response())
        }
        None | Some("json") => {
            let last = page.last().and_then(|line| sequence_of(line)).unwrap_or(query.after);
            // The lines are JSON objects already: parsing them would only change their bytes.
            let body = format!(r#"{{"records":[{}],"last":{last}}}"#, page.join(","));
            Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Some(other) => Err(Problem::bad_request(format!("format {other} is unknown: json or lines"))),
    }
}

async fn read(api: &Api, after: u64, limit: usize) -> Result<Vec<String>, Problem> {
    api.journal.page(after, limit).await.map_err(unreadable)
}

fn unreadable(error: JournalError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, crate::executors::chain(&error))
}

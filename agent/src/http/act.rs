//! The few things people may ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use resilver_strategies::api::{IncidentId, OperatorCommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use crate::coordinator::Outcome;
use crate::main_loop::Request;
use crate::telemetry::Told;

/// The longest pause: a forgotten one must not outlive the shift that made it.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    owner: String,
    reason: String,
    #[serde(rename = "for", with = "humantime_serde")]
    length: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    owner: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    owner: String,
    reason: String,
}

/// `POST /api/v1/pause`. Answered when it is on disk.
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Pause { owner, reason, length } = parse(&headers, &body)?;
    named(&owner, "owner")?;
    named(&reason, "reason")?;
    if length.is_zero() || length > MAX_PAUSE {
        return Err(Problem::bad_request("`for` must be more than 0 and at most 24h, for example \"30m\""));
    }
    let left_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let answer = json!({ "paused": { "owner": owner, "reason": reason, "left_ms": left_ms } });
    let forgotten = "the agent is paused, but it would not know that after its own restart";
    command(&api, OperatorCommand::Pause { owner, reason, expires_in: length }, forgotten).await?;
    Ok(Json(answer))
}

/// `POST /api/v1/resume`. As above.
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Resume { owner } = parse(&headers, &body)?;
    named(&owner, "owner")?;
    let forgotten = "the agent is not paused any more, but after its own restart it would be";
    command(&api, OperatorCommand::Resume { owner }, forgotten).await?;
    Ok(Json(json!({ "paused": null })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    owner: String,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    owner: String,
    verb: String,
    name: String,
}

/// `POST /api/v1/incidents/{id}/approve`: a person's word for the step that was shown with this token.
pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Approve { owner, token } = parse(&headers, &body)?;
    named(&owner, "owner")?;
    named(&token, "token")?;
    let (done, answered) = tokio::sync::oneshot::channel();
    let request = Request::Approve { owner, incident: IncidentId(id), token: token.trim().to_owned(), done };
    let stopping = || Problem::unavailable("the agent is stopping");
    api.requests.send(request).await.map_err(|_| stopping())?;
    let not_durable = |why| {
        let so = "the approval was taken, but is not on disk: nothing above grade 1 begins until it is";
        Problem::unavailable(format!("{so}, and it may have to be given anew; {why}"))
    };
    match answered.await.map_err(|_| stopping())?.map_err(not_durable)? {
        Ok(what) => Ok(Json(json!({ "approved": what }))),
        Err((guard, why)) => Err(Problem::refused(guard.as_str(), why)),
    }
}

/// `POST /api/v1/approvals`: a command that asks for `--confirm=NAME` was confirmed. Answered when that is on disk.
pub(super) async fn confirmed(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Confirmed { owner, verb, name } = parse(&headers, &body)?;
    for (value, what) in [(&owner, "owner"), (&verb, "verb"), (&name, "name")] {
        named(value, what)?;
    }
    let (durable, written) = tokio::sync::oneshot::channel();
    let told = Told::Confirmed { owner, verb, name };
    let stopping = || Problem::unavailable("the agent is stopping");
    api.requests.send(Request::Tell { told, durable: Some(durable) }).await.map_err(|_| stopping())?;
    written.await.map_err(|_| stopping())?.map_err(Problem::unavailable)?;
    Ok(Json(json!({ "recorded": true })))
}

/// `POST /api/v1/nodes/{name}/restart`: answered when the restart is verified, refused or failed.
pub(super) async fn restart(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Restart { owner, reason } = parse(&headers, &body)?;
    named(&owner, "owner")?;
    if name != api.options.name && !api.options.others().any(|peer| peer.id == name) {
        return Err(Problem::not_found(format!("no node {name} in the configuration of {}", api.options.name)));
    }
    match api.coordinator.restart(&name, &reason, &owner).await {
        Outcome::Done { detail, fence } => {
            Ok(Json(json!({ "done": true, "detail": detail, "fence": fence.map(|fence| fence.to_string()) })))
        }
        Outcome::Refused { guard, why } => Err(Problem::refused(guard, why)),
        Outcome::Failed { why } => Err(Problem::new(StatusCode::BAD_GATEWAY, why)),
    }
}

/// Answered when it is in force and on disk. `forgotten` says how it stands when it is in force only.
async fn command(api: &Api, command: OperatorCommand, forgotten: &str) -> Result<(), Problem> {
    let (done, answered) = tokio::sync::oneshot::channel();
    let request = Request::Operator { command, done };
    let stopping = || Problem::unavailable("the agent is stopping");
    api.requests.send(request).await.map_err(|_| stopping())?;
    let durable = answered.await.map_err(|_| stopping())?;
    durable.map_err(|why| Problem::unavailable(format!("{forgotten}: {why}; ask again when the disk is mended")))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let error = "Content-Type: application/json is required";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))
}

fn named(value: &str, what: &str) -> Result<(), Problem> {
    if value.trim().is_empty() {
        return Err(Problem::bad_request(format!("`{what}` must not be empty: the journal keeps it")));
    }
    Ok(())
}

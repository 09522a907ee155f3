//! The node's HTTP port: `/metrics` for Prometheus, `/health` for load balancers.
//!
//! Must never: change anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::control::Shared;
use crate::telemetry;

/// The router of the node's HTTP port.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<String, (StatusCode, String)> {
    telemetry::scrape(&shared).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let (serves, text) = shared.phase.health();
    (if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

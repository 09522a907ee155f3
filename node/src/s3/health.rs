//! `GET /health`, for load balancers: 200 only when this node is verified and serves.

use http::StatusCode;

use crate::phase::PhaseCell;

/// Where it is asked.
pub(super) const PATH: &str = "/health";

/// The answer.
pub(super) fn answer(phase: &PhaseCell) -> (StatusCode, String) {
    let (serves, text) = phase.health();
    (if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

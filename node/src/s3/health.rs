//! `GET /health`, for load balancers: 200 only when this node is verified and serves.

use http::StatusCode;

use crate::phase::{Phase, PhaseState};

/// Where it is asked.
pub(super) const PATH: &str = "/health";

/// The answer.
pub(super) fn answer(state: &PhaseState) -> (StatusCode, String) {
    let status = if state.phase == Phase::Healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}: {}\n", state.phase.as_str(), state.detail))
}

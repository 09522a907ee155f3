//! What a request is answered when it cannot be done: a status, a sentence, and the guard if one refused.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// What went wrong, and what to do.
    error: String,
    /// The guard that refused, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, error: error.into(), guard: None }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn unavailable(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// 409: a guard said no. The command turns it into exit code 5.
    pub(super) fn refused(guard: impl Into<String>, error: impl Into<String>) -> Problem {
        Problem { status: StatusCode::CONFLICT, error: error.into(), guard: Some(guard.into()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

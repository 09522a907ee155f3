//! The agent's door for people and programs: health, metrics, status, incidents, journal, events, and the few verbs.
//!
//! Owns: paths, methods and JSON shapes. Must never: decide, or act without the main loop or the holder of the lease.
//!
//! Every POST must say `Content-Type: application/json`: a page in somebody's browser cannot send that to another
//! origin without asking first, so no web page can restart a node.
//!
//! | path | answers |
//! |---|---|
//! | `GET /livez` | 200 while the main loop comes round |
//! | `GET /readyz` | 200 while the journal is durable |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/status` | [`read::Status`] |
//! | `GET /api/v1/incidents`, `/{id}` | `{"incidents": […]}`, `{"explanation": …, "records": […], "left_out": null}` |
//! | `GET /api/v1/journal?after=&limit=&format=` | `{"records": […], "last": n}`, or the lines with `format=lines` |
//! | `GET /api/v1/events?after=` | server-sent events `record` |
//! | `GET /api/v1/plan` | the plan |
//! | `GET /api/v1/cascades` | failures by type, and the patterns of cascades with how often each was found |
//! | `GET /api/v1/health`, `/predictions` | scores with their reasons, `{"predictions": […]}` |
//! | `GET /api/v1/sensors` | `{"node", "sensors": {"host", "canary", "replicas", "process", "logs"}}`: what each saw last, and how long ago |
//! | `GET /api/v1/smart` | `{"node", "configured", "disks": […]}`: what the own disks say of themselves |
//! | `POST /api/v1/pause` `{owner, reason, for}`, `/resume` `{owner}` | 200 `{"paused": …}`, 503: in force, and not on disk |
//! | `POST /api/v1/incidents/{id}/approve` `{owner, token}` | 200 `{"approved": …}`, 409 with a guard, 503: taken, and not on disk |
//! | `POST /api/v1/approvals` `{owner, verb, name}` | 200: a confirmed command is recorded |
//! | `POST /api/v1/nodes/{name}/restart` `{owner, reason}` | 200 `{"done", "detail", "fence"}`, 409 with a guard |

mod act;
mod error;
mod events;
mod listener;
mod read;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use resilver_host::Listener;
use tokio::sync::{mpsc, watch};

use self::error::Problem;
use self::listener::SeamListener;
use crate::coordinator::Coordinator;
use crate::health::HealthDesk;
use crate::journal::JournalReader;
use crate::lease::LeaseHandle;
use crate::main_loop::Request;
use crate::options::Options;
use crate::sensors::LogDesk;
use crate::sensors::stopped;
use crate::state::{PeerViews, View};
use crate::telemetry::Telemetry;
use crate::timebase::Timebase;

/// The largest body of a request: a name, a reason and a duration.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What the handlers see.
pub(crate) struct Api {
    pub(crate) options: Options,
    pub(crate) time: Timebase,
    pub(crate) pid: u32,
    pub(crate) started_ms: u64,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) peers: Arc<PeerViews>,
    pub(crate) logs: Arc<LogDesk>,
    pub(crate) lease: LeaseHandle,
    pub(crate) coordinator: Coordinator,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) health: Arc<HealthDesk>,
    pub(crate) journal: JournalReader,
    pub(crate) requests: mpsc::Sender<Request>,
}

/// Serves until told to stop.
pub(crate) async fn serve(api: Api, listener: Box<dyn Listener>, mut shutdown: watch::Receiver<bool>) {
    let server = axum::serve(SeamListener(listener), router(Arc::new(api)));
    // Listeners of events never end by themselves: the server is dropped with them, not drained.
    tokio::select! {
        () = stopped(&mut shutdown) => {}
        ended = server => {
            if let Err(error) = ended {
                tracing::error!(%error, "the HTTP server ended");
            }
        }
    }
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/livez", get(read::livez))
        .route("/readyz", get(read::readyz))
        .route("/metrics", get(read::metrics))
        .route("/api/v1/status", get(read::status))
        .route("/api/v1/incidents", get(read::incidents))
        .route("/api/v1/incidents/{id}", get(read::incident))
        .route("/api/v1/incidents/{id}/approve", post(act::approve))
        .route("/api/v1/approvals", post(act::confirmed))
        .route("/api/v1/journal", get(read::journal))
        .route("/api/v1/plan", get(read::plan))
        .route("/api/v1/cascades", get(read::cascades))
        .route("/api/v1/health", get(read::health))
        .route("/api/v1/predictions", get(read::predictions))
        .route("/api/v1/smart", get(read::smart))
        .route("/api/v1/sensors", get(read::sensors))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/pause", post(act::pause))
        .route("/api/v1/resume", post(act::resume))
        .route("/api/v1/nodes/{name}/restart", post(act::restart))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

async fn unknown() -> Problem {
    Problem::not_found(
        "no such path; see /api/v1/status, incidents, journal, events, plan, cascades, health, predictions, smart, sensors",
    )
}

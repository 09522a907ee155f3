//! A gRPC service that is not there yet: a node listens before it is in a cluster, so that it can be initialised, asked
//! how it is, and restarted on a port that is known to be free. Until its part is up, a service answers UNAVAILABLE with
//! the phase.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use crate::phase::PhaseCell;

/// A slot for a service that comes up later.
pub(crate) struct Late<S> {
    slot: Arc<OnceLock<S>>,
    phase: PhaseCell,
}

impl<S> Late<S> {
    pub(crate) fn new(phase: PhaseCell) -> Self {
        Self { slot: Arc::new(OnceLock::new()), phase }
    }

    /// Brings the service up. The first one stays.
    pub(crate) fn fill(&self, service: S) {
        // A node enters a cluster once per process; a second filling would be a bug upstream and changes nothing.
        let _ = self.slot.set(service);
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), phase: self.phase.clone() }
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<Request<Body>> for Late<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.slot.get() {
            // Tonic's generated services are always ready.
            Some(service) => Box::pin(service.clone().call(request)),
            None => {
                let state = self.phase.get();
                let status =
                    tonic::Status::unavailable(format!("the node is {}: {}", state.phase.as_str(), state.detail));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

//! The S3 door: how clients that speak S3 use the store, unmodified.
//!
//! Owns: the listening socket's connections, and the translation between S3 and [`crate::gateway`]. Signatures, XML and
//! routing are the `s3s` crate's; [`signing`], [`frames`], [`access`] and [`body`] close what it leaves open.
//! Must never: keep state (any node answers as any other); touch a path on disk (names are bytes, all the way down);
//! serve before the node is verified; commit content that is not what its client said it is; log secrets.
//!
//! Reading order: [`server`] takes connections, [`probe`] is the node's own client, [`front`] looks at each request before and after s3s, [`answer`] writes
//! what goes back, [`access`] says who may do what, [`store`] names the operations, and each of those is in a module of
//! its kind.

mod access;
mod answer;
mod attributes;
mod body;
mod buckets;
mod checksums;
mod conditions;
mod connection;
mod copy;
mod errors;
mod frames;
mod front;
mod health;
mod intake;
mod lenient;
mod limits;
mod listing;
mod multipart;
mod names;
mod objects;
mod patience;
mod probe;
mod ranges;
mod server;
mod signing;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod tokens;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use resilver_host::Listener;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use tokio::sync::watch;

use self::access::Keys;
use self::front::Front;
use self::lenient::Lenient;
use self::limits::Limits;
use self::names::{Domain, Names};
use self::store::Store;
use crate::gateway::Gateway;
use crate::options::S3Options;
use crate::phase::PhaseCell;

/// The S3 door of a node. It listens from the beginning, so that load balancers can ask how the node is, and serves once
/// it was opened and the node is healthy. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    front: Arc<Front>,
    options: S3Options,
}

impl Door {
    /// A door that is not open yet.
    pub fn new(options: S3Options, phase: PhaseCell) -> Self {
        let front = Front {
            service: OnceLock::new(),
            limits: Arc::new(Limits::new(options.max_requests, options.max_requests_per_key)),
            phase,
            region: options.region.clone(),
            domain: options.domain.as_deref().map(Domain::new),
            counts: Arc::default(),
            listens: OnceLock::new(),
        };
        Self { front: Arc::new(front), options }
    }

    /// Opens it onto the gateway. The first one stays.
    pub fn open(&self, gateway: Gateway) {
        let strict = self.service(&gateway).build();
        let mut builder = self.service(&gateway);
        builder.set_route(Lenient { strict });
        // A node enters a cluster once per process.
        let _ = self.front.service.set(builder.build());
    }

    fn service(&self, gateway: &Gateway) -> S3ServiceBuilder {
        let keys = Keys { gateway: gateway.clone(), limits: self.front.limits.clone() };
        let store = Store { gateway: gateway.clone(), region: self.options.region.clone() };
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(keys.clone());
        builder.set_access(keys);
        builder.set_validation(Names);
        if let Some(domain) = self.front.domain.clone() {
            builder.set_host(domain);
        }
        let mut config = S3Config::default();
        config.xml_max_body_size = limits::MAX_XML_BYTES;
        // Forms are refused before s3s sees them; should one get there, it gets no room.
        config.post_object_max_file_size = 0;
        config.form_max_fields_size = limits::MAX_HEADER_BYTES;
        config.form_max_field_size = limits::MAX_HEADER_BYTES;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// When its listener is gone: nobody can come in any more.
    pub async fn run(self, listener: Box<dyn Listener>, stopping: watch::Receiver<bool>) -> io::Result<()> {
        // A door is run once.
        let _ = self.front.listens.set(probe::address(&listener.local_addr()?));
        server::run(self.front, listener, self.options.max_connections, stopping).await
    }

    /// Where it was told to listen.
    pub fn configured(&self) -> &str {
        &self.options.address
    }

    /// What it has done so far.
    pub fn counts(&self) -> Arc<Counts> {
        self.front.counts.clone()
    }
}

/// What the door has done so far. Read when somebody asks.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests begun; it also numbers them.
    pub begun: AtomicU64,
    /// Answers by class of status: 2xx, 3xx, 4xx, 5xx.
    pub answers: [AtomicU64; 4],
    /// Connections refused because as many as there may be were at work.
    pub refused: AtomicU64,
    /// Connections there are.
    pub connections: AtomicU64,
}

impl Counts {
    /// A request begins: the id it is told under.
    fn begin(&self) -> String {
        format!("{:016X}", self.begun.fetch_add(1, Ordering::Relaxed))
    }

    fn end(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn connections(&self, count: usize) {
        self.connections.store(count as u64, Ordering::Relaxed);
    }
}

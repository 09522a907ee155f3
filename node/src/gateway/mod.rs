//! Puts and gets: turns the bytes of an object into extents, stripes and shards, and back.
//!
//! Owns: names, the path of an upload up to its commit, the path of a read with all its detours, and the answers that
//! clients get ([`StoreService`]).
//! Must never: acknowledge what is not committed; answer "failed" when the outcome of a commit is unknown; hand out bytes
//! that no CRC covered; touch a disk itself (shards go through [`crate::transport`]).
//!
//! Invariants:
//! - A put is acknowledged once, for every extent, k+1 shards are durable and losing any one failure domain leaves k,
//!   and the commit was applied. A home in doubt has a stand-in; one that failed meanwhile is recorded as nowhere, and
//!   stand-ins or repair get what it misses.
//! - Shards are written under a version nobody else has, so an upload that fails harms no reader. It gives its room
//!   back ([`unowned`]); what a gateway that dies leaves behind is collected by [`crate::repair`] under its own rules.
//! - A get reads one version from its first byte to its last, whatever is put meanwhile.

mod arbiter;
mod body;
mod buckets;
mod codewords;
mod configuration;
mod digest;
mod error;
mod extent_reader;
mod extent_writer;
mod failing;
mod get;
mod handoff;
mod keys;
mod lanes;
mod names;
mod objects;
mod operations;
mod proof;
mod put;
#[cfg(feature = "audit")]
mod rehearsal;
mod sending;
mod service;
mod unowned;
mod upload;
mod uploads;
mod verify;
mod weigh;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::{Host, Rng};
use tokio::sync::Semaphore;

pub use buckets::{BucketChange, BucketSettings};
pub use error::GatewayError;
pub use extent_reader::{ExtentReader, ExtentSpec, ReadAhead, ReadPlan, Stripe, Unreadable};
pub use get::{ByteRange, Content, ContentStream};
pub use names::{RESERVED_PREFIX, check_bucket_name, check_key};
pub use objects::ObjectPage;
pub use operations::{Operations, Running};
pub use put::{PutDone, PutOptions, PutTarget};
pub use service::StoreService;
pub use upload::Uploaded;
pub use uploads::{Complete, CompleteDone, NewUpload, PartTarget};
pub use verify::{ObjectRepair, ObjectVerdict, RepairedShard, ShardCheck, ShardState};

use crate::locks::Locks;
use crate::meta::Meta;
pub use crate::meta::{Entry, ListQuery, PartPage, UploadEntry, UploadPage, UploadQuery};
use crate::model::Command;
use crate::repair::Rebuilder;
use crate::transport::{Detours, ShardClient};
use crate::types::Version;

/// Puts at work on one node. Each holds a stripe of its body beside what all share ([`sending`]): beyond this the node
/// refuses, because memory is what it would run out of.
pub const MAX_PUTS: usize = 64;

/// Puts of unannounced length that may hold a whole extent in memory side by side; others wait. Eight are 128 MiB.
const MAX_UNSIZED_PUTS: usize = 8;

/// Keys of a page when the client names no limit, and the most it gets: S3's figure.
pub const MAX_PAGE: usize = 1000;

/// What a gateway is made of.
pub struct GatewayParts {
    /// The machine.
    pub host: Host,
    /// The metadata.
    pub meta: Meta,
    /// Locks for changes of the configuration.
    pub locks: Locks,
    /// The way to the shards.
    pub shards: ShardClient,
    /// The way to rebuild one, for `repair`.
    pub rebuilder: Rebuilder,
    /// How long replaced versions stay readable: a get that takes longer is ended.
    pub read_deadline: Duration,
}

/// The gateway of a node. Stateless but for what is in flight; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    meta: Meta,
    locks: Locks,
    shards: ShardClient,
    rebuilder: Rebuilder,
    read_deadline: Duration,
    versions: Mutex<Rng>,
    secrets: Mutex<Rng>,
    operations: Operations,
    puts: Arc<Semaphore>,
    unsized_puts: Arc<Semaphore>,
    giving_up: Arc<Semaphore>,
    handoffs: Arc<Semaphore>,
    handoffs_waiting: Arc<Semaphore>,
    sending: sending::Sending,
    key_reads: keys::KeyReads,
    weighing: tokio::sync::Mutex<()>,
}

impl Gateway {
    /// A gateway over the given parts.
    pub fn new(parts: GatewayParts) -> Self {
        let versions = Mutex::new(parts.host.rand.fork("gateway.version"));
        let secrets = Mutex::new(parts.host.rand.fork("gateway.secret"));
        let operations = Operations::new(parts.host.proc.own().pid);
        Self {
            inner: Arc::new(Inner {
                host: parts.host,
                meta: parts.meta,
                locks: parts.locks,
                shards: parts.shards,
                rebuilder: parts.rebuilder,
                read_deadline: parts.read_deadline,
                versions,
                secrets,
                operations,
                puts: Arc::new(Semaphore::new(MAX_PUTS)),
                unsized_puts: Arc::new(Semaphore::new(MAX_UNSIZED_PUTS)),
                giving_up: Arc::new(Semaphore::new(unowned::MAX_GIVING_UP)),
                handoffs: Arc::new(Semaphore::new(handoff::MAX_HANDOFFS)),
                handoffs_waiting: Arc::new(Semaphore::new(handoff::MAX_WAITING)),
                sending: sending::Sending::new(),
                key_reads: keys::KeyReads::default(),
                weighing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// What is in flight.
    pub fn operations(&self) -> &Operations {
        &self.inner.operations
    }

    /// What did not go the straight way.
    pub(crate) fn detours(&self) -> &Detours {
        self.inner.shards.pace().detours()
    }

    /// Proposes what has no answer but that it was done.
    async fn done(&self, command: Command) -> Result<(), GatewayError> {
        configuration::done(self.inner.meta.propose(command).await?)
    }

    fn now_ms(&self) -> u64 {
        self.inner.host.clock.now().as_millis()
    }

    fn draw_version(&self) -> Version {
        // Drawing cannot panic; a poisoned generator still draws.
        Version::draw(&mut self.inner.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Draws for names and secrets. Another stream than the versions': who sees many of the one learns nothing of the
    /// other.
    fn with_rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.inner.secrets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

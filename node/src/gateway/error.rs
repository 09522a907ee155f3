//! What a client is told when its request fails, and under which gRPC code.

use tonic::Status;

use crate::meta::{MetaError, NoRoom};
use crate::model::{Coding, MIN_PART_BYTES, Outcome, Refusal};
use crate::placement::PlacementError;
use crate::types::{BucketName, DiskId, ExtentId, ExtentIndex, Version};

/// A request that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GatewayError {
    /// A bucket name or key against the rules.
    #[error("{name:?} is no valid {what}: {why}")]
    BadName {
        /// Which kind of name.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Coding parameters out of range.
    #[error("this coding is not possible: {0}")]
    BadCoding(String),
    /// A part of the request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// No such bucket.
    #[error("there is no bucket {0}")]
    NoBucket(BucketName),
    /// The bucket exists.
    #[error("bucket {0} exists already")]
    BucketExists(BucketName),
    /// It has objects.
    #[error("bucket {0} is not empty: delete its objects first, and abort its uploads if they are very many")]
    BucketNotEmpty(BucketName),
    /// What is put does not fit in the bucket's quota.
    #[error(
        "bucket {bucket} may have {quota_bytes} bytes and has {used_bytes}: this does not fit; delete something, or have \
         its quota raised"
    )]
    Quota {
        /// The bucket.
        bucket: BucketName,
        /// What it may have.
        quota_bytes: u64,
        /// What it has.
        used_bytes: u64,
    },
    /// No such upload.
    #[error("there is no such upload: it was completed or aborted, or never begun")]
    NoUpload,
    /// A part that is not there as the client says.
    #[error("part {number} is not there as named: upload it, and name parts in rising order with the ETags they have")]
    InvalidPart {
        /// Its number.
        number: u16,
    },
    /// A part before the last is too small.
    #[error("part {number} is smaller than {MIN_PART_BYTES} bytes, and only the last may be")]
    PartTooSmall {
        /// Its number.
        number: u16,
    },
    /// Larger than it may be.
    #[error("{what} of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How large, as far as is known.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The metadata disk of this node, or of too many voters, is nearly full.
    #[error("{0}")]
    MetadataFull(String),
    /// No such access key.
    #[error("there is no access key {0}")]
    NoKey(String),
    /// No such object.
    #[error("there is no object {key:?} in bucket {bucket}")]
    NoObject {
        /// The bucket.
        bucket: BucketName,
        /// The key.
        key: String,
    },
    /// The range begins after the end of the object.
    #[error("the range begins at byte {offset}, but the object has {size_bytes} bytes")]
    BadRange {
        /// Where the range begins.
        offset: u64,
        /// How long the object is.
        size_bytes: u64,
    },
    /// The condition of the write does not hold.
    #[error("the condition does not hold: the object is at {}", .at.map_or("no version".to_owned(), |version| version.to_string()))]
    Condition {
        /// The version found.
        at: Option<Version>,
    },
    /// The upload took so long that it was given up.
    #[error("{0}")]
    GivenUp(String),
    /// The client's body broke off or stalled.
    #[error("the upload broke off: {0}")]
    Body(String),
    /// The body is not as long as announced.
    #[error("the upload announced {announced} bytes but brought {}", .got.map_or("more".to_owned(), |got| format!("only {got}")))]
    Size {
        /// What was announced.
        announced: u64,
        /// What came; `None`: more than announced.
        got: Option<u64>,
    },
    /// Too few shards became durable. Nothing was committed.
    #[error(
        "only {durable} of {} shards of extent {} became durable, and {} are needed in enough failure domains: {detail}; \
         nothing was stored, repeat the put when more nodes are up",
        coding.total(), extent.0, coding.k + 1
    )]
    TooFewHomes {
        /// Durable shards.
        durable: usize,
        /// The coding.
        coding: Coding,
        /// The extent.
        extent: ExtentIndex,
        /// What happened at the others.
        detail: String,
        /// The others.
        failed: Vec<DiskId>,
    },
    /// Disks are full.
    #[error("too few disks have room: {0}; nothing was stored")]
    Full(String),
    /// The cluster could never hold a bucket like this.
    #[error("the bucket was not made: {0}")]
    TooFewDisks(String),
    /// Placement finds no homes.
    #[error("no place for the shards: {0}")]
    NoPlace(String),
    /// Fewer than k shards of an extent can be read now.
    #[error("extent {extent} cannot be read now: {detail}")]
    Unreadable {
        /// The extent.
        extent: ExtentId,
        /// What happened at each home.
        detail: String,
    },
    /// All shards were right and the content is not.
    #[error(
        "the content read has crc32c {got:08x}, but {expected:08x} was stored: the bytes sent are not to be trusted"
    )]
    Checksum {
        /// As stored.
        expected: u32,
        /// As read.
        got: u32,
    },
    /// It cannot be told which shards of an object are right. Nothing was changed.
    #[error("{0}")]
    Undecided(String),
    /// The read took longer than replaced versions are kept.
    #[error("the read took longer than the read deadline and was ended")]
    TooSlow,
    /// Too much at once.
    #[error("this node has {0} uploads in flight, its limit: repeat in a moment, or ask another node")]
    Busy(usize),
    /// An operator or an agent ended it. Nothing was changed.
    #[error("this request was cancelled on the node: {0}; nothing was changed, repeat it")]
    Cancelled(String),
    /// The lock that a change of the configuration needs was not had, or was lost before the change was applied. Nothing
    /// was changed.
    #[error("{0}")]
    Locked(String),
    /// It may or may not have happened.
    #[error("outcome unknown: {0}; read the object to learn whether it was stored")]
    Unknown(String),
    /// The metadata cannot answer: no leader or no quorum.
    #[error("the metadata cannot be reached: {0}")]
    Meta(String),
    /// A bug or a member of another version.
    #[error("the metadata answered with {0}, which does not fit the request")]
    Unexpected(String),
}

impl GatewayError {
    /// Whether an upload that ended so failed on the server's side. Not: what the client did, what a condition or a limit
    /// refuses, and full disks: they answer, and say so.
    pub(super) fn is_servers(&self) -> bool {
        matches!(
            self,
            Self::TooFewHomes { .. } | Self::NoPlace(_) | Self::Unknown(_) | Self::Meta(_) | Self::Unexpected(_)
        )
    }

    pub(super) fn placement(error: PlacementError) -> Self {
        Self::NoPlace(error.to_string())
    }

    pub(super) fn too_few_disks(error: PlacementError) -> Self {
        Self::TooFewDisks(error.to_string())
    }

    pub(super) fn unexpected(outcome: &Outcome) -> Self {
        Self::Unexpected(format!("{outcome:?}"))
    }
}

impl From<MetaError> for GatewayError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Unknown { .. } => Self::Unknown(error.to_string()),
            other => Self::Meta(other.to_string()),
        }
    }
}

impl From<NoRoom> for GatewayError {
    fn from(error: NoRoom) -> Self {
        Self::MetadataFull(error.to_string())
    }
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoBucket(bucket) => Self::NoBucket(bucket),
            Refusal::BucketExists(bucket) => Self::BucketExists(bucket),
            Refusal::BucketNotEmpty(bucket) => Self::BucketNotEmpty(bucket),
            Refusal::Quota { bucket, quota_bytes, used_bytes } => Self::Quota { bucket, quota_bytes, used_bytes },
            Refusal::NoUpload => Self::NoUpload,
            Refusal::InvalidPart { number } => Self::InvalidPart { number },
            Refusal::PartTooSmall { number } => Self::PartTooSmall { number },
            Refusal::TooLarge { bytes, limit } => Self::TooLarge { what: "an object", bytes, limit },
            Refusal::NoKey(id) => Self::NoKey(id),
            Refusal::TooManyKeys(_) | Refusal::KeyExists(_) => Self::BadRequest(refusal.to_string()),
            Refusal::Condition { at } => Self::Condition { at },
            Refusal::NoObject => Self::Condition { at: None },
            Refusal::Forbidden => Self::GivenUp(refusal.to_string()),
            Refusal::LockLost { .. } => {
                Self::Locked(format!("{refusal}; nothing was changed: look at what it is now, and repeat the change"))
            }
            // The answer to a command that was already applied is gone: it happened, one way or the other.
            Refusal::Expired => Self::Unknown(refusal.to_string()),
            other => Self::Meta(other.to_string()),
        }
    }
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Self {
        use GatewayError as E;
        let message = error.to_string();
        match error {
            E::BadName { .. }
            | E::BadCoding(_)
            | E::BadRequest(_)
            | E::Size { .. }
            | E::InvalidPart { .. }
            | E::PartTooSmall { .. }
            | E::TooLarge { .. } => Self::invalid_argument(message),
            E::NoBucket(_) | E::NoObject { .. } | E::NoUpload | E::NoKey(_) => Self::not_found(message),
            E::BucketExists(_) => Self::already_exists(message),
            E::BadRange { .. } => Self::out_of_range(message),
            E::Condition { .. } | E::TooFewDisks(_) | E::BucketNotEmpty(_) | E::Undecided(_) => {
                Self::failed_precondition(message)
            }
            E::GivenUp(_) | E::Body(_) | E::Locked(_) | E::Cancelled(_) => Self::aborted(message),
            E::Full(_) | E::Busy(_) | E::Quota { .. } | E::MetadataFull(_) => Self::resource_exhausted(message),
            E::TooSlow => Self::deadline_exceeded(message),
            E::Checksum { .. } => Self::data_loss(message),
            E::Unexpected(_) => Self::internal(message),
            E::TooFewHomes { .. } | E::NoPlace(_) | E::Unreadable { .. } | E::Unknown(_) | E::Meta(_) => {
                Self::unavailable(message)
            }
        }
    }
}

//! Digests of ranges of the state: what two members compare in place of their records.
//!
//! All replicated records lie in one order: by their table's tag, then by their key; tag and key together are a record's
//! *place*. The order is cut into leaves. Where, the places say themselves: a leaf begins at every place whose CRC32C, [`mixed`], ends
//! in [`LEAF_BITS`] zero bits, and at the begin of every table. So two members that hold the same records have the same leaves,
//! whatever came in which order, and one record more or less moves one border at most. A range of a higher level begins
//! where [`FAN_BITS`] more bits are zero for each level.
//!
//! A record's digest is half of a SHA-256 over its place and value; that of a range is the sum of its records' digests,
//! modulo 2^128, so that it is kept in step by one subtraction and one addition. Two ranges of equal sums and equal numbers
//! of records are taken for equal: nothing in here withstands somebody who looks for a collision, and nobody who can write
//! records would need one.
//!
//! Owns: the leaves' table, which belongs to this member alone and never travels. Invariant: after every transaction each
//! leaf is the sum of the records in it; what was applied last ([`KEY_APPLIED`]) is in none of them, because members that
//! apply the same entries may apply them in other batches.

mod compare;
mod kept;
mod scan;
pub(crate) mod shards;
#[cfg(test)]
mod tests;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StateError;
use super::tables::{Definition, KEY_APPLIED, REPLICATED};

pub(crate) use self::compare::{Stretch, fold, root, unequal};
pub(super) use self::kept::{Kept, Tree};
pub(super) use self::scan::{rebuild, recompute};

/// Begin of a leaf to the [`Sum`] of its records.
pub(super) const LEAVES: Definition = TableDefinition::new("leaves");

/// Zero bits that begin a leaf: 128 records on average. A difference then costs some kilobytes of places and digests to
/// name, and the leaves of a million objects (five million records) are two megabytes.
const LEAF_BITS: u32 = 7;
/// More zero bits for each level: sixteen ranges in one of the next, which is one message of a kilobyte.
const FAN_BITS: u32 = 4;
/// The highest level. A range there holds half a million records; more levels would save nothing.
pub(crate) const TOP: u32 = 3;

/// Digest and number of some records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    /// The sum of the records' digests, modulo 2^128.
    pub(crate) digest: u128,
    /// How many.
    pub(crate) records: u64,
}

impl Sum {
    /// Of one record.
    pub(super) fn of(digest: u128) -> Self {
        Self { digest, records: 1 }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { digest: self.digest.wrapping_add(other.digest), records: self.records.wrapping_add(other.records) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { digest: self.digest.wrapping_sub(other.digest), records: self.records.wrapping_sub(other.records) }
    }
}

/// A range of the order, up to where the next of its level begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The place it begins at.
    pub(crate) start: Vec<u8>,
    /// What is in it.
    pub(crate) sum: Sum,
}

/// Where a record lies in the order.
pub(super) fn place(tag: u8, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(1 + key.len());
    place.push(tag);
    place.extend_from_slice(key);
    place
}

/// The level of the ranges that begin at a place; `None`: not even a leaf does.
fn level_of(place: &[u8]) -> Option<u32> {
    if place.len() <= 1 {
        return Some(TOP);
    }
    let zeros = mixed(crc32c::crc32c(place)).trailing_zeros();
    zeros.checked_sub(LEAF_BITS).map(|more| (more / FAN_BITS).min(TOP))
}

/// MurmurHash3's last step. A CRC is linear: of names that count up, its low bits alone are zero for none of ten thousands.
fn mixed(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The digest of one record.
pub(super) fn digest(tag: u8, key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Sha256::new();
    hash.update([tag]);
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    let hash = hash.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    u128::from_le_bytes(half)
}

/// The tag of the table of single records.
const CLUSTER_TAG: u8 = 1;

/// Whether a record is in the digests.
pub(super) fn counts(tag: u8, key: &[u8]) -> bool {
    !(tag == CLUSTER_TAG && key == KEY_APPLIED)
}

/// A place for people: the table, and the key as far as it can be read.
pub(crate) fn in_words(place: &[u8]) -> String {
    let Some((tag, key)) = place.split_first() else { return "the begin".to_owned() };
    let table =
        REPLICATED.iter().find(|(known, _)| known == tag).map(|(_, table)| redb::TableHandle::name(table).to_owned());
    let table = table.unwrap_or_else(|| format!("table {tag}"));
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ' || *byte == 0 || !byte.is_ascii();
    match std::str::from_utf8(key) {
        Ok(text) if key.iter().all(printable) => format!("{table}: {}", text.replace('\0', "/")),
        _ => format!("{table}: {}", key.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// What is wrong with the leaves, or with what was asked of them.
pub(super) fn corrupt(detail: String) -> StateError {
    StateError::Corrupt { table: "leaves", detail }
}

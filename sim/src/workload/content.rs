//! What is stored: contents that say whose they are and can be made again from that, so that what is read is judged
//! byte by byte and nothing has to be kept.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use resilver_sim_kernel::mix;

/// What a content begins with.
const MAGIC: &[u8; 8] = b"RSLVSIM1";
/// Magic, value, length.
const HEAD_BYTES: usize = 24;
const KIB: u64 = 1024;

/// Names a content: no two writes of a run have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value(pub(crate) u64);

/// A length: mostly small, so that a seed costs seconds; some above a block (64 KiB) and a few above a stripe.
pub(crate) fn length(rng: &mut StdRng) -> usize {
    let (low, high) = match rng.random_range(0..100) {
        0..70 => (KIB, 8 * KIB),
        70..90 => (8 * KIB, 64 * KIB),
        90..98 => (64 * KIB, 256 * KIB),
        _ => (256 * KIB, 512 * KIB),
    };
    rng.random_range(low..=high) as usize
}

/// The content of `value` under `key`.
pub(crate) fn content(key: &str, value: Value, length: usize) -> Bytes {
    let mut bytes = vec![0; length.max(HEAD_BYTES)];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&value.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    StdRng::seed_from_u64(mix(value.0, key)).fill_bytes(&mut bytes[HEAD_BYTES..]);
    bytes.into()
}

/// Whose content this is. `Err`: nobody's, and why.
pub(crate) fn judge(key: &str, bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() < HEAD_BYTES || &bytes[..8] != MAGIC {
        return Err(format!("{} bytes that no client wrote", bytes.len()));
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (value, length) = (Value(number(8)), number(16));
    if length != bytes.len() as u64 {
        return Err(format!("{} bytes of value {:x}, which has {length}", bytes.len(), value.0));
    }
    let right = content(key, value, bytes.len());
    match right.iter().zip(bytes).position(|(right, got)| right != got) {
        None => Ok(value),
        Some(at) => Err(format!("value {:x} differs from what was written at byte {at} of {length}", value.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_known_by_itself_and_by_no_other_name() {
        let right = content("a", Value(7), 5_000);
        assert_eq!(judge("a", &right), Ok(Value(7)));
        assert!(judge("b", &right).is_err(), "another key's content");
        let mut bad = right.to_vec();
        bad[4_999] ^= 1;
        assert!(judge("a", &bad).is_err_and(|why| why.contains("byte 4999")));
        assert!(judge("a", &right[..4_999]).is_err());
        assert!(judge("a", b"").is_err());
    }
}

//! Sealing datagrams: what travels between agents is readable and writable only with the cluster's key.
//!
//! ```text
//! version (1) | key id (1) | nonce (12) | sealed payload and its tag (16)
//! ```
//!
//! Owns: that layout. Must never: hand on a byte that was not authenticated.
//!
//! Invariants: the associated data are version, key id and cluster id, so that a datagram of another cluster that shares
//! a key by mistake does not open. The nonce is random; AES-GCM-SIV, because two equal nonces then tell no more than
//! that two payloads were equal, however many years a key is in use. A datagram that is repeated by somebody on the wire
//! opens again: it can tell only what was true once, and lives and incarnations outdate that.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use resilver_host::Rng;

use super::key::KeyRing;

/// The layout's version.
const VERSION: u8 = 1;
/// Version and key id.
const HEAD_BYTES: usize = 2;
/// The tag's length.
const TAG_BYTES: usize = 16;
/// What sealing adds to a payload.
pub(super) const OVERHEAD_BYTES: usize = HEAD_BYTES + NONCE_LEN + TAG_BYTES;
/// The longest datagram: fits into the smallest packet that every IPv6 network carries (1,280) with its headers, and so
/// is never cut into fragments, of which losing one loses all.
pub(super) const MAX_DATAGRAM_BYTES: usize = 1_232;

/// Why a datagram was dropped. The name is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too short or too long to be one.
    Size,
    /// Of another layout.
    Version,
    /// Sealed under a key that is not in the file.
    UnknownKey,
    /// The key does not open it: another key of that id, another cluster, or changed on its way.
    Forged,
}

impl Refused {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refused::Size => "size",
            Refused::Version => "version",
            Refused::UnknownKey => "unknown_key",
            Refused::Forged => "forged",
        }
    }
}

/// Seals and opens.
pub(super) struct Seal {
    keys: KeyRing,
    nonces: Rng,
}

impl Seal {
    pub(super) fn new(keys: KeyRing, nonces: Rng) -> Seal {
        Seal { keys, nonces }
    }

    /// A payload as it travels. `None`: too long to travel.
    pub(super) fn seal(&mut self, cluster: &str, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() + OVERHEAD_BYTES > MAX_DATAGRAM_BYTES {
            return None;
        }
        let (id, key) = self.keys.sealing();
        let mut nonce = [0; NONCE_LEN];
        self.nonces.fill_bytes(&mut nonce);
        let mut sealed = payload.to_vec();
        let aad = Aad::from(associated(id, cluster));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        let mut datagram = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
        datagram.extend([VERSION, id]);
        datagram.extend(nonce);
        datagram.extend(sealed);
        Some(datagram)
    }

    /// What a datagram says, once it is known to come from this cluster.
    pub(super) fn open<'a>(&self, cluster: &str, datagram: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        if !(OVERHEAD_BYTES..=MAX_DATAGRAM_BYTES).contains(&datagram.len()) {
            return Err(Refused::Size);
        }
        let (version, id) = (datagram[0], datagram[1]);
        if version != VERSION {
            return Err(Refused::Version);
        }
        let key = self.keys.opening(id).ok_or(Refused::UnknownKey)?;
        let (head, sealed) = datagram.split_at_mut(HEAD_BYTES + NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&head[HEAD_BYTES..]).map_err(|_| Refused::Size)?;
        let opened = key.open_in_place(nonce, Aad::from(associated(id, cluster)), sealed);
        opened.map(|opened| &*opened).map_err(|_| Refused::Forged)
    }
}

fn associated(id: u8, cluster: &str) -> Vec<u8> {
    [&[VERSION, id], cluster.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::key::ring;
    use super::*;

    fn seal(keys: &str) -> Seal {
        Seal::new(ring(keys), resilver_host::real::host().rand.fork("test"))
    }

    fn line(id: u8, digit: &str) -> String {
        format!("{id} {}\n", digit.repeat(64))
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let mut one = seal(&line(1, "a"));
        let sealed = one.seal("c1", b"ping").expect("short");
        assert!(!sealed.windows(4).any(|bytes| bytes == b"ping"), "it travels unreadable");
        assert_eq!(one.open("c1", &mut sealed.clone()), Ok(&b"ping"[..]));
        assert_eq!(one.open("c2", &mut sealed.clone()), Err(Refused::Forged), "another cluster");
        assert_eq!(seal(&line(1, "b")).open("c1", &mut sealed.clone()), Err(Refused::Forged), "another key");
        assert_eq!(seal(&line(2, "a")).open("c1", &mut sealed.clone()), Err(Refused::UnknownKey));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(one.open("c1", &mut changed).is_err(), "byte {at} was changed unnoticed");
        }
        assert_eq!(one.open("c1", &mut sealed.clone()[..OVERHEAD_BYTES - 1]), Err(Refused::Size));
        assert_ne!(one.seal("c1", b"ping"), one.seal("c1", b"ping"), "a nonce of its own each time");
    }

    #[test]
    fn a_key_is_replaced_without_a_gap() {
        let (old, new) = (line(1, "a"), line(2, "b"));
        // Each pair of neighbouring stages runs side by side for a while.
        let stages = [old.clone(), format!("{old}{new}"), format!("{new}{old}"), new];
        for pair in stages.windows(2) {
            let (mut before, mut after) = (seal(&pair[0]), seal(&pair[1]));
            let sealed = before.seal("c1", b"x").expect("short");
            assert_eq!(after.open("c1", &mut sealed.clone()), Ok(&b"x"[..]));
            let sealed = after.seal("c1", b"y").expect("short");
            assert_eq!(before.open("c1", &mut sealed.clone()), Ok(&b"y"[..]));
        }
        let (mut first, last) = (seal(&stages[0]), seal(&stages[3]));
        let sealed = first.seal("c1", b"x").expect("short");
        assert_eq!(last.open("c1", &mut sealed.clone()), Err(Refused::UnknownKey), "the old key is out of use");
    }

    #[test]
    fn no_datagram_is_longer_than_every_network_carries() {
        let mut one = seal(&line(1, "a"));
        let longest = vec![0; MAX_DATAGRAM_BYTES - OVERHEAD_BYTES];
        assert_eq!(one.seal("c1", &longest).map(|sealed| sealed.len()), Some(MAX_DATAGRAM_BYTES));
        assert_eq!(one.seal("c1", &[longest, vec![0]].concat()), None);
        const { assert!(MAX_DATAGRAM_BYTES < 1_400) };
    }
}

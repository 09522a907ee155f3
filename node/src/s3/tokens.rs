//! Continuation tokens: where a listing goes on. Opaque to clients, and worth nothing for another listing. Pure.
//!
//! A token is no secret and grants nothing: who holds it may list the bucket anyway. Its checksum finds mistakes, such as
//! a token of one prefix used with another, which would silently leave out keys.

use super::text;

/// The shape of tokens, should it ever change.
const SHAPE: u8 = 1;

/// What a listing is of: a token is good for the same only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing<'a> {
    pub(super) bucket: &'a str,
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
}

impl Listing<'_> {
    fn check(self, after: &str) -> [u8; 4] {
        let mut crc = crc32c::crc32c(&[SHAPE]);
        for part in [self.bucket, self.prefix, self.delimiter, after] {
            // Lengths keep apart what could run together.
            crc = crc32c::crc32c_append(crc, &(part.len() as u64).to_le_bytes());
            crc = crc32c::crc32c_append(crc, part.as_bytes());
        }
        crc.to_le_bytes()
    }
}

/// The token with which a listing goes on behind `after`.
pub(super) fn token(listing: Listing<'_>, after: &str) -> String {
    let mut bytes = vec![SHAPE];
    bytes.extend_from_slice(&listing.check(after));
    bytes.extend_from_slice(after.as_bytes());
    text::base64(&bytes)
}

/// Where the token says to go on; `None` when it is no token of this listing.
pub(super) fn read(listing: Listing<'_>, token: &str) -> Option<String> {
    let bytes = text::from_base64(token)?;
    let (head, after) = bytes.split_at_checked(5)?;
    let after = std::str::from_utf8(after).ok()?;
    (head[0] == SHAPE && head[1..] == listing.check(after)).then(|| after.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTING: Listing<'static> = Listing { bucket: "photos", prefix: "2006/", delimiter: "/" };

    #[test]
    fn a_token_is_good_for_its_own_listing_only() {
        let token = token(LISTING, "2006/January/");
        assert_eq!(read(LISTING, &token).as_deref(), Some("2006/January/"));
        assert_eq!(read(Listing { prefix: "2007/", ..LISTING }, &token), None);
        assert_eq!(read(Listing { delimiter: "", ..LISTING }, &token), None);
        assert_eq!(read(Listing { bucket: "other", ..LISTING }, &token), None);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in ["", "x", "AQ==", "2006/January/", "AQAAAAAyMDA2", "////"] {
            assert_eq!(read(LISTING, bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_place_comes_back_and_no_text_breaks_it(after in ".*", noise in ".*") {
            prop_assert_eq!(read(LISTING, &token(LISTING, &after)), Some(after));
            let _ = read(LISTING, &noise);
        }
    }
}

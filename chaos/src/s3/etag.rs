//! What a door must say of a content: so that a put whose answer was lost can be recognised by whoever sees it.

use bytes::Bytes;
use md5::{Digest, Md5};

/// The ETag of an object put at once, without quotes.
pub fn etag_of(content: &[u8]) -> String {
    hex(&Md5::digest(content))
}

/// The ETag of an object completed from parts, without quotes.
pub fn etag_of_parts(parts: &[Bytes]) -> String {
    let mut all = Md5::new();
    for part in parts {
        all.update(Md5::digest(part));
    }
    format!("{}-{}", hex(&all.finalize()), parts.len())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_those_of_s3() {
        assert_eq!(etag_of(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(etag_of_parts(&[Bytes::new()]), "59adb24ef3cdbe0297f05b395827453f-1");
    }
}

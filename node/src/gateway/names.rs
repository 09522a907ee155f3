//! Which names may be stored: S3's rules, so that the S3 door needs no others.

use super::GatewayError;
use crate::model::MAX_KEY_BYTES;
use crate::types::BucketName;

/// Buckets whose names begin so are the product's own: in no listing, and made by no client.
pub const RESERVED_PREFIX: &str = "resilver.";

/// Bucket names are 3 to 63 characters: lower case letters, digits, dots and hyphens, beginning and ending with a letter
/// or digit.
///
/// # Errors
/// With the rule that is broken.
pub fn check_bucket_name(bucket: &BucketName) -> Result<(), GatewayError> {
    let name = bucket.as_str();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let why = if !(3..=63).contains(&name.len()) {
        "3 to 63 characters are allowed"
    } else if !name.bytes().all(|byte| plain(byte) || byte == b'.' || byte == b'-') {
        "only lower case letters, digits, dots and hyphens are allowed"
    } else if !name.bytes().next().is_some_and(plain) || !name.bytes().last().is_some_and(plain) {
        "it must begin and end with a letter or digit"
    } else if name.contains("..") {
        "two dots in a row are not allowed"
    } else {
        return Ok(());
    };
    Err(GatewayError::BadName { what: "bucket name", name: shown(name), why })
}

/// Keys are 1 to 1024 bytes of UTF-8 without NUL.
///
/// # Errors
/// With the rule that is broken.
pub fn check_key(key: &str) -> Result<(), GatewayError> {
    let why = if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_KEY_BYTES {
        "it is longer than 1024 bytes"
    } else if key.contains('\0') {
        "it contains a NUL character"
    } else {
        return Ok(());
    };
    Err(GatewayError::BadName { what: "key", name: shown(key), why })
}

/// Enough of a refused name to recognise it.
fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let mut shown: String = name.chars().take(SHOWN_CHARS).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_the_rules_of_s3() {
        for good in ["abc", "a-b.c", "0.1", &"a".repeat(63)] {
            assert!(check_bucket_name(&BucketName::from(good)).is_ok(), "{good}");
        }
        for bad in ["", "ab", "Abc", "a_b", "-ab", "ab-", "a..b", "a/b", &"a".repeat(64)] {
            assert!(check_bucket_name(&BucketName::from(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_bounded_text() {
        assert!(check_key("a/b c/ü").is_ok());
        assert!(check_key(&"k".repeat(1024)).is_ok());
        assert!(check_key(&"k".repeat(1025)).is_err());
        assert!(check_key("").is_err());
        assert!(check_key("a\0b").is_err());
    }
}

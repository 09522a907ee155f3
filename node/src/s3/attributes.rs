//! What a client says of its content: kept and given back. And what it asks for that this store would take and not do:
//! refused, because a client that believes its object encrypted or locked is worse off than one that was told no.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use s3s::dto::{Map, Timestamp, TimestampFormat};
use s3s::{S3ErrorCode, S3Result};

use super::errors::{error, not_implemented};
use crate::model::{Attributes, MAX_USER_METADATA_BYTES};

/// The type of content nobody named the type of: S3's.
pub(super) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The only storage class.
pub(super) const STANDARD: &str = "STANDARD";

/// What begins the headers of user metadata.
const USER_PREFIX: &str = "x-amz-meta-";

/// Refuses what would silently not be honoured. What clients send always, and what asks for what is the case anyway, is
/// taken.
pub(super) fn refuse_unhonoured(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let value = value.as_bytes();
        match name.as_str() {
            _ if value.is_empty() => {}
            "x-amz-acl" if matches!(value, b"private" | b"bucket-owner-full-control") => {}
            acl if acl == "x-amz-acl" || acl.starts_with("x-amz-grant-") => {
                return Err(error(
                    S3ErrorCode::AccessControlListNotSupported,
                    "The bucket does not allow ACLs: access is granted to keys, by `resilver key grant`",
                ));
            }
            "x-amz-storage-class" if value == STANDARD.as_bytes() => {}
            "x-amz-storage-class" => {
                return Err(error(
                    S3ErrorCode::InvalidStorageClass,
                    "The storage class you specified is not valid: there is STANDARD only",
                ));
            }
            "x-amz-object-ownership" if value == b"BucketOwnerEnforced" => {}
            "x-amz-bucket-object-lock-enabled" if value.eq_ignore_ascii_case(b"false") => {}
            "x-amz-tagging"
            | "x-amz-website-redirect-location"
            | "x-amz-write-offset-bytes"
            | "x-amz-object-ownership"
            | "x-amz-bucket-object-lock-enabled"
            | "x-amz-mfa" => return Err(not_implemented(name.as_str())),
            other
                if other.starts_with("x-amz-server-side-encryption")
                    || other.starts_with("x-amz-copy-source-server-side-encryption")
                    || other.starts_with("x-amz-object-lock-") =>
            {
                return Err(not_implemented(other));
            }
            _ => {}
        }
    }
    Ok(())
}

/// There is one version of an object: it is called `null`, as in every bucket without versioning.
pub(super) fn only_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(error(S3ErrorCode::NoSuchVersion, "The specified version does not exist.")),
    }
}

/// What the headers of a put say. User metadata comes decoded from s3s.
pub(super) fn of_request(headers: &HeaderMap, user: Option<Map<String, String>>) -> S3Result<Attributes> {
    let get = |name: HeaderName| text(headers, &name);
    let user: BTreeMap<String, String> = user.into_iter().flatten().collect();
    let attributes = Attributes {
        content_type: get(http::header::CONTENT_TYPE)?,
        content_encoding: get(http::header::CONTENT_ENCODING)?.and_then(|encoding| without_chunking(&encoding)),
        content_language: get(http::header::CONTENT_LANGUAGE)?,
        content_disposition: get(http::header::CONTENT_DISPOSITION)?,
        cache_control: get(http::header::CACHE_CONTROL)?,
        expires: get(http::header::EXPIRES)?,
        user,
        checksum: None,
    };
    // As they came, too: an encoded value may be longer than what it says.
    let raw: usize = headers
        .iter()
        .filter_map(|(name, value)| Some(name.as_str().strip_prefix(USER_PREFIX)?.len() + value.len()))
        .sum();
    if attributes.user_bytes().max(raw) > MAX_USER_METADATA_BYTES {
        return Err(error(
            S3ErrorCode::MetadataTooLarge,
            format!(
                "Your metadata headers exceed the maximum allowed metadata size of {MAX_USER_METADATA_BYTES} bytes"
            ),
        ));
    }
    Ok(attributes)
}

/// A header that is kept as text.
fn text(headers: &HeaderMap, name: &HeaderName) -> S3Result<Option<String>> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| error(S3ErrorCode::InvalidArgument, format!("the header {name} is no text")))?;
    Ok(Some(text.to_owned()))
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_chunking(encoding: &str) -> Option<String> {
    let kept: Vec<&str> =
        encoding.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// User metadata as s3s wants it.
pub(super) fn user(attributes: &Attributes) -> Option<Map<String, String>> {
    (!attributes.user.is_empty()).then(|| attributes.user.clone().into_iter().collect())
}

/// `Expires` as s3s wants it. One that is no date was refused when it was put.
pub(super) fn expires(attributes: &Attributes) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, attributes.expires.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn refused(name: &'static str, value: &str) -> Option<String> {
        refuse_unhonoured(&headers(&[(name, value)])).err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn what_would_not_be_done_is_refused() {
        assert_eq!(refused("x-amz-server-side-encryption", "AES256").as_deref(), Some("NotImplemented"));
        assert_eq!(refused("x-amz-server-side-encryption-customer-key", "x").as_deref(), Some("NotImplemented"));
        assert_eq!(refused("x-amz-object-lock-mode", "COMPLIANCE").as_deref(), Some("NotImplemented"));
        assert_eq!(refused("x-amz-tagging", "a=b").as_deref(), Some("NotImplemented"));
        assert_eq!(refused("x-amz-acl", "public-read").as_deref(), Some("AccessControlListNotSupported"));
        assert_eq!(refused("x-amz-grant-read", "id=x").as_deref(), Some("AccessControlListNotSupported"));
        assert_eq!(refused("x-amz-storage-class", "GLACIER").as_deref(), Some("InvalidStorageClass"));
    }

    #[test]
    fn what_clients_send_always_is_taken() {
        for (name, value) in [
            ("x-amz-acl", "private"),
            ("x-amz-acl", "bucket-owner-full-control"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-tagging", ""),
            ("x-amz-date", "20260101T000000Z"),
            ("content-type", "text/plain"),
        ] {
            assert_eq!(refused(name, value), None, "{name}: {value}");
        }
    }

    #[test]
    fn how_a_body_travelled_is_not_kept() {
        assert_eq!(without_chunking("aws-chunked"), None);
        assert_eq!(without_chunking("aws-chunked, gzip").as_deref(), Some("gzip"));
        assert_eq!(without_chunking("gzip").as_deref(), Some("gzip"));
    }

    #[test]
    fn user_metadata_is_bounded() {
        let long = "v".repeat(MAX_USER_METADATA_BYTES);
        let too_much = of_request(&headers(&[("x-amz-meta-k", &long)]), None).unwrap_err();
        assert_eq!(too_much.code(), &S3ErrorCode::MetadataTooLarge);
        let just = &long[1..];
        assert!(of_request(&headers(&[("x-amz-meta-k", just)]), None).is_ok());
    }
}

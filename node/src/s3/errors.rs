//! What goes wrong, as S3 says it: its code and status, and a message for the person at 3 a.m.
//!
//! Must never: tell "failed" when the outcome of a commit is unknown (that is a 500, after which a client asks or
//! retries); name paths, addresses or other buckets to a client.

use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::{S3Error, S3ErrorCode};

use super::frames::BadFrame;
use super::intake::Fault;
use super::limits::RETRY_AFTER_SECONDS;
use crate::gateway::GatewayError;

/// An error with a message.
pub(super) fn error(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, message)
}

/// An error of a code that s3s does not know, or gives another status than S3 does.
pub(super) fn custom(
    code: &'static str,
    status: StatusCode,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// An error after which the client is to pause: 503 with `Retry-After`.
pub(super) fn pause(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    let mut error = S3Error::with_message(code, message);
    let mut headers = HeaderMap::new();
    // s3s puts these in the place of its own.
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    error.set_headers(headers);
    error
}

/// S3 has no code for a store that is full: it never is. 507 is what HTTP calls it; a client that does not know the code
/// does not retry a status it does not know either, and the message says the rest.
fn full(message: String) -> S3Error {
    custom("InsufficientStorage", StatusCode::INSUFFICIENT_STORAGE, message)
}

/// The condition of a write does not hold.
pub(super) fn precondition_failed() -> S3Error {
    error(S3ErrorCode::PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// Something the client asks for would be taken and not be done.
pub(super) fn not_implemented(what: &str) -> S3Error {
    error(S3ErrorCode::NotImplemented, format!("{what} is not implemented here, and would silently not be honoured"))
}

/// The range lies outside of the object.
pub(super) fn invalid_range(size_bytes: u64) -> S3Error {
    let mut refused = error(
        S3ErrorCode::InvalidRange,
        format!("The requested range is not satisfiable: the object has {size_bytes} bytes"),
    );
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size_bytes}")) {
        headers.insert(http::header::CONTENT_RANGE, value);
    }
    refused.set_headers(headers);
    refused
}

/// The content is not what the signature covers.
pub(super) fn sha256_mismatch() -> S3Error {
    custom(
        "XAmzContentSHA256Mismatch",
        StatusCode::BAD_REQUEST,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )
}

/// What went wrong with the body of a request.
pub(super) fn of_fault(fault: Fault) -> S3Error {
    match fault {
        Fault::Broken => error(
            S3ErrorCode::IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        ),
        Fault::TooSlow => error(
            S3ErrorCode::RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period",
        ),
        Fault::Frame(bad @ (BadFrame::Malformed | BadFrame::NoEnd)) => {
            error(S3ErrorCode::IncompleteBody, bad.to_string())
        }
        Fault::Frame(bad @ BadFrame::TooLong(_)) => {
            custom("InvalidChunkSizeError", StatusCode::BAD_REQUEST, bad.to_string())
        }
    }
}

impl From<GatewayError> for S3Error {
    fn from(failed: GatewayError) -> Self {
        use GatewayError as E;
        let message = failed.to_string();
        match failed {
            E::BadName { what: "bucket name", .. } => error(S3ErrorCode::InvalidBucketName, message),
            E::BadName { ref name, .. } if name.chars().count() > 80 => error(S3ErrorCode::KeyTooLongError, message),
            E::BadName { .. } => error(S3ErrorCode::InvalidURI, message),
            E::BadCoding(_) | E::BadRequest(_) => error(S3ErrorCode::InvalidArgument, message),
            E::NoBucket(_) => error(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist"),
            E::BucketExists(_) => error(S3ErrorCode::BucketAlreadyExists, message),
            E::BucketNotEmpty(_) => error(S3ErrorCode::BucketNotEmpty, "The bucket you tried to delete is not empty"),
            E::Undecided(_) => error(S3ErrorCode::InternalError, message),
            E::NoObject { .. } => error(S3ErrorCode::NoSuchKey, "The specified key does not exist."),
            E::BadRange { size_bytes, .. } => invalid_range(size_bytes),
            E::Condition { .. } => precondition_failed(),
            E::NoUpload => error(
                S3ErrorCode::NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
            ),
            E::InvalidPart { number } => error(
                S3ErrorCode::InvalidPart,
                format!(
                    "One or more of the specified parts could not be found: part {number} was not uploaded, or its ETag is another"
                ),
            ),
            E::PartTooSmall { number } => error(
                S3ErrorCode::EntityTooSmall,
                format!("Your proposed upload is smaller than the minimum allowed size: part {number}"),
            ),
            E::TooLarge { what: "the user's metadata", .. } => error(S3ErrorCode::MetadataTooLarge, message),
            E::TooLarge { .. } => error(S3ErrorCode::EntityTooLarge, message),
            E::Quota { .. } => custom("QuotaExceeded", StatusCode::FORBIDDEN, message),
            E::Full(_) | E::MetadataFull(_) => full(message),
            E::TooFewDisks(_) => error(S3ErrorCode::InvalidRequest, message),
            E::Size { .. } => error(S3ErrorCode::IncompleteBody, message),
            // The door puts the precise reason in its place where it knows one.
            E::Body(_) => error(S3ErrorCode::IncompleteBody, message),
            E::Busy(_) => pause(S3ErrorCode::SlowDown, message),
            E::NoKey(_) => error(S3ErrorCode::InvalidAccessKeyId, message),
            // Nothing was stored: the same request may go well elsewhere, or in a moment.
            E::GivenUp(_)
            | E::TooFewHomes { .. }
            | E::NoPlace(_)
            | E::Unreadable { .. }
            | E::Meta(_)
            | E::TooSlow
            | E::Cancelled(_)
            | E::Locked(_) => pause(S3ErrorCode::ServiceUnavailable, message),
            // It may have happened. S3 says the same of its 500: retry, or look.
            E::Unknown(_) | E::Unexpected(_) | E::Checksum { .. } => error(S3ErrorCode::InternalError, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BucketName;

    fn said(failed: GatewayError) -> (String, u16) {
        let error = S3Error::from(failed);
        (error.code().as_str().to_owned(), error.status_code().unwrap().as_u16())
    }

    #[test]
    fn each_failure_has_the_code_of_s3() {
        let bucket = || BucketName::from("photos");
        let name = |what| GatewayError::BadName { what, name: "x".to_owned(), why: "it is empty" };
        let expected = [
            (name("bucket name"), "InvalidBucketName", 400),
            (GatewayError::NoBucket(bucket()), "NoSuchBucket", 404),
            (GatewayError::NoObject { bucket: bucket(), key: "k".to_owned() }, "NoSuchKey", 404),
            (GatewayError::BadRange { offset: 5, size_bytes: 3 }, "InvalidRange", 416),
            (GatewayError::Condition { at: None }, "PreconditionFailed", 412),
            (GatewayError::NoUpload, "NoSuchUpload", 404),
            (GatewayError::InvalidPart { number: 3 }, "InvalidPart", 400),
            (GatewayError::PartTooSmall { number: 3 }, "EntityTooSmall", 400),
            (GatewayError::BucketNotEmpty(bucket()), "BucketNotEmpty", 409),
            (GatewayError::Full("none".to_owned()), "InsufficientStorage", 507),
            (GatewayError::Busy(64), "SlowDown", 503),
            (GatewayError::Meta("no leader".to_owned()), "ServiceUnavailable", 503),
            (GatewayError::Locked("another changes it".to_owned()), "ServiceUnavailable", 503),
            (GatewayError::Unknown("lost".to_owned()), "InternalError", 500),
            (GatewayError::Checksum { expected: 1, got: 2 }, "InternalError", 500),
        ];
        for (failed, code, status) in expected {
            let shown = format!("{failed:?}");
            assert_eq!(said(failed), (code.to_owned(), status), "{shown}");
        }
    }

    #[test]
    fn who_is_to_come_again_is_told_when() {
        let error = S3Error::from(GatewayError::Busy(64));
        assert_eq!(error.headers().unwrap()[http::header::RETRY_AFTER], RETRY_AFTER_SECONDS);
    }
}

//! What s3s does not ask of a signed request, and S3 does. Pure. s3s checks the signature itself, the clock (15 minutes
//! both ways), the expiry of a presigned URL and the hash of the content; before it sees a request, this refuses:
//!
//! - signature version 2, which s3s takes without looking at its date: such a request could be replayed for ever;
//! - another service or region than ours in the scope of the signature;
//! - a header of S3's that the signature does not cover: whoever holds a presigned PUT could add
//!   `x-amz-copy-source` to it and read with the signer's rights what was never given to him;
//! - a signature that does not cover `Host`;
//! - presigned URLs that live longer than a week;
//! - two signatures at once, and session tokens (there are no sessions here).

use http::{HeaderMap, Uri};
use s3s::{S3Error, S3ErrorCode};

use super::text;

/// The longest a presigned URL may live: S3's figure.
const MAX_EXPIRES_SECONDS: u64 = 604_800;

/// The only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The only service.
const SERVICE: &str = "s3";

fn refuse(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, message)
}

/// How a request says who it is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Header,
    Query,
}

/// Looks at everything that can be judged before the key is known. A request without any signature passes: it is
/// refused by [`super::access`], as anonymous.
pub(super) fn check(headers: &HeaderMap, uri: &Uri, region: &str) -> Result<(), S3Error> {
    let query: Vec<(String, String)> = text::query_pairs(uri.query().unwrap_or_default()).collect();
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let header = match headers.get(http::header::AUTHORIZATION) {
        Some(value) => {
            let bad = |_| refuse(S3ErrorCode::AuthorizationHeaderMalformed, "the Authorization header is no text");
            Some(value.to_str().map_err(bad)?)
        }
        None => None,
    };
    if parameter("Signature").is_some() || header.is_some_and(|value| value.starts_with("AWS ")) {
        return Err(refuse(
            S3ErrorCode::InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        ));
    }
    if headers.contains_key("x-amz-security-token") || parameter("X-Amz-Security-Token").is_some() {
        return Err(refuse(
            S3ErrorCode::InvalidToken,
            "session tokens are not known here: sign with a key of `resilver key create`",
        ));
    }
    let signed_in_query = parameter("X-Amz-Signature").is_some();
    match (header, signed_in_query) {
        (None, false) => Ok(()),
        (Some(_), true) => Err(refuse(
            S3ErrorCode::InvalidArgument,
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the Authorization header should be specified",
        )),
        (Some(header), false) => {
            let malformed =
                || refuse(S3ErrorCode::AuthorizationHeaderMalformed, "the Authorization header is malformed");
            let (algorithm, rest) = header.split_once(' ').ok_or_else(malformed)?;
            if algorithm != ALGORITHM {
                return Err(refuse(S3ErrorCode::InvalidArgument, "Unsupported Authorization Type"));
            }
            let field = |name: &str| {
                rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).ok_or_else(malformed)
            };
            check_scope(field("Credential")?, region, Where::Header)?;
            check_signed_headers(headers, field("SignedHeaders")?, Where::Header)
        }
        (None, true) => {
            let need = |name: &str| {
                parameter(name).ok_or_else(|| {
                    refuse(
                        S3ErrorCode::AuthorizationQueryParametersError,
                        format!("Query-string authentication requires the {name} parameter"),
                    )
                })
            };
            check_expires(need("X-Amz-Expires")?)?;
            check_scope(need("X-Amz-Credential")?, region, Where::Query)?;
            check_signed_headers(headers, need("X-Amz-SignedHeaders")?, Where::Query)
        }
    }
}

fn check_expires(text: &str) -> Result<(), S3Error> {
    let refuse = |message: &'static str| refuse(S3ErrorCode::AuthorizationQueryParametersError, message);
    if text.starts_with('-') {
        return Err(refuse("X-Amz-Expires must be non-negative"));
    }
    let seconds: u64 = text.parse().map_err(|_| refuse("X-Amz-Expires should be a number"))?;
    if seconds > MAX_EXPIRES_SECONDS {
        return Err(refuse("X-Amz-Expires must be less than a week (in seconds): at most 604800"));
    }
    Ok(())
}

/// `key/date/region/service/aws4_request`.
fn check_scope(credential: &str, region: &str, place: Where) -> Result<(), S3Error> {
    let code = || match place {
        Where::Header => S3ErrorCode::AuthorizationHeaderMalformed,
        Where::Query => S3ErrorCode::AuthorizationQueryParametersError,
    };
    let mut parts = credential.rsplitn(5, '/');
    let (end, service, theirs) = (parts.next(), parts.next(), parts.next());
    if end != Some("aws4_request") || service != Some(SERVICE) || parts.count() != 2 {
        return Err(refuse(
            code(),
            "the credential is malformed; expecting \"<access key>/<YYYYMMDD>/<region>/s3/aws4_request\"",
        ));
    }
    match theirs {
        Some(theirs) if theirs == region => Ok(()),
        theirs => {
            Err(refuse(code(), format!("the region '{}' is wrong; expecting '{region}'", theirs.unwrap_or_default())))
        }
    }
}

fn check_signed_headers(headers: &HeaderMap, signed: &str, place: Where) -> Result<(), S3Error> {
    let signed: Vec<&str> = signed.split(';').collect();
    let unsigned = |name: &str| !signed.iter().any(|signed| signed.eq_ignore_ascii_case(name));
    // The hash of the content can only make a presigned request fail, and some clients add it.
    let harmless = |name: &str| place == Where::Query && name == "x-amz-content-sha256";
    let missing = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-") && !harmless(name))
        .chain(["host"])
        .find(|name| unsigned(name));
    match missing {
        None => Ok(()),
        Some(name) => Err(refuse(
            S3ErrorCode::AccessDenied,
            format!("There were headers present in the request which were not signed: {name}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "RSKEY/20260101/us-east-1/s3/aws4_request";

    fn code(result: Result<(), S3Error>) -> Option<S3ErrorCode> {
        result.err().map(|error| error.code().clone())
    }

    fn by_header(authorization: &str, extra: &[&'static str]) -> Option<S3ErrorCode> {
        let mut headers = HeaderMap::new();
        headers.insert("host", "localhost".parse().unwrap());
        headers.insert("authorization", authorization.parse().unwrap());
        for name in extra {
            headers.insert(*name, "x".parse().unwrap());
        }
        code(check(&headers, &"/b/k".parse().unwrap(), "us-east-1"))
    }

    fn header(scope: &str, signed: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={signed}, Signature=00")
    }

    fn by_query(query: &str, extra: &[&'static str]) -> Option<S3ErrorCode> {
        let mut headers = HeaderMap::new();
        for name in extra {
            headers.insert(*name, "x".parse().unwrap());
        }
        code(check(&headers, &format!("/b/k?{query}").parse().unwrap(), "us-east-1"))
    }

    #[test]
    fn a_proper_signature_passes() {
        assert_eq!(by_header(&header(SCOPE, "host;x-amz-date"), &["x-amz-date"]), None);
        assert_eq!(by_query("", &[]), None, "anonymous requests are refused elsewhere");
        let query = "X-Amz-Signature=0&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Credential=RSKEY%2F20260101%2Fus-east-1%2Fs3%2Faws4_request";
        assert_eq!(by_query(query, &["x-amz-content-sha256"]), None);
    }

    #[test]
    fn the_old_signature_is_refused_because_it_never_expires() {
        assert_eq!(by_header("AWS RSKEY:c2ln", &[]), Some(S3ErrorCode::InvalidRequest));
        assert_eq!(by_query("AWSAccessKeyId=RSKEY&Expires=1&Signature=x", &[]), Some(S3ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_header_of_s3_that_is_not_signed_is_refused() {
        let stolen = "X-Amz-Signature=0&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Credential=RSKEY/20260101/us-east-1/s3/aws4_request";
        assert_eq!(by_query(stolen, &["x-amz-copy-source"]), Some(S3ErrorCode::AccessDenied));
        assert_eq!(by_header(&header(SCOPE, "host"), &["x-amz-acl"]), Some(S3ErrorCode::AccessDenied));
        assert_eq!(by_header(&header(SCOPE, "x-amz-date"), &["x-amz-date"]), Some(S3ErrorCode::AccessDenied));
    }

    #[test]
    fn another_region_or_service_is_refused() {
        for scope in [
            "RSKEY/20260101/eu-west-1/s3/aws4_request",
            "RSKEY/20260101/us-east-1/sts/aws4_request",
            "RSKEY/20260101/us-east-1/s3/aws5_request",
            "20260101/us-east-1/s3/aws4_request",
            "",
        ] {
            let refused = by_header(&header(scope, "host"), &[]);
            assert_eq!(refused, Some(S3ErrorCode::AuthorizationHeaderMalformed), "{scope}");
        }
    }

    #[test]
    fn a_presigned_url_lives_a_week_at_most() {
        for expires in ["604801", "-1", "soon", "", "99999999999999999999999"] {
            let query =
                format!("X-Amz-Signature=0&X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Credential={SCOPE}");
            assert_eq!(by_query(&query, &[]), Some(S3ErrorCode::AuthorizationQueryParametersError), "{expires:?}");
        }
        assert_eq!(by_query("X-Amz-Signature=0", &[]), Some(S3ErrorCode::AuthorizationQueryParametersError));
    }

    #[test]
    fn one_signature_and_no_session() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", header(SCOPE, "host").parse().unwrap());
        let both = check(&headers, &"/?X-Amz-Signature=0".parse().unwrap(), "us-east-1");
        assert_eq!(code(both), Some(S3ErrorCode::InvalidArgument));
        assert_eq!(
            by_header(&header(SCOPE, "host;x-amz-security-token"), &["x-amz-security-token"]),
            Some(S3ErrorCode::InvalidToken)
        );
        assert_eq!(by_header("Bearer x", &[]), Some(S3ErrorCode::InvalidArgument));
        assert_eq!(by_header("Bearer", &[]), Some(S3ErrorCode::AuthorizationHeaderMalformed));
    }
}

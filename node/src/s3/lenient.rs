//! Headers that HTTP has a server pass over when they make no sense, and s3s makes an error of: a `Range` that is none or
//! several (RFC 9110, section 14.2), a date of a condition that is no date (section 13.1).
//!
//! They cannot be taken away before s3s sees the request, because the signature covers them. So a request with one of
//! them goes through s3s twice: the first time for its signature, then, without the header, for its answer.

use async_trait::async_trait;
use http::{Extensions, HeaderMap, HeaderName, Method, Request, Uri};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3ErrorCode, S3Request, S3Response, S3Result};

use super::errors::error;
use super::{ranges, text};

/// Whom a request is from, found out the first time. Only [`Lenient`] makes one.
#[derive(Clone, Debug)]
pub(super) struct Verified(pub(super) String);

/// Takes the requests with a header to pass over, once their signature was found right.
pub(super) struct Lenient {
    /// The same service without this.
    pub(super) strict: S3Service,
}

/// The headers of a read that are passed over.
fn passed_over(method: &Method, headers: &HeaderMap) -> Vec<HeaderName> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Vec::new();
    }
    let no_range = |value: &str| ranges::is_ignored(value);
    let no_date = |value: &str| Timestamp::parse(TimestampFormat::HttpDate, value).is_err();
    let nonsense = |name: &HeaderName| {
        let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return false };
        let Ok(value) = value.to_str() else { return true };
        if *name == http::header::RANGE { no_range(value) } else { no_date(value) }
    };
    [http::header::RANGE, http::header::IF_MODIFIED_SINCE, http::header::IF_UNMODIFIED_SINCE]
        .into_iter()
        .filter(nonsense)
        .collect()
}

/// The target without the signature in it.
fn unsigned(uri: &Uri) -> Option<Uri> {
    let kept: Vec<&str> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty())
        .filter(|part| !text::query_pairs(part).any(|(name, _)| name.starts_with("X-Amz-")))
        .collect();
    let path = uri.path();
    if kept.is_empty() { path.parse().ok() } else { format!("{path}?{}", kept.join("&")).parse().ok() }
}

#[async_trait]
impl S3Route for Lenient {
    fn is_match(&self, method: &Method, _: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        !passed_over(method, headers).is_empty()
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let lost = || error(S3ErrorCode::InternalError, "the request could not be read a second time");
        let id = request.credentials.map(|credentials| credentials.access_key).ok_or_else(lost)?;
        let mut again = Request::new(request.input);
        *again.uri_mut() = unsigned(&request.uri).ok_or_else(lost)?;
        *again.headers_mut() = request.headers;
        for name in passed_over(&request.method, again.headers()) {
            again.headers_mut().remove(name);
        }
        again.headers_mut().remove(http::header::AUTHORIZATION);
        *again.method_mut() = request.method;
        *again.extensions_mut() = request.extensions;
        again.extensions_mut().insert(Verified(id));
        let answer = self.strict.call(again).await.map_err(|_| lost())?;
        let (parts, body) = answer.into_parts();
        let mut response = S3Response::with_status(body, parts.status);
        response.headers = parts.headers;
        response.extensions = parts.extensions;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(method: Method, headers: &[(&'static str, &str)]) -> Vec<String> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        passed_over(&method, &headers.collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_nonsense_is_passed_over_and_only_when_reading() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert!(names(Method::GET, &[("range", "bytes=0-1"), ("if-modified-since", date)]).is_empty());
        assert_eq!(names(Method::GET, &[("range", "bytes=1-0")]), ["range"]);
        assert_eq!(names(Method::HEAD, &[("if-unmodified-since", "yesterday")]), ["if-unmodified-since"]);
        assert!(names(Method::PUT, &[("range", "bytes=1-0")]).is_empty());
    }

    #[test]
    fn a_target_loses_its_signature_and_nothing_else() {
        let uri = "/b/k%20l?X-Amz-Signature=1&partNumber=2&X-Amz-Date=3&response-content-type=a%2Fb".parse().unwrap();
        assert_eq!(unsigned(&uri).unwrap(), "/b/k%20l?partNumber=2&response-content-type=a%2Fb");
        assert_eq!(unsigned(&"/b/k?X-Amz-Signature=1".parse().unwrap()).unwrap(), "/b/k");
    }
}

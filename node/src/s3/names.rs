//! Which buckets there can be, and which bucket a `Host` header names. Pure.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};
use s3s::validation::{AwsNameValidation, NameValidation};

use crate::gateway::{RESERVED_PREFIX, check_bucket_name};
use crate::types::BucketName;

/// Taken by the path that load balancers ask: a bucket of this name could not be listed.
const HEALTH: &str = "health";

/// Whether clients may have a bucket of this name.
pub(super) fn allowed(name: &str) -> bool {
    AwsNameValidation::new().validate_bucket_name(name)
        && check_bucket_name(&BucketName::from(name)).is_ok()
        && !name.starts_with(RESERVED_PREFIX)
        && name != HEALTH
}

/// For s3s: whatever the operation, a name that is not allowed gets no further.
pub(super) struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        allowed(name)
    }
}

/// Finds the bucket in a `Host` header: `bucket.domain`. Any other host (the domain itself, an address, a name of a load
/// balancer) is path style.
#[derive(Clone, Debug)]
pub(super) struct Domain(String);

impl Domain {
    pub(super) fn new(domain: &str) -> Self {
        Self(domain.trim_matches('.').to_ascii_lowercase())
    }

    /// The bucket in front of the domain.
    pub(super) fn bucket(&self, host: &str) -> Option<String> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let bucket = name.strip_suffix(&self.0)?.strip_suffix('.')?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }
}

impl S3Host for Domain {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let virtual_host = VirtualHost::new(self.0.as_str());
        Ok(match self.bucket(host) {
            Some(bucket) => virtual_host.with_bucket(bucket),
            None => virtual_host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_names_are_not_for_clients() {
        for good in ["abc", "my.bucket-1", "healthy"] {
            assert!(allowed(good), "{good}");
        }
        for bad in ["health", "resilver.uploads", "resilver.", "ab", "Abc", "192.168.1.1", "xn--abc", "a..b", "a_b"] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_bucket_stands_before_the_domain() {
        let domain = Domain::new("S3.example.com");
        let found = |host: &str| domain.bucket(host);
        assert_eq!(found("photos.s3.example.com"), Some("photos".to_owned()));
        assert_eq!(found("my.photos.S3.Example.com:9000"), Some("my.photos".to_owned()));
        for path_style in [
            "s3.example.com",
            "s3.example.com:9000",
            "localhost:9000",
            "localhost",
            "127.0.0.1:9000",
            "xs3.example.com",
            "[::1]:9000",
            "",
        ] {
            assert_eq!(found(path_style), None, "{path_style}");
        }
    }
}

//! Which bytes of an object a request is about. Pure.

use s3s::dto::Range;

use crate::model::PartRecord;

/// A run of bytes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Span {
    /// All of it.
    pub(super) fn whole(size_bytes: u64) -> Self {
        Self { offset: 0, length: size_bytes }
    }

    /// The `Content-Range` of an answer with these bytes of an object of this size.
    pub(super) fn content_range(self, size_bytes: u64) -> String {
        format!("bytes {}-{}/{size_bytes}", self.offset, (self.offset + self.length).saturating_sub(1))
    }
}

/// The range lies outside of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsatisfiable;

/// The bytes a `Range` header asks for. What reaches past the end is cut there (RFC 9110, section 14.1.2).
pub(super) fn resolve(range: Range, size_bytes: u64) -> Result<Span, Unsatisfiable> {
    match range {
        Range::Int { first, last } => {
            if first >= size_bytes || last.is_some_and(|last| last < first) {
                return Err(Unsatisfiable);
            }
            let last = last.map_or(size_bytes - 1, |last| last.min(size_bytes - 1));
            Ok(Span { offset: first, length: last - first + 1 })
        }
        Range::Suffix { length } => {
            if length == 0 || size_bytes == 0 {
                return Err(Unsatisfiable);
            }
            let length = length.min(size_bytes);
            Ok(Span { offset: size_bytes - length, length })
        }
    }
}

/// The range of `x-amz-copy-source-range`: both ends named, and inside of the source (S3's rule, stricter than `Range`).
pub(super) fn resolve_copy(header: &str, size_bytes: u64) -> Result<Span, Unsatisfiable> {
    match Range::parse(header) {
        Ok(range @ Range::Int { last: Some(last), .. }) if last < size_bytes => resolve(range, size_bytes),
        _ => Err(Unsatisfiable),
    }
}

/// The bytes of one part. An object that was put as a whole is its own first part.
pub(super) fn of_part(parts: &[PartRecord], number: u16, size_bytes: u64) -> Result<Span, Unsatisfiable> {
    if parts.is_empty() {
        return if number == 1 { Ok(Span::whole(size_bytes)) } else { Err(Unsatisfiable) };
    }
    let mut offset = 0;
    // S3 counts the parts of a finished object from 1, whatever numbers they were uploaded under.
    for (place, part) in (1u16..).zip(parts) {
        if place == number {
            return Ok(Span { offset, length: part.size_bytes });
        }
        offset += part.size_bytes;
    }
    Err(Unsatisfiable)
}

/// What s3s makes an error of and S3 passes over: a `Range` that is none, or several ranges at once (RFC 9110, section
/// 14.2: ignored).
pub(super) fn is_ignored(header: &str) -> bool {
    Range::parse(header).is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(header: &str, size: u64) -> Option<(u64, u64)> {
        resolve(Range::parse(header).unwrap(), size).ok().map(|span| (span.offset, span.length))
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        assert_eq!(span("bytes=0-0", 10), Some((0, 1)));
        assert_eq!(span("bytes=0-", 10), Some((0, 10)));
        assert_eq!(span("bytes=9-", 10), Some((9, 1)));
        assert_eq!(span("bytes=5-100", 10), Some((5, 5)));
        assert_eq!(span("bytes=-3", 10), Some((7, 3)));
        assert_eq!(span("bytes=-100", 10), Some((0, 10)));
        for outside in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(span(outside, 10), None, "{outside}");
        }
        for of_nothing in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(span(of_nothing, 0), None, "{of_nothing}");
        }
    }

    #[test]
    fn a_range_to_copy_lies_within_its_source() {
        assert_eq!(resolve_copy("bytes=0-9", 10), Ok(Span::whole(10)));
        for bad in ["bytes=0-10", "bytes=0-", "bytes=-5", "bytes=5-4", "0-9", ""] {
            assert_eq!(resolve_copy(bad, 10), Err(Unsatisfiable), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        for nonsense in ["", "bytes", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=--1"] {
            assert!(is_ignored(nonsense), "{nonsense:?}");
        }
        assert!(!is_ignored("bytes=0-1"));
    }

    #[test]
    fn parts_lie_one_after_the_other() {
        let part = |number, size_bytes| PartRecord { number, size_bytes, checksum: None };
        let parts = [part(3, 10), part(7, 20), part(8, 5)];
        assert_eq!(of_part(&parts, 1, 35), Ok(Span { offset: 0, length: 10 }));
        assert_eq!(of_part(&parts, 3, 35), Ok(Span { offset: 30, length: 5 }));
        assert_eq!(of_part(&parts, 4, 35), Err(Unsatisfiable));
        assert_eq!(of_part(&[], 1, 35), Ok(Span::whole(35)));
        assert_eq!(of_part(&[], 2, 35), Err(Unsatisfiable));
    }

    proptest! {
        #[test]
        fn a_resolved_range_is_inside_and_not_empty(first: u64, last: Option<u64>, suffix: u64, size: u64) {
            for range in [Range::Int { first, last }, Range::Suffix { length: suffix }] {
                if let Ok(span) = resolve(range, size) {
                    prop_assert!(span.length > 0);
                    prop_assert!(span.offset.checked_add(span.length).is_some_and(|end| end <= size));
                }
            }
        }
    }
}

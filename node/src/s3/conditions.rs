//! `If-Match` and its kin. Pure: what a read demands is judged here, what a write demands is translated here and judged
//! when the commit is applied ([`crate::model::Condition`]).

use s3s::dto::{ETagCondition, Timestamp};

use crate::model::{Condition, ETag, ObjectRecord};

/// What a read demands.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer.
    Go,
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
}

/// When an object was modified, as HTTP says it: in whole seconds. Compared as it is told, so that what a client was
/// given as `Last-Modified` is never "modified since".
pub(super) fn last_modified(modified_ms: u64) -> Timestamp {
    Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified_ms / 1000))
}

/// A moment as the XML of listings says it, to the millisecond.
pub(super) fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms))
}

/// Whether an `ETag` that a client sent names this one. A client's weak or odd tag is compared by its text.
pub(super) fn same(theirs: &s3s::dto::ETag, ours: &ETag) -> bool {
    theirs.value().eq_ignore_ascii_case(&ours.to_string())
}

fn holds(condition: &ETagCondition, etag: &ETag) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(theirs) => same(theirs, etag),
    }
}

impl ReadConditions {
    /// Judges, in the order of RFC 9110, section 13.2.2: a condition on the tag silences the one on the date beside it.
    pub(super) fn judge(&self, etag: &ETag, modified_ms: u64) -> Verdict {
        let modified = last_modified(modified_ms);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !holds(condition, etag) => return Verdict::Failed,
            (None, Some(since)) if modified > *since => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if holds(condition, etag) => Verdict::NotModified,
            (None, Some(since)) if modified <= *since => Verdict::NotModified,
            _ => Verdict::Go,
        }
    }

    /// The same for an object.
    pub(super) fn judge_object(&self, record: &ObjectRecord) -> Verdict {
        self.judge(&record.etag, record.modified_ms)
    }
}

/// Why a demand of a write is refused before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCondition {
    /// Both kinds at once: S3 does not define it.
    Both,
    /// A tag no object here can have: the demand cannot hold.
    Never,
}

/// What a write demands.
pub(super) fn of_write(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> Result<Condition, BadCondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (Some(_), Some(_)) => Err(BadCondition::Both),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => {
            etag.value().parse().map(Condition::ETag).map_err(|_| BadCondition::Never)
        }
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        // A tag that no object can have is matched by none: nothing is demanded.
        (None, Some(ETagCondition::ETag(etag))) => Ok(etag.value().parse().map_or(Condition::None, Condition::NotETag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: &str = "5d41402abc4b2a76b9719d911017c592";
    const OTHER: &str = "00000000000000000000000000000000";
    const AT_MS: u64 = 1_700_000_000_750;

    fn tag(text: &str) -> Option<ETagCondition> {
        Some(ETagCondition::ETag(s3s::dto::ETag::Strong(text.to_owned())))
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        let at = AT_MS as i64 / 1000 + seconds;
        Some(Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at as u64)))
    }

    fn judge(conditions: ReadConditions) -> Verdict {
        conditions.judge(&HELD.parse().unwrap(), AT_MS)
    }

    #[test]
    fn each_condition_alone() {
        let none = ReadConditions::default;
        assert_eq!(judge(none()), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_match: tag(HELD), ..none() }), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_match: tag(OTHER), ..none() }), Verdict::Failed);
        assert_eq!(judge(ReadConditions { if_match: Some(ETagCondition::Any), ..none() }), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_none_match: tag(HELD), ..none() }), Verdict::NotModified);
        assert_eq!(judge(ReadConditions { if_none_match: tag(OTHER), ..none() }), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_modified_since: at(0), ..none() }), Verdict::NotModified);
        assert_eq!(judge(ReadConditions { if_modified_since: at(-1), ..none() }), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_unmodified_since: at(0), ..none() }), Verdict::Go);
        assert_eq!(judge(ReadConditions { if_unmodified_since: at(-1), ..none() }), Verdict::Failed);
    }

    #[test]
    fn the_tag_counts_more_than_the_date() {
        // S3's own examples.
        let fresh = ReadConditions { if_match: tag(HELD), if_unmodified_since: at(-9), ..ReadConditions::default() };
        assert_eq!(judge(fresh), Verdict::Go);
        let known = ReadConditions { if_none_match: tag(HELD), if_modified_since: at(-9), ..ReadConditions::default() };
        assert_eq!(judge(known), Verdict::NotModified);
        let changed =
            ReadConditions { if_none_match: tag(OTHER), if_modified_since: at(9), ..ReadConditions::default() };
        assert_eq!(judge(changed), Verdict::Go);
    }

    #[test]
    fn writes_demand_what_the_headers_say() {
        let any = ETagCondition::Any;
        let held = tag(HELD).unwrap();
        let odd = tag("not-ours").unwrap();
        let etag: ETag = HELD.parse().unwrap();
        assert_eq!(of_write(None, None), Ok(Condition::None));
        assert_eq!(of_write(Some(&any), None), Ok(Condition::Present));
        assert_eq!(of_write(None, Some(&any)), Ok(Condition::Absent));
        assert_eq!(of_write(Some(&held), None), Ok(Condition::ETag(etag)));
        assert_eq!(of_write(None, Some(&held)), Ok(Condition::NotETag(etag)));
        assert_eq!(of_write(Some(&odd), None), Err(BadCondition::Never));
        assert_eq!(of_write(None, Some(&odd)), Ok(Condition::None));
        assert_eq!(of_write(Some(&held), Some(&any)), Err(BadCondition::Both));
    }
}

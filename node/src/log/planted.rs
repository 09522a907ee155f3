//! The mistake that `Bug::TruncateAtBadRecord` plants: an unreadable record anywhere is taken for a torn tail. Only in
//! builds with the feature `planted-bugs`.

use std::path::Path;

use resilver_host::Disk;
use resilver_host::planted::{Bug, bug};

use super::error::LogError;
use super::header::Header;
use super::record::Chain;
use super::segment::{SEGMENT_HEAD_BYTES, Segment};

/// The header, cut at the first bad record if the bug is planted.
pub(super) async fn cut_at_bad_record(disk: &dyn Disk, dir: &Path, mut header: Header) -> Result<Header, LogError> {
    if !bug(Bug::TruncateAtBadRecord) {
        return Ok(header);
    }
    for id in header.first_segment..header.next_segment {
        let last = id + 1 == header.next_segment;
        let segment = Segment::open(disk, dir, id).await?;
        let until = if last { header.next } else { Segment::open(disk, dir, id + 1).await?.head.first };
        let end = if last { header.end_offset } else { segment.head.size_bytes };
        let bytes = segment.read(SEGMENT_HEAD_BYTES, end).await?;
        let mut chain = Chain {
            path: &segment.path,
            bytes: &bytes,
            base: SEGMENT_HEAD_BYTES,
            offset: SEGMENT_HEAD_BYTES,
            index: segment.head.first,
            chain: segment.head.seed(),
        };
        while chain.index < until {
            if chain.step().is_err() {
                header.next = chain.index.max(header.first);
                header.next_segment = id + 1;
                header.end_offset = chain.offset;
                header.chain = chain.chain;
                return Ok(header);
            }
        }
    }
    Ok(header)
}

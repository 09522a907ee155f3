//! Answers in the kernel's terms: attributes, times, and what a request came to.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyDirectory,
    ReplyEntry, ReplyOpen, ReplyStatfs, TimeOrNow,
};
use rustix::fs::{StatVfs, Timespec, UTIME_NOW, UTIME_OMIT};

use super::names::ROOT;

/// How long the kernel may keep what it was told: not at all.
const NOT_KEPT: Duration = Duration::ZERO;

/// Of numbers, which are never given twice.
const ONLY_ONE: Generation = Generation(0);

pub(super) fn attributes(number: u64, found: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(found.file_type()).unwrap_or(FileType::RegularFile),
        perm: (found.mode() & 0o7777) as u16,
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: u32::try_from(found.blksize()).unwrap_or(u32::MAX),
        flags: 0,
    }
}

/// Times before 1970 are shown as its beginning.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0))
}

pub(super) fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: since.subsec_nanos().into() }
        }
    }
}

pub(super) fn entry(reply: ReplyEntry, found: io::Result<(u64, Metadata)>) {
    match found {
        Ok((number, found)) => reply.entry(&NOT_KEPT, &attributes(number, &found), ONLY_ONE),
        Err(error) => reply.error(error.into()),
    }
}

pub(super) fn changed(reply: ReplyAttr, found: io::Result<FileAttr>) {
    match found {
        Ok(found) => reply.attr(&NOT_KEPT, &found),
        Err(error) => reply.error(error.into()),
    }
}

pub(super) fn opened(reply: ReplyOpen, handle: io::Result<u64>, flags: FopenFlags) {
    match handle {
        Ok(handle) => reply.opened(FileHandle(handle), flags),
        Err(error) => reply.error(error.into()),
    }
}

pub(super) fn created(reply: ReplyCreate, created: io::Result<(u64, Metadata, u64)>) {
    match created {
        Ok((number, found, handle)) => {
            let found = attributes(number, &found);
            reply.created(&NOT_KEPT, &found, ONLY_ONE, FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
        }
        Err(error) => reply.error(error.into()),
    }
}

/// As many entries as the answer holds; the kernel asks again for those after it.
pub(super) fn listed(mut reply: ReplyDirectory, from: u64, listed: io::Result<Vec<(std::fs::FileType, OsString)>>) {
    match listed {
        Ok(entries) => {
            for (next, (kind, name)) in (from + 1..).zip(entries) {
                let kind = FileType::from_std(kind).unwrap_or(FileType::RegularFile);
                // The number of a name is told when it is looked up; here any but zero will do.
                if reply.add(INodeNo(ROOT), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(error.into()),
    }
}

pub(super) fn room(reply: ReplyStatfs, room: io::Result<StatVfs>) {
    match room {
        Ok(room) => reply.statfs(
            room.f_blocks,
            room.f_bfree,
            room.f_bavail,
            room.f_files,
            room.f_ffree,
            u32::try_from(room.f_bsize).unwrap_or(u32::MAX),
            u32::try_from(room.f_namemax).unwrap_or(u32::MAX),
            u32::try_from(room.f_frsize).unwrap_or(u32::MAX),
        ),
        Err(error) => reply.error(error.into()),
    }
}

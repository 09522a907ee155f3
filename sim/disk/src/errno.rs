//! Errors of Linux by their numbers, so that the code under test sees the kinds and raw codes it would really see.

use std::io;

pub(crate) const EIO: i32 = 5;
pub(crate) const EBADF: i32 = 9;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EXDEV: i32 = 18;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EFBIG: i32 = 27;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const ESTALE: i32 = 116;

/// The error of that number.
pub(crate) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The device answers nothing until it is mended.
    Hung,
    /// The device is not there.
    Vanished,
    /// The operation failed.
    Error(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

/// A refusal by number.
pub(crate) fn refuse<T>(number: i32) -> Result<T, Refusal> {
    Err(Refusal::Error(errno(number)))
}

//! What open files do: reading, writing, making durable, and the room it takes.
//!
//! Owns: the effects of an open file's operations, faults included. Must never: wait; a hung device is told.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use resilver_host::OpenMode;

use crate::device::{Access, DeviceId};
use crate::errno::{EBADF, EFBIG, EINVAL, ENOSPC, EROFS, ESTALE, Refusal, refuse};
use crate::inode::{Change, FileData, InodeId};
use crate::pages::PAGE_BYTES;
use crate::state::State;
use crate::tree::names;

/// The longest file, as on ext4 with its usual blocks.
const FILE_BYTES: u64 = (1 << 44) - PAGE_BYTES;

/// An open file.
#[derive(Debug)]
pub(crate) struct Token {
    inode: InodeId,
    device: DeviceId,
    generation: u64,
    pub(crate) path: PathBuf,
    writable: bool,
}

impl State {
    pub(crate) fn open_file(&mut self, path: &Path, mode: OpenMode) -> Result<Token, Refusal> {
        let names = names(path);
        let device = self.device_of(&names);
        self.device(device).admit(Access::Look, path)?;
        if self.would_create(&names, mode) {
            self.admit_entry(device, path)?;
        }
        let writable = mode != OpenMode::Read;
        let inode = self.open(&names, mode)?;
        if writable && self.device(device).is_read_only() {
            return refuse(EROFS);
        }
        self.opened(inode);
        let generation = self.device(device).generation;
        Ok(Token { inode, device, generation, path: path.to_owned(), writable })
    }

    /// Whether a new entry may be made: a change, and one that needs room.
    pub(crate) fn admit_entry(&mut self, device: DeviceId, path: &Path) -> Result<(), Refusal> {
        let device = self.device(device);
        device.admit(Access::Change, path)?;
        if device.room_pages() == 0 { refuse(ENOSPC) } else { Ok(()) }
    }

    pub(crate) fn close_file(&mut self, token: &Token) {
        if self.device(token.device).generation == token.generation {
            self.closed(token.inode);
        }
    }

    fn admit(&mut self, token: &Token, access: Access) -> Result<&mut FileData, Refusal> {
        self.admit_known(token)?;
        self.device(token.device).admit(access, &token.path)?;
        self.admit_known(token)
    }

    /// The file of a handle that has not become stale.
    fn admit_known(&mut self, token: &Token) -> Result<&mut FileData, Refusal> {
        if self.device(token.device).generation != token.generation {
            return refuse(ESTALE);
        }
        self.file_mut(token.inode).map_or_else(|| refuse(ESTALE), Ok)
    }

    pub(crate) fn len(&mut self, token: &Token) -> Result<u64, Refusal> {
        Ok(self.admit(token, Access::Look)?.visible.len_bytes())
    }

    pub(crate) fn read(&mut self, token: &Token, offset: u64, len: usize) -> Result<Vec<u8>, Refusal> {
        if len == 0 {
            return Ok(Vec::new());
        }
        if offset > i64::MAX as u64 {
            return refuse(EINVAL);
        }
        Ok(self.admit(token, Access::Read)?.visible.read(offset, len))
    }

    /// Writes what finds room; the error is then still told.
    pub(crate) fn write(&mut self, token: &Token, offset: u64, mut data: Bytes) -> Result<(), Refusal> {
        if data.is_empty() {
            // Nothing to ask the system for; so with a read.
            return Ok(());
        }
        if offset > i64::MAX as u64 {
            return refuse(EINVAL);
        }
        let file = self.admit(token, Access::Look)?;
        if !token.writable {
            return refuse(EBADF);
        }
        check_end(offset, data.len() as u64)?;
        let len = file.visible.len_bytes();
        self.admit(token, Access::Change)?;
        if self.goes_astray(token.device, token.inode, &token.path, offset, &data) {
            // The length is the file system's own note, and that one went where it should.
            if offset + data.len() as u64 > len {
                self.change(token.inode, Change::SetLen(offset + data.len() as u64));
            }
            return Ok(());
        }
        let room_pages = self.device(token.device).room_pages();
        let wanted = data.len();
        let fitting = self.file(token.inode).map_or(0, |file| file.visible.fitting(offset, wanted, room_pages));
        data.truncate(fitting);
        if !data.is_empty() {
            self.change(token.inode, Change::Write { offset, data });
        }
        if fitting < wanted { refuse(ENOSPC) } else { Ok(()) }
    }

    pub(crate) fn set_len(&mut self, token: &Token, len_bytes: u64) -> Result<(), Refusal> {
        if len_bytes > i64::MAX as u64 {
            // The standard library tells this by itself, without a number.
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        self.admit(token, Access::Look)?;
        if !token.writable {
            return refuse(EINVAL);
        }
        check_end(0, len_bytes)?;
        self.admit(token, Access::Change)?;
        self.change(token.inode, Change::SetLen(len_bytes));
        Ok(())
    }

    pub(crate) fn allocate(&mut self, token: &Token, len_bytes: u64, grow: bool) -> Result<(), Refusal> {
        if len_bytes == 0 {
            return Ok(());
        }
        if len_bytes > i64::MAX as u64 {
            return refuse(EINVAL);
        }
        let missing = self.admit(token, Access::Look)?.visible.missing_pages(0, len_bytes);
        if !token.writable {
            return refuse(EBADF);
        }
        check_end(0, len_bytes)?;
        self.admit(token, Access::Change)?;
        if missing > self.device(token.device).room_pages() {
            return refuse(ENOSPC);
        }
        self.change(token.inode, Change::Reserve { len_bytes, grow });
        Ok(())
    }

    /// Makes the file's data and length durable; or fails, and then what was unsynced never will be.
    pub(crate) fn sync(&mut self, token: &Token) -> Result<(), Refusal> {
        let dirty = !self.admit_known(token)?.pending.is_empty();
        let admitted = self.device(token.device).admit_sync(&token.path, dirty);
        let Some(file) = self.file_mut(token.inode) else { return refuse(ESTALE) };
        match &admitted {
            Ok(()) => file.sync(),
            Err(Refusal::Hung) => {}
            Err(_) => file.forget_unsynced(),
        }
        admitted
    }

    /// Bytes a sync of the file would have to write.
    pub(crate) fn unsynced_bytes(&self, token: &Token) -> usize {
        self.file(token.inode).map_or(0, FileData::unsynced_bytes)
    }

    /// Changes a file that is linked or open, and keeps count of the room.
    pub(crate) fn change(&mut self, id: InodeId, change: Change) {
        let Some(inode) = self.inodes.get_mut(&id) else { return };
        let device = inode.device;
        if let crate::inode::Node::File(file) = &mut inode.node {
            let before = file.visible.room_pages();
            file.change(change);
            let after = file.visible.room_pages();
            self.device(device).charge(before, after);
        }
    }
}

fn check_end(offset: u64, len: u64) -> Result<(), Refusal> {
    if offset.saturating_add(len) > FILE_BYTES { refuse(EFBIG) } else { Ok(()) }
}

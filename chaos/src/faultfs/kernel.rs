//! What the kernel asks and is answered: each request goes through the gate, is done to the volume, and answered.
//!
//! Must never: let the kernel keep anything for later. Names, attributes and pages are asked for every time, because what
//! is answered from a cache cannot fail.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags, Timestamps};
use rustix::io::Errno;

use super::answers;
use super::gate::Gate;
use super::rules::Kind;
use super::volume::{Changes, Volume};

/// The largest write in one request, and with it the memory that each thread touches. What the kernel makes of a larger
/// one is several requests.
const MAX_WRITE_BYTES: u32 = 1024 * 1024;

/// The file system as the kernel meets it.
pub(super) struct Kernel {
    pub(super) gate: Arc<Gate>,
    pub(super) volume: Arc<Volume>,
}

impl Kernel {
    /// Has a request pass the gate, be done, and be answered.
    fn pass<R: Send + 'static, T>(
        &self,
        kind: Kind,
        reply: R,
        work: impl FnOnce(&Volume) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, io::Result<T>) + Send + 'static,
    ) {
        let volume = Arc::clone(&self.volume);
        self.gate.pass(kind, move |verdict| answer(reply, verdict.and_then(|()| work(&volume))));
    }

    fn pass_empty(&self, kind: Kind, reply: ReplyEmpty, work: impl FnOnce(&Volume) -> io::Result<()> + Send + 'static) {
        self.pass(kind, reply, work, |reply, done| match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        });
    }
}

impl Filesystem for Kernel {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // With it, one lookup or listing of a folder that hangs does not hold up the others.
        let _ = config.add_capabilities(fuser::InitFlags::FUSE_PARALLEL_DIROPS);
        config.set_max_write(MAX_WRITE_BYTES).map_err(|_| Errno::INVAL)?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answers::entry(reply, self.volume.look_up(parent.0, name));
    }

    fn forget(&self, _request: &Request, number: INodeNo, times: u64) {
        self.volume.forget(number.0, times);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.volume.metadata(number.0, handle.map(|handle| handle.0));
        answers::changed(reply, found.map(|found| answers::attributes(number.0, &found)));
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        len_bytes: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.is_some() || mtime.is_some())
            .then(|| Timestamps { last_access: answers::timespec(atime), last_modification: answers::timespec(mtime) });
        let changes = Changes { mode, uid, gid, len_bytes, times };
        let changing = move |volume: &Volume| {
            let found = volume.change(number.0, handle.map(|handle| handle.0), &changes)?;
            Ok(answers::attributes(number.0, &found))
        };
        self.pass(Kind::Change, reply, changing, answers::changed);
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        self.pass(Kind::Change, reply, move |volume| volume.make_folder(parent.0, &name, mode), answers::entry);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.pass_empty(Kind::Change, reply, move |volume| volume.remove(parent.0, &name, false));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.pass_empty(Kind::Change, reply, move |volume| volume.remove(parent.0, &name, true));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        self.pass_empty(Kind::Change, reply, move |volume| {
            volume.rename((parent.0, &name), (new_parent.0, &new_name), flags)
        });
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlags::from_bits_retain(flags.0 as u32);
        let opening = move |volume: &Volume| volume.open(number.0, flags);
        self.pass(Kind::Open, reply, opening, |reply, opened| {
            answers::opened(reply, opened, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        let flags = OFlags::from_bits_retain(flags as u32);
        let creating = move |volume: &Volume| volume.create(parent.0, &name, mode, flags);
        self.pass(Kind::Change, reply, creating, answers::created);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let reading = move |volume: &Volume| volume.read(handle.0, offset, len as usize);
        self.pass(Kind::Read, reply, reading, |reply: ReplyData, read| match read {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        });
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        // No longer than the largest write, which fits.
        let len = data.len() as u32;
        let writing = move |volume: &Volume| volume.write(handle.0, offset, &data);
        self.pass(Kind::Write, reply, writing, move |reply: ReplyWrite, written| match written {
            Ok(()) => reply.written(len),
            Err(error) => reply.error(error.into()),
        });
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        self.pass_empty(Kind::Change, reply, move |volume| volume.allocate(handle.0, mode, offset, len));
    }

    fn fsync(&self, _request: &Request, _number: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.pass_empty(Kind::Sync, reply, move |volume| volume.sync(handle.0, data_only));
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.volume.close(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opening = move |volume: &Volume| volume.open_folder(number.0);
        self.pass(Kind::Open, reply, opening, |reply, opened| answers::opened(reply, opened, FopenFlags::empty()));
    }

    fn readdir(&self, _request: &Request, _number: INodeNo, handle: FileHandle, from: u64, reply: ReplyDirectory) {
        let listing = move |volume: &Volume| volume.list(handle.0, from);
        self.pass(Kind::Read, reply, listing, move |reply, listed| answers::listed(reply, from, listed));
    }

    fn fsyncdir(&self, _request: &Request, _number: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.pass_empty(Kind::Sync, reply, move |volume| volume.sync(handle.0, data_only));
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.volume.close(handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        answers::room(reply, self.volume.room());
    }
}

//! An open file, in both faces.
//!
//! Owns: keeping its inode alive. Must never: sync or write when it is dropped: a crash drops it.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::{BlockingFile, File};

use crate::data::Token;
use crate::disk::{Door, Wish};
use crate::errno::{EIO, Refusal};
use crate::gate::OpKind;
use crate::state::State;

#[derive(Debug)]
pub(crate) struct OpenFile {
    door: Door,
    token: Token,
}

impl OpenFile {
    pub(crate) fn new(door: Door, token: Token) -> Self {
        Self { door, token }
    }

    fn wish(&self, kind: OpKind, bytes: usize) -> Wish<'_> {
        Wish { kind, path: &self.token.path, bytes, vanished: EIO }
    }

    fn sync_wish(&self) -> Wish<'_> {
        let bytes = self.door.shared.lock().unsynced_bytes(&self.token);
        self.wish(OpKind::Sync, bytes)
    }

    async fn run<T: Send>(
        &self,
        wish: Wish<'_>,
        mut effect: impl FnMut(&mut State, &Token) -> Result<T, Refusal> + Send,
    ) -> io::Result<T> {
        self.door.run(wish, |state| effect(state, &self.token)).await
    }

    fn run_blocking<T>(
        &self,
        wish: Wish<'_>,
        effect: impl FnOnce(&mut State, &Token) -> Result<T, Refusal>,
    ) -> io::Result<T> {
        self.door.run_blocking(wish, |state| effect(state, &self.token))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.door.shared.lock().close_file(&self.token);
    }
}

#[async_trait]
impl File for OpenFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let wish = self.wish(OpKind::Read, len);
        let read = self.run(wish, |state, token| state.read(token, offset, len)).await?;
        Ok(read.into())
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let wish = self.wish(OpKind::Write, data.len());
        self.run(wish, |state, token| state.write(token, offset, data.clone())).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.run(self.sync_wish(), State::sync).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.run(self.wish(OpKind::Len, 0), State::len).await
    }

    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let wish = self.wish(OpKind::SetLen, 0);
        self.run(wish, |state, token| state.set_len(token, len_bytes)).await
    }

    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        let wish = self.wish(OpKind::Allocate, 0);
        self.run(wish, |state, token| state.allocate(token, len_bytes, grow)).await
    }

    async fn drop_cache(&self) -> io::Result<()> {
        // A read always sees what the disk holds, rot included.
        self.run(self.wish(OpKind::DropCache, 0), |_, _| Ok(())).await
    }
}

impl BlockingFile for OpenFile {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len();
        let wish = self.wish(OpKind::Read, len);
        let read = self.run_blocking(wish, |state, token| state.read(token, offset, len))?;
        buf[..read.len()].copy_from_slice(&read);
        if read.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let wish = self.wish(OpKind::Write, data.len());
        self.run_blocking(wish, |state, token| state.write(token, offset, Bytes::copy_from_slice(data)))
    }

    fn sync(&self) -> io::Result<()> {
        self.run_blocking(self.sync_wish(), State::sync)
    }

    fn len(&self) -> io::Result<u64> {
        self.run_blocking(self.wish(OpKind::Len, 0), State::len)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.run_blocking(self.wish(OpKind::SetLen, 0), |state, token| state.set_len(token, len_bytes))
    }
}

//! Damage: bytes that are not what was written, and no error says so.
//!
//! Owns: bit rot and misdirected writes, and the record of both, by which a checker tells damage done from damage
//! caused. Must never: change a length or an entry.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::crash::SECTOR_BYTES;
use crate::device::{DeviceId, Filter};
use crate::inode::InodeId;
use crate::state::State;

/// Draws for a byte that no unsynced change covers. A file so dirty that this many miss is rotten where it will be
/// written over.
const ROT_DRAWS: u32 = 16;

/// One piece of damage that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A bit of a synced byte is the other way round, for good.
    Rot {
        /// Of which file.
        file: PathBuf,
        /// Which byte.
        offset: u64,
        /// Which bit of it.
        bit: u8,
    },
    /// A write went elsewhere: what it was meant for has kept its old bytes, another place has lost its own.
    Misdirected {
        /// The file that was written.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        bytes: usize,
        /// Where it landed: file and offset. `None`: on no file's place at all.
        landed: Option<(PathBuf, u64)>,
    },
}

impl Damage {
    /// The files that do not hold what was written to them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let (file, landed) = match self {
            Self::Rot { file, .. } => (file, None),
            Self::Misdirected { file, landed, .. } => (file, landed.as_ref()),
        };
        std::iter::once(file.as_path()).chain(landed.map(|(file, _)| file.as_path()))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rot { file, offset, bit } => write!(f, "bit {bit} of byte {offset} of {} flipped", file.display()),
            Self::Misdirected { file, offset, bytes, landed } => {
                write!(f, "a write of {bytes} bytes at {offset} of {} went to ", file.display())?;
                match landed {
                    Some((landed, at)) => write!(f, "{at} of {}", landed.display()),
                    None => f.write_str("no file's place"),
                }
            }
        }
    }
}

impl State {
    /// Flips a drawn bit in a drawn file of the device that `filter` matches and that has synced bytes.
    pub(crate) fn rot(&mut self, device: DeviceId, filter: &Filter) -> Option<Damage> {
        let mut files = self.files_of(device);
        files.retain(|(path, inode)| {
            filter.matches(path) && self.file(*inode).is_some_and(|file| file.durable.len_bytes() > 0)
        });
        if files.is_empty() {
            return None;
        }
        let drawn = self.rng.index(files.len());
        let (path, inode) = files.swap_remove(drawn);
        self.flip(&path, inode, 0..u64::MAX)
    }

    /// Flips a drawn bit of a file's synced bytes within `range`.
    pub(crate) fn flip(&mut self, path: &Path, inode: InodeId, range: Range<u64>) -> Option<Damage> {
        let durable_len = self.file(inode)?.durable.len_bytes();
        let range = range.start..range.end.min(durable_len);
        if range.is_empty() {
            return None;
        }
        let mut offset = range.start;
        for _ in 0..ROT_DRAWS {
            offset = range.start + self.rng.below(range.end - range.start);
            if !self.file(inode)?.is_unsynced(offset) {
                break;
            }
        }
        let bit = self.rng.below(8) as u8;
        let file = self.file_mut(inode)?;
        let rotten = file.durable.byte(offset) ^ (1 << bit);
        // What a process has just written it still reads as written: that is in memory.
        let seen = offset < file.visible.len_bytes() && file.visible.byte(offset) == file.durable.byte(offset);
        let unsynced = file.is_unsynced(offset);
        file.durable.write(offset, &[rotten], None);
        if seen && !unsynced {
            self.damage_visible(inode, offset, &[rotten]);
        }
        let damage = Damage::Rot { file: path.to_owned(), offset, bit };
        self.damage.push(damage.clone());
        Some(damage)
    }

    /// Whether this write goes astray; if so it has landed elsewhere.
    pub(crate) fn goes_astray(
        &mut self,
        device: DeviceId,
        inode: InodeId,
        path: &Path,
        offset: u64,
        data: &Bytes,
    ) -> bool {
        if self.device(device).misdirect.take_if(|filter| filter.matches(path)).is_none() {
            return false;
        }
        let landed = self.draw_victim(device, inode, offset);
        if let Some((_, victim, at)) = &landed {
            self.overwrite(*victim, *at, data);
        }
        let landed = landed.map(|(file, _, at)| (file, at));
        self.damage.push(Damage::Misdirected { file: path.to_owned(), offset, bytes: data.len(), landed });
        true
    }

    /// Another place of the device that has bytes: in another file, or other sectors of the same one. Within its sector
    /// the write keeps its place: it is the number of the sector that went wrong.
    fn draw_victim(&mut self, device: DeviceId, inode: InodeId, offset: u64) -> Option<(PathBuf, InodeId, u64)> {
        let (sector, within) = (offset / SECTOR_BYTES, offset % SECTOR_BYTES);
        let sectors_of = |state: &Self, id: InodeId| {
            let len = state.file(id).map_or(0, |file| file.durable.len_bytes().min(file.visible.len_bytes()));
            if len > within { (len - within).div_ceil(SECTOR_BYTES) } else { 0 }
        };
        let mut files = self.files_of(device);
        files.retain(|(_, id)| {
            let sectors = sectors_of(self, *id);
            sectors > 1 || sectors == 1 && (*id != inode || sector != 0)
        });
        if files.is_empty() {
            return None;
        }
        let same = files.iter().position(|(_, id)| *id == inode);
        let drawn = match same {
            Some(same) if self.rng.coin() => same,
            _ => self.rng.index(files.len()),
        };
        let (path, victim) = files.swap_remove(drawn);
        let count = sectors_of(self, victim);
        let mut landed = self.rng.below(count);
        if victim == inode && landed == sector {
            landed = (landed + 1) % count;
        }
        Some((path, victim, landed * SECTOR_BYTES + within))
    }

    /// Bytes from nowhere: on the disk at once, and not beyond the end.
    fn overwrite(&mut self, victim: InodeId, at: u64, data: &Bytes) {
        let Some(file) = self.file_mut(victim) else { return };
        let end = file.durable.len_bytes().min(file.visible.len_bytes()).min(at + data.len() as u64);
        let part = &data[..(end - at) as usize];
        file.durable.write(at, part, None);
        self.damage_visible(victim, at, part);
    }

    /// Changes what is seen, and keeps count of the room a hole takes when it is one no longer.
    fn damage_visible(&mut self, id: InodeId, at: u64, data: &[u8]) {
        let Some(inode) = self.inodes.get_mut(&id) else { return };
        let device = inode.device;
        if let crate::inode::Node::File(file) = &mut inode.node {
            let before = file.visible.room_pages();
            file.visible.write(at, data, None);
            let after = file.visible.room_pages();
            self.device(device).charge(before, after);
        }
    }
}

//! A simulated machine's file systems.
//!
//! Owns: files and folders in two views, what processes see and what a power loss leaves, and every way in which a disk
//! can betray them. Implements the seam's [`resilver_host::Disk`].
//!
//! Must never: read a clock, sleep or spawn; time passes only in the [`Gate`] that the kernel hands in.
//!
//! Invariants: everything drawn comes from one seeded stream, in an order that the operations alone decide; every
//! listing is sorted. Durable is exactly what was synced (or what the system wrote back of its own accord, which a
//! program cannot rely on):
//! - a file's data and length by [`resilver_host::File::sync`] of that file; a folder's entries by
//!   [`resilver_host::Disk::sync_dir`] of that folder, a rename across folders by both. Neither brings the other.
//! - after a failed sync the data stays visible, and no later sync makes it durable.
//! - a process that dies loses nothing but its open files; [`FileSystem::power_loss`] loses the rest.

mod crash;
mod damage;
mod data;
mod device;
mod disk;
mod errno;
mod file_system;
mod gate;
mod handle;
mod inode;
mod journal;
mod pages;
mod rng;
mod state;
mod tree;

pub use crate::damage::Damage;
pub use crate::device::{DeviceFault, Filter, Times};
pub use crate::file_system::FileSystem;
pub use crate::gate::{Gate, NoDelay, Op, OpKind};

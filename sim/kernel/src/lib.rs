//! The kernel of the simulated world: machines with power, disks and clocks; processes; a network; one seed.
//!
//! Owns: the loop that moves time by [`TICK`], lets every process take its step, and ends what was killed. It is what the
//! real operating systems and the real network are to the product, behind the same seam ([`resilver_host`]).
//!
//! Must never: know what runs on it, or ask the real machine for anything: time, randomness, files, threads.
//!
//! Invariants: all that happens is decided by the seed and by the calls made between steps; processes influence each
//! other only through what is delivered between steps, or through their machine's files and process table.

pub mod interpose;
mod kernel;
mod machine;
mod net;
mod process;
mod procs;
mod rng;
mod seat;
mod trace;
mod world;

pub use crate::kernel::{Kernel, ProcessInfo};
pub use crate::machine::MachineId;
pub use crate::net::LinkOptions;
pub use crate::process::{Pid, ProcessState, Program};
pub use crate::rng::{SimRng, mix};
pub use crate::trace::Trace;
pub use crate::world::{Programs, TICK};

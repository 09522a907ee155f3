//! The sizes of objects that are measured.

use super::report::Target;

/// A workload of contents: puts, and the gets of what was put.
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) bytes: usize,
    pub(super) clients: usize,
    /// Distinct objects: enough to spread over all disks, few enough to stay small.
    pub(super) keys: u64,
    /// Puts per run at most.
    pub(super) puts: u64,
    pub(super) by_count: bool,
    pub(super) put: Option<Target>,
    pub(super) get: Option<Target>,
}

/// All of them, with what each should reach.
pub(super) const SIZES: [Size; 3] = [
    Size {
        name: "16 MiB",
        bytes: 16 << 20,
        clients: 4,
        keys: 32,
        puts: 200,
        by_count: false,
        put: Some(Target::AtLeast(150.0)),
        get: Some(Target::AtLeast(500.0)),
    },
    Size {
        name: "256 KiB",
        bytes: 256 << 10,
        clients: 16,
        keys: 1024,
        puts: 10_000,
        by_count: true,
        put: Some(Target::AtLeast(300.0)),
        get: Some(Target::AtLeast(1000.0)),
    },
    Size {
        name: "4 KiB",
        bytes: 4 << 10,
        clients: 64,
        keys: 4096,
        puts: 100_000,
        by_count: true,
        put: Some(Target::AtLeast(800.0)),
        get: None,
    },
];

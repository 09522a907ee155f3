//! The project's own recordings: outputs in the layouts of `smartctl`, of disks that do not exist.

/// A SATA disk of `smartctl -a`, version 7, with a sector that waits.
pub(super) const ATA: &str = include_str!("../fixtures/ata.txt");

/// The brief layout of `-x`, which is fine; device statistics of version 7.
pub(super) const ATA_BRIEF: &str = include_str!("../fixtures/ata-brief.txt");

/// Early version 5: no column of when an attribute is updated.
pub(super) const ATA_OLD: &str = include_str!("../fixtures/ata-old.txt");

/// A SAS disk that passes and has lost data.
pub(super) const SAS: &str = include_str!("../fixtures/sas.txt");

/// An NVMe disk that passes and warns.
pub(super) const NVME: &str = include_str!("../fixtures/nvme.txt");

/// The SATA disk as JSON.
pub(super) const ATA_JSON: &str = include_str!("../fixtures/ata.json");

/// An NVMe disk that is hot, and nothing else: it "fails" by its own word.
pub(super) const NVME_JSON: &str = include_str!("../fixtures/nvme.json");

/// A SAS disk of version 7.4.
pub(super) const SAS_JSON: &str = include_str!("../fixtures/sas.json");

/// All of them.
pub(super) const ALL: [&str; 8] = [ATA, ATA_BRIEF, ATA_OLD, SAS, NVME, ATA_JSON, NVME_JSON, SAS_JSON];

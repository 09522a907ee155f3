//! The first 16 bytes of every segment and of every slot, the same in all formats to come: magic, format, CRC of both.
//! The CRC tells a newer format (refused, nothing touched) from a damaged one (lost voter).

/// Bytes of the prefix.
pub(super) const PREFIX_BYTES: usize = 16;

/// What a file is, and the newest format of it that we know.
#[derive(Debug)]
pub(super) struct Kind {
    /// The first eight bytes.
    pub(super) magic: [u8; 8],
    /// The newest known format. Formats count from 1.
    pub(super) format: u32,
}

/// What a prefix says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Ours to read.
    Ours,
    /// Sound, but of a newer format.
    Newer(u32),
    /// Not a prefix of this kind.
    Bad,
}

impl Kind {
    /// The prefix as bytes.
    pub(super) fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Judges the prefix that `bytes` begin with.
    pub(super) fn judge(&self, bytes: &[u8]) -> Prefix {
        if bytes.len() < PREFIX_BYTES || bytes[..8] != self.magic || u32_at(bytes, 12) != crc32c::crc32c(&bytes[..12]) {
            return Prefix::Bad;
        }
        match u32_at(bytes, 8) {
            format if format == self.format => Prefix::Ours,
            format if format > self.format => Prefix::Newer(format),
            // Format 1 is the first there is: nobody wrote this one.
            _ => Prefix::Bad,
        }
    }
}

/// The little-endian number at `at`, which must lie within `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

/// The little-endian number at `at`, which must lie within `bytes`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

//! The exit status of `smartctl`: eight answers in one number, not a success or a failure.
//!
//! Invariant: a status is data. It may be anything but 0 for a disk that is read well and is fine.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// What each bit says, by its manual page (section "Exit status").
pub const EXIT_BITS: [&str; 8] = [
    "the command line could not be parsed",
    "the device could not be opened, did not identify itself, or sleeps",
    "a command to the disk failed, or a structure had a wrong checksum",
    "the disk says that it is failing",
    "a pre-fail attribute is at or below its threshold",
    "the disk says that it is fine, but an attribute was at or below its threshold once",
    "the disk's error log has entries",
    "the disk's self-test log has failures",
];

/// How `smartctl` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// The command line could not be parsed.
    pub const USAGE: u8 = 0;
    /// No device, or none that answered.
    pub const NOT_OPENED: u8 = 1;
    /// A command failed; much may have been read all the same.
    pub const COMMAND_FAILED: u8 = 2;
    /// The disk's own status: failing.
    pub const FAILING: u8 = 3;
    /// A pre-fail attribute is at or below its threshold.
    pub const PREFAIL: u8 = 4;
    /// An attribute was at or below its threshold once.
    pub const PREFAIL_PAST: u8 = 5;
    /// The error log has entries.
    pub const ERROR_LOG: u8 = 6;
    /// The self-test log has failures.
    pub const SELF_TEST: u8 = 7;

    /// Whether this bit (0 to 7) is set.
    pub fn has(self, bit: u8) -> bool {
        self.0.checked_shr(u32::from(bit)).unwrap_or(0) & 1 == 1
    }

    /// What it says, one sentence for each bit that is set.
    pub fn meanings(self) -> Vec<&'static str> {
        (0..8).zip(EXIT_BITS).filter(|(bit, _)| self.has(*bit)).map(|(_, meaning)| meaning).collect()
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meanings().as_slice() {
            [] => write!(f, "{}", self.0),
            meanings => write!(f, "{} ({})", self.0, meanings.join("; ")),
        }
    }
}

impl Serialize for ExitStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ExitStatus", 2)?;
        fields.serialize_field("value", &self.0)?;
        fields.serialize_field("meanings", &self.meanings())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_its_own_meaning() {
        assert!(ExitStatus(0).meanings().is_empty());
        assert_eq!(ExitStatus(0).to_string(), "0");
        for bit in 0..8_u8 {
            assert_eq!(ExitStatus(1 << bit).meanings(), [EXIT_BITS[usize::from(bit)]]);
        }
        assert_eq!(ExitStatus(0xff).meanings(), EXIT_BITS);
        assert!(!ExitStatus(0xff).has(8) && !ExitStatus(0xff).has(255), "there are eight");
    }

    #[test]
    fn a_status_says_more_than_one_thing() {
        let both = ExitStatus(0x44);
        assert!(both.has(ExitStatus::COMMAND_FAILED) && both.has(ExitStatus::ERROR_LOG));
        assert_eq!(
            both.to_string(),
            "68 (a command to the disk failed, or a structure had a wrong checksum; the disk's error log has entries)"
        );
    }
}

//! What disks count, under one name whoever counted it.
//!
//! Invariant: what was not told, or not understood, is `None` and never 0.

use serde::Serialize;

/// One list for the fields and their names, so that they cannot drift apart.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counters of one disk. Each is `None` where the disk does not tell it.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Option<u64>,)+
        }

        impl Counters {
            /// Those that were told, each with its name.
            pub fn known(&self) -> Vec<(&'static str, u64)> {
                let all = [$((stringify!($name), self.$name)),+];
                all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
}

counters! {
    /// Sectors (flash: blocks) replaced by spare ones (ATA 5).
    reallocated_sectors,
    /// Sectors that could not be read and wait for being written (ATA 197; SCSI pending defects).
    pending_sectors,
    /// Sectors an offline scan could not read (ATA 198).
    uncorrectable_sectors,
    /// Reads that ended in an uncorrectable error (ATA 187).
    reported_uncorrectable,
    /// Attempts at reallocation (ATA 196).
    reallocation_events,
    /// Data that were changed on the way through the disk's own memory (ATA 184).
    end_to_end_errors,
    /// Checksum errors on the cable (ATA 199): the cable's, or its contacts'.
    crc_errors,
    /// Uncorrectable reads among the entries of the error log (ATA). The log keeps the last few only.
    logged_media_errors,
    /// Reads and writes the medium failed, by the controller's count (NVMe).
    media_errors,
    /// Bits of the critical warning (NVMe).
    critical_warning,
    /// Spare blocks that are left, in per cent (NVMe).
    available_spare,
    /// Below this the spare is critical, in per cent (NVMe).
    available_spare_threshold,
    /// Wear as the vendor estimates it, in per cent of the rated life; may exceed 100.
    percentage_used,
    /// Life left by an ATA flash disk's own attribute, in per cent. It stops at 1.
    wear_left,
    /// Defects found since the disk was made (SCSI).
    grown_defects,
    /// Reads that could not be corrected (SCSI).
    uncorrected_read_errors,
    /// Writes that could not be corrected (SCSI).
    uncorrected_write_errors,
    /// Verifications that could not be corrected (SCSI).
    uncorrected_verify_errors,
    /// Errors of the link and the like (SCSI).
    non_medium_errors,
    /// Self-tests that found something; those that an extended one outdated are left out.
    self_test_failures,
    /// Degrees Celsius.
    temperature_celsius,
    /// Hours.
    power_on_hours,
}

impl Counters {
    /// Whether anything was told that says how the medium is. A temperature, an age or a cable's errors do not.
    pub fn tell_of_the_medium(&self) -> bool {
        [
            self.reallocated_sectors,
            self.pending_sectors,
            self.uncorrectable_sectors,
            self.reported_uncorrectable,
            self.media_errors,
            self.critical_warning,
            self.grown_defects,
            self.uncorrected_read_errors,
            self.uncorrected_write_errors,
        ]
        .iter()
        .any(Option::is_some)
    }
}

/// Sets what nobody has told yet: the first section that has a figure is the disk's own.
pub(super) fn fill(counter: &mut Option<u64>, value: Option<u64>) {
    if counter.is_none() {
        *counter = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_known_by_the_names_of_the_document() {
        let counters = Counters { media_errors: Some(0), power_on_hours: Some(7), ..Counters::default() };
        assert_eq!(counters.known(), [("media_errors", 0), ("power_on_hours", 7)]);
        let document = serde_json::to_value(&counters).unwrap();
        assert!(document["power_on_hours"] == 7 && document["media_errors"] == 0 && document["wear_left"].is_null());
    }

    #[test]
    fn an_age_or_a_bad_cable_tells_nothing_of_the_medium() {
        let aside = Counters { power_on_hours: Some(7), crc_errors: Some(9), ..Counters::default() };
        assert!(!aside.tell_of_the_medium());
        assert!(Counters { pending_sectors: Some(0), ..Counters::default() }.tell_of_the_medium());
    }

    #[test]
    fn the_first_word_counts() {
        let mut counter = None;
        fill(&mut counter, None);
        fill(&mut counter, Some(3));
        fill(&mut counter, Some(4));
        assert_eq!(counter, Some(3));
    }
}

//! Sizes as people write them: `10GiB`, `1.5 TB`, `4096`.
//!
//! Owns: what a size may look like on the command line. Must never: round: a size that is no whole number of bytes is
//! refused, because a limit somebody set is not to be another one.

use std::str::FromStr;

/// Units by their names: with an `i` they are powers of 1024, without it of 1000.
const UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
];

/// Digits behind the point that are looked at: more say nothing about a whole number of bytes.
const MAX_FRACTION_DIGITS: usize = 15;

/// A number of bytes given by a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("`{text}` is no size: write a number and a unit, for example 10GiB, 500MB or 4096");
        let plain = text.trim();
        let split = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
        let (number, unit) = plain.split_at(split);
        let unit = unit.trim().to_ascii_lowercase();
        let Some((_, unit_bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "`{text}`: no unit `{unit}`: use B, KB, MB, GB, TB, PB (powers of 1000) or KiB, MiB, GiB, TiB, PiB (of 1024)"
            ));
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let dangling = number.contains('.') && fraction.is_empty();
        if whole.is_empty() || dangling || !digits(fraction) || fraction.len() > MAX_FRACTION_DIGITS {
            return Err(shape());
        }
        let too_large = || format!("`{text}` is more than any cluster holds");
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| shape())? };
        // At most 2^64 whole units would fit; what is larger overflows before it is compared.
        let unit_bytes = u128::from(*unit_bytes);
        let scaled = whole
            .checked_mul(scale)
            .and_then(|scaled| scaled.checked_add(parts))
            .and_then(|scaled| scaled.checked_mul(unit_bytes))
            .ok_or_else(too_large)?;
        if scaled % scale != 0 {
            return Err(format!("`{text}` is no whole number of bytes"));
        }
        u64::try_from(scaled / scale).map(Size).map_err(|_| too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::bytes;

    fn parsed(text: &str) -> u64 {
        text.parse::<Size>().unwrap_or_else(|error| panic!("{error}")).0
    }

    fn refused(text: &str) -> String {
        text.parse::<Size>().expect_err(text)
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parsed("4096"), 4096);
        assert_eq!(parsed("10GiB"), 10 << 30);
        assert_eq!(parsed("10gib"), 10 << 30);
        assert_eq!(parsed("500MB"), 500_000_000);
        assert_eq!(parsed(" 1.5 TiB "), 3 << 39);
        assert_eq!(parsed("0"), 0);
        assert_eq!(parsed("0.5KiB"), 512);
        assert_eq!(parsed("18446744073709551615"), u64::MAX);
    }

    #[test]
    fn what_a_table_shows_can_be_typed_again() {
        for size in [0, 1023, 1 << 10, 10 << 30, 3 << 39] {
            assert_eq!(parsed(&bytes(size)), size, "{}", bytes(size));
        }
    }

    #[test]
    fn what_is_no_size_says_what_one_looks_like() {
        for text in ["", "GiB", "-1", "1.", ".5GiB", "1.2.3", "ten", "1.0000000000000000GiB"] {
            assert!(
                refused(text).contains("no size") || refused(text).contains("no unit"),
                "{text}: {}",
                refused(text)
            );
        }
        assert!(refused("10G").contains("no unit `g`"), "{}", refused("10G"));
        assert!(refused("0.3B").contains("no whole number"));
        assert!(refused("18446744073709551616").contains("more than any cluster"));
        assert!(refused("99999999999999999999999999999999999999999999PiB").contains("more than any cluster"));
    }
}

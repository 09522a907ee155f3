//! Attributes of ATA disks: which of them mean the same for every vendor, and in which form their raw value is a count.
//!
//! Must never: trust an id alone. Vendors give ids meanings of their own, and `smartctl`'s database knows many: an
//! attribute counts only where its name agrees with its id.
//!
//! Invariant: a raw value in a vendor's packing is `None`, and named in [`Report::not_understood`] where it would decide.

use nom::branch::alt;
use nom::bytes::complete::take_while1;
use nom::character::complete::{char, space1};
use nom::combinator::all_consuming;
use nom::multi::separated_list1;
use nom::{IResult, Parser};
use serde::Serialize;

use super::counters::fill;
use super::text::{hexadecimal, number};
use super::{Kind, Report, cleaned};

/// A count beyond this is a packing: no disk has as many spare sectors, and six bytes that hold several figures nearly
/// always exceed it.
const MAX_COUNT: u64 = u32::MAX as u64;

/// A hundred years and more. What is beyond counts minutes or milliseconds, or packs them beside the hours.
const MAX_HOURS: u64 = 1_000_000;

/// Beyond this it is a packing of now, least and most, not a temperature: silicon is dead by then.
const MAX_CELSIUS: u64 = 150;

/// A disk has thirty attributes; what is beyond is no table of one.
const MAX_ATTRIBUTES: usize = 30;

/// Attributes whose failure puts data at risk whatever type the vendor gave them: reallocation, spin retries, end-to-end
/// errors, uncorrectable reads, pending sectors.
pub(super) const OF_THE_MEDIUM: [u8; 7] = [5, 10, 184, 187, 196, 197, 198];

/// When an attribute was at or below its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFailed {
    /// It is.
    Now,
    /// It was, and is not any more.
    Past,
}

impl WhenFailed {
    /// From the column of the text (both layouts) or the document. Anything else says that it never was.
    pub(super) fn named(word: &str) -> Option<Self> {
        match word {
            "FAILING_NOW" | "NOW" | "now" => Some(Self::Now),
            "In_the_past" | "Past" | "past" => Some(Self::Past),
            _ => None,
        }
    }
}

/// An attribute at or below its threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedAttribute {
    /// Its number.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Whether the vendor means it as a prediction of failure; otherwise it tells of age or use.
    pub prefail: bool,
    /// When.
    pub when: WhenFailed,
}

impl FailedAttribute {
    /// Whether it is about the medium, whatever its type.
    pub(super) fn is_of_the_medium(&self) -> bool {
        OF_THE_MEDIUM.contains(&self.id)
    }

    /// Whether it is about heat.
    pub(super) fn is_of_heat(&self) -> bool {
        self.name.contains("Temperature")
    }
}

/// A row of the table, as printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) id: u8,
    pub(super) name: &'a str,
    /// The vendor's normalised value.
    pub(super) value: Option<u64>,
    pub(super) prefail: bool,
    pub(super) when_failed: Option<WhenFailed>,
    pub(super) raw: &'a str,
}

impl Attribute<'_> {
    /// Takes from a row what is known to mean something.
    pub(super) fn apply(&self, report: &mut Report) {
        report.is_of(Kind::Ata);
        let new = report.failed_attributes.iter().all(|known| known.id != self.id);
        if let (Some(when), Some(name), true) = (self.when_failed, cleaned(self.name), new) {
            report.failed_attributes.push(FailedAttribute { id: self.id, name, prefail: self.prefail, when });
        }
        let named = |parts: &[&str]| parts.iter().any(|part| self.name.contains(part));
        let counters = &mut report.counters;
        let counted = match self.id {
            5 if named(&["Realloc", "Retired", "Bad_B"]) => &mut counters.reallocated_sectors,
            184 if named(&["End-to-End"]) => &mut counters.end_to_end_errors,
            187 if named(&["Uncorrect"]) => &mut counters.reported_uncorrectable,
            196 if named(&["Realloc"]) => &mut counters.reallocation_events,
            197 if named(&["Pending"]) => &mut counters.pending_sectors,
            198 if named(&["Uncorrect"]) => &mut counters.uncorrectable_sectors,
            199 if named(&["CRC"]) => &mut counters.crc_errors,
            9 if named(&["Power_On"]) => return fill(&mut counters.power_on_hours, leading(self.raw, MAX_HOURS)),
            190 if named(&["Temperature"]) => {
                return fill(&mut counters.temperature_celsius, leading(self.raw, MAX_CELSIUS));
            }
            194 if named(&["Temperature"]) => {
                // The disk's own; 190 is the air around it, and comes first.
                counters.temperature_celsius = leading(self.raw, MAX_CELSIUS).or(counters.temperature_celsius);
                return;
            }
            _ => return fill(&mut report.counters.wear_left, self.wear_left(report.model.as_deref())),
        };
        let count = self.count();
        fill(counted, count);
        if count.is_none() && self.id != 196 && report.not_understood.len() < MAX_ATTRIBUTES {
            report.not_understood.extend(cleaned(&format!("attribute {} ({}): {}", self.id, self.name, self.raw)));
        }
    }

    /// The raw value where it is a count.
    fn count(&self) -> Option<u64> {
        let plain = all_consuming(alt((hexadecimal, number))).parse(self.raw.trim()).ok().map(|(_, count)| count);
        let zeros = || {
            let zeros = all_consuming(separated_list1(separator, number)).parse(self.raw.trim());
            zeros.is_ok_and(|(_, parts)| parts.iter().all(|part| *part == 0)).then_some(0)
        };
        // `smartctl` prints the low word of attribute 5 first, and the others in brackets where a vendor keeps
        // something there, such as the spare sectors that are left.
        // Words in brackets are a remark: `0 (Average 12)`.
        let low_word = || {
            let (_, brackets) = self.raw.split_once(" (")?;
            let remark = brackets.starts_with(|c: char| c.is_ascii_alphabetic());
            (remark || self.id == 5).then(|| leading(self.raw, u64::from(u16::MAX)))?
        };
        plain.or_else(zeros).or_else(low_word).filter(|count| *count <= MAX_COUNT)
    }

    /// Life left in per cent, where the normalised value is known to mean that. Raw values of wear differ by vendor.
    fn wear_left(&self, model: Option<&str>) -> Option<u64> {
        let known = match self.name {
            "Media_Wearout_Indicator" | "SSD_Life_Left" | "Percent_Lifetime_Remain" | "Remaining_Lifetime_Perc" => true,
            // Others count this one up, or from 200 downwards.
            "Wear_Leveling_Count" => model.is_some_and(|model| model.to_ascii_lowercase().starts_with("samsung")),
            _ => false,
        };
        self.value.filter(|value| known && (1..=100).contains(value))
    }
}

/// The number a raw value begins with: `33 (Min/Max 24/38)`, `6206h+47m+20.770s`.
fn leading(raw: &str, most: u64) -> Option<u64> {
    let (rest, count) = number(raw.trim()).ok()?;
    let ends = rest.is_empty() || rest.starts_with([' ', 'h']);
    (ends && count <= most).then_some(count)
}

/// Between the words of a packing: `0/0/0`, `0 0 1`.
fn separator(input: &str) -> IResult<&str, ()> {
    take_while1(|c| c == '/').map(drop).or(space1.map(drop)).or(char(',').map(drop)).parse(input)
}

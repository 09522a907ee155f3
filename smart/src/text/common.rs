//! Numbers and fields as `smartctl` prints them, in any locale.

use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take_while, take_while_m_n, take_while1};
use nom::character::complete::{char, digit1, hex_digit1, one_of, space0};
use nom::combinator::{map_res, not, recognize, rest};
use nom::multi::many0;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

/// No name of a field is longer; a longer one is a sentence with a colon in it.
const MAX_KEY_BYTES: usize = 80;

/// What groups digits: comma, dot, apostrophes, blanks, and what became of bytes in a foreign encoding.
const SEPARATORS: &str = ",.'\u{2019} \u{a0}\u{202f}\u{2009}\u{fffd}";

/// `Name: value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// In lower case, with single blanks: `Warning  Comp. Temp.` and its collapsed form are the same.
    pub(super) key: String,
    /// Trimmed.
    pub(super) value: &'a str,
}

impl Field<'_> {
    /// The value's first word; empty where there is none.
    pub(super) fn first_word(&self) -> &str {
        self.value.split_whitespace().next().unwrap_or_default()
    }

    /// The number the value begins with.
    pub(super) fn number(&self) -> Option<u64> {
        alt((hexadecimal, grouped)).parse(self.value).ok().map(|(_, number)| number)
    }
}

/// A line that has a name before its first colon.
pub(super) fn field(line: &str) -> Option<Field<'_>> {
    let name = take_while_m_n(1, MAX_KEY_BYTES, |c: char| c != ':' && !c.is_control());
    let (_, (name, value)) =
        (terminated::<_, _, nom::error::Error<&str>, _, _>(name, char(':')), rest).parse(line).ok()?;
    let words: Vec<&str> = name.split_whitespace().collect();
    (!words.is_empty()).then(|| Field { key: words.join(" ").to_lowercase(), value: value.trim() })
}

/// `0x1f`.
pub(crate) fn hexadecimal(input: &str) -> IResult<&str, u64> {
    map_res(preceded(tag_no_case("0x"), hex_digit1), |digits| u64::from_str_radix(digits, 16)).parse(input)
}

/// Digits without groups.
pub(crate) fn number(input: &str) -> IResult<&str, u64> {
    map_res(digit1, str::parse).parse(input)
}

/// `1,234,567` with whatever the locale groups digits by. A separator counts only before exactly three digits.
pub(super) fn grouped(input: &str) -> IResult<&str, u64> {
    let three = || terminated(take_while_m_n(3, 3, |c: char| c.is_ascii_digit()), not(one_of("0123456789")));
    let group = preceded(one_of(SEPARATORS), three());
    map_res(recognize((digit1, many0(group))), |digits: &str| {
        digits.chars().filter(char::is_ascii_digit).collect::<String>().parse()
    })
    .parse(input)
}

/// A word and the blanks after it.
pub(super) fn word(input: &str) -> IResult<&str, &str> {
    terminated(take_while1(|c: char| !c.is_whitespace()), space0).parse(input)
}

/// A number, and nothing else, up to the next blank; then blanks.
pub(super) fn column(input: &str) -> IResult<&str, u64> {
    terminated(terminated(number, not(take_while1(|c: char| !c.is_whitespace()))), take_while(char::is_whitespace))
        .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<u64> {
        Field { key: String::new(), value: text }.number()
    }

    #[test]
    fn digits_are_grouped_in_many_ways() {
        for text in ["1,290", "1.290", "1'290", "1\u{2019}290", "1 290", "1\u{a0}290", "1\u{fffd}290", "1290", "1290 h"]
        {
            assert_eq!(of(text), Some(1290), "{text}");
        }
        assert_eq!(of("16 829 004 [8,61 TB]"), Some(16_829_004));
        assert_eq!(of("0x1f"), Some(31));
    }

    #[test]
    fn what_follows_a_number_is_no_group_of_it() {
        assert_eq!(of("45 Celsius"), Some(45));
        assert_eq!(of("100%"), Some(100));
        assert_eq!(of("30000.30"), Some(30000));
        assert_eq!(of("12 1234"), Some(12), "a group has three digits");
        assert_eq!(of("99999999999999999999999"), None, "beyond what is counted");
        assert_eq!(of("-4"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn fields_are_named_the_same_however_their_blanks_are() {
        let said = |line| field(line).map(|field| (field.key, field.value.to_owned()));
        let expected = Some(("warning comp. temperature time".to_owned(), "3".to_owned()));
        assert_eq!(said("Warning  Comp. Temperature Time:    3"), expected);
        assert_eq!(said("Warning Comp. Temperature Time: 3"), expected);
        assert_eq!(said("no field"), None);
        assert_eq!(said(":"), None);
    }
}

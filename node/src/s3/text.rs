//! Bytes as text: the few encodings S3 uses. Pure.

/// The alphabet of base64 (RFC 4648, section 4).
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// As base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            if at <= chunk.len() {
                text.push(char::from(BASE64[(word >> (18 - 6 * at)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Reads base64 with padding. Strict: one text for one value, so that what is compared as text is compared as bytes.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let digits = &text[..text.len() - padding];
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for (at, digit) in chunk.iter().enumerate() {
            let value = BASE64.iter().position(|letter| letter == digit)?;
            word |= (value as u32) << (18 - 6 * at);
        }
        let len = chunk.len() - 1;
        // Bits that no byte takes must be zero.
        if len == 0 || word & (0x00ff_ffff >> (8 * len)) != 0 {
            return None;
        }
        bytes.extend((0..len).map(|at| (word >> (16 - 8 * at)) as u8));
    }
    Some(bytes)
}

/// As lower case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Reads hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// The encoding of `encoding-type=url`: everything but unreserved characters and slashes as `%XX`.
pub(super) fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

/// A part of a query with its escapes undone; `None` when that is no text. A plus is a space there.
pub(super) fn query_decode(text: &str) -> Option<String> {
    let text = text.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = text.get(at + 1..at + 3)?;
                bytes.extend(from_hex(std::str::from_utf8(pair).ok()?)?);
                at += 2;
            }
            byte => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query, decoded, in order. A parameter that is no text is left out: s3s refuses it by itself.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|part| !part.is_empty()).filter_map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((query_decode(name)?, query_decode(value)?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, text) in vectors {
            assert_eq!(base64(plain.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), plain.as_bytes());
        }
        for bad in ["Zg=", "Zg", "Z===", "====", "Zh==", "Zm9=", "Zm9v\n", "Zm9v=Zm9", "Zm 9"] {
            assert_eq!(from_base64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn queries_are_split_and_decoded() {
        let pairs: Vec<_> = query_pairs("uploads&a=b%20c+d&&x%3Dy=1=2&bad=%zz").collect();
        let expected = [("uploads", ""), ("a", "b c d"), ("x=y", "1=2")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in ".*") {
            prop_assert_eq!(from_base64(&base64(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
            prop_assert_eq!(query_decode(&url_encode(&text)), Some(text));
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".*") {
            if let Some(bytes) = from_base64(&text) {
                prop_assert_eq!(base64(&bytes), text.clone());
            }
            let _ = (from_hex(&text), query_decode(&text), query_pairs(&text).count());
        }
    }
}

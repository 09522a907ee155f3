//! The checksums of S3 beside the MD5: computed while content streams by, combined from those of parts, and written the
//! way each header wants them. Pure.

use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto;

use super::text;
use crate::model::{ChecksumAlgorithm, ChecksumKind, StoredChecksum};

/// All of them.
pub(super) const ALL: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

/// The header or trailer that carries it.
pub(super) fn header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// Its name in requests and answers.
pub(super) fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => dto::ChecksumAlgorithm::CRC32,
        ChecksumAlgorithm::Crc32c => dto::ChecksumAlgorithm::CRC32C,
        ChecksumAlgorithm::Crc64Nvme => dto::ChecksumAlgorithm::CRC64NVME,
        ChecksumAlgorithm::Sha1 => dto::ChecksumAlgorithm::SHA1,
        ChecksumAlgorithm::Sha256 => dto::ChecksumAlgorithm::SHA256,
    }
}

/// The algorithm of this name.
pub(super) fn by_name(text: &str) -> Option<ChecksumAlgorithm> {
    ALL.into_iter().find(|algorithm| name(*algorithm).eq_ignore_ascii_case(text))
}

/// Bytes of a digest.
pub(super) fn digest_len(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// A digest as a client wrote it.
pub(super) fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Option<Vec<u8>> {
    text::from_base64(text).filter(|digest| digest.len() == digest_len(algorithm))
}

/// A checksum under construction.
pub(super) enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(super) fn new(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Crc32 => Self::Crc32(Crc32::new()),
            ChecksumAlgorithm::Crc32c => Self::Crc32c(Crc32c::new()),
            ChecksumAlgorithm::Crc64Nvme => Self::Crc64Nvme(Crc64Nvme::new()),
            ChecksumAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Crc32(hasher) => hasher.update(data),
            Self::Crc32c(hasher) => hasher.update(data),
            Self::Crc64Nvme(hasher) => hasher.update(data),
            Self::Sha1(hasher) => hasher.update(data),
            Self::Sha256(hasher) => hasher.update(data),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc32(hasher) => hasher.finalize().to_vec(),
            Self::Crc32c(hasher) => hasher.finalize().to_vec(),
            Self::Crc64Nvme(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// The kind an upload in parts gets when its client names none, and whether the two go together.
pub(super) fn kind_of_upload(algorithm: ChecksumAlgorithm, asked: Option<ChecksumKind>) -> Option<ChecksumKind> {
    match (algorithm, asked) {
        // The parts' checksums of this one are always combined.
        (ChecksumAlgorithm::Crc64Nvme, None | Some(ChecksumKind::FullObject)) => Some(ChecksumKind::FullObject),
        (ChecksumAlgorithm::Crc64Nvme, Some(ChecksumKind::Composite)) => None,
        (ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c, asked) => Some(asked.unwrap_or(ChecksumKind::Composite)),
        // A hash cannot be combined.
        (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, None | Some(ChecksumKind::Composite)) => {
            Some(ChecksumKind::Composite)
        }
        (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, Some(ChecksumKind::FullObject)) => None,
    }
}

/// The checksum of an object made of these parts (digest and length of each); `None` when a digest is missing or does
/// not fit.
pub(super) fn of_parts(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: &[(Option<Vec<u8>>, u64)],
) -> Option<StoredChecksum> {
    let value = match kind {
        ChecksumKind::Composite => {
            let mut hasher = Hasher::new(algorithm);
            for (digest, _) in parts {
                hasher.update(digest.as_deref()?);
            }
            hasher.finish()
        }
        ChecksumKind::FullObject => {
            let (polynomial, width) = crc(algorithm)?;
            let mut whole = 0;
            for (digest, len_bytes) in parts {
                let digest = digest.as_deref().filter(|digest| digest.len() == digest_len(algorithm))?;
                let part = digest.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                whole = combine(polynomial, width, whole, part, *len_bytes);
            }
            whole.to_be_bytes()[8 - digest_len(algorithm)..].to_vec()
        }
    };
    Some(StoredChecksum { algorithm, kind, value })
}

/// Reflected polynomial and width of a CRC.
fn crc(algorithm: ChecksumAlgorithm) -> Option<(u64, u32)> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some((0xedb8_8320, 32)),
        ChecksumAlgorithm::Crc32c => Some((0x82f6_3b78, 32)),
        ChecksumAlgorithm::Crc64Nvme => Some((0x9a6c_9329_ac4b_c9b5, 64)),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

/// The CRC of two runs of bytes, one behind the other, from theirs and the length of the second. The first one's is
/// moved past the second's zeros by multiplying it with x^(8·len) modulo the polynomial: 64 squarings, however long.
fn combine(polynomial: u64, width: u32, first: u64, second: u64, second_len: u64) -> u64 {
    let one = 1u64 << (width - 1);
    // x^8: bits count down from the highest in the reflected order.
    let mut power = one >> 8;
    let mut shift = one;
    let mut left = second_len;
    while left > 0 {
        if left & 1 == 1 {
            shift = multiply(polynomial, width, shift, power);
        }
        power = multiply(polynomial, width, power, power);
        left >>= 1;
    }
    multiply(polynomial, width, first, shift) ^ second
}

/// The product of two polynomials over GF(2), modulo a third; all reflected.
fn multiply(polynomial: u64, width: u32, a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    for bit in (0..width).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ polynomial } else { b >> 1 };
    }
    product
}

/// A checksum as answers say it: of parts with their number behind.
pub(super) fn shown(checksum: &StoredChecksum, parts: usize) -> String {
    let value = text::base64(&checksum.value);
    match checksum.kind {
        ChecksumKind::FullObject => value,
        ChecksumKind::Composite => format!("{value}-{parts}"),
    }
}

/// The kind as answers say it.
pub(super) fn kind_dto(kind: ChecksumKind) -> dto::ChecksumType {
    dto::ChecksumType::from_static(match kind {
        ChecksumKind::FullObject => dto::ChecksumType::FULL_OBJECT,
        ChecksumKind::Composite => dto::ChecksumType::COMPOSITE,
    })
}

/// The fields of an answer that take a checksum: one is filled.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) kind: Option<dto::ChecksumType>,
}

impl Fields {
    /// Of a stored checksum.
    pub(super) fn stored(checksum: Option<&StoredChecksum>, parts: usize) -> Self {
        let Some(checksum) = checksum else { return Self::default() };
        let mut fields = Self::one(checksum.algorithm, shown(checksum, parts));
        fields.kind = Some(kind_dto(checksum.kind));
        fields
    }

    /// Of a part, or of content just put.
    pub(super) fn digest(checksum: Option<(ChecksumAlgorithm, &[u8])>) -> Self {
        checksum.map_or_else(Self::default, |(algorithm, digest)| Self::one(algorithm, text::base64(digest)))
    }

    fn one(algorithm: ChecksumAlgorithm, value: String) -> Self {
        let mut fields = Self::default();
        match algorithm {
            ChecksumAlgorithm::Crc32 => fields.crc32 = Some(value),
            ChecksumAlgorithm::Crc32c => fields.crc32c = Some(value),
            ChecksumAlgorithm::Crc64Nvme => fields.crc64nvme = Some(value),
            ChecksumAlgorithm::Sha1 => fields.sha1 = Some(value),
            ChecksumAlgorithm::Sha256 => fields.sha256 = Some(value),
        }
        fields
    }
}

/// Fills the checksum fields of an answer of s3s: they are the same in all of them, and not one type.
macro_rules! fill_checksums {
    ($output:expr, $fields:expr) => {{
        let fields = $fields;
        $output.checksum_crc32 = fields.crc32;
        $output.checksum_crc32c = fields.crc32c;
        $output.checksum_crc64nvme = fields.crc64nvme;
        $output.checksum_sha1 = fields.sha1;
        $output.checksum_sha256 = fields.sha256;
    }};
}
pub(super) use fill_checksums;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(algorithm: ChecksumAlgorithm, data: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    #[test]
    fn digests_are_the_known_ones() {
        let known = [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algorithm, expected) in known {
            assert_eq!(text::hex(&digest(algorithm, b"123456789")), expected, "{algorithm:?}");
            assert_eq!(by_name(name(algorithm)), Some(algorithm));
            assert_eq!(digest_len(algorithm), expected.len() / 2);
        }
    }

    #[test]
    fn which_kind_goes_with_which_algorithm() {
        use ChecksumKind::{Composite, FullObject};
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Crc64Nvme, None), Some(FullObject));
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Crc64Nvme, Some(Composite)), None);
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Crc32, None), Some(Composite));
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Crc32c, Some(FullObject)), Some(FullObject));
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Sha256, None), Some(Composite));
        assert_eq!(kind_of_upload(ChecksumAlgorithm::Sha1, Some(FullObject)), None);
    }

    #[test]
    fn a_missing_digest_gives_no_checksum() {
        let parts = [(Some(vec![0; 4]), 1), (None, 1)];
        for kind in [ChecksumKind::Composite, ChecksumKind::FullObject] {
            assert_eq!(of_parts(ChecksumAlgorithm::Crc32, kind, &parts), None);
        }
        assert_eq!(of_parts(ChecksumAlgorithm::Sha1, ChecksumKind::FullObject, &[(Some(vec![0; 20]), 1)]), None);
    }

    proptest! {
        #[test]
        fn combined_crcs_are_those_of_the_whole(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let whole: Vec<u8> = parts.concat();
            for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
                let digests: Vec<_> =
                    parts.iter().map(|part| (Some(digest(algorithm, part)), part.len() as u64)).collect();
                let combined = of_parts(algorithm, ChecksumKind::FullObject, &digests).unwrap();
                prop_assert_eq!(combined.value, digest(algorithm, &whole), "{:?}", algorithm);
            }
        }
    }
}

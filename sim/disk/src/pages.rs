//! The bytes of a file in pages that are shared until one side changes them.
//!
//! Owns: the content and length of one view of one file. Must never: know which view it is.
//!
//! Invariants: whatever lies at or behind the length is zero. A page that is there costs room on the device, a hole
//! costs none, reserved room is pages of zeros behind the length.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Bytes in a page: the unit of room, and of what a change copies.
pub(crate) const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// The page of zeros. A log segment is written full of zeros before its first record: those pages must cost nothing.
static ZEROS: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES as usize]));

#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    len_bytes: u64,
}

impl Content {
    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Pages that cost room.
    pub(crate) fn room_pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Up to `len` bytes from `offset`; fewer only at the end.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let there = self.len_bytes.saturating_sub(offset).min(len as u64) as usize;
        let mut buffer = vec![0; there];
        self.fill(offset, &mut buffer);
        buffer
    }

    /// Fills `buffer` from `offset`, with zeros where nothing is.
    pub(crate) fn fill(&self, offset: u64, buffer: &mut [u8]) {
        for piece in Pieces::new(offset, buffer.len()) {
            let part = &mut buffer[piece.start..piece.start + piece.len];
            match self.pages.get(&piece.page) {
                Some(page) => part.copy_from_slice(&page[piece.within..piece.within + piece.len]),
                None => part.fill(0),
            }
        }
    }

    /// Writes `data` at `offset`. Whole pages that equal `twin`'s are shared with it instead of copied.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], twin: Option<&Content>) {
        for piece in Pieces::new(offset, data.len()) {
            let part = &data[piece.start..piece.start + piece.len];
            match <&Page>::try_from(part) {
                Ok(whole) => {
                    let known = twin.and_then(|twin| twin.pages.get(&piece.page)).filter(|page| ***page == *whole);
                    let page = match known {
                        Some(page) => Arc::clone(page),
                        None if *whole == **ZEROS => Arc::clone(&ZEROS),
                        None => Arc::new(*whole),
                    };
                    self.pages.insert(piece.page, page);
                }
                Err(_) => {
                    let page = self.pages.entry(piece.page).or_insert_with(|| Arc::clone(&ZEROS));
                    Arc::make_mut(page)[piece.within..piece.within + piece.len].copy_from_slice(part);
                }
            }
        }
        if !data.is_empty() {
            self.len_bytes = self.len_bytes.max(offset + data.len() as u64);
        }
    }

    /// Cuts (giving reserved room back) or grows with a hole.
    pub(crate) fn set_len(&mut self, len_bytes: u64) {
        if len_bytes <= self.len_bytes {
            drop(self.pages.split_off(&len_bytes.div_ceil(PAGE_BYTES)));
            let within = (len_bytes % PAGE_BYTES) as usize;
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len_bytes / PAGE_BYTES))
                && !Arc::ptr_eq(page, &ZEROS)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len_bytes = len_bytes;
    }

    /// Reserves room for `[0, len_bytes)`.
    pub(crate) fn reserve(&mut self, len_bytes: u64, grow: bool) {
        for page in 0..len_bytes.div_ceil(PAGE_BYTES) {
            self.pages.entry(page).or_insert_with(|| Arc::clone(&ZEROS));
        }
        if grow {
            self.len_bytes = self.len_bytes.max(len_bytes);
        }
    }

    /// Pages that writing or reserving `[offset, offset + len)` would add.
    pub(crate) fn missing_pages(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE_BYTES, (offset + len - 1) / PAGE_BYTES);
        (last - first + 1) - self.pages.range(first..=last).count() as u64
    }

    /// How many bytes of a write at `offset` find room when `room_pages` may be added.
    pub(crate) fn fitting(&self, offset: u64, len: usize, room_pages: u64) -> usize {
        // Nearly always there is room, and then no page need be looked at.
        if len == 0 || room_pages > len as u64 / PAGE_BYTES + 1 {
            return len;
        }
        let mut left = room_pages;
        for piece in Pieces::new(offset, len) {
            if !self.pages.contains_key(&piece.page) {
                if left == 0 {
                    return piece.start;
                }
                left -= 1;
            }
        }
        len
    }

    pub(crate) fn byte(&self, offset: u64) -> u8 {
        self.pages.get(&(offset / PAGE_BYTES)).map_or(0, |page| page[(offset % PAGE_BYTES) as usize])
    }
}

/// The part of a range that lies in one page.
struct Piece {
    /// Which page.
    page: u64,
    /// Where in the page.
    within: usize,
    /// Where in the range.
    start: usize,
    len: usize,
}

struct Pieces {
    offset: u64,
    start: usize,
    len: usize,
}

impl Pieces {
    fn new(offset: u64, len: usize) -> Self {
        Self { offset, start: 0, len }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.start == self.len {
            return None;
        }
        let at = self.offset + self.start as u64;
        let within = (at % PAGE_BYTES) as usize;
        let len = (PAGE_BYTES as usize - within).min(self.len - self.start);
        let piece = Piece { page: at / PAGE_BYTES, within, start: self.start, len };
        self.start += len;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Reserve(u64, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let near = prop_oneof![0_u64..20_000, (0_u64..5).prop_map(|n| n * PAGE_BYTES)];
        let bytes = (any::<u8>(), prop_oneof![0_usize..600, Just(4096), 4000_usize..9000]);
        prop_oneof![
            (near.clone(), bytes).prop_map(|(offset, (byte, len))| {
                Step::Write(offset, (0..len).map(|n| byte.wrapping_mul(n as u8 | 1)).collect())
            }),
            near.clone().prop_map(Step::SetLen),
            (near, any::<bool>()).prop_map(|(len, grow)| Step::Reserve(len, grow)),
        ]
    }

    proptest! {
        #[test]
        fn pages_hold_what_a_plain_vector_holds(steps in prop::collection::vec(step(), 0..30)) {
            let mut content = Content::default();
            let mut twin = Content::default();
            let mut plain: Vec<u8> = Vec::new();
            for step in steps {
                let before = twin.clone();
                match step {
                    Step::Write(offset, data) => {
                        let end = offset as usize + data.len();
                        if !data.is_empty() && plain.len() < end {
                            plain.resize(end, 0);
                        }
                        if !data.is_empty() {
                            plain[offset as usize..end].copy_from_slice(&data);
                        }
                        let missing = content.missing_pages(offset, data.len() as u64);
                        let room = content.room_pages();
                        prop_assert_eq!(content.fitting(offset, data.len(), missing), data.len());
                        content.write(offset, &data, None);
                        prop_assert_eq!(content.room_pages() - room, missing);
                        twin.write(offset, &data, Some(&content));
                    }
                    Step::SetLen(len) => {
                        plain.resize(len as usize, 0);
                        content.set_len(len);
                        twin.set_len(len);
                    }
                    Step::Reserve(len, grow) => {
                        if grow && plain.len() < len as usize {
                            plain.resize(len as usize, 0);
                        }
                        content.reserve(len, grow);
                        twin.reserve(len, grow);
                    }
                }
                prop_assert_eq!(content.len_bytes(), plain.len() as u64);
                prop_assert_eq!(&content.read(0, usize::MAX), &plain);
                prop_assert_eq!(&twin.read(0, usize::MAX), &plain);
                drop(before);
            }
        }
    }

    #[test]
    fn a_write_that_finds_too_little_room_ends_at_a_page() {
        let mut content = Content::default();
        content.write(PAGE_BYTES, b"x", None);
        assert_eq!(content.fitting(10, 3 * PAGE_BYTES as usize, 1), 2 * PAGE_BYTES as usize - 10);
        assert_eq!(content.fitting(PAGE_BYTES, 100, 0), 100, "what has its page needs no room");
        assert_eq!(content.fitting(0, 1, 0), 0);
    }

    #[test]
    fn zeros_are_one_page_and_a_copy_shares_until_it_is_changed() {
        let mut content = Content::default();
        content.write(0, &vec![0; 1 << 20], None);
        assert!(content.pages.values().all(|page| Arc::ptr_eq(page, &ZEROS)));
        content.write(0, &[7; PAGE_BYTES as usize], None);
        let copy = content.clone();
        content.write(5, b"x", None);
        assert_eq!((copy.byte(5), content.byte(5), content.byte(6)), (7, b'x', 7));
    }
}

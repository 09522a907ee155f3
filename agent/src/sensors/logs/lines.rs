//! Bytes into lines, however they are cut.
//!
//! Invariant: what is held is bounded by the longest line; of a longer one the beginning is looked at, and the rest is
//! skipped.

/// The longest line that is held. Longer ones are no messages.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// A line that is not whole yet.
#[derive(Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// The line was too long: its rest is skipped.
    skipping: bool,
}

impl Lines {
    /// What follows is another file.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The lines that these bytes complete.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            self.hold(line);
            lines.push(self.whole());
        }
        if !self.skipping {
            self.hold(bytes);
            if self.held.len() >= MAX_LINE_BYTES {
                lines.push(self.whole());
                self.skipping = true;
            }
        }
        lines
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES - self.held.len();
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn whole(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.held).trim_end_matches('\r').to_owned();
        self.held.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\ntw"), ["one"]);
        assert!(lines.take(b"").is_empty());
        assert_eq!(lines.take(b"o\r\n\nthree\n"), ["two", "", "three"]);
        assert!(lines.take(b"half").is_empty());
        lines.forget();
        assert_eq!(lines.take(b"four\n"), ["four"]);
    }

    #[test]
    fn of_a_line_without_end_the_beginning_is_looked_at_once() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; MAX_LINE_BYTES / 2 + 1];
        assert!(lines.take(&piece).is_empty());
        assert_eq!(lines.take(&piece)[0].len(), MAX_LINE_BYTES);
        assert!(lines.take(&piece).is_empty() && lines.held.is_empty());
        assert_eq!(lines.take(b"rest\nnext\n"), ["next"]);
    }
}

//! The framing of `aws-chunked` bodies, looked at before s3s takes it apart. Pure.
//!
//! s3s holds a whole chunk in memory before it passes it on, and believes whatever length a chunk announces. Some clients
//! (the Go and Rust kits) send a body as one single chunk, up to 5 GiB. So:
//!
//! - unsigned chunks are cut into pieces as they arrive: nothing covers their borders, so the content stays what it was;
//! - signed chunks cannot be cut, because the signature covers each as a whole: their length is bounded.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The longest signed chunk: clients send 64 KiB to 1 MiB, and as many as there may be requests are held at once.
pub(super) const MAX_SIGNED_CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// The longest line that begins a chunk: a length and a signature of 64 digits are below 100 bytes.
const MAX_LINE_BYTES: usize = 256;

/// What is wrong with the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    /// It is no chunk.
    #[error("the chunked encoding of the body is malformed")]
    Malformed,
    /// It is longer than may be.
    #[error("a signed chunk has {0} bytes, more than the {MAX_SIGNED_CHUNK_BYTES} taken here")]
    TooLong(u64),
    /// It ends before its last chunk, or before the empty line behind that. What came may be all of the content, but
    /// nobody can tell: the sender did not come to its end.
    #[error("the chunked encoding of the body has no end")]
    NoEnd,
}

#[derive(Debug)]
enum State {
    /// The line that begins a chunk.
    Line(BytesMut),
    /// So many bytes of content are to come.
    Data(u64),
    /// The end of the line behind the content: so many bytes of it were here.
    DataEnd(usize),
    /// Trailers: s3s bounds and reads them. Here only the end is looked for: an empty line.
    Rest(Tail),
}

/// The last bytes of what follows the last chunk; at its beginning, the end of that chunk's line.
#[derive(Debug)]
struct Tail([u8; 4]);

impl Tail {
    /// Behind the line of the last chunk.
    fn new() -> Self {
        Self([0, 0, b'\r', b'\n'])
    }

    fn feed(&mut self, input: &[u8]) {
        for byte in &input[input.len().saturating_sub(self.0.len())..] {
            self.0.rotate_left(1);
            self.0[3] = *byte;
        }
    }

    /// An empty line came last. Some clients end a trailer's line with a bare newline.
    fn is_empty_line(&self) -> bool {
        self.0.ends_with(b"\n\r\n")
    }
}

/// Reads chunks as they come and says what s3s is to see.
#[derive(Debug)]
pub(super) struct Framer {
    signed: bool,
    state: State,
}

impl Framer {
    /// Of a body whose chunks are signed, or not.
    pub(super) fn new(signed: bool) -> Self {
        Self { signed, state: State::Line(BytesMut::new()) }
    }

    /// Takes what arrived; puts behind `out` what goes on.
    pub(super) fn feed(&mut self, mut input: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), BadFrame> {
        while !input.is_empty() {
            match &mut self.state {
                State::Line(line) => {
                    let end = input.iter().position(|byte| *byte == b'\n');
                    let taken = input.split_to(end.map_or(input.len(), |end| end + 1));
                    if line.len() + taken.len() > MAX_LINE_BYTES {
                        return Err(BadFrame::Malformed);
                    }
                    line.extend_from_slice(&taken);
                    if end.is_some() {
                        let line = line.split().freeze();
                        let len = parse(&line)?;
                        if self.signed && len > MAX_SIGNED_CHUNK_BYTES {
                            return Err(BadFrame::TooLong(len));
                        }
                        if self.signed || len == 0 {
                            out.push_back(line);
                        }
                        self.state = if len == 0 { State::Rest(Tail::new()) } else { State::Data(len) };
                    }
                }
                State::Data(left) => {
                    let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    let piece = input.split_to(len);
                    *left -= len as u64;
                    let done = *left == 0;
                    if self.signed {
                        out.push_back(piece);
                    } else {
                        out.push_back(format!("{len:x}\r\n").into());
                        out.push_back(piece);
                        out.push_back(Bytes::from_static(b"\r\n"));
                    }
                    if done {
                        self.state = State::DataEnd(0);
                    }
                }
                State::DataEnd(seen) => {
                    let expected = b"\r\n";
                    let byte = input.split_to(1);
                    if byte[0] != expected[*seen] {
                        return Err(BadFrame::Malformed);
                    }
                    *seen += 1;
                    if *seen == expected.len() {
                        if self.signed {
                            out.push_back(Bytes::from_static(expected));
                        }
                        self.state = State::Line(BytesMut::new());
                    }
                }
                State::Rest(tail) => {
                    tail.feed(&input);
                    out.push_back(std::mem::take(&mut input));
                }
            }
        }
        Ok(())
    }

    /// Whether the body may end here.
    pub(super) fn ended(&self) -> bool {
        matches!(&self.state, State::Rest(tail) if tail.is_empty_line())
    }
}

/// The length in the line that begins a chunk. Strict: what s3s reads of a line must be what was judged here.
fn parse(line: &[u8]) -> Result<u64, BadFrame> {
    let line = line.strip_suffix(b"\r\n").ok_or(BadFrame::Malformed)?;
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    // s3s reads eight digits and passes over what follows.
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BadFrame::Malformed);
    }
    Ok(digits.iter().fold(0, |len, digit| len << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(signed: bool, input: &[u8], cut: usize) -> Result<Vec<u8>, BadFrame> {
        let mut framer = Framer::new(signed);
        let mut out = VecDeque::new();
        for piece in input.chunks(cut.max(1)) {
            framer.feed(Bytes::copy_from_slice(piece), &mut out)?;
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// Content and what follows it, as s3s will read them.
    fn read(mut framed: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut content = Vec::new();
        loop {
            let end = framed.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let len = parse(&framed[..end + 2]).unwrap() as usize;
            framed = &framed[end + 2..];
            if len == 0 {
                return (content, framed.to_vec());
            }
            content.extend_from_slice(&framed[..len]);
            framed = &framed[len + 2..];
        }
    }

    #[test]
    fn signed_chunks_pass_as_they_are() {
        let body = b"5;chunk-signature=aa\r\nhello\r\n0;chunk-signature=bb\r\n\r\n";
        for cut in 1..body.len() + 1 {
            assert_eq!(feed(true, body, cut).unwrap(), body, "cut into {cut}");
        }
    }

    #[test]
    fn only_behind_the_empty_line_is_the_end() {
        let bodies: [&[u8]; 3] = [
            b"5;chunk-signature=aa\r\nhello\r\n0;chunk-signature=bb\r\n\r\n",
            b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
            b"1\r\na\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n",
        ];
        for (body, cut) in bodies.iter().flat_map(|body| (1..=body.len()).map(move |cut| (body, cut))) {
            for here in 0..body.len() {
                let mut framer = Framer::new(true);
                for piece in body[..here].chunks(cut) {
                    framer.feed(Bytes::copy_from_slice(piece), &mut VecDeque::new()).unwrap();
                }
                assert!(!framer.ended(), "{here} of {} bytes, cut into {cut}", body.len());
                framer.feed(Bytes::copy_from_slice(&body[here..]), &mut VecDeque::new()).unwrap();
                assert!(framer.ended(), "{here} of {} bytes, then the rest", body.len());
            }
        }
    }

    #[test]
    fn a_chunk_of_gigabytes_is_passed_on_in_pieces() {
        let mut framer = Framer::new(false);
        let mut out = VecDeque::new();
        framer.feed(Bytes::from_static(b"140000000\r\nabc"), &mut out).unwrap();
        framer.feed(Bytes::from_static(b"defg"), &mut out).unwrap();
        let passed: Vec<u8> = out.into_iter().flatten().collect();
        assert_eq!(passed, b"3\r\nabc\r\n4\r\ndefg\r\n");
        let too_long = format!("{:x};chunk-signature=aa\r\n", MAX_SIGNED_CHUNK_BYTES + 1);
        assert_eq!(feed(true, too_long.as_bytes(), 7), Err(BadFrame::TooLong(MAX_SIGNED_CHUNK_BYTES + 1)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for bad in
            ["\r\n", "5\nhello\r\n", "g\r\n", "-5\r\n", "5x\r\nhello\r\n", "5\r\nhelloXX", "12345678123456789\r\n"]
        {
            assert_eq!(feed(false, bad.as_bytes(), 3), Err(BadFrame::Malformed), "{bad:?}");
        }
        assert_eq!(feed(false, &[b'0'; 1000], 100), Err(BadFrame::Malformed), "a line without end");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_content_is_the_same(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
            cut in 1usize..40,
        ) {
            let trailer = b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n";
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n");
            body.extend_from_slice(trailer);
            let (content, rest) = read(&feed(false, &body, cut).unwrap());
            prop_assert_eq!(content, chunks.concat());
            prop_assert_eq!(rest, trailer);
        }

        #[test]
        fn no_input_breaks_it(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..40, signed: bool) {
            let _ = feed(signed, &body, cut);
        }
    }
}

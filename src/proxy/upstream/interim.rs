//! Counts interim answers (1xx) as they go by: hyper skips them without a bound.

/// More than this many before one answer: the upstream is not sane.
const MOST: u32 = 16;

/// Where in an answer's head the next byte belongs.
#[derive(Debug, Default)]
pub struct Interim {
    seen: u32,
    /// The final head has begun; nothing is looked at any more.
    done: bool,
    first_line: bool,
    line: usize,
    interim: bool,
}

impl Interim {
    pub fn begin(&mut self) {
        *self = Self { first_line: true, ..Self::default() };
    }

    pub fn exceeded(&self) -> bool {
        self.seen > MOST
    }

    /// Takes the next bytes; false when there were too many.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        if self.done {
            return true;
        }
        // The usual case in one look: the first read is a final answer.
        if self.first_line && self.line == 0 && bytes.len() > STATUS && matches!(bytes[STATUS], b'2'..=b'9') {
            self.done = true;
            return true;
        }
        for byte in bytes {
            self.step(*byte);
            if self.done || self.exceeded() {
                break;
            }
        }
        !self.exceeded()
    }

    fn step(&mut self, byte: u8) {
        match byte {
            b'\r' => {}
            b'\n' if self.line == 0 => {
                // An empty line ends a head; before a status line it means nothing.
                if !self.first_line && self.interim {
                    self.seen += 1;
                    self.first_line = true;
                    self.interim = false;
                }
            }
            b'\n' => {
                self.line = 0;
                self.first_line = false;
            }
            _ => {
                if self.first_line && self.line == STATUS {
                    self.interim = byte == b'1';
                    self.done = !self.interim;
                }
                self.line += 1;
            }
        }
    }
}

/// The offset of the status in `HTTP/1.1 200 OK`.
const STATUS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &str, chunks: &[&[u8]], sane: bool) {
        let mut interim = Interim::default();
        interim.begin();
        assert_eq!(chunks.iter().all(|chunk| interim.take(chunk)), sane, "{row}");
    }

    #[test]
    fn interim_answers_are_bounded() {
        let one = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let last = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        check("none", &[last], true);
        check("sixteen", &[&one.repeat(16), last], true);
        check("seventeen", &[&one.repeat(17)], false);
        let bytes: Vec<&[u8]> = one.chunks(1).collect();
        check("sixteen, byte by byte", &[bytes.repeat(16), last.chunks(1).collect()].concat(), true);
        check("seventeen, byte by byte", &bytes.repeat(17), false);
        check("bare line feeds", &[&b"HTTP/1.1 100 \n\n".repeat(17)], false);
        check("in the answer's body", &[last, &one.repeat(17)], true);
        check("in one read with the answer", &[&[one.as_slice(), last, &one.repeat(40)].concat()], true);
    }
}

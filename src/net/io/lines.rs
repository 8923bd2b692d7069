//! Follows the lines of an HTTP/1 head as they arrive, because hyper limits only the head as a whole.

use memchr::{memchr, memrchr};

use crate::net::{Limits, RequestError};

/// The parser's position in a head.
#[derive(Default)]
pub(super) struct Lines {
    /// Bytes of the unfinished line, and whether the last one is a CR.
    line: usize,
    cr: bool,
    /// Finished lines, the request line first.
    lines: usize,
    /// Empty lines before the head.
    leading: usize,
    ended: bool,
    /// Whether what came with the end of this head ends within the fields of a next one.
    next_in_fields: bool,
    /// Whether the previous head's was so. Then the first line is no request line.
    begins_in_fields: bool,
}

/// Empty lines that may precede a request line, because old clients send them.
const MAX_LEADING_LINES: usize = 4;

/// Bytes of a request line besides its target: method, spaces, version, CR.
const REQUEST_LINE_OVERHEAD: usize = 64;

impl Lines {
    /// Begins the head after `previous`.
    pub(super) fn after(previous: &Self) -> Self {
        Self { begins_in_fields: previous.next_in_fields, ..Self::default() }
    }

    /// Fails if a line exceeds its limit so far.
    pub(super) fn follow(&mut self, mut bytes: &[u8], limits: &Limits) -> Result<(), RequestError> {
        while !self.ended {
            let Some(end) = memchr(b'\n', bytes) else {
                self.line += bytes.len();
                self.cr = bytes.last().map_or(self.cr, |last| *last == b'\r');
                return self.check_line(self.line, limits);
            };
            let cr = if end > 0 { bytes[end - 1] == b'\r' } else { self.cr };
            let line = self.line + end - usize::from(cr);
            self.check_line(line, limits)?;
            match (line, self.lines) {
                (0, 0) if self.leading == MAX_LEADING_LINES => {
                    return Err(RequestError::BadRequest("too many empty lines precede it"));
                }
                (0, 0) => self.leading += 1,
                (0, _) => self.ended = true,
                _ => self.lines += 1,
            }
            (self.line, self.cr) = (0, false);
            bytes = &bytes[end + 1..];
            if self.ended {
                // A body or pipelined heads, which are not followed.
                let lines = memrchr(b'\n', bytes).map(|last| &bytes[..=last]);
                let ends_head = |lines: &[u8]| lines.ends_with(b"\n\r\n") || lines.ends_with(b"\n\n");
                self.next_in_fields = lines.is_some_and(|lines| !ends_head(lines));
            }
        }
        Ok(())
    }

    /// A rough limit: `framing` measures complete heads.
    fn check_line(&self, line: usize, limits: &Limits) -> Result<(), RequestError> {
        match self.lines {
            0 if line > limits.target + REQUEST_LINE_OVERHEAD => match self.begins_in_fields {
                true => Err(RequestError::HeadTooLarge),
                false => Err(RequestError::TargetTooLong),
            },
            0 => Ok(()),
            _ if line > limits.field + 1 => Err(RequestError::HeadTooLarge),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &str, head: &str, expected: Option<u16>) {
        let limits = Limits { target: 20, field: 30, ..Limits::default() };
        for piece in [1, 7, head.len()] {
            let mut lines = Lines::default();
            let followed = head.as_bytes().chunks(piece).try_for_each(|part| lines.follow(part, &limits));
            assert_eq!(followed.err().map(|error| error.status().as_u16()), expected, "{row}, by {piece}");
        }
    }

    #[test]
    fn line_limits_apply_to_partial_lines() {
        let long = "x".repeat(100);
        check("a whole head", "GET / HTTP/1.1\r\nHost: g\r\n\r\n", None);
        check("bare line feeds", "GET / HTTP/1.1\nHost: g\n\n", None);
        check("a target without end", &format!("GET /{long}"), Some(414));
        check("a field without end", &format!("GET / HTTP/1.1\r\nA: {long}"), Some(431));
        check("a long field", &format!("GET / HTTP/1.1\r\nA: {long}\r\n"), Some(431));
        check("a long body", &format!("GET / HTTP/1.1\r\nA: b\r\n\r\n{long}"), None);
        check("empty lines in front", "\r\n\r\nGET / HTTP/1.1\r\n", None);
        check("only empty lines", "\r\n\r\n\r\n\r\n\r\n", Some(400));
    }

    #[test]
    fn rest_of_a_pipelined_head_is_named_for_what_it_is() {
        let limits = Limits { target: 20, field: 30, ..Limits::default() };
        let long = "x".repeat(100);
        let check = |row: &str, behind: &str, expected: u16| {
            let mut first = Lines::default();
            assert!(
                first.follow(format!("GET / HTTP/1.1\r\n\r\n{behind}").as_bytes(), &limits).is_ok(),
                "{row}"
            );
            let error = Lines::after(&first).follow(long.as_bytes(), &limits).err();
            assert_eq!(error.map(|error| error.status().as_u16()), Some(expected), "{row}");
        };
        check("nothing", "", 414);
        check("a part of a target", "GET /x", 414);
        check("a part of a field", "GET / HTTP/1.1\r\nA: x", 431);
        check("a part of a field, bare line feeds", "GET / HTTP/1.1\nA: x", 431);
        check("a head and a part of a target", "GET / HTTP/1.1\r\nA: b\r\n\r\nGET /x", 414);
        check("a head and a part of a field", "GET / HTTP/1.1\n\nGET / HTTP/1.1\r\nA: x", 431);
    }
}

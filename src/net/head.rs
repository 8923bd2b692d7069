//! Judges a request's head, line by line as it comes: sizes, line ends, everything that says where
//! the message ends, and where its fields are.

mod names;

use std::{mem, ops::Range};

use memchr::{memchr, memchr3};

use self::names::{FRAMERS, Framer, authority, valid_host};
use super::{Limits, Refusal, decoder::Decoder};
use crate::message::{Line, buffer, length_of, text_length};

/// How far a head has been judged. Fed with the same bytes again, and more behind them; the names
/// of fields become lower case in them.
#[derive(Default)]
pub(super) struct HeadScan {
    /// Where the first line begins that is not judged yet.
    line: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    /// Lines of the head so far; empty lines before it do not count.
    lines: usize,
    old: bool,
    host: Option<Line>,
    /// Where an absolute target's authority is.
    authority: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    method: Range<usize>,
    target: Range<usize>,
    fields: Vec<Line>,
}

pub(super) enum Verdict {
    Partial,
    Whole(Head),
    Refused(Refusal),
}

pub(super) struct Head {
    /// Bytes, its empty line included.
    pub len: usize,
    pub body: Decoder,
    pub method: Range<usize>,
    pub target: Range<usize>,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    pub fields: Vec<Line>,
}

const MALFORMED_LINE: Refusal = Refusal::BadRequest("malformed request line");
const MALFORMED_FIELD: Refusal = Refusal::BadRequest("malformed field line");
const FOLDED_FIELD: Refusal = Refusal::BadRequest("a folded field line");
const LINE_END: Refusal = Refusal::BadRequest("a line that does not end with CR LF");

const LINE_END_LEN: usize = 2;

/// Empty lines before a request line are passed over, as clients of old sent them.
const LEADING_LINES: usize = 4;

/// Longer than any method there is.
const MAX_METHOD: usize = 32;

/// What a request line holds beside its target: method, blanks, version, line end.
const LINE_OVERHEAD: usize = 64;

impl HeadScan {
    pub(super) fn feed(&mut self, bytes: &mut [u8], limits: &Limits) -> Verdict {
        match self.scan(bytes, limits) {
            Ok(Some(len)) => Verdict::Whole(Head {
                len,
                body: if self.chunked {
                    Decoder::chunked()
                } else {
                    Decoder::length(self.length.unwrap_or(0))
                },
                method: self.method.clone(),
                target: self.target.clone(),
                old: self.old,
                fields: mem::take(&mut self.fields),
            }),
            Ok(None) => Verdict::Partial,
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn scan(&mut self, bytes: &mut [u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        loop {
            self.searched += text_length(&bytes[self.searched..]);
            self.bound(limits)?;
            let (begin, end) = (self.line, self.searched);
            let behind = match &bytes[end..] {
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => end + LINE_END_LEN,
                _ => return Err(LINE_END),
            };
            (self.line, self.searched) = (behind, behind);
            let line = &bytes[begin..end];
            match (self.lines, line.is_empty()) {
                (0, true) if begin >= 2 * LEADING_LINES => return Err(MALFORMED_LINE),
                (0, true) => {}
                (0, false) => {
                    self.request_line(line, begin, limits)?;
                    self.lines = 1;
                }
                (_, true) => return self.whole(bytes, behind).map(Some),
                (_, false) => {
                    self.lines += 1;
                    if self.lines - 1 > limits.fields {
                        return Err(Refusal::HeadTooLarge);
                    }
                    let folded = matches!(line[0], b' ' | b'\t');
                    let no_field = if folded { FOLDED_FIELD } else { MALFORMED_FIELD };
                    let field = Line::read(bytes, begin, end).ok_or(no_field)?;
                    if FRAMERS.are_like(field) {
                        self.framer(field, bytes)?;
                    }
                    if self.fields.capacity() == 0 {
                        self.fields = buffer::lines();
                    }
                    self.fields.push(field);
                }
            }
        }
    }

    /// Whether the line that was searched last, whole or not, is short enough.
    fn bound(&self, limits: &Limits) -> Result<(), Refusal> {
        let line = self.searched - self.line;
        // A long request line alone is named as such.
        if self.lines == 0 && line > limits.target + LINE_OVERHEAD {
            return Err(Refusal::TargetTooLong);
        }
        if self.searched + LINE_END_LEN > limits.head || self.lines > 0 && line > limits.field {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8], begin: usize, limits: &Limits) -> Result<(), Refusal> {
        let Some((line, version)) = line.split_last_chunk::<9>() else {
            return Err(if line.len() > limits.target { Refusal::TargetTooLong } else { MALFORMED_LINE });
        };
        let Some(method) = memchr(b' ', line) else { return Err(MALFORMED_LINE) };
        if method == 0 || method > MAX_METHOD {
            return Err(MALFORMED_LINE);
        }
        let target = &line[method + 1..];
        if target.len() > limits.target {
            return Err(Refusal::TargetTooLong);
        }
        self.old = match version {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            _ => return Err(Refusal::BadRequest("not HTTP/1.1")),
        };
        // A parser of URIs would cut a fragment off, and take more than a target may hold.
        let one_word = memchr3(b' ', b'\t', b'#', target).is_none();
        if target.is_empty() || !one_word {
            return Err(Refusal::BadRequest("malformed request target"));
        }
        self.method = begin..begin + method;
        self.target = shifted(&(method + 1..line.len()), begin);
        if target[0] != b'/' {
            let authority = authority(&line[..method], target)?;
            self.authority = authority.map(|part| shifted(&part, begin + method + 1));
        }
        Ok(())
    }

    /// Takes down what a field says about whose message it is and where it ends, if it does.
    fn framer(&mut self, field: Line, bytes: &[u8]) -> Result<(), Refusal> {
        let value = field.value(bytes);
        match Framer::of(field.name(bytes))? {
            None => Ok(()),
            Some(Framer::Host) => {
                if self.host.replace(field).is_some() {
                    return Err(Refusal::BadRequest("more than one Host"));
                }
                if valid_host(value) { Ok(()) } else { Err(Refusal::BadRequest("malformed Host")) }
            }
            Some(Framer::ContentLength) => self.content_length(value),
            Some(Framer::TransferEncoding) => {
                if self.old {
                    return Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0"));
                }
                if self.chunked {
                    return Err(Refusal::BadRequest("more than one Transfer-Encoding"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::BadRequest("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
                Ok(())
            }
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::BadRequest("more than one Content-Length"));
        }
        self.length = Some(length_of(value).ok_or(Refusal::BadRequest("malformed Content-Length"))?);
        Ok(())
    }

    fn whole(&self, bytes: &[u8], end: usize) -> Result<usize, Refusal> {
        match (&self.host, &self.authority) {
            (None, _) if !self.old => return Err(Refusal::BadRequest("no Host")),
            (None, Some(_)) => return Err(Refusal::BadRequest("the target names a host, Host does not")),
            (Some(host), Some(authority))
                if !host.value(bytes).eq_ignore_ascii_case(&bytes[authority.clone()]) =>
            {
                return Err(Refusal::BadRequest("the target and Host disagree"));
            }
            _ => {}
        }
        if self.chunked && self.length.is_some() {
            return Err(Refusal::BadRequest("Content-Length beside Transfer-Encoding"));
        }
        Ok(end)
    }
}

fn shifted(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(pieces: &[&[u8]]) -> Option<Result<usize, Refusal>> {
        let (limits, mut scan, mut bytes) = (Limits::default(), HeadScan::default(), Vec::new());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            match scan.feed(&mut bytes, &limits) {
                Verdict::Partial => {}
                Verdict::Whole(head) => return Some(Ok(head.len)),
                Verdict::Refused(refusal) => return Some(Err(refusal)),
            }
        }
        None
    }

    proptest! {
        /// Parts of heads in any order, and anything else.
        #[test]
        fn pieces_do_not_matter(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("GET / HTTP/1.1\r\n".to_owned()),
                    Just("GET http://g/ HTTP/1.1\r\n".to_owned()),
                    Just("Host: g\r\n".to_owned()),
                    Just("Content-Length: 1\r\n".to_owned()),
                    Just("Transfer-Encoding: chunked\r\n".to_owned()),
                    Just("\r\n".to_owned()),
                    Just("\n".to_owned()),
                    "[ -~]{0,9}\r\n",
                    ".{0,5}",
                ],
                0..8,
            ),
            split in 0_usize..200,
        ) {
            let bytes = parts.concat().into_bytes();
            let split = split.min(bytes.len());
            prop_assert_eq!(judge(&[&bytes[..split], &bytes[split..]]), judge(&[&bytes]));
        }

        #[test]
        fn a_whole_head_ends_with_its_first_empty_line(
            fields in proptest::collection::vec("[B-Zb-z]{1,8}: [ -~]{0,9}\r\n", 0..9),
            behind in any::<Vec<u8>>(),
        ) {
            let head = format!("GET /x HTTP/1.1\r\nHost: g\r\n{}\r\n", fields.concat());
            let bytes = [head.as_bytes(), &behind].concat();
            if let Some(Ok(len)) = judge(&[&bytes]) {
                prop_assert_eq!(len, head.len());
            }
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in any::<Vec<u8>>()) {
            judge(&[&bytes]);
        }
    }
}

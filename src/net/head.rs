//! Judges a request's head, line by line as it comes, before hyper parses it: sizes, line ends,
//! and everything that says where the message ends. Names and values are left to hyper.

use std::ops::Range;

use memchr::memchr;

use super::{Limits, Refusal, chunked::Chunked};

/// How far a head has been judged. Fed with the same bytes again, and more behind them.
#[derive(Default)]
pub(super) struct HeadScan {
    /// Where the first line begins that is not judged yet.
    line: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    /// Lines of the head so far; empty lines before it do not count.
    lines: usize,
    old: bool,
    /// Where Host's value is.
    host: Option<Range<usize>>,
    /// Where an absolute target's authority is.
    authority: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
}

pub(super) enum Verdict {
    Partial,
    Whole(Head),
    Refused(Refusal),
}

pub(super) struct Head {
    /// Bytes, its empty line included.
    pub len: usize,
    pub framing: Framing,
}

/// Where the message ends that begins with a head.
pub(super) enum Framing {
    /// This many bytes from here.
    Length(u64),
    Chunked(Chunked),
}

impl Framing {
    /// How many of these bytes belong to the message.
    pub(super) fn consume(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Length(left) => {
                let here = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= here as u64;
                Ok(here)
            }
            Self::Chunked(chunked) => chunked
                .consume(bytes)
                .map_err(|malformed| std::io::Error::new(std::io::ErrorKind::InvalidData, malformed)),
        }
    }

    pub(super) fn ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.ended(),
        }
    }
}

const MALFORMED_LINE: Refusal = Refusal::BadRequest("malformed request line");
const LINE_END: Refusal = Refusal::BadRequest("a line that does not end with CR LF");

/// Empty lines before a request line are passed over, as clients of old sent them.
const LEADING_LINES: usize = 4;

/// What a request line holds beside its target: method, blanks, version, line end.
const LINE_OVERHEAD: usize = 64;

impl HeadScan {
    pub(super) fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Verdict {
        match self.scan(bytes, limits) {
            Ok(Some(len)) => Verdict::Whole(Head {
                len,
                framing: if self.chunked {
                    Framing::Chunked(Chunked::default())
                } else {
                    Framing::Length(self.length.unwrap_or(0))
                },
            }),
            Ok(None) => Verdict::Partial,
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    /// Everything there is has been judged: more must be read.
    pub(super) fn starved(&self, bytes: &[u8]) -> bool {
        self.searched >= bytes.len()
    }

    fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found + 1;
            let line = &bytes[self.line..end];
            let Some(line) = line.strip_suffix(b"\r\n") else { return Err(LINE_END) };
            let begin = self.line;
            (self.line, self.searched) = (end, end);
            if end > limits.head {
                // A long request line alone is named as such.
                let target_alone = self.lines == 0 && line.len() > limits.target + LINE_OVERHEAD;
                return Err(if target_alone { Refusal::TargetTooLong } else { Refusal::HeadTooLarge });
            }
            match (self.lines, line.is_empty()) {
                (0, true) if begin >= 2 * LEADING_LINES => return Err(MALFORMED_LINE),
                (0, true) => {}
                (0, false) => {
                    self.request_line(line, begin, limits)?;
                    self.lines = 1;
                }
                (_, true) => return self.whole(bytes, end).map(Some),
                (_, false) => {
                    self.lines += 1;
                    if self.lines - 1 > limits.fields || line.len() > limits.field {
                        return Err(Refusal::HeadTooLarge);
                    }
                    self.field(line, begin)?;
                }
            }
        }
        self.searched = bytes.len();
        let partial = bytes.len() - self.line;
        if self.lines == 0 && partial > limits.target + LINE_OVERHEAD {
            return Err(Refusal::TargetTooLong);
        }
        if bytes.len() > limits.head || self.lines > 0 && partial > limits.field + 1 {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(None)
    }

    fn request_line(&mut self, line: &[u8], begin: usize, limits: &Limits) -> Result<(), Refusal> {
        let Some((line, version)) = line.split_last_chunk::<9>() else {
            return Err(if line.len() > limits.target { Refusal::TargetTooLong } else { MALFORMED_LINE });
        };
        let Some(method) = memchr(b' ', line) else { return Err(MALFORMED_LINE) };
        let target = &line[method + 1..];
        if target.len() > limits.target {
            return Err(Refusal::TargetTooLong);
        }
        self.old = match version {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            _ => return Err(Refusal::BadRequest("not HTTP/1.1")),
        };
        // hyper would cut a fragment off; a blank would move the target's end.
        if method == 0 || target.is_empty() || target.iter().any(|&b| b == b'#' || b <= b' ') {
            return Err(Refusal::BadRequest("malformed request target"));
        }
        if target[0] != b'/' {
            let authority = authority(&line[..method], target)?;
            self.authority = authority.map(|part| shifted(&part, begin + method + 1));
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8], begin: usize) -> Result<(), Refusal> {
        // Only these initials matter; a blank is the continuation of a folded line.
        match line[0] | 0x20 {
            b'a' | b'c' | b'h' | b't' => {}
            b' ' | b'\t' | 0x29 => return Err(Refusal::BadRequest("a folded field line")),
            _ => return Ok(()),
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(Refusal::BadRequest("a field line without a colon"));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match Framer::named(name)? {
            None | Some(Framer::Authorization | Framer::Connection) => Ok(()),
            Some(Framer::Host) => {
                if self.host.is_some() {
                    return Err(Refusal::BadRequest("more than one Host"));
                }
                let lead = value.len() - value.trim_ascii_start().len();
                let host = value.trim_ascii();
                self.host = Some(shifted(&(lead..lead + host.len()), begin + colon + 1));
                if valid_host(host) { Ok(()) } else { Err(Refusal::BadRequest("malformed Host")) }
            }
            Some(Framer::ContentLength) => self.content_length(value.trim_ascii()),
            Some(Framer::TransferEncoding) => {
                if self.old {
                    return Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0"));
                }
                if self.chunked {
                    return Err(Refusal::BadRequest("more than one Transfer-Encoding"));
                }
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
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
        // 18 digits are more than anybody sends, and less than any integer's end.
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err(Refusal::BadRequest("malformed Content-Length"));
        }
        self.length = Some(value.iter().fold(0, |sum, b| sum * 10 + u64::from(b - b'0')));
        Ok(())
    }

    fn whole(&self, bytes: &[u8], end: usize) -> Result<usize, Refusal> {
        match (&self.host, &self.authority) {
            (None, _) if !self.old => return Err(Refusal::BadRequest("no Host")),
            (Some(host), Some(authority))
                if !bytes[host.clone()].eq_ignore_ascii_case(&bytes[authority.clone()]) =>
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

/// The fields that say whose message it is and where it ends.
enum Framer {
    Authorization,
    Connection,
    ContentLength,
    Host,
    TransferEncoding,
}

impl Framer {
    /// A name that only becomes one of these when `_` or `.` is read as `-` is refused: some
    /// server behind would read it so.
    fn named(name: &[u8]) -> Result<Option<Self>, Refusal> {
        let (exact, framer): (&[u8], _) = match name.len() {
            4 => (b"host", Self::Host),
            10 => (b"connection", Self::Connection),
            13 => (b"authorization", Self::Authorization),
            14 => (b"content-length", Self::ContentLength),
            17 => (b"transfer-encoding", Self::TransferEncoding),
            _ => return Ok(None),
        };
        if name.eq_ignore_ascii_case(exact) {
            return Ok(Some(framer));
        }
        let folded = name.iter().zip(exact).all(|(&b, &e)| match b {
            b'_' | b'.' => e == b'-',
            _ => b.eq_ignore_ascii_case(&e),
        });
        if folded { Err(Refusal::BadRequest("a name that folds onto a framing field")) } else { Ok(None) }
    }
}

/// Where the authority is in a target that is no path; `OPTIONS *` and `CONNECT host:port` have
/// none that could disagree with Host.
#[cold]
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    if matches!((method, target), (b"CONNECT", _) | (b"OPTIONS", b"*")) {
        return Ok(None);
    }
    [&b"http://"[..], b"https://"]
        .iter()
        .find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            let len = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
            (start.eq_ignore_ascii_case(scheme) && len > 0).then_some(Some(start.len()..start.len() + len))
        })
        .ok_or(Refusal::BadRequest("malformed request target"))
}

fn shifted(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// `host` or `host:port`: a registered name, an address, or a bracketed IPv6 address.
fn valid_host(host: &[u8]) -> bool {
    let port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = host.strip_prefix(b"[") {
        let Some(close) = memchr(b']', rest) else { return false };
        let literal = std::str::from_utf8(&rest[..close]).unwrap_or_default();
        let behind = &rest[close + 1..];
        return literal.parse::<std::net::Ipv6Addr>().is_ok()
            && (behind.is_empty() || behind.strip_prefix(b":").is_some_and(port));
    }
    let (name, behind) = match memchr(b':', host) {
        Some(colon) => (&host[..colon], &host[colon + 1..]),
        None => (host, &[][..]),
    };
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)) && port(behind)
}

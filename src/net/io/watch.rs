//! Follows a client's bytes as they arrive: the lines of an HTTP/1 head, because hyper limits only the head
//! as a whole, and the frames of HTTP/2, because h2 has no deadline for a field section and no limit on
//! control frames.

use memchr::{memchr, memrchr};

use crate::net::{Connection, Limits, RequestError, connection::Phase, io::PREFACE};

/// The parser's position in a client's frames.
pub(super) struct Frames {
    head: [u8; FRAME_HEAD],
    filled: usize,
    /// Bytes that are left of the preface or of the current frame's payload.
    left: usize,
    kind: FrameKind,
    preface: bool,
    last_stream: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Other,
    /// A part of a field section that is not the last.
    Fields,
    LastFields,
}

const FRAME_HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

impl Default for Frames {
    fn default() -> Self {
        Self {
            head: [0; FRAME_HEAD],
            filled: 0,
            left: PREFACE.len(),
            kind: FrameKind::Other,
            preface: true,
            last_stream: 0,
        }
    }
}

impl Frames {
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Applies these bytes to the connection's deadlines and limits. Fails after too many control frames.
    pub(super) fn follow(&mut self, bytes: &[u8], connection: &Connection) -> Result<(), RequestError> {
        let Some(streams) = connection.streams() else { return Ok(()) };
        let now = connection.clock().refresh();
        if connection.phase() == Phase::Fresh {
            connection.enter(Phase::Head);
        }
        streams.last_read.set(now);
        let mut within = true;
        self.parse(bytes, |event| match event {
            Event::Preface => connection.enter(Phase::Idle),
            Event::Fields { whole } => streams.set_head(!whole, now),
            Event::Useful => streams.count_useful_frame(now),
            Event::Control => within &= streams.control_frames.count(now),
        });
        if within { Ok(()) } else { Err(RequestError::BadRequest("too many control frames")) }
    }

    fn parse(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Event)) {
        loop {
            let here = self.left.min(bytes.len());
            (self.left, bytes) = (self.left - here, &bytes[here..]);
            if self.left > 0 {
                return;
            }
            if std::mem::take(&mut self.preface) {
                emit(Event::Preface);
            }
            if std::mem::replace(&mut self.kind, FrameKind::Other) == FrameKind::LastFields {
                emit(Event::Fields { whole: true });
            }
            let part = (FRAME_HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            (self.filled, bytes) = (self.filled + part, &bytes[part..]);
            if self.filled < FRAME_HEAD {
                return;
            }
            self.filled = 0;
            let [high, middle, low, kind, flags, stream @ ..] = self.head;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            match kind {
                HEADERS | CONTINUATION => {
                    if kind == HEADERS {
                        // Trailers are those of a stream that was opened before.
                        self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
                        emit(Event::Useful);
                    }
                    emit(Event::Fields { whole: false });
                    self.kind =
                        if flags & END_HEADERS == 0 { FrameKind::Fields } else { FrameKind::LastFields };
                }
                DATA if self.left > 0 => emit(Event::Useful),
                // h2 limits empty ones.
                DATA => {}
                _ => emit(Event::Control),
            }
        }
    }
}

enum Event {
    Preface,
    /// A field section is incomplete, or `whole`.
    Fields {
        whole: bool,
    },
    Useful,
    Control,
}

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

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let length = u8::try_from(length).expect("a short one");
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + usize::from(length), 0);
        bytes
    }

    /// Expects whether a field section is open at the end, and the number of control frames.
    fn check(row: &str, frames: &[Vec<u8>], expected: (Option<bool>, u32)) {
        let bytes = [&[0; PREFACE.len()][..], &frames.concat()].concat();
        for pieces in [1, 3, bytes.len()] {
            let (mut follower, mut open, mut control) = (Frames::default(), None, 0);
            for piece in bytes.chunks(pieces) {
                follower.parse(piece, |event| match event {
                    Event::Fields { whole } => open = Some(!whole),
                    Event::Control => control += 1,
                    Event::Preface | Event::Useful => {}
                });
            }
            assert_eq!((open, control), expected, "{row}, {pieces} at a time");
        }
    }

    #[test]
    fn field_section_is_incomplete_until_its_last_byte() {
        check("settings", &[frame(6, 4, 0)], (None, 1));
        check("whole", &[frame(9, 1, 0x4)], (Some(false), 0));
        check("whole and empty", &[frame(0, 1, 0x4)], (Some(false), 0));
        check("not ended", &[frame(9, 1, 0)], (Some(true), 0));
        check("continued", &[frame(9, 1, 0), frame(3, 9, 0)], (Some(true), 0));
        check("continued and ended", &[frame(9, 1, 0), frame(3, 9, 0x4), frame(5, 0, 1)], (Some(false), 0));
        check("cut off", &[frame(9, 1, 0x4)[..17].to_vec()], (Some(true), 0));
        check("data whose flag means something else", &[frame(5, 0, 0x4)], (None, 0));
        let control = [frame(8, 6, 0), frame(0, 0xbb, 0), frame(4, 8, 0), frame(4, 3, 0)];
        check("pings, resets and what nobody knows", &control, (None, 4));
    }

    #[test]
    fn trailers_are_not_those_of_the_last_stream() {
        let of = |stream: u8| {
            let mut head = frame(2, HEADERS, END_HEADERS);
            head[8] = stream;
            head
        };
        let mut frames = Frames::default();
        frames.parse(&[vec![0; PREFACE.len()], of(1), of(3), of(1)].concat(), |_| {});
        assert_eq!(frames.last_stream(), 3);
    }

    fn check_lines(row: &str, head: &str, expected: Option<u16>) {
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
        check_lines("a whole head", "GET / HTTP/1.1\r\nHost: g\r\n\r\n", None);
        check_lines("bare line feeds", "GET / HTTP/1.1\nHost: g\n\n", None);
        check_lines("a target without end", &format!("GET /{long}"), Some(414));
        check_lines("a field without end", &format!("GET / HTTP/1.1\r\nA: {long}"), Some(431));
        check_lines("a long field", &format!("GET / HTTP/1.1\r\nA: {long}\r\n"), Some(431));
        check_lines("a long body", &format!("GET / HTTP/1.1\r\nA: b\r\n\r\n{long}"), None);
        check_lines("empty lines in front", "\r\n\r\nGET / HTTP/1.1\r\n", None);
        check_lines("only empty lines", "\r\n\r\n\r\n\r\n\r\n", Some(400));
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

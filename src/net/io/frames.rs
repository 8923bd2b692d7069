//! Follows the frames of an HTTP/2 client, because h2 has no deadline for a field section and no limit on
//! control frames.

use crate::net::{Connection, RequestError, connection::Phase, io::PREFACE};

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
const RST_STREAM: u8 = 0x3;
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
        streams.record_read(now);
        let (mut within, mut open) = (true, None);
        self.parse(bytes, |event| match event {
            Event::Preface => connection.enter(Phase::Idle),
            Event::Fields { whole } => open = Some(!whole),
            Event::Useful => streams.count_useful_frame(now),
            Event::Control => within &= streams.count_control_frame(now),
        });
        if let Some(open) = open {
            streams.set_head(open, now);
        }
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
                        self.last_stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                        emit(Event::Useful);
                    }
                    emit(Event::Fields { whole: false });
                    self.kind =
                        if flags & END_HEADERS == 0 { FrameKind::Fields } else { FrameKind::LastFields };
                }
                DATA if self.left > 0 => emit(Event::Useful),
                // h2 limits both.
                DATA | RST_STREAM => {}
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
        check("pings and what nobody knows", &[frame(8, 6, 0), frame(0, 0xbb, 0), frame(4, 8, 0)], (None, 3));
    }
}

//! Finds the end of a chunked body in the bytes that pass by, so that the next head is known.
//! Never more lenient than hyper's decoder, which reads the same bytes.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// What is left of the present chunk's data.
    left: u64,
    /// Bytes of the present chunk's size line, or of the trailer section.
    line: usize,
    digits: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(super) struct Malformed;

/// A chunk's size line with its extensions.
const MAX_SIZE_LINE: usize = 1 << 10;
/// The trailer section.
const MAX_TRAILERS: usize = 16 << 10;
/// 60 bits of size.
const MAX_DIGITS: u8 = 15;

impl Chunked {
    /// How many of these bytes belong to the body.
    pub(super) fn consume(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if self.state == State::Data {
                let here = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    pub(super) fn ended(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        let trailing = matches!(self.state, State::Trailer | State::TrailerLine | State::TrailerLf);
        if self.line > if trailing { MAX_TRAILERS } else { MAX_SIZE_LINE } {
            return Err(Malformed);
        }
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';' | b' ' | b'\t') if self.digits > 0 => Ok(State::Extension),
            (State::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.digits += 1;
                if self.digits > MAX_DIGITS {
                    return Err(Malformed);
                }
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\n' | 0) => Err(Malformed),
            (State::Extension, _) => Ok(State::Extension),
            (State::SizeLf, b'\n') => {
                (self.line, self.digits) = (0, 0);
                Ok(if self.left == 0 { State::Trailer } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size)
            }
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::Trailer, b' ' | b'\t') => Err(Malformed),
            (State::Trailer | State::TrailerLine, b'\n' | 0) => Err(Malformed),
            (State::TrailerLine, b'\r') => Ok(State::TrailerLf),
            (State::Trailer | State::TrailerLine, _) => Ok(State::TrailerLine),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(Malformed),
        }
    }
}

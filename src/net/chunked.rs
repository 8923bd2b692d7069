//! Finds the data in a chunked body. Never more lenient than hyper's decoder.

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
    /// Behind a size nothing but an extension may come.
    SizeBlank,
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
pub struct Malformed;

/// A chunk's size line with its extensions.
const MAX_SIZE_LINE: usize = 1 << 10;
/// The trailer section.
const MAX_TRAILERS: usize = 16 << 10;
/// 60 bits of size.
const MAX_DIGITS: u8 = 15;

impl Chunked {
    /// Steps over framing to the next data: how many bytes of framing there are here, and how many
    /// of data behind them. What belongs to the trailer section is put into `trailers`.
    pub(super) fn find_data(
        &mut self,
        bytes: &[u8],
        trailers: &mut Vec<u8>,
    ) -> Result<(usize, usize), Malformed> {
        for (at, byte) in bytes.iter().enumerate() {
            match self.state {
                State::End => return Ok((at, 0)),
                State::Data => {
                    let here = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at, here));
                }
                State::Trailer | State::TrailerLine | State::TrailerLf | State::EndLf => trailers.push(*byte),
                _ => {}
            }
            self.state = self.step(*byte)?;
        }
        Ok((bytes.len(), 0))
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
            (State::Size | State::SizeBlank, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b' ' | b'\t') if self.digits > 0 => Ok(State::SizeBlank),
            (State::SizeBlank, b' ' | b'\t') => Ok(State::SizeBlank),
            (State::SizeBlank, b'\r') => Ok(State::SizeLf),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of these bytes belong to the body.
    fn consume(chunked: &mut Chunked, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && !chunked.ended() {
            let (framing, data) = chunked.find_data(&bytes[at..], &mut Vec::new())?;
            at += framing + data;
        }
        Ok(at)
    }

    fn check(name: &str, body: &str, expected: Result<usize, Malformed>) {
        let taken = consume(&mut Chunked::default(), body.as_bytes());
        assert_eq!(taken, expected, "{name}");
    }

    #[test]
    fn the_body_ends_where_it_says() {
        check("empty", "0\r\n\r\nGET", Ok(5));
        check("one chunk", "3\r\nabc\r\n0\r\n\r\nGET", Ok(13));
        check("capitals", "A\r\n0123456789\r\n00\r\n\r\n", Ok(21));
        check("an extension", "3;a=\"b\"\r\nabc\r\n0;x\r\n\r\nGET", Ok(21));
        check("trailers", "0\r\nA: b\r\nC: d\r\n\r\nGET", Ok(17));
        check("an end inside data", "5\r\n0\r\n\r\n\r\n0\r\n\r\nGET", Ok(15));
        check("not ended", "3\r\nab", Ok(5));
        check("blanks behind a size", "3 \t\r\nabc\r\n0 ;x\r\n\r\n", Ok(18));
        check("two sizes", "5 5\r\nhello\r\n0\r\n\r\n", Err(Malformed));
        check("no digits", ";a\r\n", Err(Malformed));
        check("a bare CR", "3\rabc", Err(Malformed));
        check("a folded trailer", "0\r\nA: b\r\n c\r\n\r\n", Err(Malformed));
        check("a trailer in front", "0\r\n A: b\r\n\r\n", Err(Malformed));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            body in "(([0-3];?\r\n|[abc]{1,3}\r\n|\r\n|\n|0\r\n){0,8})",
            split in 0_usize..40,
        ) {
            let bytes = body.as_bytes();
            let split = split.min(bytes.len());
            let (mut whole, mut parts) = (Chunked::default(), Chunked::default());
            let expected = consume(&mut whole, bytes);
            let read = consume(&mut parts, &bytes[..split]).and_then(|first| {
                if parts.ended() { Ok(first) } else { Ok(first + consume(&mut parts, &bytes[split..])?) }
            });
            prop_assert_eq!(read, expected);
        }
    }
}

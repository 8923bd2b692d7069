//! Takes a message's body out of the bytes that come behind its head: data in the pieces that they
//! came in, trailers as fields. Used for requests and for upstreams' answers alike.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::chunked::{Chunked, Malformed};

/// How far a body has been taken.
pub struct Decoder {
    extent: Extent,
    /// The trailer section as it comes.
    trailers: Vec<u8>,
}

/// What the next bytes are.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// Ends the body.
    Trailers(HeaderMap),
    End,
    /// More must be read first.
    Starved,
}

enum Extent {
    Length(u64),
    Chunked(Chunked),
    /// Until the connection is closed.
    Close,
    Ended,
}

/// Trailer fields beyond this many make a body malformed.
const MOST_TRAILERS: usize = 64;

impl Decoder {
    pub fn length(length: u64) -> Self {
        Self::of(if length == 0 { Extent::Ended } else { Extent::Length(length) })
    }

    pub fn chunked() -> Self {
        Self::of(Extent::Chunked(Chunked::default()))
    }

    pub fn until_close() -> Self {
        Self::of(Extent::Close)
    }

    fn of(extent: Extent) -> Self {
        Self { extent, trailers: Vec::new() }
    }

    pub fn ended(&self) -> bool {
        matches!(self.extent, Extent::Ended)
    }

    /// Bytes of data that are still to come, where the head told.
    pub fn left(&self) -> Option<u64> {
        match self.extent {
            Extent::Length(left) => Some(left),
            Extent::Ended => Some(0),
            Extent::Chunked(_) | Extent::Close => None,
        }
    }

    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Piece, Malformed> {
        let data = match &mut self.extent {
            Extent::Ended => return Ok(Piece::End),
            _ if input.is_empty() => return Ok(Piece::Starved),
            Extent::Close => input.len(),
            Extent::Length(left) => {
                let here = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.skip(here as u64);
                here
            }
            Extent::Chunked(chunked) => {
                let (framing, data) = chunked.find_data(input, &mut self.trailers)?;
                input.advance(framing);
                if chunked.ended() {
                    self.extent = Extent::Ended;
                    return fields(&self.trailers);
                }
                if data == 0 {
                    return Ok(Piece::Starved);
                }
                data
            }
        };
        Ok(Piece::Data(input.split_to(data).freeze()))
    }

    /// So many bytes of data were taken by another way.
    pub fn skip(&mut self, taken: u64) {
        if let Extent::Length(left) = &mut self.extent {
            *left = left.saturating_sub(taken);
            if *left == 0 {
                self.extent = Extent::Ended;
            }
        }
    }

    /// The connection was closed; whether the body is whole.
    pub fn close(&mut self) -> bool {
        if matches!(self.extent, Extent::Close) {
            self.extent = Extent::Ended;
        }
        self.ended()
    }
}

fn fields(section: &[u8]) -> Result<Piece, Malformed> {
    if section == b"\r\n" {
        return Ok(Piece::End);
    }
    let mut lines = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let parsed = match httparse::parse_headers(section, &mut lines) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for line in parsed {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed)?;
        fields.append(name, HeaderValue::from_bytes(line.value).map_err(|_| Malformed)?);
    }
    Ok(Piece::Trailers(fields))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]

    use super::*;

    /// The data, the trailers and what is left over, however the bytes come.
    fn read(mut decoder: Decoder, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, usize), Malformed> {
        let (mut input, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
        let mut pieces = bytes.chunks(step);
        loop {
            match decoder.decode(&mut input)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(fields) => trailers = fields.len(),
                Piece::End => {
                    return Ok((data, trailers, input.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Piece::Starved => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None if decoder.close() => {}
                    None => return Err(Malformed),
                },
            }
        }
    }

    fn check(row: &str, decoder: fn() -> Decoder, bytes: &str, expected: Option<(&str, usize, usize)>) {
        for step in [1, 2, 3, 7, bytes.len().max(1)] {
            let found = read(decoder(), bytes.as_bytes(), step).ok();
            let expected = expected.map(|(data, trailers, rest)| (data.as_bytes().to_vec(), trailers, rest));
            assert_eq!(found, expected, "{row}, {step} at a time");
        }
    }

    #[test]
    fn bodies_are_taken_as_their_heads_say() {
        check("nothing", || Decoder::length(0), "abc", Some(("", 0, 3)));
        check("a length", || Decoder::length(3), "abcde", Some(("abc", 0, 2)));
        check("a length that is not met", || Decoder::length(9), "abc", None);
        check("until the end", Decoder::until_close, "abc", Some(("abc", 0, 0)));
        check("chunks", Decoder::chunked, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nGET", Some(("abcde", 0, 3)));
        check("trailers", Decoder::chunked, "1\r\na\r\n0\r\nA: b\r\nc: d\r\n\r\n", Some(("a", 2, 0)));
        check("a chunk that breaks off", Decoder::chunked, "3\r\nab", None);
        check("no size", Decoder::chunked, "\r\nab", None);
        check("a bare line feed", Decoder::chunked, "1\na\n0\n\n", None);
        check("a trailer that is no field", Decoder::chunked, "0\r\nA b\r\n\r\n", None);
        check("a folded trailer", Decoder::chunked, "0\r\nA: b\r\n c\r\n\r\n", None);
    }
}

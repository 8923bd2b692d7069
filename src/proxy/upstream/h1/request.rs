//! A request on its way out: its head as bytes, its body piece by piece behind it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, buf::Chain};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Fault;

pub struct Outgoing<B> {
    method: Method,
    /// Kept whole until the answer: it may have to be sent again.
    head: Vec<u8>,
    written: usize,
    body: Option<B>,
    coding: Coding,
    piece: Option<Written>,
    /// Something may wait inside the stream.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// As its head says, which must be true: so many bytes are left.
    Length(u64),
    Chunked,
}

/// Framing, data, framing.
type Written = Chain<Chain<Bytes, Bytes>, Bytes>;

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// The head must frame the body as it is: a length, or `chunked`.
    pub fn new(request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let body = (!body.is_end_stream()).then_some(body);
        let coding = match body.as_ref().map(|body| body.size_hint().exact()) {
            None => Coding::Length(0),
            Some(Some(length)) => Coding::Length(length),
            Some(None) => Coding::Chunked,
        };
        let head = encode(
            &parts.method,
            parts.uri.path_and_query().map_or("/", |target| target.as_str()),
            &parts.headers,
        );
        Self { method: parts.method, head, written: 0, body, coding, piece: None, unflushed: true }
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The last byte is with the kernel.
    pub fn is_sent(&self) -> bool {
        self.written == self.head.len() && self.body.is_none() && self.piece.is_none() && !self.unflushed
    }

    /// Makes it as new. A body of which something was taken cannot be sent twice.
    pub fn rewind(mut self, written: bool) -> Option<Self> {
        let untouched = self.written == 0 && self.piece.is_none();
        let bodiless = self.body.is_none() && self.coding == Coding::Length(0);
        if !(untouched || written && bodiless) {
            return None;
        }
        (self.written, self.unflushed) = (0, true);
        Some(self)
    }

    /// The request as it was before: copying every one in case that it has to be sent again would
    /// cost each what only a few need.
    pub fn into_request(self) -> Option<Request<Option<B>>> {
        parse_head(&self.head, self.body)
    }

    /// Writes as much as there is and the stream takes.
    pub fn send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.is_sent() {
            return Ok(());
        }
        loop {
            // The body is asked for only once its head is on the way: it may have to be asked for.
            if self.piece.is_none() && self.written > 0 && self.body.is_some() {
                self.piece = self.next_piece(cx)?;
            }
            let written = if self.written < self.head.len() {
                Pin::new(&mut *stream).poll_write(cx, &self.head[self.written..])
            } else if let Some(piece) = &self.piece {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = piece.chunks_vectored(&mut slices);
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count])
            } else {
                if self.unflushed
                    && let Poll::Ready(flushed) = Pin::new(&mut *stream).poll_flush(cx)
                {
                    flushed.map_err(Fault::Broken)?;
                    self.unflushed = false;
                }
                return Ok(());
            };
            match written {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(Fault::Broken(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.wrote(count),
                Poll::Ready(Err(error)) => return Err(Fault::Broken(error)),
            }
        }
    }

    fn wrote(&mut self, count: usize) {
        if self.written < self.head.len() {
            self.written += count;
            return;
        }
        self.unflushed = true;
        if let Some(piece) = &mut self.piece {
            piece.advance(count);
            if !piece.has_remaining() {
                self.piece = None;
            }
        }
    }

    fn next_piece(&mut self, cx: &mut Context<'_>) -> Result<Option<Written>, Fault> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(Some(Err(_))) => return Err(Fault::Upload),
                Poll::Ready(None) => None,
            };
            let piece = match (&mut self.coding, frame.map(http_body::Frame::into_data)) {
                (_, Some(Ok(data))) if data.is_empty() => continue,
                (Coding::Length(left), Some(Ok(data))) => {
                    // More or less than the head says would make the rest another request.
                    *left = left.checked_sub(data.len() as u64).ok_or(Fault::Upload)?;
                    joined(Bytes::new(), data, Bytes::new())
                }
                (Coding::Chunked, Some(Ok(data))) => {
                    let size = Bytes::from(format!("{:x}\r\n", data.len()));
                    joined(size, data, Bytes::from_static(b"\r\n"))
                }
                (Coding::Length(_), Some(Err(_))) => continue,
                (Coding::Length(0), None) => {
                    self.body = None;
                    return Ok(None);
                }
                (Coding::Length(_), None) => return Err(Fault::Upload),
                (Coding::Chunked, Some(Err(frame))) => {
                    self.body = None;
                    let fields = frame.into_trailers().unwrap_or_default();
                    let mut end = b"0\r\n".to_vec();
                    put_fields(&mut end, &fields);
                    joined(Bytes::new(), end.into(), Bytes::from_static(b"\r\n"))
                }
                (Coding::Chunked, None) => {
                    self.body = None;
                    joined(Bytes::new(), Bytes::from_static(b"0\r\n\r\n"), Bytes::new())
                }
            };
            return Ok(Some(piece));
        }
    }
}

fn joined(before: Bytes, data: Bytes, after: Bytes) -> Written {
    before.chain(data).chain(after)
}

/// Room for most heads without growing.
const HEAD: usize = 1 << 10;

fn encode(method: &Method, target: &str, fields: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put_fields(&mut head, fields);
    head.extend_from_slice(b"\r\n");
    head
}

fn put_fields(into: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        into.extend_from_slice(name.as_str().as_bytes());
        into.extend_from_slice(b": ");
        into.extend_from_slice(value.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

fn parse_head<B>(head: &[u8], body: B) -> Option<Request<B>> {
    let head = head.strip_suffix(b"\r\n\r\n")?;
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    *request.version_mut() = Version::HTTP_11;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_as_it_was_sent() {
        let sent = b"GET /api/a%2Fb?q=%20x HTTP/1.1\r\nhost: a.example:81\r\nx-a: 1\r\nx-a: \xff2\r\n\r\n";
        let request = parse_head(sent, ()).expect("complete");
        assert_eq!(request.uri(), "/api/a%2Fb?q=%20x");
        assert_eq!(request.headers()["host"], "a.example:81");
        assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
        assert!(parse_head(b"GET / HTTP/1.1\r\nhost: a", ()).is_none());
        assert!(parse_head(b"", ()).is_none());
    }
}

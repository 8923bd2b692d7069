//! A request on its way to an upstream, and the way back when it has to be sent once more.

use std::task::Context;

use bytes::{Bytes, BytesMut};
use http::{Method, Version};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Fault;
use crate::{
    message::{Fields, Line, Request, RequestHead, Target, buffer},
    net::{Coding, SendError, Sending},
};

pub struct Outgoing<B> {
    method: Method,
    message: Sending<B>,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// The head must frame the body as it is: a length, or `chunked`.
    pub fn new(request: Request<B>) -> Self {
        let (RequestHead { method, target, fields, .. }, body) = request.into_parts();
        let body = (!body.is_end_stream()).then_some(body);
        let coding = match body.as_ref().map(|body| body.size_hint().exact()) {
            None => Coding::Length(0),
            Some(Some(length)) => Coding::Length(length),
            Some(None) => Coding::Chunked { trailers: true },
        };
        let head = encode(&method, target.as_str(), &fields);
        Self { method, message: Sending::new(head, body, coding) }
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    pub fn is_sent(&self) -> bool {
        self.message.is_sent()
    }

    /// Sent whole, with a body: of no use any more.
    pub fn is_spent(&self) -> bool {
        self.message.has_body() && self.message.is_sent()
    }

    /// The request as it was before, if it can be sent on another connection as if it never had
    /// been: `written` allows what the upstream may have seen, unless it has a body. Copying every
    /// request in case that it has to be sent again would cost each what only a few need.
    pub fn into_request(self, written: bool) -> Option<Request<Option<B>>> {
        if !(self.message.is_untouched() || written && !self.message.has_body()) {
            return None;
        }
        let (head, body) = self.message.into_parts();
        parse_head(&head, body)
    }

    /// Writes as much as there is and the stream takes.
    pub fn send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Result<(), Fault> {
        self.message.send(stream, cx).map_err(|error| match error {
            SendError::Broken(error) => Fault::Broken(error),
            SendError::Body => Fault::Upload,
        })
    }
}

fn encode(method: &Method, target: &str, fields: &Fields) -> Vec<u8> {
    let mut head = buffer::text();
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    fields.put(&mut head);
    head.extend_from_slice(b"\r\n");
    head
}

fn parse_head<B>(head: &[u8], body: B) -> Option<Request<B>> {
    let first = memchr::memchr(b'\n', head)?;
    let mut words = head[..first].strip_suffix(b"\r")?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = Target::parse(words.next()?)?;
    let (mut lines, mut at, mut text) = (Vec::new(), first + 1, BytesMut::from(head));
    while head.get(at..)? != b"\r\n" {
        let end = at + memchr::memchr(b'\n', &head[at..])?;
        lines.push(Line::read(&mut text, at, end.checked_sub(1)?)?);
        at = end + 1;
    }
    let fields = Fields::read(text, lines);
    Some(Request::from_parts(RequestHead { method, target, version: Version::HTTP_11, fields }, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_as_it_was_sent() {
        let sent = b"GET /api/a%2Fb?q=%20x HTTP/1.1\r\nhost: a.example:81\r\nx-a: 1\r\nx-a: \xff2\r\n\r\n";
        let request = parse_head(sent, ()).expect("complete");
        assert_eq!(request.target.as_str(), "/api/a%2Fb?q=%20x");
        assert_eq!(request.fields.get("host"), Some(&b"a.example:81"[..]));
        assert_eq!(request.fields.all("x-a").count(), 2);
        assert!(parse_head(b"GET / HTTP/1.1\r\nhost: a", ()).is_none());
        assert!(parse_head(b"", ()).is_none());
    }
}

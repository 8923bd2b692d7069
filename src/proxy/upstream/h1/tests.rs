//! What hyper's client reads is what this one reads, whatever an upstream says.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::{collections::VecDeque, convert::Infallible, future::poll_fn, pin::Pin};

use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::proxy::upstream::answer;

/// Status, fields, data, trailers.
type Read = (u16, Vec<(String, Vec<u8>)>, Vec<u8>, Vec<(String, Vec<u8>)>);

fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn list(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

fn request(method: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri("/x?y").header("host", "a").body(Empty::new()).unwrap()
}

async fn ours(method: &str, stream: DuplexStream) -> Option<(Read, bool)> {
    let mut connection = Connection::new(stream);
    connection.begin(Outgoing::new(request(method).into()));
    let head = poll_fn(|cx| connection.poll_answer(cx)).await.ok()?;
    if !answer::acceptable(head.status, &head.fields, None) {
        return None;
    }
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => trailers = list(&frame.into_trailers().unwrap()),
        }
    }
    assert!(connection.answered());
    Some((
        (head.status.as_u16(), list(&HeaderMap::from(&head.fields)), data, trailers),
        connection.reusable(),
    ))
}

async fn hypers(method: &str, stream: DuplexStream) -> Option<Read> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    let response = sender.send_request(request(method)).await.ok()?;
    let (head, body) = response.into_parts();
    if !answer::acceptable(head.status, &Fields::from(&head.headers), None) {
        return None;
    }
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().map(list).unwrap_or_default();
    Some((head.status.as_u16(), list(&head.headers), body.to_bytes().to_vec(), trailers))
}

/// The end of an upstream that says `bytes` in pieces of `step` and closes.
fn upstream(bytes: &[u8], step: usize) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let bytes = bytes.to_vec();
    tokio::task::spawn_local(async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(far.read_u8().await.unwrap());
        }
        for piece in bytes.chunks(step) {
            // Who has refused the answer already has gone.
            if far.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = far.shutdown().await;
        let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
    });
    near
}

fn agree(row: &str, method: &str, bytes: &[u8], step: usize) -> Option<(Read, bool)> {
    run(async {
        let ours = ours(method, upstream(bytes, step)).await;
        let hypers = hypers(method, upstream(bytes, step)).await;
        // Refused here also where no body would come.
        let old = |read: &Read| read.1.iter().any(|(name, _)| name == "transfer-encoding");
        let hypers = hypers.filter(|read| !(bytes.starts_with(b"HTTP/1.0") && old(read)));
        assert_eq!(
            ours.as_ref().map(|(read, _)| read),
            hypers.as_ref(),
            "{row}: {:?}",
            bytes.escape_ascii().to_string()
        );
        ours
    })
}

fn check(row: &str, method: &str, bytes: &str, expected: Option<(&str, bool)>) {
    for step in [1, 5] {
        agree(row, method, bytes.as_bytes(), step);
    }
    let read = agree(row, method, bytes.as_bytes(), bytes.len().max(1));
    let read = read.as_ref().map(|((_, _, data, _), reusable)| (data.as_slice(), *reusable));
    assert_eq!(read, expected.map(|(data, reusable)| (data.as_bytes(), reusable)), "{row}");
}

#[test]
fn answers_are_read_as_hyper_reads_them() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let of = |rest: &str| format!("{ok}{rest}");
    check("a length", "GET", &of("Content-Length: 3\r\n\r\nabc"), Some(("abc", true)));
    check("more than the length", "GET", &of("Content-Length: 2\r\n\r\nabc"), Some(("ab", false)));
    check("less than the length", "GET", &of("Content-Length: 4\r\n\r\nabc"), None);
    check("until the end", "GET", &of("\r\nabc"), Some(("abc", false)));
    check(
        "chunked",
        "GET",
        &of("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        Some(("abc", true)),
    );
    check("chunked, broken off", "GET", &of("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), None);
    check("to HEAD", "HEAD", &of("Content-Length: 3\r\n\r\n"), Some(("", true)));
    check("204", "GET", "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", Some(("", true)));
    check("304", "GET", "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", Some(("", true)));
    check("close", "GET", &of("Connection: close\r\nContent-Length: 1\r\n\r\na"), Some(("a", false)));
    check("old", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", Some(("a", false)));
    check(
        "old that goes on",
        "GET",
        "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na",
        Some(("a", true)),
    );
    check("old and chunked", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None);
    check(
        "interim",
        "GET",
        &format!("HTTP/1.1 103 Hints\r\nA: b\r\n\r\n{}", of("Content-Length: 0\r\n\r\n")),
        Some(("", true)),
    );
    check("two lengths", "GET", &of("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), None);
    check(
        "a length and chunked",
        "GET",
        &of("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        None,
    );
    check("a folded line", "GET", &of("A: b\r\n c\r\nContent-Length: 0\r\n\r\n"), None);
    check("a blank before the colon", "GET", &of("A : b\r\nContent-Length: 0\r\n\r\n"), None);
    check("nothing", "GET", "", None);
    check("half a head", "GET", &of("Content-Le"), None);
    check("another protocol", "GET", "SSH-2.0-x\r\n", None);
}

#[test]
fn interim_answers_are_bounded() {
    let interim = "HTTP/1.1 102 Wait\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (count, read) in [(16, true), (17, false)] {
        let bytes = interim.repeat(count) + last;
        let ours = run(async { ours("GET", upstream(bytes.as_bytes(), 7)).await });
        assert_eq!(ours.is_some(), read, "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Parts of answers in any order, and anything between them.
    #[test]
    fn whatever_is_said_is_read_as_hyper_reads_it(
        head in prop_oneof![
            4 => Just("HTTP/1.1 200 OK\r\n"), 1 => Just("HTTP/1.0 200 OK\r\n"), 1 => Just("HTTP/1.1 204\r\n"),
            1 => Just("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 404 \r\n"), 1 => Just("HTTP/1.1 304 x\n"), 1 => Just("HTTP/2 200\r\n"),
        ],
        fields in proptest::collection::vec(prop_oneof![
            Just("Content-Length: 5\r\n"), Just("content-length:0\r\n"), Just("Transfer-Encoding: chunked\r\n"),
            Just("Connection: close\r\n"), Just("X-A:  b \r\n"), Just("x-a: \r\n"), Just("Set-Cookie: c\r\n"), Just("bad\r\n"),
            Just("X: \u{e9}\r\n"), Just("Trailer: T\r\n"), Just("X-Bare: 1\n"),
        ], 0..4),
        body in prop_oneof![
            Just("5\r\nabcde\r\n0\r\n\r\n"), Just("abcde"), Just(""), Just("2;e\r\nab\r\n0\r\nT: u\r\n\r\n"), Just("x\r\n"),
            Just("5\r\nabc"), Just("00\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ],
        method in prop_oneof![Just("GET"), Just("HEAD"), Just("POST")],
        step in 1_usize..60,
    ) {
        let bytes = format!("{head}{}\r\n{body}", fields.concat());
        agree("any", method, bytes.as_bytes(), step);
    }
}

/// Says what it was sent, and answers at once.
async fn sent<B: Body<Data = Bytes> + Unpin>(request: Request<B>) -> String {
    let (near, mut far) = tokio::io::duplex(16);
    let reading = tokio::task::spawn_local(async move {
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    });
    let mut connection = Connection::new(near);
    connection.begin(Outgoing::new(request.into()));
    poll_fn(|cx| {
        assert!(connection.poll_answer(cx).is_pending());
        if connection.outgoing.as_ref().is_none_or(Outgoing::is_sent) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    drop(connection);
    reading.await.unwrap()
}

struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

#[test]
fn requests_go_out_whole() {
    run(async {
        assert_eq!(sent(request("GET")).await, "GET /x?y HTTP/1.1\r\nhost: a\r\n\r\n");
        let full =
            Request::post("/").header("content-length", "40").body(Full::new(Bytes::from(vec![b'a'; 40])));
        let expected = format!("POST / HTTP/1.1\r\ncontent-length: 40\r\n\r\n{}", "a".repeat(40));
        assert_eq!(sent(full.unwrap()).await, expected);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        let chunked = Frames([Frame::data("abc".into()), Frame::trailers(trailers)].into());
        let request = Request::put("/").header("transfer-encoding", "chunked").body(chunked).unwrap();
        let expected = "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\netag: x\r\n\r\n";
        assert_eq!(sent(request).await, expected);
    });
}

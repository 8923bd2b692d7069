//! Violations of HTTP/2 by a client, frame by frame, and how they end.

use std::{
    ops::RangeInclusive,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use permgate::net::Limits;

use crate::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, check, frame,
    },
    harness::{Gate, eventually},
};

const END_OF_REQUEST: u8 = END_STREAM | END_HEADERS;

fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&GET[..], fields].concat()
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().filter(|(field, _)| *field != name).collect()
}

#[test]
fn malformed_requests_are_reset_or_refused() {
    let ask = |row: &str, expected: &str, fields: &[(&str, &str)]| {
        check(row, expected, |client| {
            client.headers(END_OF_REQUEST, 1, fields);
        });
    };
    ask("a whole one", "answered", &GET);
    ask("no method", "RST 1", &without(":method"));
    ask("no scheme", "RST 1", &without(":scheme"));
    ask("no path", "RST 1", &without(":path"));
    ask("neither authority nor Host", "answered", &without(":authority"));
    ask("two paths", "RST 1", &with(&[(":path", "/y")]));
    ask("an unknown pseudo field", "GOAWAY 1", &with(&[(":x", "y")]));
    ask("a pseudo field of answers", "RST 1", &with(&[(":status", "200")]));
    ask("a pseudo field behind others", "RST 1", &[("a", "b"), GET[0], GET[1], GET[2], GET[3]]);
    ask("capitals in a name", "GOAWAY 1", &with(&[("X-A", "b")]));
    ask("Connection", "RST 1", &with(&[("connection", "close")]));
    ask("Keep-Alive", "RST 1", &with(&[("keep-alive", "1")]));
    ask("Proxy-Connection", "RST 1", &with(&[("proxy-connection", "close")]));
    ask("Transfer-Encoding", "RST 1", &with(&[("transfer-encoding", "chunked")]));
    ask("Upgrade", "RST 1", &with(&[("upgrade", "h2c")]));
    ask("TE", "RST 1", &with(&[("te", "gzip")]));
    ask("TE: trailers", "answered", &with(&[("te", "trailers")]));
    ask("a line end in a value", "GOAWAY 1", &with(&[("a", "b\r\nc: d")]));
    ask(
        "an extended CONNECT",
        "answered",
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "gate"),
            (":path", "/x"),
        ],
    );
}

#[test]
fn body_length_must_match_content_length() {
    // Sent in one write; otherwise the response, which does not wait for the body, may come first.
    let posts = |fields: &[(&'static str, &'static str)]| {
        let head = frame(HEADERS, END_HEADERS, 1, &block(&with(fields)));
        [head, frame(DATA, END_STREAM, 1, b"part")].concat()
    };
    check("shorter", "RST 1", |client| {
        client.raw(&posts(&[("content-length", "9")]));
    });
    check("longer", "RST 1", |client| {
        client.raw(&posts(&[("content-length", "1")]));
    });
    check("none at all", "RST 1", |client| {
        client.headers(END_OF_REQUEST, 1, &with(&[("content-length", "1")]));
    });
    check("two lengths", "RST 1", |client| {
        client.raw(&posts(&[("content-length", "4"), ("content-length", "5")]));
    });
}

/// HTTP/2 has no rule of its own for two values of one length.
#[test]
fn request_with_two_forms_of_length_is_refused() {
    let rows: [&[(&str, &str)]; 4] = [
        &[("content-length", "4"), ("content-length", "04")],
        &[("content-length", "4"), ("content-length", "4")],
        &[("content-length", "")],
        &[("content-length", "4"), ("content-length", "")],
    ];
    for fields in rows {
        let gate = Gate::new(&Limits::default());
        let mut client = Frames::to(&gate);
        client.send(HEADERS, END_HEADERS, 1, &block(&with(fields))).send(DATA, END_STREAM, 1, b"part");
        client.end_of(1);
        assert_eq!(gate.seen.requests.load(Ordering::SeqCst), 0, "{fields:?}");
    }
}

#[test]
fn misplaced_frames_end_the_connection() {
    check("data without a stream", "GOAWAY 1", |client| {
        client.send(DATA, 0, 1, b"x");
    });
    check("a stream of the server's", "GOAWAY 1", |client| {
        client.headers(END_OF_REQUEST, 2, &GET);
    });
    check("a stream behind", "GOAWAY 1", |client| {
        client.headers(END_OF_REQUEST, 3, &GET).headers(END_OF_REQUEST, 1, &GET);
    });
    check("something between the parts of a head", "GOAWAY 1", |client| {
        client.send(HEADERS, END_STREAM, 1, &block(&GET)).send(DATA, 0, 1, b"x");
    });
    check("a window that overflows", "GOAWAY 3", |client| {
        client.send(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    });
    check("a window update of nothing", "GOAWAY 1", |client| {
        client.send(WINDOW_UPDATE, 0, 0, &[0; 4]);
    });
    check("a frame that is too large", "GOAWAY 6", |client| {
        client.send(DATA, 0, 1, &vec![0; (16 << 10) + 1]);
    });
    check("fields that cannot be decoded", "GOAWAY 1", |client| {
        client.send(HEADERS, END_OF_REQUEST, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    check("settings of an odd length", "GOAWAY 1", |client| {
        client.send(SETTINGS, 0, 0, &[0; 5]);
    });
}

#[test]
fn floods_end_the_connection() {
    check("rapid reset", "GOAWAY 11", |client| {
        let mut flood = Vec::new();
        for stream in (1..2000).step_by(2) {
            flood.extend(frame(HEADERS, END_OF_REQUEST, stream, &block(&GET)));
            flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        client.raw(&flood);
    });
    check("errors on many streams", "GOAWAY 11", |client| {
        let mut flood = Vec::new();
        for stream in (3..2000).step_by(2) {
            flood.extend(frame(HEADERS, END_OF_REQUEST, stream, &block(&with(&[("connection", "close")]))));
        }
        client.raw(&flood);
    });
    check("pings without end", "GOAWAY 11", |client| {
        client.raw(&frame(PING, 0, 0, &[0; 8]).repeat(1100));
    });
    check("resets of a stream that has ended", "GOAWAY 11", |client| {
        client.headers(END_OF_REQUEST, 3, &GET);
        client.raw(&frame(RST_STREAM, 0, 3, &8_u32.to_be_bytes()).repeat(1100));
    });
    check("pings between requests", "answered", |client| {
        let mut flood = Vec::new();
        for stream in (3..300).step_by(2) {
            flood.extend(frame(PING, 0, 0, &[0; 8]).repeat(20));
            flood.extend(frame(HEADERS, END_OF_REQUEST, stream, &block(&GET)));
        }
        client.headers(END_OF_REQUEST, 1, &GET).raw(&flood);
    });
    check("a head without end", "GOAWAY 11", |client| {
        let mut flood = frame(HEADERS, END_STREAM, 1, &block(&GET));
        for _ in 0..1000 {
            flood.extend(frame(CONTINUATION, 0, 1, &block(&[("a", "b")])));
        }
        client.raw(&flood);
    });
}

/// Opens streams repeatedly and, once the handlers run, does `undo` to each. Checks how the connection ends,
/// and how many requests were served until then.
fn check_flood(row: &str, expected: &str, served: RangeInclusive<usize>, undo: impl Fn(&mut Frames, u32)) {
    let gate = Gate::new(&Limits::default());
    let mut client = Frames::to(&gate);
    let never = [GET[0], GET[1], GET[2], (":path", "/never")];
    eventually("it is connected", || gate.budget.open() == 1);
    let (mut first, mut over) = (1, false);
    while !over {
        assert!(first < 10_000, "{row}: goes on and on");
        let seen = gate.seen.requests.load(Ordering::SeqCst);
        // Half of the permitted number.
        let streams: Vec<u32> = (first..first + 100).step_by(2).collect();
        for stream in &streams {
            client.headers(END_OF_REQUEST, *stream, &never);
        }
        eventually("all are served, or none any more", || {
            over = gate.budget.open() == 0;
            over || gate.seen.requests.load(Ordering::SeqCst) == seen + streams.len()
        });
        for stream in &streams {
            undo(&mut client, *stream);
        }
        eventually("all are given up", || gate.seen.running.load(Ordering::SeqCst) == 0);
        first += 100;
    }
    let count = gate.seen.requests.load(Ordering::SeqCst);
    assert_eq!(client.end_of(u32::MAX), expected, "{row}");
    assert!(served.contains(&count), "{row}: {count} were served");
    assert_eq!(gate.client().get("/x").answer().0, 200, "{row}: others are served");
}

#[test]
fn flood_of_stream_resets_ends_the_connection() {
    // CVE-2023-44487, at the rate at which streams are served.
    check_flood("rapid reset", "GOAWAY 11", 1000..=1200, |client, stream| {
        client.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    });
    // CVE-2025-8671: the client makes the gateway reset its streams.
    check_flood("an update of nothing", "GOAWAY 1", 50..=50, |client, stream| {
        client.send(WINDOW_UPDATE, 0, stream, &[0; 4]);
    });
    check_flood("a window that overflows", "GOAWAY 11", 100..=200, |client, stream| {
        client.send(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
    });
    check_flood("data behind the end", "GOAWAY 1", 50..=50, |client, stream| {
        client.send(DATA, 0, stream, b"x");
    });
}

#[test]
fn at_most_a_hundred_streams_are_open() {
    let gate = Gate::new(&Limits::default());
    let mut client = Frames::to(&gate);
    let never = [GET[0], GET[1], GET[2], (":path", "/never")];
    // Before it acknowledges the settings, a client need not respect the limit.
    client.send(SETTINGS, 1, 0, &[]);
    for stream in (1..201).step_by(2) {
        client.headers(END_OF_REQUEST, stream, &never);
    }
    client.headers(END_OF_REQUEST, 201, &never);
    assert_eq!(client.end_of(201), "RST 7");
    client.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    client.headers(END_OF_REQUEST, 203, &GET);
    assert_eq!(client.end_of(203), "answered");
    drop(client);
    eventually("no connection is left", || gate.budget.open() == 0);
}

#[test]
fn slow_http2_head_ends_the_connection() {
    let limits = Limits { head_timeout: Duration::from_millis(80), ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut half = Frames::to(&gate);
    half.send(HEADERS, END_STREAM, 1, &block(&GET));
    assert_eq!(half.end_of(1), "GOAWAY 11");
    let mut preface = gate.client();
    preface.send("PRI * HTTP/2.0\r\n\r\nSM");
    assert_eq!(preface.answer().0, 408, "it does not speak HTTP/2 yet");
    preface.wait_for_close();
    eventually("no connection is left", || gate.budget.open() == 0);
}

#[test]
fn unsent_reset_closes_the_connection() {
    let gate = Gate::new(&Limits::default());
    let mut client = Frames::to(&gate);
    let most = 0x7fff_0000_u32.to_be_bytes();
    client.send(SETTINGS, 0, 0, &[&[0, 4], &most[..]].concat());
    client.send(WINDOW_UPDATE, 0, 0, &most);
    client.headers(END_OF_REQUEST, 1, &[GET[0], GET[1], GET[2], (":path", "/endless")]);
    // The client reads nothing, so the gateway's buffers fill up after the kernel's.
    let mut before = 0;
    eventually("nothing more comes", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = client.bytes_available();
        std::mem::replace(&mut before, now) == now && now > 0
    });
    let begun = Instant::now();
    assert_eq!(gate.abort_all(), 1);
    eventually("the connection is closed", || gate.budget.open() == 0);
    let took = begun.elapsed();
    // Ticks are at most 250 ms apart.
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn silent_client_is_pinged_and_then_closed() {
    let limits = Limits { ping: Duration::from_secs(4), ..Limits::default() };
    let gate = Gate::new(&limits);
    let never = [GET[0], GET[1], GET[2], (":path", "/never")];
    let play = |answers: bool| {
        let mut client = Frames::to(&gate);
        client.patience(Duration::from_secs(30));
        client.send(SETTINGS, 1, 0, &[]).headers(END_OF_REQUEST, 1, &never);
        let (begun, mut pinged) = (Instant::now(), Vec::new());
        while let Some(frame) = client.next() {
            if frame.kind == PING && frame.flags == 0 {
                pinged.push(begun.elapsed().as_secs());
                if answers {
                    client.send(PING, 1, 0, &frame.payload);
                }
                if pinged.len() == 2 {
                    break;
                }
            }
        }
        (pinged, begun.elapsed().as_secs())
    };
    let (silent, lives) = std::thread::scope(|scope| {
        let lives = scope.spawn(|| play(true));
        (play(false), lives.join().unwrap())
    });
    assert!(matches!(silent.0[..], [4..=5]) && (8..=10).contains(&silent.1), "silent: {silent:?}");
    assert!(matches!(lives.0[..], [4..=5, 8..=11]), "answers: {lives:?}");
}

#[test]
fn http1_upgrade_to_http2_is_ignored() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send("GET /x HTTP/1.1\r\nHost: gate\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n");
    assert_eq!(client.answer(), (200, "/x".into()));
}

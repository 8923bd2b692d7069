//! What else RFC 9113 and RFC 7541 forbid or allow a client, section by section. Where they require a more
//! specific error code, h2 may end the connection with PROTOCOL_ERROR.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, check,
};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const UNKNOWN: u8 = 0xbb;

const PADDED: u8 = 0x8;
const END_OF_REQUEST: u8 = END_STREAM | END_HEADERS;

const GET_NEVER: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", "/never")];

/// Sends a frame while a stream is open; `stream` 0 sends it on the connection.
fn sends(row: &str, expected: &str, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    check(row, expected, |client| {
        client.headers(END_HEADERS, 1, &GET_NEVER).send(kind, flags, stream, payload);
    });
}

#[test]
fn unknown_frames_are_ignored() {
    let answered = |row: &str, play: fn(&mut Frames)| {
        check(row, "answered", |client| {
            play(client);
            client.headers(END_OF_REQUEST, 1, &GET);
        });
    };
    answered("4.1 a frame of an unknown type", |client| _ = client.send(UNKNOWN, 0, 0, b"what"));
    answered("4.1 flags that mean nothing", |client| _ = client.send(PING, 0x16, 0, &[0; 8]));
    answered("4.1 the reserved bit", |client| _ = client.send(PING, 0, 1 << 31, &[0; 8]));
    answered("5.1 a priority of a stream that is idle", |client| {
        client.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]);
    });
    answered("6.5.2 an unknown setting", |client| {
        client.send(SETTINGS, 0, 0, &[0xff, 0xff, 0, 0, 0, 1]);
    });
    check("6.2 a head with padding and a priority", "answered", |client| {
        let padded = [&[3, 0, 0, 0, 0, 9][..], &block(&GET), &[0; 3]].concat();
        client.send(HEADERS, END_OF_REQUEST | PADDED | 0x20, 1, &padded);
    });
    check("6.10 a head in many parts", "answered", |client| {
        let head = block(&GET);
        let mut parts = head.chunks(head.len() / 3);
        client.send(HEADERS, END_STREAM, 1, parts.next().unwrap());
        for part in parts {
            client.send(CONTINUATION, 0, 1, part);
        }
        client.send(CONTINUATION, END_HEADERS, 1, &[]);
    });
    check("8.1 trailers", "answered", |client| {
        client.headers(END_HEADERS, 1, &GET).send(DATA, 0, 1, b"x");
        client.headers(END_OF_REQUEST, 1, &[("x-sum", "1")]);
    });
}

#[test]
fn frames_on_wrong_streams_are_errors() {
    let pad = [&[9][..], b"x"].concat();
    sends("6.1 data on no stream", "GOAWAY 1", DATA, 0, 0, b"x");
    sends("6.1 more padding than there is", "GOAWAY 1", DATA, PADDED, 1, &pad);
    sends("6.2 a head on no stream", "GOAWAY 1", HEADERS, END_OF_REQUEST, 0, &block(&GET));
    sends("6.2 more padding than there is", "GOAWAY 1", HEADERS, END_OF_REQUEST | PADDED, 3, &pad);
    sends("6.3 a priority on no stream", "GOAWAY 1", PRIORITY, 0, 0, &[0, 0, 0, 0, 9]);
    sends("6.4 a reset on no stream", "GOAWAY 1", RST_STREAM, 0, 0, &[0; 4]);
    sends("6.4 a reset of a stream that is idle", "GOAWAY 1", RST_STREAM, 0, 3, &[0; 4]);
    sends("6.4 a reset too short", "GOAWAY 1", RST_STREAM, 0, 1, &[0; 3]);
    sends("6.5 settings on a stream", "GOAWAY 1", SETTINGS, 0, 1, &[]);
    sends("6.5 an acknowledgement that says something", "GOAWAY 1", SETTINGS, 1, 0, &[0; 6]);
    sends("6.5.2 a push that is neither off nor on", "GOAWAY 1", SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]);
    sends("6.5.2 a window too large", "GOAWAY 1", SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]);
    sends("6.5.2 frames too small", "GOAWAY 1", SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]);
    sends("6.6 a promise", "GOAWAY 1", PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]);
    sends("6.7 a ping on a stream", "GOAWAY 1", PING, 0, 1, &[0; 8]);
    sends("6.7 a ping too short", "GOAWAY 1", PING, 0, 0, &[0; 6]);
    sends("6.8 a farewell on a stream", "GOAWAY 1", GOAWAY, 0, 1, &[0; 8]);
    sends("6.9 a window update of nothing", "GOAWAY 1", WINDOW_UPDATE, 0, 1, &[0; 4]);
    sends("6.9 a window update too short", "GOAWAY 1", WINDOW_UPDATE, 0, 1, &[0; 3]);
    sends("6.9 a window of a stream that is idle", "GOAWAY 1", WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1]);
    sends("6.9.1 a window that overflows", "RST 3", WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
    sends("6.10 the rest of a head that is whole", "GOAWAY 1", CONTINUATION, END_HEADERS, 1, &[]);
}

#[test]
fn ended_stream_accepts_no_frames() {
    let ended = |row: &str, expected: &str, kind: u8, flags: u8, payload: &[u8]| {
        check(row, expected, |client| {
            client.headers(END_OF_REQUEST, 1, &GET_NEVER).send(kind, flags, 1, payload);
        });
    };
    ended("5.1 data", "GOAWAY 1", DATA, 0, b"x");
    ended("5.1 a head", "GOAWAY 1", HEADERS, END_OF_REQUEST, &block(&[("x-sum", "1")]));
    sends("8.1 a second head that does not end the stream", "RST 1", HEADERS, END_HEADERS, 1, &block(&GET));
}

#[test]
fn header_compression_errors_end_the_connection() {
    let coded = |row: &str, expected: &str, fields: &[u8]| {
        check(row, expected, |client| {
            client.send(HEADERS, END_OF_REQUEST, 1, fields);
        });
    };
    coded("2.3.3 an index of nothing", "GOAWAY 1", &[0x80]);
    coded("2.3.3 an index beyond the table", "GOAWAY 1", &[0xff, 0x7f]);
    coded("4.2 a larger table than agreed", "GOAWAY 1", &[0x3f, 0xe1, 0xff, 0x3]);
    coded("5.2 text coded with the end of text", "GOAWAY 1", &[0x0, 0x1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]);
    coded("5.2 text padded with zeros", "GOAWAY 1", &[0x0, 0x1, b'a', 0x81, 0]);
}

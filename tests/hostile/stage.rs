//! A gateway with two services in front of a recorder, and a client that sends raw bytes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    recorder::{Received, Recorder},
    support::gateway::Gateway,
};

/// What a client received until the end.
#[derive(Debug)]
pub struct Heard {
    pub bytes: Vec<u8>,
    pub end: ConnectionState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Closed,
    Reset,
    /// Neither within [`SILENCE`].
    Open,
}

/// One answer, parsed from what a client received.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body is complete.
    pub whole: bool,
}

pub struct Stage {
    pub gateway: Gateway,
    pub recorder: Recorder,
    /// For `tracker`: `/api`, `/rest` (and, in the nested layout, everything that the
    /// other service does not own).
    pub token: String,
}

/// How long nothing may arrive before a connection counts as open.
const SILENCE: Duration = Duration::from_secs(4);

/// All carriers, with this field name.
pub fn all_carriers(field: &str) -> String {
    format!(r#"credentials = ["bearer", "basic", "raw", "header:{field}", "websocket"]"#)
}

/// Whether the services of every stage accept all carriers. Tests may notice that only by challenges.
pub fn carriers_are_on() -> bool {
    std::env::var_os("PERMGATE_ALL_CARRIERS").is_some()
}

impl Stage {
    /// `/api` and `/rest` beside `/hub/api`.
    pub fn with_sibling_services() -> Self {
        Self::with(r#""/api", "/rest""#, "", "")
    }

    /// One service owns `/`; the other is inside it.
    pub fn with_nested_services() -> Self {
        Self::with(r#""/""#, r#", "/api/admin""#, "")
    }

    pub fn with(tracker: &str, hub: &str, more: &str) -> Self {
        let recorder = Recorder::start();
        let carriers = if carriers_are_on() { all_carriers("X-Gate-Token") } else { String::new() };
        let sections = format!(
            r#"
[upstream.one]
urls = ["http://{}"]
[service.tracker]
title = "Tracker"
upstream = "one"
{carriers}
paths = [{tracker}]
readers = ["developers"]
[service.hub]
title = "Hub"
upstream = "one"
{carriers}
paths = ["/hub/api", "/hub/rest"{hub}]
readers = ["developers"]
{more}"#,
            recorder.address
        );
        let gateway = Gateway::with(&sections);
        gateway.developer("alice");
        let (_, token) = gateway.token("alice", "tracker", &["tracker"]);
        Self { gateway, recorder, token }
    }

    /// Sends one request with `Connection: close`. Returns the answer, and what reached the upstream.
    pub fn send_one(&self, method: &str, target: &[u8], fields: &str) -> (Answer, Vec<Received>) {
        let mut bytes = format!("{method} ").into_bytes();
        bytes.extend_from_slice(target);
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        bytes.extend_from_slice(fields.as_bytes());
        bytes.extend_from_slice(b"Connection: close\r\n\r\n");
        let heard = exchange_bytes(self.gateway.proxy, &bytes, false);
        let answer = heard.answers().into_iter().next();
        let target = String::from_utf8_lossy(target).into_owned();
        (answer.unwrap_or_else(|| panic!("no answer to {method} {target}: {heard:?}")), self.recorder.take())
    }

    pub fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }
}

/// Sends the bytes and reads to the end. `half`: closes the sending side first.
pub fn exchange_bytes(address: SocketAddr, bytes: &[u8], half: bool) -> Heard {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    // The server may have refused already.
    let _ = socket.write_all(bytes);
    if half {
        let _ = socket.shutdown(Shutdown::Write);
    }
    read_to_end(socket)
}

/// Reads until the end.
pub fn read_to_end(mut socket: TcpStream) -> Heard {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut heard = Heard { bytes: Vec::new(), end: ConnectionState::Closed };
    let mut buffer = [0; 16 << 10];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return heard,
            Ok(read) => heard.bytes.extend_from_slice(&buffer[..read]),
            Err(error) => {
                let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                heard.end = if silent { ConnectionState::Open } else { ConnectionState::Reset };
                return heard;
            }
        }
    }
}

impl Heard {
    /// The answers to requests other than HEAD, without interim ones.
    pub fn answers(&self) -> Vec<Answer> {
        let (mut answers, mut rest) = (Vec::new(), &self.bytes[..]);
        while !rest.is_empty() {
            let Some((answer, left)) = one(rest, self.end) else { break };
            rest = left;
            if answer.status >= 200 {
                answers.push(answer);
            }
        }
        answers
    }
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

fn one(bytes: &[u8], end: ConnectionState) -> Option<(Answer, &[u8])> {
    let length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let (head, rest) = bytes.split_at(length);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let split = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    let fields: Vec<(String, String)> = lines.filter_map(split).collect();
    let mut answer = Answer { status, fields, body: Vec::new(), whole: true };
    if status < 200 || status == 204 || status == 304 {
        return Some((answer, rest));
    }
    let mut rest = rest;
    if answer.field("transfer-encoding").is_some() {
        answer.whole = false;
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).ok()?, 16).ok()?;
            let data = &rest[at + 2..];
            if size == 0 {
                let over = data.windows(2).position(|two| two == b"\r\n")?;
                let over = if over == 0 { 2 } else { data.windows(4).position(|w| w == b"\r\n\r\n")? + 4 };
                (answer.whole, rest) = (true, &data[over..]);
                break;
            }
            answer.body.extend_from_slice(&data[..size.min(data.len())]);
            let Some(next) = data.get(size + 2..) else { return Some((answer, &[])) };
            rest = next;
        }
    } else if let Some(length) = answer.field("content-length").map(str::to_owned) {
        let length: usize = length.parse().ok()?;
        answer.whole = rest.len() >= length;
        let taken = length.min(rest.len());
        answer.body = rest[..taken].to_vec();
        rest = &rest[taken..];
    } else {
        answer.body = rest.to_vec();
        answer.whole = end == ConnectionState::Closed;
        rest = &[];
    }
    Some((answer, rest))
}

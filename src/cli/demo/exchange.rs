//! One request over a socket of its own, as plain as it can be.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Nothing in the demo takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Answer {
    pub status: u16,
    body: Vec<u8>,
}

/// A streamed answer, read event by event.
pub struct Events(BufReader<TcpStream>);

/// Sends a request that closes its connection, and reads everything. `field` is whole header lines.
pub fn ask(
    mut socket: impl Read + Write,
    method: &str,
    target: &str,
    field: &str,
    body: Option<&str>,
) -> io::Result<Answer> {
    let length = body.map_or(String::new(), |body| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    });
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{field}{length}\r\n");
    socket.write_all((head + body.unwrap_or("")).as_bytes())?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = status(&bytes).ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    Ok(Answer { status, body: bytes.split_off(end + 4) })
}

/// Sends a request and reads the head of its answer, which has to be 200.
pub fn stream(mut socket: TcpStream, target: &str, token: &str) -> io::Result<Events> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    match status(head.as_bytes()) {
        Some(200) => Ok(Events(reader)),
        status => Err(io::Error::other(format!("the stream was answered {status:?}"))),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

impl Answer {
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What a refusal says of itself.
    pub fn description(&self) -> Option<String> {
        Some(self.json()?["error_description"].as_str()?.to_owned())
    }
}

impl Events {
    /// The next line that carries an event.
    pub fn next_event(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with("data:") {
                return Ok(line);
            }
        }
    }

    /// How the stream ends: an error, unless it was a clean end of file.
    pub fn end(mut self) -> io::Result<()> {
        io::copy(&mut self.0, &mut io::sink()).map(|_| ())
    }
}

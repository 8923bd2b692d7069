//! Both ends of the gateway by hand: an upstream that the test scripts, and sockets for raw bytes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::{Gate, Setup, eventually};

/// A listening upstream whose connections are scripted by the test.
pub struct Origin {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Origin {
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    pub fn setup(&self) -> Setup {
        Setup::to(&[self.address])
    }

    pub fn start(&self) -> Gate {
        self.setup().start()
    }

    /// Accepts the gateway's next connection.
    pub fn accept(&self) -> RawConnection {
        let mut accepted = None;
        self.listener.set_nonblocking(true).unwrap();
        eventually("the gateway connects", || match self.listener.accept() {
            Ok((socket, _)) => {
                accepted = Some(socket);
                true
            }
            Err(_) => false,
        });
        let socket = accepted.unwrap();
        socket.set_nonblocking(false).unwrap();
        RawConnection::over(socket)
    }

    /// Answers every request with an empty 200, on any number of connections, until stopped.
    pub fn answer_all(&self, stop: &AtomicBool) {
        self.listener.set_nonblocking(true).unwrap();
        std::thread::scope(|scope| {
            while !stop.load(Ordering::SeqCst) {
                let Ok((socket, _)) = self.listener.accept() else {
                    std::thread::yield_now();
                    continue;
                };
                socket.set_nonblocking(false).unwrap();
                scope.spawn(move || {
                    let mut connection = RawConnection::over(socket);
                    while connection.try_head().is_some() {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if connection.socket.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Whether the gateway has opened a connection that was not accepted yet.
    pub fn has_pending_connection(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_ok()
    }
}

/// An address that refuses connections.
pub fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseKind {
    Closed,
    Reset,
}

/// One end of a connection.
pub struct RawConnection {
    pub socket: TcpStream,
    read: Vec<u8>,
}

impl RawConnection {
    pub fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(socket: TcpStream) -> Self {
        // A read that takes longer fails the test.
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.socket.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// The next head; `None` if the connection has ended in any way.
    pub(super) fn try_head(&mut self) -> Option<String> {
        loop {
            if self.read.windows(4).any(|four| four == b"\r\n\r\n") {
                return Some(self.head());
            }
            if !matches!(self.fill(), Ok(1..)) {
                return None;
            }
        }
    }

    /// Sends a request and reads the whole response. Returns its status; `None` if the
    /// connection ended instead.
    pub fn try_get(&mut self, request: &str) -> Option<u16> {
        self.socket.write_all(request.as_bytes()).ok()?;
        let head = self.try_head()?;
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        self.bytes(length);
        Some(status(&head))
    }

    /// Reads to the end of the next head.
    pub fn head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().unwrap() > 0, "the connection ended inside a head: {so_far:?}");
        };
        String::from_utf8(self.read.drain(..end).collect()).unwrap()
    }

    pub fn bytes(&mut self, count: usize) -> String {
        while self.read.len() < count {
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().unwrap() > 0, "the connection ended inside a body: {so_far:?}");
        }
        String::from_utf8(self.read.drain(..count).collect()).unwrap()
    }

    /// Reads up to and including this text.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(text.len()).position(|part| part == text.as_bytes()) {
                return self.bytes(at + text.len());
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().unwrap() > 0, "the connection ended before {text:?}: {so_far:?}");
        }
    }

    /// The next response that has a Content-Length: status, head and body.
    pub fn answer(&mut self) -> (u16, String, String) {
        let head = self.head();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.bytes(length);
        (status(&head), head, body)
    }

    /// Status and `error` of the next response, which must be the gateway's own.
    pub fn refused(&mut self) -> (u16, String) {
        let (status, head, body) = self.answer();
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("not JSON: {head}{body}"));
        assert_eq!(body["status"], status, "{body}");
        (status, body["error"].as_str().unwrap().to_owned())
    }

    /// Reads until the connection ends.
    pub fn wait_for_close(&mut self) -> CloseKind {
        loop {
            match self.fill() {
                Ok(0) => return CloseKind::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return CloseKind::Reset,
                Err(error) => panic!("neither closed nor reset: {error}"),
            }
        }
    }

    /// Checks that nothing arrives for a while.
    pub fn assert_silent(&mut self) {
        let patience = self.socket.read_timeout().unwrap();
        self.socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let kind = self.fill().map_err(|error| error.kind());
        assert!(
            matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)),
            "{kind:?}: {}",
            self.unread()
        );
        self.socket.set_read_timeout(patience).unwrap();
    }

    /// What has arrived but was not requested yet.
    pub fn unread(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub fn finish_sending(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Writes until the other side accepts no more. Returns how much it accepted.
    pub fn fill_up(&mut self, piece: &[u8]) -> usize {
        self.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut taken = 0;
        loop {
            match self.socket.write(piece) {
                Ok(count) => taken += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return taken;
                }
                Err(error) => panic!("cannot write: {error}"),
            }
            assert!(taken < 64 << 20, "nothing holds the sender back");
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 16 << 10];
        let read = self.socket.read(&mut piece)?;
        self.read.extend_from_slice(&piece[..read]);
        Ok(read)
    }
}

pub fn status(head: &str) -> u16 {
    head[9..12].parse().unwrap()
}

/// The value of a field that occurs at most once.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let values = fields(head, name);
    assert!(values.len() < 2, "{name} is there more than once: {head}");
    values.first().copied()
}

pub fn fields<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

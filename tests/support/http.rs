//! An HTTP/1.1 client on blocking sockets that sends and receives exact bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longer than any response of a working gateway takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A keep-alive connection.
pub struct Client {
    socket: Socket,
    unread: VecDeque<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case; repeated fields are joined by ", ".
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn tcp(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from another local address than the kernel would choose.
    pub fn tcp_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket: Socket::Tcp(socket), unread: VecDeque::new() }
    }

    pub fn unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket: Socket::Unix(socket), unread: VecDeque::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request with or without a JSON body, and reads the whole response.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += "Host: localhost\r\n";
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        self.send(head + "\r\n" + body.unwrap_or(""));
        self.answer(method)
    }

    /// Reads one response; `method` determines whether it has a body.
    pub fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method == "HEAD" || answer.status == 204 || answer.status == 304 {
            return answer;
        }
        answer.body = if answer.field("transfer-encoding") == Some("chunked") {
            self.chunked().unwrap()
        } else if let Some(length) = answer.field("content-length") {
            self.read_exactly(length.parse().unwrap()).unwrap()
        } else {
            let mut rest = Vec::from(std::mem::take(&mut self.unread));
            self.socket.read_to_end(&mut rest).unwrap();
            rest
        };
        answer
    }

    /// Reads a head only; the body stays unread.
    pub fn head(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().unwrap_or_else(|e| panic!("no answer after {head:?}: {e}")));
        }
        let text = String::from_utf8(head).unwrap();
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for line in lines.filter(|l| !l.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            fields
                .entry(name.to_ascii_lowercase())
                .and_modify(|all| *all += &format!(", {}", value.trim()))
                .or_insert_with(|| value.trim().to_owned());
        }
        Answer { status, fields, body: Vec::new() }
    }

    /// The status of the response; `None` if the connection ends before it.
    pub fn try_status(&mut self) -> Option<u16> {
        let line = self.line().ok()?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Reads one chunk of a chunked body; empty at the end.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = usize::from_str_radix(self.line()?.trim(), 16).map_err(io::Error::other)?;
        let data = self.read_exactly(size)?;
        if size > 0 {
            self.read_exactly(2)?;
        } else {
            while !self.line()?.is_empty() {}
        }
        Ok(data)
    }

    /// Reads until the connection ends: the remaining bytes, or an error.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::from(std::mem::take(&mut self.unread));
        self.socket.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Reads some bytes and returns their number: 0 at the end; `None` after an error.
    pub fn read_some(&mut self) -> Option<usize> {
        let unread = std::mem::take(&mut self.unread).len();
        if unread > 0 {
            return Some(unread);
        }
        self.socket.read(&mut [0; 64 << 10]).ok()
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.byte()?);
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(io::Error::other)
    }

    fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> io::Result<u8> {
        loop {
            if let Some(byte) = self.unread.pop_front() {
                return Ok(byte);
            }
            let mut buffer = [0; 4096];
            let read = self.socket.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend(&buffer[..read]);
        }
    }
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

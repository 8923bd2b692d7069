//! An upstream that records and strictly parses what it receives: bytes that two servers
//! could read differently are a fault.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub struct Recorder {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Received>>>,
}

/// Names as sent; values without surrounding white space.
pub type Fields = Vec<(String, String)>;

/// A received request, or the fault in its bytes.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub fault: Option<String>,
}

impl Recorder {
    /// Answers every request with 200 and `ok`.
    pub fn start() -> Self {
        Self::with(true)
    }

    /// Records nothing, for tests that measure memory.
    pub fn without_recording() -> Self {
        Self::with(false)
    }

    fn with(remembers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Received>>> = Arc::default();
        let shared = log.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, log) = (socket.unwrap(), shared.clone());
                thread::spawn(move || serve(socket, &log, remembers));
            }
        });
        Self { address, log }
    }

    /// What was received since the previous call.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Received {
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }
}

fn serve(mut socket: TcpStream, log: &Mutex<Vec<Received>>, remembers: bool) {
    let mut source = Source { socket: socket.try_clone().unwrap(), buffer: Vec::new() };
    loop {
        let mut received = Received {
            method: String::new(),
            target: String::new(),
            fields: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
            fault: None,
        };
        match source.request(&mut received) {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => received.fault = Some(fault),
        }
        let (over, head) = (received.fault.is_some(), received.method == "HEAD");
        if remembers {
            log.lock().unwrap().push(received);
        }
        let answer: &[u8] = if head {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        };
        if over || socket.write_all(answer).is_err() {
            return;
        }
    }
}

struct Source {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Source {
    /// False: the connection ended between requests.
    fn request(&mut self, received: &mut Received) -> Result<bool, String> {
        let Some(line) = self.line()? else { return Ok(false) };
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("request line {line:?}")) };
        (received.method, received.target) = (method.to_owned(), target.to_owned());
        received.fields = self.fields()?;
        let values = |name: &str| received.all(name).iter().map(|&v| v.to_owned()).collect::<Vec<_>>();
        let (lengths, codings, hosts) =
            (values("content-length"), values("transfer-encoding"), values("host"));
        if hosts.len() != 1 {
            return Err(format!("hosts {hosts:?}"));
        }
        for (name, _) in &received.fields {
            let folded = name.to_ascii_lowercase().replace(['_', '.'], "-");
            if name.contains(['_', '.']) && ["transfer-encoding", "content-length"].contains(&folded.as_str())
            {
                return Err(format!("a framing alias {name}"));
            }
        }
        match (&lengths[..], &codings[..]) {
            ([], []) => {}
            ([length], []) => {
                if !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(format!("length {length:?}"));
                }
                received.body = self.read_exactly(length.parse().map_err(|_| "length")?)?;
            }
            ([], [coding]) if coding == "chunked" => {
                (received.body, received.trailers) = self.chunked()?;
            }
            other => return Err(format!("framing {other:?}")),
        }
        Ok(true)
    }

    fn fields(&mut self) -> Result<Fields, String> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?.ok_or("the end inside a head")?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(format!("field {line:?}"))?;
            let tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(tchar) {
                return Err(format!("field name {name:?}"));
            }
            if value.chars().any(|c| c.is_control() && c != '\t' && (c as u32) < 0x80) {
                return Err(format!("field value {value:?}"));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn chunked(&mut self) -> Result<(Vec<u8>, Fields), String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.ok_or("the end inside a body")?;
            if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("chunk size {line:?}"));
            }
            let size = usize::from_str_radix(&line, 16).map_err(|e| e.to_string())?;
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            body.extend(self.read_exactly(size)?);
            if self.read_exactly(2)? != b"\r\n" {
                return Err("a chunk without its end".into());
            }
        }
    }

    /// A line without CR LF, as Latin-1, so that every byte is visible.
    fn line(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or("a bare LF")?;
                if line.contains(&b'\r') {
                    return Err("a bare CR".into());
                }
                return Ok(Some(line.iter().map(|b| char::from(*b)).collect()));
            }
            if !self.fill()? {
                return if self.buffer.is_empty() { Ok(None) } else { Err("the end inside a line".into()) };
            }
        }
    }

    fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err("the end inside a body".into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<bool, String> {
        let mut bytes = [0; 16 << 10];
        // A reset is the same as an end: nothing follows.
        let read = self.socket.read(&mut bytes).unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read > 0)
    }
}

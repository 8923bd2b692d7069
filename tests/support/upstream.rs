//! An upstream on blocking sockets that a test scripts.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// A received request: head (with its blank line) and body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Answers each request, on keep-alive connections, with what `answer` writes. An
    /// error closes the connection.
    pub fn start(
        answer: impl Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, log, answer) = (socket.unwrap(), log.clone(), answer.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(socket.try_clone().unwrap());
                    while let Some(request) = read(&mut reader) {
                        log.lock().unwrap().push(request.clone());
                        if answer(&request, &mut socket).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Answers every request with 200 and a JSON object that names the target.
    pub fn plain() -> Self {
        Self::start(|seen, socket| {
            let target = seen.head.split(' ').nth(1).unwrap();
            let body = format!("{{\"target\": \"{target}\"}}");
            json(socket, &body)
        })
    }

    /// A chunked response that continues while the gateway reads. The receiver is notified once it does not.
    pub fn endless() -> (Self, mpsc::Receiver<()>) {
        let (sender, over) = mpsc::channel();
        let upstream = Self::start(move |_, socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                thread::sleep(std::time::Duration::from_millis(2));
                if let Err(error) = socket.write_all(b"5\r\nevent\r\n") {
                    let _ = sender.send(());
                    return Err(error);
                }
            }
        });
        (upstream, over)
    }
}

pub fn json(socket: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes())
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { head, body })
}

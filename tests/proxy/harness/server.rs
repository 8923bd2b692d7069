//! An upstream that answers by itself, with its own name in each response.

use std::{
    io::Write,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::RawConnection;

pub struct Server {
    pub address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    name: &'static str,
    stop: AtomicBool,
    sound: AtomicBool,
    asked: AtomicUsize,
    accepted: AtomicUsize,
    checks: Mutex<Vec<String>>,
}

impl Server {
    pub fn new(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name,
            stop: AtomicBool::new(false),
            sound: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            checks: Mutex::default(),
        });
        let serving = state.clone();
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !serving.stop.load(Ordering::SeqCst) {
                let Ok((socket, _)) = listener.accept() else {
                    std::thread::yield_now();
                    continue;
                };
                socket.set_nonblocking(false).unwrap();
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                let connection = RawConnection::over(socket);
                connections.push(connection.socket.try_clone().unwrap());
                let state = serving.clone();
                std::thread::spawn(move || state.serve(connection));
            }
            for connection in connections {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// If not sound, it answers health checks with 503 and does not answer requests.
    pub fn set_healthy(&self, sound: bool) {
        self.state.sound.store(sound, Ordering::SeqCst);
    }

    /// Number of requests so far, without health checks.
    pub fn request_count(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// The heads of the health checks so far.
    pub fn checks(&self) -> Vec<String> {
        self.state.checks.lock().unwrap().clone()
    }
}

impl State {
    fn serve(&self, mut connection: RawConnection) {
        while let Some(head) = connection.try_head() {
            let sound = self.sound.load(Ordering::SeqCst);
            let answer = if head.starts_with("GET /health") {
                self.checks.lock().unwrap().push(head);
                format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", if sound { 200 } else { 503 })
            } else {
                self.asked.fetch_add(1, Ordering::SeqCst);
                if !sound {
                    let _ = connection.socket.shutdown(Shutdown::Both);
                    return;
                }
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", self.name.len(), self.name)
            };
            if connection.socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

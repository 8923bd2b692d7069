//! A relay between a node and a member of etcd that can fail in several ways.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Passes,
    /// Connections are closed, including new ones.
    Cut,
    /// Bytes are accepted but held back in both directions.
    Hangs,
    /// The node's requests arrive, but responses are held back.
    Mute,
    /// Everything is delayed by [`DELAY`] in both directions.
    Slow,
}

pub const DELAY: Duration = Duration::from_millis(150);

pub struct Relay {
    pub port: u16,
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(Mode::Passes as u8));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (shared, sockets) = (mode.clone(), open.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let server = TcpStream::connect(("127.0.0.1", to));
                let (Ok(server), false) = (server, shared.load(Ordering::SeqCst) == Mode::Cut as u8) else {
                    continue;
                };
                let mut open = sockets.lock().unwrap();
                open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(open);
                let (asks, hears) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pump(asks, hears, shared.clone(), &[Mode::Hangs]);
                pump(server, client, shared.clone(), &[Mode::Hangs, Mode::Mute]);
            }
        });
        Self { port, mode, open }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        if matches!(mode, Mode::Passes | Mode::Cut) {
            for socket in self.open.lock().unwrap().drain(..) {
                // It may be closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn pump(from: TcpStream, mut to: TcpStream, mode: Arc<AtomicU8>, held: &'static [Mode]) {
    from.set_nodelay(true).unwrap();
    let (sender, taken) = mpsc::channel::<(Instant, Vec<u8>)>();
    let mut source = from.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = source.read(&mut buffer) {
            if sender.send((Instant::now(), buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        let is = |other: &Mode| mode.load(Ordering::SeqCst) == *other as u8;
        for (at, bytes) in taken {
            if is(&Mode::Slow) {
                thread::sleep((at + DELAY).saturating_duration_since(Instant::now()));
            }
            while held.iter().any(is) {
                thread::sleep(Duration::from_millis(5));
            }
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

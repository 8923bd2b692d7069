//! A relay between a node and a member of etcd, which can be cut and can hang.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Passes,
    /// Connections are closed, and new ones too.
    Cut,
    /// Bytes are taken and go nowhere.
    Hangs,
}

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
                pump(client.try_clone().unwrap(), server.try_clone().unwrap(), shared.clone());
                pump(server, client, shared.clone());
            }
        });
        Self { port, mode, open }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        if mode != Mode::Hangs {
            for socket in self.open.lock().unwrap().drain(..) {
                // It may be closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mode: Arc<AtomicU8>) {
    from.set_nodelay(true).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while mode.load(Ordering::SeqCst) == Mode::Hangs as u8 {
                thread::sleep(Duration::from_millis(5));
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

//! Requests on raw sockets, for clients that then misbehave.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
pub const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

pub fn ask(proxy: SocketAddr, target: &str, token: &str, fields: &str) -> TcpStream {
    let mut socket = TcpStream::connect(proxy).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n{fields}\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket
}

/// Reads until `text` has arrived.
pub fn until(socket: &mut TcpStream, text: &str) -> String {
    let mut heard = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = socket.read(&mut piece).unwrap();
        assert!(read > 0, "ended before {text:?}: {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..read]);
        let so_far = String::from_utf8_lossy(&heard);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

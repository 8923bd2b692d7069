//! The service behind every proxy: answers with 1 MiB if the target ends with `1m`, else with 1 KiB.

use std::io::Write as _;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Prints its port, then serves until the process ends.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        std::io::stdout().flush().unwrap();
        let (short, long) = (answer(1 << 10), answer(1 << 20));
        let (short, long): (&'static [u8], &'static [u8]) = (short.leak(), long.leak());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(connection(socket, short, long));
        }
    });
}

fn answer(length: usize) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

async fn connection(mut socket: TcpStream, short: &[u8], long: &[u8]) {
    socket.set_nodelay(true).unwrap();
    let mut head = Vec::with_capacity(4 << 10);
    while let Ok(1..) = socket.read_buf(&mut head).await {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let answer = if target.ends_with(b"1m") { long } else { short };
        if socket.write_all(answer).await.is_err() {
            return;
        }
        head.clear();
    }
}

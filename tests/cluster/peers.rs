//! Relays between the members of etcd themselves: a member can be cut off from the others, or all of them from each
//! other, while clients reach every one.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::server::Etcd;

/// One in front of each member's port for its peers.
pub struct Peers(Vec<Arc<Mutex<Gate>>>);

#[derive(Default)]
struct Gate {
    refuses: Refused,
    open: Vec<TcpStream>,
}

/// Whom a member does not hear.
#[derive(Clone, Default)]
enum Refused {
    #[default]
    Nobody,
    Everybody,
    /// By its id, as it says it of itself.
    One(String),
}

/// As many members, each of which knows the others by their relays.
pub fn start(members: usize) -> (Etcd, Peers) {
    let mut gates = Vec::new();
    let etcd = Etcd::start_behind(members, &[], |peer| {
        let (port, gate) = relay(peer);
        gates.push(gate);
        port
    });
    (etcd, Peers(gates))
}

impl Peers {
    /// Neither hears it, nor does it hear anybody.
    pub fn cut_off(&self, etcd: &Etcd, member: usize) {
        let id = etcd.id(member);
        for (number, gate) in self.0.iter().enumerate() {
            let others = if number == member { Refused::Everybody } else { Refused::One(id.clone()) };
            set(gate, others);
        }
    }

    /// Nobody hears anybody.
    pub fn cut_all(&self) {
        self.0.iter().for_each(|gate| set(gate, Refused::Everybody));
    }

    pub fn join(&self) {
        self.0.iter().for_each(|gate| set(gate, Refused::Nobody));
    }
}

/// Whoever is not refused connects again.
fn set(gate: &Mutex<Gate>, refuses: Refused) {
    let mut gate = gate.lock().unwrap();
    gate.refuses = refuses;
    gate.open.drain(..).for_each(|socket| end(&socket));
}

fn end(socket: &TcpStream) {
    // It may be closed already.
    let _ = socket.shutdown(Shutdown::Both);
}

fn relay(to: u16) -> (u16, Arc<Mutex<Gate>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let gate: Arc<Mutex<Gate>> = Arc::default();
    let shared = gate.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let gate = shared.clone();
            thread::spawn(move || {
                // What ends a connection is told by its end.
                let _ = carry(client, to, &gate);
            });
        }
    });
    (port, gate)
}

fn carry(mut client: TcpStream, to: u16, gate: &Mutex<Gate>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..read]);
    }
    // A connection is one member's, whose every message says so.
    let text = String::from_utf8_lossy(&head);
    let from = text.lines().find_map(|line| line.strip_prefix("X-Server-From: ")).unwrap_or_default();
    let mut server = TcpStream::connect(("127.0.0.1", to))?;
    let mut gate = gate.lock().unwrap();
    match &gate.refuses {
        Refused::Everybody => return Ok(()),
        Refused::One(id) if id == from => return Ok(()),
        Refused::One(_) | Refused::Nobody => {}
    }
    gate.open.extend([client.try_clone()?, server.try_clone()?]);
    drop(gate);
    server.write_all(&head)?;
    let (mut answers, mut asker) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut asker);
        end(&answers);
        end(&asker);
    });
    let _ = io::copy(&mut client, &mut server);
    end(&client);
    end(&server);
    back.join().expect("it copies");
    Ok(())
}

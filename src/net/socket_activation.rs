//! Sockets that a supervisor such as systemd has opened for this process and passes by name: LISTEN_PID,
//! LISTEN_FDS, LISTEN_FDNAMES.

use std::{env, io};

use listenfd::ListenFd;
use socket2::SockRef;

use super::Bound;

/// The sockets that were passed to this process.
pub struct Inherited {
    names: Vec<String>,
    sockets: ListenFd,
    taken: Vec<bool>,
}

#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("the sockets passed to this process cannot be read: {0}")]
    Environment(io::Error),
    #[error("no socket was passed to this process; systemd:{0} needs a socket unit that starts it")]
    Nothing(String),
    #[error(
        "no socket named {name:?} was passed to this process, only {}; its unit needs FileDescriptorName={name}",
        .passed.join(", ")
    )]
    Missing { name: String, passed: Vec<String> },
    #[error("the socket passed as {0:?} is not a listening stream socket")]
    NotListening(String),
}

impl Inherited {
    /// Takes the sockets that the environment names. Call before other threads run: this removes the
    /// variables, so that no child process uses them. Sockets for another process are not touched.
    pub fn from_environment() -> Result<Self, InheritError> {
        // Checks LISTEN_PID, and sets close-on-exec even on sockets that are never taken.
        if sd_notify::listen_fds().map_err(InheritError::Environment)?.len() == 0 {
            return Ok(Self::none());
        }
        let passed = sd_notify::listen_fds_with_names().map_err(InheritError::Environment)?;
        let names: Vec<String> = passed.map(|(_, name)| name).collect();
        let first = env::var_os("LISTEN_FDS_FIRST_FD").is_none();
        let sockets = if !first { ListenFd::empty() } else { ListenFd::from_env() };
        let taken = vec![false; sockets.len()];
        Ok(Self { names, sockets, taken })
    }

    /// Takes nothing from the environment.
    pub fn none() -> Self {
        Self { names: Vec::new(), sockets: ListenFd::empty(), taken: Vec::new() }
    }

    /// Takes every socket with this name. Fails if there is none, or if one is not a listening stream socket.
    pub fn take(&mut self, name: &str) -> Result<Vec<Bound>, InheritError> {
        let mut all = Vec::new();
        for at in 0..self.taken.len() {
            if self.names[at] != name {
                continue;
            }
            self.taken[at] = true;
            all.push(self.socket(at).map_err(|_| InheritError::NotListening(name.to_owned()))?);
        }
        match all.is_empty() {
            false => Ok(all),
            true if self.taken.is_empty() => Err(InheritError::Nothing(name.to_owned())),
            true => Err(InheritError::Missing { name: name.to_owned(), passed: self.names.clone() }),
        }
    }

    /// Returns the names of sockets that were not taken. Connections to them would wait forever.
    pub fn untaken(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(name, _)| name.as_str())
    }

    fn socket(&mut self, at: usize) -> io::Result<Bound> {
        let listening = |socket: SockRef<'_>| match socket.is_listener() {
            Ok(true) => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        if let Ok(Some(socket)) = self.sockets.take_tcp_listener(at) {
            listening(SockRef::from(&socket))?;
            return Bound::inherited_tcp(socket);
        }
        let socket = self.sockets.take_unix_listener(at)?.ok_or(io::ErrorKind::NotFound)?;
        listening(SockRef::from(&socket))?;
        Bound::inherited_unix(socket)
    }
}

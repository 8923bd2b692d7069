//! Checks what is in the places of the unix sockets, the store, the access log and the files of etcd, without
//! creating anything.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{Config, Problem, chain, reason, secret};
use crate::{
    authz::time::Timestamp,
    net::{
        Address, BindError,
        tls::{CertifiedKeyFiles, Expiry},
    },
    proxy::access_log::LogTarget,
    settings::{Trust, UpstreamTls},
    store,
};

impl Config {
    /// The errors that a start would get because of what is in these places.
    pub fn file_errors(&self) -> Vec<Problem> {
        let sockets = self.sockets().filter_map(|(key, path)| {
            let is_other = fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket());
            let message = BindError::NoSocket(Address::Unix(path.to_path_buf())).to_string();
            is_other.then(|| self.problem_at_key(key, message, "name another path, or move it away"))
        });
        let store = store::directory_error(&self.store);
        let store = store.map(|error| self.problem_at_key("store.path", error.to_string(), ""));
        sockets.chain(store).chain(self.etcd_errors()).collect()
    }

    /// The errors in the files of `[store.cluster]`. A reload cannot change that section, and while a pair is
    /// being renewed its files do not fit together, so only `check` and a start read them.
    pub fn etcd_errors(&self) -> Vec<Problem> {
        let Some(etcd) = self.cluster.as_ref().map(|cluster| &cluster.etcd) else { return Vec::new() };
        let tls = etcd.tls.as_ref().and_then(|tls| {
            let trust = Trust::File(tls.ca.clone());
            let pair = tls.identity.clone().map(|(cert, key)| CertifiedKeyFiles { cert, key });
            let error = UpstreamTls::load(trust, pair, None).err()?;
            let key = match (&tls.identity, error.file()) {
                (Some((cert, _)), Some(file)) if cert == file => "store.cluster.tls.cert",
                (Some((_, key)), Some(file)) if key == file => "store.cluster.tls.key",
                _ => "store.cluster.tls.ca",
            };
            Some(self.problem_at_key(key, chain(&error), ""))
        });
        let password = etcd.user.as_ref().and_then(|user| {
            let why = secret::read_file(&user.password_file).err()?;
            let message = format!("the file {} cannot be read: {why}", user.password_file.display());
            Some(self.problem_at_key("store.cluster.user.password", message, ""))
        });
        tls.into_iter().chain(password).collect()
    }

    /// Warnings about what a start needs there, which a service manager may create just before it, and about
    /// certificates that have expired.
    pub fn file_warnings(&self, now: Timestamp) -> Vec<Problem> {
        let missing = |path: &Path| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
            // A start creates the store's directory, and those above it.
            let absent = !directory.exists() && !self.store.path.starts_with(directory);
            absent.then(|| directory.display().to_string())
        };
        let sockets = self.sockets().filter_map(|(key, path)| {
            let message = format!("the directory {} of a unix socket does not exist", missing(path)?);
            Some(self.problem_at_key(key, message, "create it before the start, or name another path"))
        });
        let large = (self.store.ballast > store::ballast::LARGE).then(|| {
            let message = "the ballast takes more than 1g of the disk, and is written at the first start";
            self.problem_at_key("store.ballast", message.into(), "16m is enough for the store to open")
        });
        let expired = self.certificates().filter_map(|(key, path)| {
            let expired = Expiry::read(path).is_some_and(|expiry| expiry.at <= now);
            let message = format!("the certificate {} has expired", path.display());
            expired.then(|| self.problem_at_key(&key, message, "renew it: connections with it are refused"))
        });
        sockets.chain(large).chain(expired).collect()
    }

    /// The files of the certificates that are shown to others, with the keys that name them.
    fn certificates(&self) -> impl Iterator<Item = (String, &PathBuf)> {
        let listeners = [("server.tls", &self.server.tls), ("admin.tls", &self.admin.tls)];
        let listeners =
            listeners.into_iter().flat_map(|(key, tls)| tls.pairs.iter().map(move |pair| (key, pair)));
        listeners.map(|(key, pair)| (key.to_owned(), &pair.cert)).chain(self.client_certificates())
    }

    /// The paths of the unix sockets that a start creates, with the keys that name them.
    fn sockets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let listeners = [("server.listen", &self.server.listen), ("admin.listen", &self.admin.listen)];
        let listen =
            listeners.into_iter().flat_map(|(key, all)| all.iter().map(move |one| (key, &one.address)));
        let metrics = self.admin.metrics.separate_listener().map(|address| ("admin.metrics", address));
        listen.chain(metrics).filter_map(|(key, address)| match address {
            Address::Unix(path) => Some((key, path.as_path())),
            Address::Tcp(_) | Address::Inherited(_) => None,
        })
    }

    /// The error that a start would get, if any. Does not create the file.
    pub fn access_log_error(&self) -> Option<Problem> {
        let LogTarget::File(path) = &self.log.access else { return None };
        let found = match fs::metadata(path) {
            // A pipe is not opened: its reader would take the close for the end.
            Ok(metadata) if metadata.is_file() => OpenOptions::new().append(true).open(path).map(drop),
            Ok(metadata) if metadata.is_dir() => Err(Errno::ISDIR.into()),
            Ok(metadata) if metadata.file_type().is_socket() => Err(Errno::NXIO.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new("."));
                // A start creates the store's directory first.
                if self.store.path.starts_with(directory) {
                    return None;
                }
                let creates = Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK;
                access(directory, creates).map_err(io::Error::from)
            }
            other => other.map(drop),
        };
        found.err().map(|error| self.access_log_problem(&error))
    }

    pub fn access_log_problem(&self, error: &io::Error) -> Problem {
        let file = match &self.log.access {
            LogTarget::File(path) => format!(" {}", path.display()),
            LogTarget::Off | LogTarget::Stdout => String::new(),
        };
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "create the directory that it is in",
            io::ErrorKind::PermissionDenied => "let the user who runs permgate write there",
            io::ErrorKind::IsADirectory => "name a file in it",
            _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                "a pipe needs a reader before the start; a socket cannot be written like a file"
            }
            _ => "",
        };
        let message = format!("cannot open the access log{file}: {}", reason(error));
        self.problem_at_key("log.access", message, advice)
    }
}

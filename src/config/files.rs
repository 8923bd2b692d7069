//! Checks what is in the places of the unix sockets and of the store, without creating anything.

use std::{fs, os::unix::fs::FileTypeExt as _};

use super::{Config, Problem};
use crate::{
    net::{Address, BindError},
    store,
};

impl Config {
    /// The errors that a start would get because of what is in these places.
    pub fn file_errors(&self) -> Vec<Problem> {
        let listeners = [("server.listen", &self.server.listen), ("admin.listen", &self.admin.listen)];
        let listen = listeners.iter().flat_map(|(key, all)| all.iter().map(|one| (*key, &one.address)));
        let metrics = self.admin.metrics.separate_listener().map(|address| ("admin.metrics", address));
        let sockets = listen.chain(metrics).filter_map(|(key, address)| {
            let Address::Unix(path) = address else { return None };
            let is_other = fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket());
            let message = BindError::NoSocket(address.clone()).to_string();
            is_other.then(|| self.problem_at_key(key, message, "name another path, or move it away"))
        });
        let store = store::foreign_directory(&self.store);
        let store = store.map(|error| self.problem_at_key("store.path", error.to_string(), ""));
        sockets.chain(store).collect()
    }
}

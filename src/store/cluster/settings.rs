//! The settings of `[store.cluster]`. Built by `config`.

use std::{path::PathBuf, time::Duration};

/// This node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// How long a node that is cut off may go on serving, and about how long a change may wait for it.
    pub lease: Duration,
    pub etcd: Etcd,
}

/// How etcd is reached. The files are read at each connection, so that a renewed certificate is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://` or `https://`, host, port.
    pub endpoints: Vec<String>,
    /// Prefix of every key.
    pub prefix: String,
    pub tls: Option<Tls>,
    pub user: Option<User>,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// CA certificates that verify etcd's certificate.
    pub ca: PathBuf,
    /// Client certificate and key of this node.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// This node's user in etcd, unless a certificate identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password_file: PathBuf,
}

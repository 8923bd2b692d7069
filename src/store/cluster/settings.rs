//! What `[store.cluster]` says. Built by `config`.

use std::{path::PathBuf, time::Duration};

/// This node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// How long a node that is cut off may go on serving, and a change may have to wait for it.
    pub lease: Duration,
    pub etcd: Etcd,
}

/// Where etcd is and how it is asked. Files are read at each connection, so that a renewed certificate is
/// taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://` or `https://`, host, port.
    pub endpoints: Vec<String>,
    /// Of every key.
    pub prefix: String,
    pub tls: Option<Tls>,
    pub user: Option<User>,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who vouches for etcd.
    pub ca: PathBuf,
    /// Certificate and key by which etcd knows this node.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Who this node is to etcd, where that is not said by a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password_file: PathBuf,
}

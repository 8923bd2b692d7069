//! `gateway.toml` as checked values. All errors are reported at once, with file, line and column.
//!
//! `key` reads `keys.toml`, which lists every key; `shape` checks a file against that list; `resolve`
//! interprets the values.

use std::{
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    admin::{MetricsAccess, SignIn},
    authz::{
        forwarding::TrustedProxies,
        rules::{PublicSpec, ServiceSpec, Settings as RuleSettings},
    },
    metrics,
    net::{self, BudgetLimits, Machine, tls::Settings as TlsSettings},
    proxy::access_log::LogTarget,
    settings::ProxySettings,
    store,
};

mod address;
mod admin;
mod assertion;
mod cluster;
mod document;
mod environment;
mod exchange;
mod files;
pub mod key;
mod limits;
mod locate;
mod mask;
mod problem;
mod punycode;
mod resolve;
mod secret;
mod section;
mod service;
mod shape;
pub mod suggest;
#[cfg(test)]
mod tests;
mod tls;
pub mod units;
mod upstream;

pub use address::{Listen, Scheme};
use document::References;
pub use problem::{Errors, Problem, chain, reason};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The file's text; it references secrets but contains none.
    pub text: String,
    /// What environment variables set in place of the file, as text to be shown.
    pub environment: Vec<String>,
    pub server: Server,
    pub admin: Admin,
    pub store: store::Settings,
    /// `None` for a single gateway.
    pub cluster: Option<store::cluster::Settings>,
    pub policy: store::Policy,
    pub proxy: ProxySettings,
    /// `None` if no service wants assertions.
    pub assertion: Option<crate::assertion::Settings>,
    /// In the order of the file.
    pub services: Vec<ServiceSpec>,
    pub public: Vec<PublicSpec>,
    pub rules: RuleSettings,
    pub log: Log,
    pub metrics: metrics::Settings,
    /// Secrets that other users of the machine can read or change: `check` refuses them, `run` warns about
    /// them.
    pub exposed_secrets: Vec<Problem>,
    /// Valid, but perhaps unintended.
    pub warnings: Vec<Problem>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: Vec<Listen>,
    /// The mode of the unix sockets that are listened on.
    pub unix_mode: u32,
    /// Whether connections of trusted proxies begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Known to load. Without a certificate, plain text.
    pub tls: TlsSettings,
    /// `None`: one per core.
    pub workers: Option<NonZeroUsize>,
    pub drain_delay: Duration,
    pub drain: Duration,
    pub limits: net::Limits,
    pub budgets: Budgets,
}

/// The configured budgets. The others are derived from the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    pub upstream_connections: Option<usize>,
    pub streams: Option<usize>,
    pub tunnels: Option<usize>,
    /// In bytes.
    pub send_buffers: Option<usize>,
    /// In bytes.
    pub receive_buffers: Option<usize>,
    /// For the admin listener.
    pub admin_connections: Option<usize>,
    /// In bytes, for the admin listener.
    pub bodies: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: Vec<Listen>,
    /// As [`Server::tls`].
    pub tls: TlsSettings,
    /// Names that `Host` may have besides the listener's own addresses and `localhost`, in lower case.
    pub hosts: Vec<String>,
    /// Whether other machines may reach the listener.
    pub allow_remote: bool,
    pub sign_in: SignIn,
    /// The proxies that may report the client's address.
    pub trusted_proxies: TrustedProxies,
    pub metrics: MetricsAccess,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub access: LogTarget,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// The longest file in bytes. A longer one was named by mistake.
const MAX_LENGTH: u64 = 16 << 20;

impl Config {
    /// Reads and checks a file. Fails with all of its errors.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        let shown = path.display().to_string();
        let text = read(path).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => {
                    "write one with `permgate init`, or name it with `-c FILE` or PERMGATE_CONFIG; else it is \
                     gateway.toml in the working directory, or /etc/permgate/gateway.toml"
                }
                io::ErrorKind::InvalidData => "save it in UTF-8",
                _ => "",
            };
            Errors::in_file(&shown, format!("cannot be read: {}", reason(&error)), advice)
        })?;
        parse(&text, path)
    }

    /// The text, followed by the environment's settings as comments.
    pub fn annotated_text(&self) -> String {
        let mut text = self.text.clone();
        for line in &self.environment {
            text += &format!("# {line}\n");
        }
        text
    }

    /// The files of the certificates that permgate shows to upstreams and to etcd, with the keys that name
    /// them.
    pub fn client_certificates(&self) -> impl Iterator<Item = (String, &PathBuf)> {
        let upstreams = self.proxy.upstreams.iter().filter_map(|(name, upstream)| {
            Some((format!("upstream.{name}.tls"), upstream.tls.as_ref()?.certificate()?))
        });
        let etcd = self.cluster.as_ref().and_then(|cluster| cluster.etcd.tls.as_ref()?.identity.as_ref());
        upstreams.chain(etcd.map(|(certificate, _)| ("store.cluster.tls".to_owned(), certificate)))
    }

    /// The number of worker threads.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.server.workers.map_or_else(cores, NonZeroUsize::get)
    }

    /// The budgets on such a machine: the configured ones, and the rest derived.
    pub fn budget_limits(&self, machine: Machine) -> BudgetLimits {
        let written = &self.server.budgets;
        let connections = self.server.limits.connections;
        let derived = BudgetLimits::new(machine, self.workers(), written.admin_connections);
        BudgetLimits {
            connections: derived.connections.min(connections),
            upstream_connections: written.upstream_connections.unwrap_or(derived.upstream_connections),
            streams: written.streams.unwrap_or(derived.streams),
            tunnels: written.tunnels.unwrap_or(derived.tunnels).min(connections),
            send_buffers: written.send_buffers.unwrap_or(derived.send_buffers),
            receive_buffers: written.receive_buffers.unwrap_or(derived.receive_buffers),
            bodies: written.bodies.unwrap_or(derived.bodies),
            ..derived
        }
    }

    /// The part that the store compiles and publishes to the workers.
    pub fn configuration(&self) -> store::Configuration {
        store::Configuration {
            services: self.services.clone(),
            public: self.public.clone(),
            rules: self.rules.clone(),
            proxy: Arc::new(self.proxy.clone()),
            policy: self.policy.clone(),
        }
    }

    /// Returns the TLS setting that `new` would switch on or off, which a reload cannot do.
    pub fn switched_tls(&self, new: &Self) -> Option<&'static str> {
        [("server.tls", &self.server.tls, &new.server.tls), ("admin.tls", &self.admin.tls, &new.admin.tls)]
            .into_iter()
            .find_map(|(key, old, new)| (old.pairs.is_empty() != new.pairs.is_empty()).then_some(key))
    }

    /// The first key whose change needs a restart instead of a reload.
    pub fn unreloadable_change(&self, new: &Self) -> Option<&'static str> {
        let (old, new_server) = (&self.server, &new.server);
        // Switching TLS on or off also changes this URL, but is reported separately.
        let same_scheme = old.tls.pairs.is_empty() == new_server.tls.pairs.is_empty();
        [
            ("server.listen", old.listen != new_server.listen),
            ("server.unix_mode", old.unix_mode != new_server.unix_mode),
            ("server.proxy_protocol", old.proxy_protocol != new_server.proxy_protocol),
            ("server.workers", old.workers != new_server.workers),
            ("admin.listen", self.admin.listen != new.admin.listen),
            ("admin.url", self.admin.sign_in.url != new.admin.sign_in.url),
            ("admin.hosts", self.admin.hosts != new.admin.hosts),
            ("admin.trusted_proxies", self.admin.trusted_proxies != new.admin.trusted_proxies),
            ("admin.metrics", self.admin.metrics != new.admin.metrics),
            ("admin.user_header", self.admin.sign_in.header != new.admin.sign_in.header),
            ("admin.user_header_key", self.admin.sign_in.form_key != new.admin.sign_in.form_key),
            ("server.url", same_scheme && self.admin.sign_in.gateway != new.admin.sign_in.gateway),
            ("admin.oidc", self.admin.sign_in.provider != new.admin.sign_in.provider),
            ("store.path", self.store.path != new.store.path),
            ("store.ballast", self.store.ballast != new.store.ballast),
            ("store.cluster", self.cluster != new.cluster),
        ]
        .into_iter()
        .find_map(|(key, changed)| changed.then_some(key))
    }
}

/// Checks a text as the content of `path`, without reading `path`; relative paths are relative to its
/// directory. Never panics.
pub fn parse(text: &str, path: &Path) -> Result<Config, Errors> {
    resolve::parse(text, path, References::Read)
}

/// Like [`parse`], but looks at no files and environment variables that the text names, so that the caller
/// does not learn which ones exist. Their contents may still make the configuration invalid.
pub fn check_text(text: &str, path: &Path) -> Result<(), Errors> {
    resolve::parse(text, path, References::Ignored).map(drop)
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_LENGTH {
        return Err(io::Error::other(format!("it is longer than {MAX_LENGTH} bytes")));
    }
    String::from_utf8(fs::read(path)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

//! Chooses a certificate by server name, and checks whether the chosen certificate is valid for a request's
//! host.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ServerConnection, SignatureAlgorithm, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{DnsName, ServerName};

use super::{ServerConfig, validity::client_expiry};
use crate::authz::time::Timestamp;

/// The facts of a connection's handshake on which its requests depend.
pub struct TlsInfo {
    keys: Arc<SniResolver>,
    /// The server name that the client requested.
    name: Option<Box<str>>,
    /// The last host that fits; clients rarely change it.
    last_valid: RefCell<Option<Box<[u8]>>>,
    withdrawn: Arc<AtomicBool>,
    /// When the client's certificate expires.
    client_expires_at: Option<Timestamp>,
}

impl TlsInfo {
    pub(in crate::net) fn new(config: &ServerConfig, session: &ServerConnection) -> Self {
        Self {
            keys: config.keys.clone(),
            name: session.server_name().map(Into::into),
            last_valid: RefCell::new(None),
            withdrawn: config.withdrawn.clone(),
            client_expires_at: client_expiry(session.peer_certificates()),
        }
    }

    /// Whether the requirements for client certificates have changed since the handshake.
    pub(in crate::net) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    pub(in crate::net) fn client_expires_at(&self) -> Option<Timestamp> {
        self.client_expires_at
    }

    /// Whether this connection may be used for the host (RFC 9110, 15.5.20). It may if the host is the
    /// requested server name, or another name for which the certificate is valid. If no server name was
    /// requested, any host fits that does not select another certificate.
    pub(in crate::net) fn is_valid_for_host(&self, host: &[u8]) -> bool {
        if self.last_valid.borrow().as_ref().is_some_and(|last_valid| **last_valid == *host) {
            return true;
        }
        let valid = str::from_utf8(host).is_ok_and(|host| self.is_valid_for_name(strip_port(host)));
        if valid {
            self.last_valid.replace(Some(host.into()));
        }
        valid
    }

    fn is_valid_for_name(&self, host: &str) -> bool {
        let asked = self.name.as_deref();
        if asked.is_some_and(|asked| asked.eq_ignore_ascii_case(host)) {
            return true;
        }
        let parse = |name: &str| ServerName::try_from(name.to_owned()).ok();
        let wanted = parse(host.trim_start_matches('[').trim_end_matches(']'));
        match asked {
            // Which of several certificates was used depends on what the client can verify, so any of them
            // counts.
            Some(asked) => {
                let wanted_by = |key: &Arc<CertifiedKey>| {
                    wanted.as_ref().is_some_and(|name| certificate_covers(key, name))
                };
                let shown = self.keys.certificates_for(parse(asked).as_ref());
                shown.iter().any(|key| wanted_by(key))
                    || shown.is_empty() && self.keys.0.first().is_some_and(wanted_by)
            }
            None => {
                let named = self.keys.certificates_for(wanted.as_ref());
                named.is_empty()
                    || named
                        .iter()
                        .any(|key| self.keys.0.first().is_some_and(|first| Arc::ptr_eq(key, first)))
            }
        }
    }
}

/// Strips the port, and the trailing dot of a fully qualified name.
fn strip_port(host: &str) -> &str {
    let after_bracket = host.rfind(']').map_or(0, |at| at + 1);
    let end = host[after_bracket..].find(':').map_or(host.len(), |colon| after_bracket + colon);
    let host = &host[..end];
    host.strip_suffix('.').unwrap_or(host)
}

/// Chooses a certificate by the server name and by the signatures that the client can verify.
#[derive(Debug)]
pub(super) struct SniResolver(Vec<Arc<CertifiedKey>>);

impl SniResolver {
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        Self(keys)
    }

    /// Returns the certificates that are valid for the name; none if there is only one to choose from.
    fn certificates_for(&self, name: Option<&ServerName<'_>>) -> Vec<&Arc<CertifiedKey>> {
        let Some(name) = name.filter(|_| self.0.len() > 1) else { return Vec::new() };
        self.0.iter().filter(|key| certificate_covers(key, name)).collect()
    }

    /// Returns a certificate for the name that the client can verify, preferably without RSA, whose handshake
    /// costs ten times as much. Without a name, or for an unknown one, returns the first that the client can
    /// verify.
    fn choose(
        &self,
        name: Option<&ServerName<'_>>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = self.certificates_for(name);
        let by_name = named.iter().copied().filter(usable);
        match named.first() {
            Some(first) => {
                by_name.min_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA).or(Some(first))
            }
            None => self.0.iter().find(usable).or(self.0.first()),
        }
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| DnsName::try_from(name.to_owned()).ok());
        self.choose(name.map(ServerName::DnsName).as_ref(), hello.signature_schemes()).cloned()
    }
}

fn certificate_covers(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().map(rustls::server::ParsedCertificate::try_from);
    let Ok(Ok(cert)) = parsed else { return false };
    rustls::client::verify_server_name(&cert, name).is_ok()
}

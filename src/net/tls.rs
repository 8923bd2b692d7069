//! TLS of a listener: certificates from PEM, chosen by server name, replaced while it serves;
//! client certificates where they are asked for.

mod sni;
mod validity;

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, pem::PemObject};

pub(super) use self::sni::TlsInfo;
pub use self::validity::Expiry;
use super::http2;

/// What a TLS listener shows. Clones share what `replace` changes.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<Shown>>);

/// What is shown to a client that connects now.
pub(crate) struct Shown {
    pub(super) config: Arc<ServerConfig>,
    keys: Arc<SniResolver>,
    expiries: Vec<Expiry>,
    /// Everything that was read, so that what has not changed is not replaced.
    digest: [u8; 32],
}

/// Where a listener's TLS comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Empty: plain text.
    pub pairs: Vec<Pair>,
    pub clients: Option<Clients>,
}

/// A certificate chain and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Clients are asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// PEM: who signs them.
    pub authorities: PathBuf,
    /// Else a client may show none; a bad one is refused all the same.
    pub required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate is configured")]
    Empty,
    #[error("failed to read {path}")]
    Pem { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("failed to use {cert} with {key}")]
    Unusable { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("failed to use {path} as authorities")]
    Authorities { path: PathBuf, source: rustls::Error },
    #[error("failed to use {path} as authorities")]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("failed to set TLS up")]
    Setup(#[source] rustls::Error),
}

/// How a handshake has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    /// By a ticket or a session of before.
    Resumed,
    TimedOut,
    /// The client went away.
    Closed,
    /// What came is no TLS.
    NotTls,
    /// No version, cipher or protocol that both know.
    NothingInCommon,
    /// The client's certificate is missing or not accepted.
    ClientCertificate,
    /// The client does not accept ours, or gave up for a reason of its own.
    Refused,
    Broken,
}

/// Sessions of TLS 1.2 clients that know no tickets; everybody else keeps their session themselves.
const SESSIONS: usize = 1024;

impl Certificates {
    /// Several pairs are chosen from by the server name that the client asks for and by the signatures
    /// that it can verify; those without RSA first.
    pub fn load(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Shown::load(settings)?))))
    }

    /// For handshakes from now on. False: it is the same as before, and tickets stay good.
    pub fn replace(&self, with: &Self) -> bool {
        let (before, next) = (self.0.load(), with.0.load_full());
        if before.digest == next.digest {
            return false;
        }
        self.0.store(next);
        true
    }

    /// Until when each certificate is valid, in the order of the settings.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.load().expiries.clone()
    }

    pub(crate) fn present(&self) -> Arc<Shown> {
        self.0.load_full()
    }
}

impl Settings {
    /// Every file that TLS is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        pairs.chain(self.clients.iter().map(|clients| &clients.authorities))
    }
}

impl Shown {
    fn load(settings: &Settings) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut digest = blake3::Hasher::new();
        let mut keys = Vec::with_capacity(settings.pairs.len());
        let mut expiries = Vec::with_capacity(settings.pairs.len());
        for pair in &settings.pairs {
            let key = certified(pair, &provider, &mut digest)?;
            expiries.extend(Expiry::of(&pair.cert, &key.cert));
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(TlsError::Empty);
        }
        let keys = Arc::new(SniResolver(keys));
        let verifier = match &settings.clients {
            Some(clients) => verifier(clients, &provider, &mut digest)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(keys.clone());
        config.alpn_protocols = vec![http2::PROTOCOL.to_vec(), b"http/1.1".to_vec()];
        // Keys that change by themselves and that every worker knows. They go with what they vouch
        // for: a ticket says that a client's certificate was accepted.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        Ok(Self { config: Arc::new(config), keys, expiries, digest: *digest.finalize().as_bytes() })
    }
}

/// A pair that fits; what it holds goes into the digest.
pub fn certified(
    pair: &Pair,
    provider: &CryptoProvider,
    digest: &mut blake3::Hasher,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let Pair { cert, key } = pair;
    let chain = certificates(cert, digest)?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem { path: key.clone(), source })?;
    digest.update(secret.secret_der());
    // Refuses a key that does not belong to the certificate.
    CertifiedKey::from_der(chain, secret, provider).map(Arc::new).map_err(|source| TlsError::Unusable {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })
}

/// The certificates of a PEM file, at least one.
pub fn certificates(
    path: &PathBuf,
    digest: &mut blake3::Hasher,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Pem { path: path.clone(), source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.clone()));
    }
    for certificate in &found {
        digest.update(certificate);
    }
    Ok(found)
}

fn verifier(
    clients: &Clients,
    provider: &Arc<CryptoProvider>,
    digest: &mut blake3::Hasher,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = &clients.authorities;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, digest)? {
        roots.add(certificate).map_err(|source| TlsError::Authorities { path: path.clone(), source })?;
    }
    digest.update(&[u8::from(clients.required)]);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|source| TlsError::Verifier { path: path.clone(), source })
}

/// Chooses a certificate by the name that a client asks for, and by what it can verify.
#[derive(Debug)]
struct SniResolver(Vec<Arc<CertifiedKey>>);

impl SniResolver {
    /// Those that are valid for the name; none where there is no choice.
    fn named(&self, name: Option<&ServerName<'_>>) -> Vec<&Arc<CertifiedKey>> {
        let Some(name) = name.filter(|_| self.0.len() > 1) else { return Vec::new() };
        self.0.iter().filter(|key| valid_for(key, name)).collect()
    }

    /// A certificate for the name that the client can verify, rather one without RSA: its handshake
    /// costs a tenth. Without a name, or for an unknown one, the first of all that it can verify.
    fn choose(
        &self,
        name: Option<&ServerName<'_>>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = self.named(name);
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

fn valid_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().map(rustls::server::ParsedCertificate::try_from);
    let Ok(Ok(cert)) = parsed else { return false };
    rustls::client::verify_server_name(&cert, name).is_ok()
}

impl Handshake {
    pub(super) fn of_session(session: &rustls::ServerConnection) -> Self {
        match session.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => Self::Resumed,
            _ => Self::Full,
        }
    }

    pub(super) fn of_error(error: &std::io::Error) -> Self {
        use rustls::{AlertDescription, Error};
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
            return Self::Closed;
        };
        match error {
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Self::ClientCertificate,
            Error::AlertReceived(AlertDescription::UserCanceled | AlertDescription::CloseNotify) => {
                Self::Closed
            }
            Error::AlertReceived(_) => Self::Refused,
            _ => Self::Broken,
        }
    }
}

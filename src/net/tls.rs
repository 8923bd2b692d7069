//! TLS of a listener: certificates from PEM files, chosen by server name and replaced while serving, and
//! optional client certificates.

mod sni;
mod validity;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        NoServerSessionStorage, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use strum::{IntoStaticStr, VariantArray};
use zeroize::Zeroizing;

use self::sni::SniResolver;
pub(super) use self::sni::TlsInfo;
pub use self::validity::Expiry;
use super::{http2, read_regular_file};

/// The TLS configuration of a listener. Clones share it, so `replace` changes all of them.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<ServerConfig>>);

/// The configuration for new handshakes.
#[derive(Clone)]
pub(crate) struct ServerConfig {
    pub(super) config: Arc<rustls::ServerConfig>,
    keys: Arc<SniResolver>,
    expiries: Vec<Expiry>,
    /// A digest of every file that was read, so that unchanged files replace nothing.
    digest: [u8; 32],
    /// A digest of the requirements for client certificates; `None`: none are requested.
    clients: Option<[u8; 32]>,
    /// The requirements for client certificates have changed, so connections made before get no more
    /// requests.
    withdrawn: Arc<AtomicBool>,
}

/// What [`Certificates::replace`] has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replacement {
    Nothing,
    /// The certificates for new handshakes.
    Certificates,
    /// Also the requirements for client certificates. Connections made under the old ones are withdrawn.
    Clients,
}

/// The files and options of a listener's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Empty: plain text.
    pub pairs: Vec<CertifiedKeyFiles>,
    pub clients: Option<ClientAuth>,
}

/// The files of a certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKeyFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Requests certificates from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// The PEM file of the authorities that sign client certificates.
    pub authorities: PathBuf,
    /// Whether a client must present a certificate. If not, an invalid one is still refused.
    pub required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate is configured")]
    Empty,
    #[error("failed to read {path}")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{0} has no certificate")]
    NoCertificate(PathBuf),
    #[error(
        "{0} has no private key, or an encrypted one: write one without a passphrase with `openssl pkey`"
    )]
    NoKey(PathBuf),
    #[error("failed to use {cert} with {key}")]
    Unusable { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("failed to use {path} as certificate authorities")]
    Authorities { path: PathBuf, source: rustls::Error },
    #[error("failed to use {path} as certificate authorities")]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// The file at fault.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Pem { path, .. }
            | Self::NoCertificate(path)
            | Self::NoKey(path)
            | Self::Unusable { key: path, .. }
            | Self::Authorities { path, .. }
            | Self::Verifier { path, .. } => Some(path),
            Self::Empty | Self::Setup(_) => None,
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Handshake {
    Full,
    /// From a ticket or a cached session.
    Resumed,
    TimedOut,
    /// The client went away.
    Closed,
    /// The client sent something other than TLS.
    NotTls,
    /// No version, cipher suite or protocol in common.
    NothingInCommon,
    /// The client's certificate is missing or invalid.
    ClientCertificate,
    /// The client rejected the server's certificate, or gave up for another reason.
    Refused,
    Broken,
}

impl Handshake {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics.
    pub const fn code(self) -> &'static str {
        self.into_str()
    }
}

/// The largest PEM file, in bytes. All public authorities together take 250 kB, so a longer file is a
/// mistake.
const MAX_PEM: u64 = 4 << 20;

/// Cached sessions of TLS 1.2 clients without tickets. Other clients keep their own session.
const MAX_SESSIONS: usize = 1024;

impl Certificates {
    /// Loads the certificates. Among several pairs, the server name and the signatures that the client can
    /// verify decide, and pairs without RSA are preferred.
    pub fn load(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(ServerConfig::load(settings)?))))
    }

    /// Takes effect for new handshakes. If nothing has changed, session tickets remain valid.
    pub fn replace(&self, with: &Self) -> Replacement {
        let (before, next) = (self.0.load_full(), with.0.load_full());
        if before.digest == next.digest {
            return Replacement::Nothing;
        }
        if next.clients.is_some() && next.clients != before.clients {
            self.0.store(next);
            before.withdrawn.store(true, Ordering::Release);
            return Replacement::Clients;
        }
        // Connections made until now are withdrawn with those made from now on.
        let withdrawn = before.withdrawn.clone();
        self.0.store(Arc::new(ServerConfig { withdrawn, ..(*next).clone() }));
        Replacement::Certificates
    }

    /// Returns when each certificate expires, in the order of the settings.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.load().expiries.clone()
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

impl Settings {
    /// Every file that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        pairs.chain(self.clients.iter().map(|clients| &clients.authorities))
    }
}

impl ServerConfig {
    fn load(settings: &Settings) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut digest = blake3::Hasher::new();
        let mut keys = Vec::with_capacity(settings.pairs.len());
        let mut expiries = Vec::with_capacity(settings.pairs.len());
        for pair in &settings.pairs {
            let key = load_certified_key(pair, &provider, &mut digest)?;
            expiries.extend(Expiry::of(&pair.cert, &key.cert));
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(TlsError::Empty);
        }
        let keys = Arc::new(SniResolver::new(keys));
        let (mut clients, mut verifier) = (None, WebPkiClientVerifier::no_client_auth());
        if let Some(asked) = &settings.clients {
            let mut of_clients = blake3::Hasher::new();
            verifier = self::verifier(asked, &provider, &mut of_clients)?;
            let of_clients = *of_clients.finalize().as_bytes();
            digest.update(&of_clients);
            clients = Some(of_clients);
        }
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(keys.clone());
        config.alpn_protocols = vec![http2::PROTOCOL.to_vec(), b"http/1.1".to_vec()];
        // A resumed session would keep a client's certificate valid beyond its expiry, for as long as the
        // client resumes one session after the other: rustls verifies it in full handshakes only (RFC 8446,
        // 4.6.1).
        if clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // Rotates its own keys, and is shared by all workers.
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
            config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
        }
        Ok(Self {
            config: Arc::new(config),
            keys,
            expiries,
            digest: *digest.finalize().as_bytes(),
            clients,
            withdrawn: Arc::default(),
        })
    }
}

/// Reads a certificate chain and its key, and adds both to `digest`. Fails if one cannot be read or they do
/// not belong together.
pub fn load_certified_key(
    pair: &CertifiedKeyFiles,
    provider: &CryptoProvider,
    digest: &mut blake3::Hasher,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let CertifiedKeyFiles { cert, key } = pair;
    let chain = load_certificates(cert, digest)?;
    let unreadable = |source| TlsError::Pem { path: key.clone(), source };
    let text = Zeroizing::new(read_pem(key).map_err(unreadable)?);
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(key.clone()),
        other => unreadable(other),
    })?;
    digest.update(secret.secret_der());
    // Refuses a key that does not belong to the certificate.
    CertifiedKey::from_der(chain, secret, provider).map(Arc::new).map_err(|source| TlsError::Unusable {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })
}

/// Reads the certificates of a PEM file and adds them to `digest`. Fails if there is none.
pub fn load_certificates(
    path: &Path,
    digest: &mut blake3::Hasher,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = read_pem(path)
        .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>())
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    for certificate in &found {
        digest.update(certificate);
    }
    Ok(found)
}

fn read_pem(path: &Path) -> Result<Vec<u8>, pem::Error> {
    read_regular_file(path, MAX_PEM).map_err(pem::Error::Io)
}

fn verifier(
    clients: &ClientAuth,
    provider: &Arc<CryptoProvider>,
    digest: &mut blake3::Hasher,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = &clients.authorities;
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path, digest)? {
        roots.add(certificate).map_err(|source| TlsError::Authorities { path: path.clone(), source })?;
    }
    digest.update(&[u8::from(clients.required)]);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|source| TlsError::Verifier { path: path.clone(), source })
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

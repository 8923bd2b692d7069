//! Certificates of a listener: loaded from PEM, chosen by server name, replaced by a reload.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, pem::PemObject};

use super::h2;

/// What a TLS listener shows. Clones share what `replace` changes.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<ServerConfig>>);

/// A certificate chain and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
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
    #[error("failed to set TLS up")]
    Setup(#[source] rustls::Error),
}

impl Certificates {
    /// Several pairs are chosen from by the server name that the client asks for; the first that
    /// is valid for it, else the first of all.
    pub fn load(pairs: &[Pair]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(config(pairs)?))))
    }

    /// For handshakes from now on.
    pub fn replace(&self, with: &Self) {
        self.0.store(with.present());
    }

    pub(crate) fn present(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

fn config(pairs: &[Pair]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let keys = pairs.iter().map(|pair| certified(pair, &provider)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(TlsError::Empty);
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = vec![h2::PROTOCOL.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certified(pair: &Pair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let Pair { cert, key } = pair;
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Pem { path: cert.clone(), source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.clone()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem { path: key.clone(), source })?;
    // Refuses a key that does not belong to the certificate.
    CertifiedKey::from_der(chain, secret, provider).map(Arc::new).map_err(|source| TlsError::Unusable {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })
}

#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| DnsName::try_from(name.to_owned()).ok());
        let first = self.0.first()?;
        let Some(name) = name.filter(|_| self.0.len() > 1) else { return Some(first.clone()) };
        let name = ServerName::DnsName(name);
        self.0.iter().find(|key| valid_for(key, &name)).or(Some(first)).cloned()
    }
}

fn valid_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().map(rustls::server::ParsedCertificate::try_from);
    let Ok(Ok(cert)) = parsed else { return false };
    rustls::client::verify_server_name(&cert, name).is_ok()
}

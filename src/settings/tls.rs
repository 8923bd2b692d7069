//! TLS towards an upstream: whose certificates are trusted and which one is shown. There is no switch
//! that trusts everybody.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::{
        ClientSessionMemoryCache, Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _,
        verify_server_name,
    },
    crypto::aws_lc_rs,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, DnsName, ServerName};
use tokio_rustls::TlsConnector;

use crate::{
    net::tls::{CertifiedKeyFiles, TlsError, load_certificates, load_certified_key},
    settings::{Host, HttpVersion},
};

/// What `upstream.NAME.tls` comes to, valid. Equal when made of the same files' contents.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// Expected in the upstream's certificate, instead of the url's host.
    name: Option<ServerName<'static>>,
    /// The certificates of `Trust::File`.
    authorities: Vec<CertificateDer<'static>>,
    files: Vec<PathBuf>,
    digest: [u8; 32],
}

/// What it is made of.
#[derive(Clone, Debug)]
pub struct TlsParts {
    pub trust: Trust,
    /// Shown to an upstream that asks for it.
    pub pair: Option<CertifiedKeyFiles>,
    pub name: Option<ServerName<'static>>,
}

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    System(SystemRoots),
    /// These authorities alone.
    File(PathBuf),
}

/// What the machine trusts, loaded once.
#[derive(Clone, Debug)]
pub struct SystemRoots {
    roots: Arc<RootCertStore>,
    digest: [u8; 32],
}

/// The machine's own list cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the system's certificate authorities cannot be read{0}")]
pub struct NoSystemRoots(String);

/// Sessions that may be resumed, for each upstream.
const SESSIONS: usize = 256;

impl SystemRoots {
    pub fn load() -> Result<Self, NoSystemRoots> {
        let found = rustls_native_certs::load_native_certs();
        let (mut roots, mut digest) = (RootCertStore::empty(), blake3::Hasher::new());
        for certificate in &found.certs {
            digest.update(certificate);
        }
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            return Err(NoSystemRoots(
                found.errors.first().map(|why| format!(": {why}")).unwrap_or_default(),
            ));
        }
        for error in &found.errors {
            tracing::warn!(%error, "a part of the system's certificate authorities cannot be read");
        }
        Ok(Self { roots: Arc::new(roots), digest: *digest.finalize().as_bytes() })
    }
}

impl TlsParts {
    fn files(&self) -> Vec<PathBuf> {
        let ca = if let Trust::File(path) = &self.trust { Some(path.clone()) } else { None };
        let pair = self.pair.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]);
        ca.into_iter().chain(pair).collect()
    }
}

impl UpstreamTls {
    pub fn load(parts: TlsParts) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut digest = blake3::Hasher::new();
        let files = parts.files();
        let mut authorities = Vec::new();
        let roots = match &parts.trust {
            Trust::System(system) => {
                digest.update(&system.digest);
                system.roots.clone()
            }
            Trust::File(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in load_certificates(path, &mut digest)? {
                    authorities.push(certificate.clone());
                    roots
                        .add(certificate)
                        .map_err(|source| TlsError::Authorities { path: path.clone(), source })?;
                }
                Arc::new(roots)
            }
        };
        let shown =
            parts.pair.as_ref().map(|pair| load_certified_key(pair, &provider, &mut digest)).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots);
        let mut config = match shown {
            Some(key) => {
                let resolver = rustls::sign::SingleCertAndKey::from(Arc::unwrap_or_clone(key));
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        let digest = *digest.finalize().as_bytes();
        Ok(Self { config: Arc::new(config), name: parts.name, authorities, files, digest })
    }

    /// What it was read from, the system's authorities left out.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whom the upstream's certificate has to name.
    pub fn expected(&self, host: &Host) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| server_name(host))
    }

    /// Whether an authority is named as the upstream itself: an upstream that shows it is refused, since
    /// an authority is no server.
    pub fn authority_is_server(&self, host: &Host) -> bool {
        self.expected(host).is_some_and(|name| {
            self.authorities.iter().any(|certificate| {
                let parsed = ParsedCertificate::try_from(certificate);
                parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
                    && self.refuses_authority(certificate, &name)
            })
        })
    }

    fn refuses_authority(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verdict = verifier.map(|verifier| {
            verifier.verify_server_cert(certificate, &[], name, &[], rustls_pki_types::UnixTime::now())
        });
        matches!(verdict, Ok(Err(rustls::Error::InvalidCertificate(why))) if is_authority(&why))
    }

    /// For handshakes that offer this. What may be resumed is shared.
    pub fn connector(&self, version: HttpVersion) -> TlsConnector {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = match version {
            HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
            HttpVersion::Http2 => vec![b"h2".to_vec()],
        };
        Arc::new(config).into()
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.name == other.name
    }
}

impl Eq for UpstreamTls {}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
        Host::Name(name) => parse_name(name),
        Host::Socket(_) => None,
    }
}

/// A DNS name or an address, as a certificate may name it.
pub fn parse_name(text: &str) -> Option<ServerName<'static>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_owned();
    DnsName::try_from(name).ok().map(ServerName::DnsName)
}

/// What is wrong with a certificate that `openssl req -x509` makes unless it is told otherwise.
pub const MADE_AS_AUTHORITY: &str = "made as an authority: add basicConstraints=critical,CA:FALSE";

/// rustls has no variant of its own for a server that shows an authority's certificate.
pub fn is_authority(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(why) if format!("{why:?}").contains("CaUsedAsEndEntity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as `openssl req -x509` makes one for a server, and a proper one.
    #[test]
    fn a_server_that_is_made_as_an_authority_is_told_apart() {
        let check = |is_ca: rcgen::IsCa, name: &str, expected: bool| {
            let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
            parameters.is_ca = is_ca;
            let key = rcgen::KeyPair::generate().expect("a key");
            let file = tempfile::NamedTempFile::new().expect("a file");
            let certificate = parameters.self_signed(&key).expect("a certificate");
            std::fs::write(file.path(), certificate.pem()).expect("written");
            let trust = Trust::File(file.path().to_owned());
            let tls = UpstreamTls::load(TlsParts { trust, pair: None, name: None }).expect("sound");
            assert_eq!(tls.authority_is_server(&Host::Name("a.test".into())), expected, "{name}");
        };
        let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        check(authority, "a.test", true);
        check(authority, "ca.test", false);
        check(rcgen::IsCa::ExplicitNoCa, "a.test", false);
        check(rcgen::IsCa::NoCa, "a.test", false);
    }
}

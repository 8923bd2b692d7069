//! TLS to an upstream: which certificates are trusted, and which client certificate is presented. There is no
//! setting that trusts every certificate.

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

/// `upstream.NAME.tls`, loaded and valid. Equal if the files' contents and the expected name are.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// The name that the upstream's certificate must have, instead of the URL's host.
    name: Option<ServerName<'static>>,
    /// The certificates of `Trust::File`.
    authorities: Vec<CertificateDer<'static>>,
    files: Vec<PathBuf>,
    certificate: Option<PathBuf>,
    digest: [u8; 32],
}

/// The authorities whose certificates are trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    System(SystemRoots),
    /// Only these authorities.
    File(PathBuf),
}

/// The authorities that the machine trusts, loaded once.
#[derive(Clone, Debug)]
pub struct SystemRoots {
    roots: Arc<RootCertStore>,
    digest: [u8; 32],
}

/// The authorities that the machine trusts cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the system's certificate authorities cannot be read{0}")]
pub struct NoSystemRoots(String);

/// Sessions kept for resumption, per upstream.
const MAX_SESSIONS: usize = 256;

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

impl UpstreamTls {
    /// `pair` is presented to an upstream that requests a client certificate.
    pub fn load(
        trust: Trust,
        pair: Option<CertifiedKeyFiles>,
        name: Option<ServerName<'static>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut digest = blake3::Hasher::new();
        let (mut files, mut authorities) = (Vec::new(), Vec::new());
        let roots = match trust {
            Trust::System(system) => {
                digest.update(&system.digest);
                system.roots.clone()
            }
            Trust::File(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in load_certificates(&path, &mut digest)? {
                    authorities.push(certificate.clone());
                    roots
                        .add(certificate)
                        .map_err(|source| TlsError::Authorities { path: path.clone(), source })?;
                }
                files.push(path);
                Arc::new(roots)
            }
        };
        files.extend(pair.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
        let shown = pair.as_ref().map(|pair| load_certified_key(pair, &provider, &mut digest)).transpose()?;
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
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(MAX_SESSIONS)));
        let digest = *digest.finalize().as_bytes();
        let certificate = pair.map(|pair| pair.cert);
        Ok(Self { config: Arc::new(config), name, authorities, files, certificate, digest })
    }

    /// Returns the files that were read, without the system's authorities.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns the file of the client certificate.
    pub fn certificate(&self) -> Option<&PathBuf> {
        self.certificate.as_ref()
    }

    /// Returns the name that the upstream's certificate must have.
    pub fn server_name_for(&self, host: &Host) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| server_name(host))
    }

    /// Whether an authority's certificate names the upstream itself. An upstream that presents it is refused,
    /// because an authority is not a server.
    pub fn has_authority_as_server(&self, host: &Host) -> bool {
        self.server_name_for(host).is_some_and(|name| {
            self.authorities.iter().any(|certificate| {
                let parsed = ParsedCertificate::try_from(certificate);
                parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
                    && self.is_refused_as_authority(certificate, &name)
            })
        })
    }

    fn is_refused_as_authority(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verdict = verifier.map(|verifier| {
            verifier.verify_server_cert(certificate, &[], name, &[], rustls_pki_types::UnixTime::now())
        });
        matches!(verdict, Ok(Err(rustls::Error::InvalidCertificate(why))) if is_authority(&why))
    }

    /// Returns a connector that offers this version. Resumable sessions are shared between connectors.
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

/// Parses a DNS name or an address in the form in which a certificate may name it.
pub fn parse_name(text: &str) -> Option<ServerName<'static>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_owned();
    DnsName::try_from(name).ok().map(ServerName::DnsName)
}

/// What is wrong with a certificate that `openssl req -x509` creates by default.
pub const AUTHORITY_AS_SERVER: &str = "made as an authority: add basicConstraints=critical,CA:FALSE";

/// Whether a server presented an authority's certificate, for which rustls has no variant of its own.
pub fn is_authority(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(why) if format!("{why:?}").contains("CaUsedAsEndEntity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a certificate that `openssl req -x509` creates for a server by default with a proper one.
    #[test]
    fn authority_certificate_used_by_a_server_is_detected() {
        let check = |is_ca: rcgen::IsCa, name: &str, expected: bool| {
            let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
            parameters.is_ca = is_ca;
            let key = rcgen::KeyPair::generate().expect("a key");
            let file = tempfile::NamedTempFile::new().expect("a file");
            let certificate = parameters.self_signed(&key).expect("a certificate");
            std::fs::write(file.path(), certificate.pem()).expect("written");
            let trust = Trust::File(file.path().to_owned());
            let tls = UpstreamTls::load(trust, None, None).expect("sound");
            assert_eq!(tls.has_authority_as_server(&Host::Name("a.test".into())), expected, "{name}");
        };
        let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        check(authority, "a.test", true);
        check(authority, "ca.test", false);
        check(rcgen::IsCa::ExplicitNoCa, "a.test", false);
        check(rcgen::IsCa::NoCa, "a.test", false);
    }
}

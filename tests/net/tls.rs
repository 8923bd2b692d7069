//! TLS: served, selected by name, replaced, and closed when a handshake takes too long.

use std::{net::TcpStream, path::PathBuf, sync::Arc, time::Duration};

use permgate::net::{
    Limits,
    tls::{Certificates, CertifiedKeyFiles, Replacement, Settings, TlsError},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::harness::{CloseKind, Gate, eventually};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs").join(name)
}

fn pair(name: &str) -> CertifiedKeyFiles {
    CertifiedKeyFiles { cert: file(&format!("{name}.crt")), key: file(&format!("{name}.key")) }
}

pub fn certificates(names: &[&str]) -> Certificates {
    Certificates::load(&tls_settings(names.iter().map(|name| pair(name)).collect())).unwrap()
}

fn tls_settings(pairs: Vec<CertifiedKeyFiles>) -> Settings {
    Settings { pairs, clients: None }
}

fn ask(gate: &Gate, name: &str) -> Result<String, String> {
    ask_over(gate.client().socket, name)
}

/// Speaks TLS to `name`, trusting only that name's certificate.
pub fn connect(socket: TcpStream, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file(&format!("{name}.crt"))).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = format!("{name}.test").try_into().unwrap();
    let session = ClientConnection::new(Arc::new(config), host).unwrap();
    StreamOwned::new(session, socket)
}

/// Requests over TLS from `name`.
pub fn ask_over(socket: TcpStream, name: &str) -> Result<String, String> {
    let mut stream = connect(socket, name);
    let asked = std::io::Write::write_all(&mut stream, b"GET /secure HTTP/1.0\r\n\r\n");
    asked.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).map_err(|error| error.to_string())?;
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(answer)
}

#[test]
fn certificate_is_chosen_by_server_name() {
    let certificates = Certificates::load(&tls_settings(vec![pair("one"), pair("two")])).unwrap();
    let gate = Gate::with(1, &Limits::default(), |listener| listener.with_tls(certificates.clone()));
    for name in ["one", "two"] {
        let answer = ask(&gate, name).unwrap();
        assert!(answer.ends_with("\r\n\r\ntrue"), "{name}: {answer}");
    }
    let same = Certificates::load(&tls_settings(vec![pair("one"), pair("two")])).unwrap();
    assert_eq!(certificates.replace(&same), Replacement::Nothing);
    let two = Certificates::load(&tls_settings(vec![pair("two")])).unwrap();
    assert_eq!(certificates.replace(&two), Replacement::Certificates);
    assert!(ask(&gate, "two").is_ok());
    assert!(ask(&gate, "one").is_err(), "replaced");
}

#[test]
fn unusable_certificates_have_distinct_errors() {
    let load = |cert: &str, key: &str| {
        Certificates::load(&tls_settings(vec![CertifiedKeyFiles { cert: file(cert), key: file(key) }]))
            .err()
            .unwrap()
    };
    assert!(matches!(load("one.crt", "two.key"), TlsError::Unusable { .. }));
    assert!(matches!(load("none.crt", "one.key"), TlsError::Pem { .. }));
    assert!(matches!(load("one.crt", "one.crt"), TlsError::NoKey(_)));
    assert!(matches!(load("one.key", "one.key"), TlsError::NoCertificate(_)));
    assert!(matches!(Certificates::load(&tls_settings(vec![])), Err(TlsError::Empty)));
}

#[test]
fn slow_or_invalid_handshake_is_ended() {
    let certificates = Certificates::load(&tls_settings(vec![pair("one")])).unwrap();
    let limits = Limits { tls_handshake_timeout: Duration::from_millis(80), ..Limits::default() };
    let gate = Gate::with(1, &limits, |listener| listener.with_tls(certificates.clone()));
    let mut silent = gate.client();
    let mut half = gate.client();
    half.send(b"\x16\x03\x01\x02\x00\x01\x00");
    for client in [&mut silent, &mut half] {
        assert_eq!(client.wait_for_close(), CloseKind::Closed);
    }
    let mut plain = gate.client();
    plain.get("/x").wait_for_close();
    assert!(!plain.unread().starts_with(b"HTTP"), "no answer in clear text");
    eventually("no connection is left", || gate.budget.open() == 0);
}

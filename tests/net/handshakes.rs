//! What a TLS handshake decides: the protocol, session resumption, the client's identity,
//! and the hosts that the connection may be used for.

use std::{
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use permgate::authz::forwarding::TrustedProxies;
use permgate::net::{
    Limits,
    tls::{Certificates, CertifiedKeyFiles, ClientAuth, Handshake, Settings},
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::{
    authority::authority,
    harness::{Gate, eventually},
};

/// An authority, two server certificates (`one.test` with `also.test`, and `two.test`)
/// and a client certificate, all in a directory.
struct TestPki {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl TestPki {
    fn new() -> Self {
        let authority = authority();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let pki = Self { dir, authority };
        for (file, names) in [("one", &["one.test", "also.test"][..]), ("two", &["two.test"])] {
            let (certificate, key) = pki.issue(names);
            std::fs::write(pki.file(&format!("{file}.crt")), certificate.pem()).unwrap();
            std::fs::write(pki.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        pki
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        (certificate, key)
    }

    fn gate(&self, pairs: &[&str], required: Option<bool>) -> Gate {
        let pair = |name: &&str| CertifiedKeyFiles {
            cert: self.file(&format!("{name}.crt")),
            key: self.file(&format!("{name}.key")),
        };
        let clients = required.map(|required| ClientAuth { authorities: self.file("ca.pem"), required });
        let settings = Settings { pairs: pairs.iter().map(pair).collect(), clients };
        let certificates = Certificates::load(&settings).unwrap();
        let limits = Limits { tls_handshake_timeout: Duration::from_millis(300), ..Limits::default() };
        Gate::with(1, &limits, |listener| listener.with_tls(certificates.clone()))
    }

    /// A client that trusts the authority and presents its certificate, an unknown one, or none.
    fn client(&self, version: &'static SupportedProtocolVersion, shows: Shows) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let own = |certificate: CertificateDer<'static>, key: &KeyPair| {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.clone().with_client_auth_cert(vec![certificate], key).unwrap()
        };
        Arc::new(match shows {
            Shows::Nothing => builder.with_no_client_auth(),
            Shows::Good => {
                let (certificate, key) = self.issue(&["client"]);
                own(certificate.der().clone(), &key)
            }
            Shows::Bad => {
                let key = KeyPair::generate().unwrap();
                let alone =
                    CertificateParams::new(vec!["client".to_owned()]).unwrap().self_signed(&key).unwrap();
                own(alone.der().clone(), &key)
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Shows {
    Nothing,
    Good,
    Bad,
}

/// Connects under one name and requests another host. Returns the status; `None` if the handshake failed.
fn ask(gate: &Gate, config: &Arc<ClientConfig>, name: &str, host: &str) -> Option<u16> {
    let session = ClientConnection::new(config.clone(), name.to_owned().try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, gate.client().socket);
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // Also reads the session tickets; a reset after the response does no harm.
    let _ = stream.read_to_end(&mut answer);
    std::str::from_utf8(answer.get(9..12)?).unwrap().parse().ok()
}

fn outcomes(gate: &Gate, count: usize) -> Vec<Handshake> {
    eventually("the handshakes have ended", || gate.seen.handshakes.lock().unwrap().len() >= count);
    gate.seen.handshakes.lock().unwrap().clone()
}

#[test]
fn tls_session_is_resumed() {
    let pki = TestPki::new();
    for version in [&version::TLS12, &version::TLS13] {
        let gate = pki.gate(&["one"], None);
        let client = pki.client(version, Shows::Nothing);
        for _ in 0..3 {
            assert_eq!(ask(&gate, &client, "one.test", "one.test"), Some(200));
        }
        assert_eq!(
            outcomes(&gate, 3),
            [Handshake::Full, Handshake::Resumed, Handshake::Resumed],
            "{version:?}"
        );
    }
}

/// Otherwise a client could use its certificate after it has expired.
#[test]
fn client_certificate_is_verified_for_every_connection() {
    let pki = TestPki::new();
    for version in [&version::TLS12, &version::TLS13] {
        for (required, shows) in [(true, Shows::Good), (false, Shows::Good), (false, Shows::Nothing)] {
            let gate = pki.gate(&["one"], Some(required));
            let client = pki.client(version, shows);
            for _ in 0..3 {
                assert_eq!(ask(&gate, &client, "one.test", "one.test"), Some(200));
            }
            assert_eq!(outcomes(&gate, 3), [Handshake::Full; 3], "{version:?}, required: {required}");
        }
    }
}

#[test]
fn host_not_covered_by_tls_is_misdirected() {
    let pki = TestPki::new();
    let gate = pki.gate(&["one", "two"], None);
    let client = pki.client(&version::TLS13, Shows::Nothing);
    let check = |row: &str, name: &str, host: &str, expected: u16| {
        assert_eq!(ask(&gate, &client, name, host), Some(expected), "{row}");
    };
    check("the same", "one.test", "one.test", 200);
    check("the same, with a port, in capitals", "one.test", "ONE.test:8443", 200);
    check("with a dot behind", "one.test", "one.test.", 200);
    check("another name of the certificate", "one.test", "also.test", 200);
    check("another certificate's", "one.test", "two.test", 421);
    check("nobody's", "two.test", "three.test", 421);
    check("an address", "two.test", "127.0.0.1", 421);
    let refused = gate.seen.refusals.lock().unwrap().len();
    assert_eq!(refused, 3, "each of them is told");
}

#[test]
fn trusted_proxy_may_request_any_host_on_one_connection() {
    let pki = TestPki::new();
    let gate = pki.gate(&["one", "two"], None);
    let client = pki.client(&version::TLS13, Shows::Nothing);
    assert_eq!(ask(&gate, &client, "one.test", "two.test"), Some(421));
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    let trusted_proxies = TrustedProxies { networks, unix: false };
    gate.set_limits(&Limits { trusted_proxies, ..Limits::default() });
    assert_eq!(ask(&gate, &client, "one.test", "two.test"), Some(200));
}

#[test]
fn client_gets_a_certificate_that_it_can_verify() {
    let pki = TestPki::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = CertificateParams::new(vec!["one.test".to_owned()]).unwrap();
    let rsa = params.signed_by(&key, &pki.authority).unwrap();
    std::fs::write(pki.file("rsa.crt"), rsa.pem()).unwrap();
    std::fs::write(pki.file("rsa.key"), key.serialize_pem()).unwrap();
    let check = |row: &str, pairs: &[&str], only: Option<&str>, name: &str, expects_rsa: bool| {
        let gate = pki.gate(pairs, None);
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(only) = only {
            provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(only));
        }
        let mut roots = RootCertStore::empty();
        roots.add(pki.authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, gate.client().socket);
        let request = format!("GET /x HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{row}");
        let shown = &stream.conn.peer_certificates().unwrap()[0];
        assert_eq!(shown == rsa.der(), expects_rsa, "{row}");
    };
    for pairs in [["rsa", "one"], ["one", "rsa"]] {
        check("either", &pairs, None, "one.test", false);
        check("RSA alone", &pairs, Some("ECDHE_RSA"), "one.test", true);
        check("ECDSA alone", &pairs, Some("ECDHE_ECDSA"), "one.test", false);
        check("a name that one of them has", &pairs, None, "also.test", false);
    }
}

#[test]
fn client_certificates_are_requested_where_configured() {
    let pki = TestPki::new();
    let check = |row: &str, required: bool, shows: Shows, expected: Option<u16>, outcome: Handshake| {
        for version in [&version::TLS12, &version::TLS13] {
            let gate = pki.gate(&["one"], Some(required));
            let client = pki.client(version, shows);
            assert_eq!(ask(&gate, &client, "one.test", "one.test"), expected, "{row}");
            assert_eq!(outcomes(&gate, 1), [outcome], "{row}, {version:?}");
        }
    };
    check("required and good", true, Shows::Good, Some(200), Handshake::Full);
    check("required and missing", true, Shows::Nothing, None, Handshake::ClientCertificate);
    check("required and bad", true, Shows::Bad, None, Handshake::ClientCertificate);
    check("optional and good", false, Shows::Good, Some(200), Handshake::Full);
    check("optional and missing", false, Shows::Nothing, Some(200), Handshake::Full);
    check("optional and bad", false, Shows::Bad, None, Handshake::ClientCertificate);
}

#[test]
fn failed_handshake_reports_its_cause() {
    let pki = TestPki::new();
    let check = |row: &str, expected: Handshake, play: &dyn Fn(&Gate)| {
        let gate = pki.gate(&["one"], None);
        play(&gate);
        assert_eq!(outcomes(&gate, 1), [expected], "{row}");
        eventually("no connection is left", || gate.budget.open() == 0);
    };
    check("clear text", Handshake::NotTls, &|gate| {
        gate.client().get("/x").wait_for_close();
    });
    check("nothing", Handshake::TimedOut, &|gate| {
        gate.client().wait_for_close();
    });
    check("gone", Handshake::Closed, &|gate| drop(gate.client()));
    check("not trusted", Handshake::Refused, &|gate| {
        let other = TestPki::new();
        let client = other.client(&version::TLS13, Shows::Nothing);
        assert_eq!(ask(gate, &client, "one.test", "one.test"), None);
    });
    check("no protocol in common", Handshake::NothingInCommon, &|gate| {
        let mut client = ClientConfig::clone(&pki.client(&version::TLS13, Shows::Nothing));
        client.alpn_protocols = vec![b"spdy/3".to_vec()];
        assert_eq!(ask(gate, &Arc::new(client), "one.test", "one.test"), None);
    });
}

#[test]
fn http2_is_negotiated_where_both_support_it() {
    let pki = TestPki::new();
    let gate = pki.gate(&["one", "two"], None);
    let mut config = ClientConfig::clone(&pki.client(&version::TLS13, Shows::Nothing));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let socket = tokio::net::TcpStream::connect(gate.address).await.unwrap();
        let stream = connector.connect("one.test".try_into().unwrap(), socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(connection);
        for (host, expected) in [("one.test", 200), ("also.test", 200), ("two.test", 421), ("one.test", 200)]
        {
            let request = http::Request::get(format!("https://{host}/x")).body(()).unwrap();
            let (answer, _) = requests.send_request(request, true).unwrap();
            assert_eq!(answer.await.unwrap().status(), expected, "{host}");
            requests = requests.ready().await.unwrap();
        }
    });
    drop(runtime);
    eventually("no connection is left", || gate.budget.open() == 0);
}

#[test]
fn certificate_expiry_is_known() {
    let pki = TestPki::new();
    let settings = Settings {
        pairs: vec![CertifiedKeyFiles { cert: pki.file("one.crt"), key: pki.file("one.key") }],
        clients: None,
    };
    let expiries = Certificates::load(&settings).unwrap().expiries();
    let [one] = expiries.as_slice() else { panic!("{expiries:?}") };
    assert_eq!(one.cert, Path::new(&pki.file("one.crt")));
    // rcgen's default.
    assert_eq!(
        one.at.as_millis(),
        "4096-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond()
    );
}

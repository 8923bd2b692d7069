//! Certificates of a running gateway. They are replaced under load when their files change, without a failed
//! request. Unusable files are refused, and the last good certificates stay.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use permgate::net::Address;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{authority::authority, gateway::Gateway, upstream::Upstream, wait::eventually};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self(authority())
    }

    /// Writes a new pair to its own directory and points a symlink to it, as Kubernetes
    /// updates mounted secrets.
    fn renew(&self, place: &Path, number: usize) {
        let (certificate, key) = self.issue();
        let version = place.join(format!("..{number}"));
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("tls.crt"), certificate).unwrap();
        std::fs::write(version.join("tls.key"), key).unwrap();
        std::os::unix::fs::symlink(&version, place.join("..next")).unwrap();
        std::fs::rename(place.join("..next"), place.join("..data")).unwrap();
    }

    fn issue(&self) -> (String, String) {
        self.issue_until(SystemTime::now() + Duration::from_hours(24))
    }

    fn issue_until(&self, end: SystemTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["gate.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end.duration_since(UNIX_EPOCH).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// A client that resumes no TLS session.
    fn client(&self) -> Arc<ClientConfig> {
        self.client_with(None)
    }

    /// Like [`Self::client`], with a client certificate and its key.
    fn client_with(&self, own: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// Sends one request on a new connection. Returns the server's certificate and the answer's status.
fn ask(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<(Vec<u8>, String)> {
    let session = ClientConnection::new(client.clone(), "gate.test".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, std::net::TcpStream::connect(address)?);
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    Ok((shown, String::from_utf8_lossy(&answer[9..12]).into_owned()))
}

fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.operator("GET", "/metrics", None).text().to_owned();
    let line = page.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn certificates_are_replaced_under_load() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let secrets = dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    authority.renew(&secrets, 0);
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(file), secrets.join(file)).unwrap();
    }
    let tls = r#"tls = { cert = "secrets/tls.crt", key = "secrets/tls.key" }"#;
    let text = Gateway::text_with(tls, &format!("{tls}\nhosts = [\"gate.test\"]"), "");
    let gateway = Gateway::on(dir, &text);
    let (client, proxy, admin) = (authority.client(), gateway.proxy, gateway.admin);
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let shown = || ask(proxy, &client).unwrap().0;
    // The threads end, too, if an assertion fails.
    let at_most = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) && Instant::now() < at_most {
                    // The requests have no token, so every one is answered with 401.
                    assert_eq!(ask(proxy, &client).unwrap().1, "401");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 1..4 {
            let before = shown();
            authority.renew(&secrets, number);
            eventually("the new certificate is shown", || shown() != before);
        }
        // An unusable certificate is refused, and the last good one stays.
        let good = shown();
        std::fs::write(secrets.join("..3/tls.crt"), "no certificate").unwrap();
        eventually("it is told", || metric(&gateway, "permgate_tls_reloads_failed_total") == Some(1));
        assert_eq!(shown(), good);
        over.store(true, Ordering::SeqCst);
    });
    assert!(asked.load(Ordering::SeqCst) > 20, "there was load: {asked:?}");
    assert_eq!(metric(&gateway, "permgate_tls_reloads_total"), Some(3));
    assert!(metric(&gateway, "permgate_tls_certificate_not_after_timestamp_seconds").is_some());
    assert!(metric(&gateway, "permgate_tls_handshakes_total{outcome=\"full\"}").is_some());
    // The admin listener uses the same certificate.
    assert_eq!(ask(admin, &client).unwrap().1, "200");
    let page = gateway.operator("GET", "/metrics", None).text().to_owned();
    assert!(page.contains("secrets/tls.crt"), "{page}");
}

type Stream = StreamOwned<ClientConnection, std::net::TcpStream>;

/// A gateway whose clients show certificates that `clients` has signed, in front of an endless response. Returns
/// also the field with a permitted token.
fn gateway_for_clients(
    authority: &Authority,
    clients: &Authority,
    upstream: SocketAddr,
) -> (Gateway, String) {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue();
    for (file, content) in [("tls.crt", certificate), ("tls.key", key), ("clients.pem", clients.0.pem())] {
        std::fs::write(dir.path().join(file), content).unwrap();
    }
    let server = "tls = { cert = \"tls.crt\", key = \"tls.key\" }\ntls_client_ca = \"clients.pem\"";
    let gateway = Gateway::on(dir, &Gateway::text_with(server, "", &Gateway::services(upstream)));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "ci", &["tracker"]);
    (gateway, format!("Authorization: Bearer {token}\r\n"))
}

fn connect(gateway: &Gateway, client: &Arc<ClientConfig>) -> Stream {
    let session = ClientConnection::new(client.clone(), "gate.test".try_into().unwrap()).unwrap();
    StreamOwned::new(session, std::net::TcpStream::connect(gateway.proxy).unwrap())
}

/// Sends a request and reads the head of its response. `None`: the connection has ended.
fn status(stream: &mut Stream, bearer: &str) -> Option<String> {
    let request = format!("GET /api/events HTTP/1.1\r\nHost: gate.test\r\n{bearer}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(length @ 1..) => head.extend_from_slice(&part[..length]),
            Ok(0) | Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&head[9..12]).into_owned())
}

/// Reads a response until the connection ends, and asserts that it does not look complete.
fn assert_cut(stream: &mut Stream) {
    let mut part = [0; 4096];
    let end = loop {
        match stream.read(&mut part) {
            Ok(1..) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "it does not look complete");
}

/// A request whose handshake would fail now is cut, and its connection accepts no further request.
#[test]
fn changed_client_certificate_requirement_cuts_clients() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (upstream, _over) = Upstream::endless();
    let (gateway, bearer) = gateway_for_clients(&authority, &clients, upstream.address);
    let client = authority.client_with(Some(clients.issue()));
    let (mut stream, mut idle) = (connect(&gateway, &client), connect(&gateway, &client));
    assert_eq!(status(&mut stream, &bearer).as_deref(), Some("200"));
    assert_eq!(status(&mut idle, "").as_deref(), Some("401"));
    // The server's own certificate is renewed first: the connections stay subject to the later change.
    let (certificate, key) = authority.issue();
    for (file, content) in [("tls.crt", certificate), ("tls.key", key)] {
        std::fs::write(gateway.dir.path().join(file), content).unwrap();
    }
    gateway.must("POST", "/v1/reload", None);
    std::fs::write(gateway.dir.path().join("clients.pem"), Authority::new().0.pem()).unwrap();
    // The file is also watched: either of the two cuts the request.
    gateway.must("POST", "/v1/reload", None);
    let late = status(&mut idle, &bearer);
    assert!(matches!(late.as_deref(), None | Some("421")), "{late:?}");
    assert_cut(&mut stream);
    assert_eq!(status(&mut connect(&gateway, &client), &bearer), None, "nor by a new one");
}

#[test]
fn client_certificate_that_becomes_required_cuts_who_has_none() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (upstream, _over) = Upstream::endless();
    let (gateway, bearer) = gateway_for_clients(&authority, &clients, upstream.address);
    let (file, client) = (gateway.dir.path().join("gateway.toml"), authority.client());
    let required = std::fs::read_to_string(&file).unwrap();
    let key = "tls_client_ca = \"clients.pem\"";
    let optional = required.replace(key, &format!("{key}\ntls_client_certificate = \"optional\""));
    assert_eq!(status(&mut connect(&gateway, &client), &bearer), None);
    std::fs::write(&file, optional).unwrap();
    gateway.must("POST", "/v1/reload", None);
    let mut stream = connect(&gateway, &client);
    assert_eq!(status(&mut stream, &bearer).as_deref(), Some("200"));
    std::fs::write(&file, required).unwrap();
    gateway.must("POST", "/v1/reload", None);
    assert_cut(&mut stream);
    assert_eq!(status(&mut connect(&gateway, &client), &bearer), None, "nor by a new connection");
}

#[test]
fn expired_client_certificate_cuts_its_client() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (upstream, _over) = Upstream::endless();
    let (gateway, bearer) = gateway_for_clients(&authority, &clients, upstream.address);
    // A certificate names whole seconds.
    let soon = SystemTime::now() + Duration::from_secs(6);
    let (brief, lasting) = (clients.issue_until(soon), clients.issue());
    let [brief, lasting] = [brief, lasting].map(|own| authority.client_with(Some(own)));
    let (mut stream, mut idle) = (connect(&gateway, &brief), connect(&gateway, &brief));
    let mut other = connect(&gateway, &lasting);
    assert_eq!(status(&mut stream, &bearer).as_deref(), Some("200"));
    assert_eq!(status(&mut idle, "").as_deref(), Some("401"));
    assert_eq!(status(&mut other, "").as_deref(), Some("401"));
    assert_cut(&mut stream);
    assert!(SystemTime::now() >= soon - Duration::from_secs(1), "not before it has expired");
    assert_eq!(status(&mut idle, &bearer).as_deref(), Some("421"));
    assert_eq!(status(&mut connect(&gateway, &brief), &bearer), None, "nor by a new one");
    assert_eq!(status(&mut other, &bearer).as_deref(), Some("200"));
}

#[test]
fn one_process_serves_clear_text_and_tls() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.renew(dir.path(), 0);
    let tls = r#"{ cert = "..data/tls.crt", key = "..data/tls.key" }"#;
    let text = format!(
        r#"
version = 1
[server]
listen = ["http://127.0.0.1:0", "https://127.0.0.1:0", "127.0.0.1:0"]
tls = {tls}
workers = 1
[admin]
listen = ["unix:permgate.sock", "http://127.0.0.1:0", "https://127.0.0.1:0"]
tls = {tls}
hosts = ["gate.test"]
[store]
path = "data"
ballast = "64k"
[log]
access = "off"
"#
    );
    let gateway = Gateway::on(dir, &text);
    let client = authority.client();
    let mut spoken = Vec::new();
    for place in gateway.places() {
        let Address::Tcp(address) = place.address else { continue };
        let secure = ask(address, &client).is_ok();
        assert_eq!(in_clear(address).starts_with(b"HTTP/1.1 "), !secure, "{place}");
        assert_eq!((place.secure, place.to_string().starts_with("https://")), (secure, secure), "{place}");
        spoken.push(secure);
    }
    assert_eq!(spoken, [false, true, true, false, true], "in the order of the file");
}

/// The raw answer to a request without TLS.
fn in_clear(address: SocketAddr) -> Vec<u8> {
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The connection may end with a reset.
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// An upstream whose certificate this authority has signed.
fn secured(authority: &Authority) -> SocketAddr {
    let (certificate, key) = authority.issue();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, socket.unwrap());
            // A client that does not trust the certificate disconnects.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
        }
    });
    address
}

#[test]
fn upstream_tls_files_are_reloaded_when_they_change() {
    let (authority, other) = (Authority::new(), Authority::new());
    let upstream = secured(&authority);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, other.0.pem()).unwrap();
    let services = Gateway::services(upstream).replace("http://", "https://").replace(
        "[service.tracker]",
        "tls = { ca = \"ca.pem\", server_name = \"gate.test\" }\n[service.tracker]",
    );
    let gateway = Gateway::on(dir, &Gateway::text(&services));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "one", &["tracker"]);
    let ask = || gateway.get("/api/x", Some(&token)).status;
    assert_eq!(ask(), 502, "of an unknown issuer");
    std::fs::write(&ca, authority.0.pem()).unwrap();
    eventually("the new authority is trusted", || ask() == 200);
    assert_eq!(metric(&gateway, "permgate_tls_reloads_total"), Some(1));
    // An unusable file is refused, and the last good one stays in use.
    std::fs::write(&ca, "no certificate").unwrap();
    eventually("it is told", || metric(&gateway, "permgate_tls_reloads_failed_total") == Some(1));
    assert_eq!(ask(), 200);
}

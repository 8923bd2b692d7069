//! TLS to an upstream: which certificates are accepted, which protocol is spoken, and what the log says.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use permgate::{
    net::tls::CertifiedKeyFiles,
    settings::{HttpVersion, Trust, UpstreamTls, UpstreamUrl, parse_name},
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    authority::authority,
    harness::{Gate, Setup, eventually, status},
};

/// An authority, and what it issues.
struct TestPki {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// The behaviour of the upstream.
#[derive(Clone, Copy)]
struct UpstreamBehaviour {
    names: &'static [&'static str],
    expired: bool,
    speaks: &'static [&'static [u8]],
    asks: bool,
    /// Answers HTTP/2 only with HTTP_1_1_REQUIRED.
    insists: bool,
}

const VALID_UPSTREAM: UpstreamBehaviour = UpstreamBehaviour {
    names: &["localhost"],
    expired: false,
    speaks: &[b"h2", b"http/1.1"],
    asks: false,
    insists: false,
};

/// A path whose answer takes a moment over HTTP/2.
const SLOW: &str = "/api/slow";
const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// The kinds of the handshakes with an upstream.
type Kinds = Arc<Mutex<Vec<HandshakeKind>>>;

impl TestPki {
    fn new() -> Self {
        let pki = Self { directory: tempfile::tempdir().unwrap(), authority: authority() };
        std::fs::write(pki.file("ca.pem"), pki.authority.pem()).unwrap();
        let (certificate, key) = pki.issue(&["gateway"], false);
        std::fs::write(pki.file("gateway.crt"), certificate.pem()).unwrap();
        std::fs::write(pki.file("gateway.key"), key.serialize_pem()).unwrap();
        pki
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, names: &[&str], expired: bool) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (certificate, key)
    }

    /// An upstream that answers every request with the protocol in use, until the test ends.
    fn upstream(&self, manner: UpstreamBehaviour) -> (SocketAddr, Kinds) {
        let (certificate, key) = self.issue(manner.names, manner.expired);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if manner.asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = manner.speaks.iter().map(|protocol| protocol.to_vec()).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, kinds) = (listener.local_addr().unwrap(), Kinds::default());
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), kinds.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, seen) = (acceptor.clone(), seen.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        seen.lock().unwrap().extend(stream.get_ref().1.handshake_kind());
                        match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => speak_h2(stream, manner.insists).await,
                            _ => speak_h1(stream).await,
                        }
                    });
                }
            });
        });
        (address, kinds)
    }

    fn tls(&self, shows: bool, name: Option<&str>) -> UpstreamTls {
        let pair = shows
            .then(|| CertifiedKeyFiles { cert: self.file("gateway.crt"), key: self.file("gateway.key") });
        let name = name.map(|name| parse_name(name).unwrap());
        UpstreamTls::load(Trust::File(self.file("ca.pem")), pair, name).unwrap()
    }
}

async fn speak_h1(mut stream: TlsStream<TcpStream>) {
    let mut read = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut read).await {
        if read.ends_with(b"\r\n\r\n") {
            if String::from_utf8_lossy(&read).contains("upgrade: websocket\r\n") {
                return echo(stream).await;
            }
            read.clear();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1";
            if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

async fn echo(mut stream: TlsStream<TcpStream>) {
    let mut bytes =
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_vec();
    while stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok() {
        bytes.clear();
        let Ok(1..) = stream.read_buf(&mut bytes).await else { return };
    }
}

async fn speak_h2(stream: TlsStream<TcpStream>, insists: bool) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        assert_eq!(request.uri().host(), Some("gate.example"));
        if insists {
            respond.send_reset(h2::Reason::HTTP_1_1_REQUIRED);
            continue;
        }
        let mut answer = http::Response::new(());
        answer.headers_mut().insert("content-length", http::HeaderValue::from_static("2"));
        let pause = if request.uri().path() == SLOW { SLOW_ANSWER } else { Duration::ZERO };
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            respond.send_response(answer, false).unwrap().send_data(Bytes::from_static(b"h2"), true).unwrap();
        });
    }
}

fn gate(host: &str, at: SocketAddr, tls: UpstreamTls, http: HttpVersion) -> Gate {
    setup(host, at, tls, http).start()
}

fn setup(host: &str, at: SocketAddr, tls: UpstreamTls, http: HttpVersion) -> Setup {
    let url = UpstreamUrl::parse(&format!("https://{host}:{}", at.port())).unwrap();
    Setup::to(&[at]).with(|setup| {
        setup.upstream.urls = vec![url.into()];
        setup.upstream.tls = Some(tls);
        setup.upstream.http = http;
    })
}

#[test]
fn alpn_selects_the_protocol() {
    let pki = TestPki::new();
    let check = |row: &str, speaks: &'static [&'static [u8]], http: HttpVersion, expected: Option<&str>| {
        let (at, handshakes) = pki.upstream(UpstreamBehaviour { speaks, ..VALID_UPSTREAM });
        let gate = gate("localhost", at, pki.tls(false, None), http);
        for _ in 0..2 {
            let (status, _, body) = gate.client_with_get().answer();
            match expected {
                Some(spoken) => {
                    assert_eq!((status, body.as_str()), (200, spoken), "{row}");
                    assert_eq!(handshakes.lock().unwrap().len(), 1, "{row}: one connection serves");
                }
                None => {
                    assert_eq!((status, gate.next_outcome().1.as_str()), (502, "upstream_connect"), "{row}");
                }
            }
        }
    };
    let (auto, one, two) = (HttpVersion::Auto, HttpVersion::Http1, HttpVersion::Http2);
    check("both", &[b"http/1.1", b"h2"], auto, Some("h1"));
    check("both, HTTP/2 first", &[b"h2", b"http/1.1"], auto, Some("h2"));
    check("HTTP/2 alone", &[b"h2"], auto, Some("h2"));
    check("HTTP/1.1 alone", &[b"http/1.1"], auto, Some("h1"));
    check("nothing said", &[], auto, Some("h1"));
    check("HTTP/1.1 wanted", &[b"h2", b"http/1.1"], one, Some("h1"));
    check("HTTP/2 wanted", &[b"http/1.1", b"h2"], two, Some("h2"));
    check("HTTP/2 wanted, HTTP/1.1 there", &[b"http/1.1"], two, None);
    check("HTTP/2 wanted, nothing said", &[], two, None);
}

#[test]
fn upgrade_uses_http1_and_others_keep_http2() {
    let pki = TestPki::new();
    let check = |row: &str, speaks: &'static [&'static [u8]], http: HttpVersion, before: &str| {
        let (at, handshakes) = pki.upstream(UpstreamBehaviour { speaks, ..VALID_UPSTREAM });
        let gate = gate("localhost", at, pki.tls(false, None), http);
        let made = || handshakes.lock().unwrap().len();
        let mut tunnels = Vec::new();
        for _ in 0..2 {
            assert_eq!(gate.client_with_get().answer().2, before, "{row}");
            let others = made();
            let mut client = gate.client();
            client.send(gate.request("GET /api/socket", &["Connection: Upgrade", "Upgrade: websocket"]));
            assert_eq!(status(&client.head()), 101, "{row}");
            for _ in 0..3 {
                client.send("ping");
                assert_eq!(client.bytes(4), "ping", "{row}");
            }
            assert_eq!(made(), others + 1, "{row}");
            assert_eq!(gate.client_with_get().answer().2, before, "{row}");
            assert!(before == "h1" || made() == others + 1, "{row}: the shared one stays");
            tunnels.push(client);
        }
    };
    let auto = HttpVersion::Auto;
    check("HTTP/2 first", &[b"h2", b"http/1.1"], auto, "h2");
    check("HTTP/1.1 alone", &[b"http/1.1"], auto, "h1");
    check("HTTP/1.1 wanted", &[b"h2", b"http/1.1"], HttpVersion::Http1, "h1");
}

#[test]
fn upgrade_that_waits_for_a_connection_gets_one_of_its_own() {
    let pki = TestPki::new();
    let (at, handshakes) = pki.upstream(VALID_UPSTREAM);
    let limited = |setup: &mut Setup| {
        setup.upstream.max_connections = NonZeroUsize::new(1);
        setup.upstream.queue_timeout = Duration::from_secs(60);
    };
    let gate = setup("localhost", at, pki.tls(false, None), HttpVersion::Auto).with(limited).start();
    for row in ["while the first is being made", "while the first is in use"] {
        let mut slow = gate.client();
        slow.send(gate.request(&format!("GET {SLOW}"), &[]));
        eventually("the first request is on its way", || gate.live() == 1);
        let before = handshakes.lock().unwrap().len().max(1);
        let mut client = gate.client();
        client.send(gate.request("GET /api/socket", &["Connection: Upgrade", "Upgrade: websocket"]));
        eventually("it waits", || gate.live() == 2);
        std::thread::sleep(SLOW_ANSWER / 4);
        assert_eq!(handshakes.lock().unwrap().len(), before, "{row}: one connection too many");
        assert_eq!(slow.answer().2, "h2", "{row}");
        assert_eq!(status(&client.head()), 101, "{row}");
        drop(client);
        eventually("the tunnel is closed", || gate.live() == 0);
        assert_eq!(gate.client_with_get().answer().2, "h2", "{row}");
    }
}

#[test]
fn upstream_requiring_http1_gets_http1() {
    let pki = TestPki::new();
    let start = |speaks: &'static [&'static [u8]], http: HttpVersion| {
        let (at, handshakes) = pki.upstream(UpstreamBehaviour { speaks, insists: true, ..VALID_UPSTREAM });
        (gate("localhost", at, pki.tls(false, None), http), handshakes)
    };
    let (gate, handshakes) = start(VALID_UPSTREAM.speaks, HttpVersion::Auto);
    for _ in 0..3 {
        assert_eq!(gate.client_with_get().answer().2, "h1");
        assert_eq!(gate.next_outcome().1, "ok");
    }
    assert_eq!(handshakes.lock().unwrap().len(), 2, "the first request alone is asked twice");

    // A request that may have been processed is not retried; the next one uses HTTP/1.1.
    let (gate, _) = start(VALID_UPSTREAM.speaks, HttpVersion::Auto);
    for expected in [(502, "upstream_reset"), (200, "ok")] {
        let mut client = gate.client();
        client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
        assert_eq!((client.answer().0, gate.next_outcome().1.as_str()), expected);
    }

    const HTTP_2: &[&[u8]] = &[b"h2"];
    for (row, speaks, http) in [
        ("it takes nothing else", HTTP_2, HttpVersion::Auto),
        ("the configuration wants HTTP/2", VALID_UPSTREAM.speaks, HttpVersion::Http2),
    ] {
        let (gate, _) = start(speaks, http);
        for _ in 0..3 {
            assert_eq!(gate.client_with_get().answer().0, 502, "{row}");
        }
    }
}

#[test]
fn only_a_valid_certificate_is_accepted() {
    let pki = TestPki::new();
    let check = |row: &str, host: &str, manner: UpstreamBehaviour, tls: UpstreamTls, expected: bool| {
        let (at, _) = pki.upstream(manner);
        let gate = gate(host, at, tls, HttpVersion::Auto);
        let (status, _, _) = gate.client_with_get().answer();
        let logged = gate.next_outcome();
        let sound = (status, logged.1.as_str());
        if expected {
            assert_eq!(sound, (200, "ok"), "{row}");
        } else {
            assert_eq!(status, 502, "{row}");
            assert!(matches!(logged.1.as_str(), "upstream_connect" | "upstream_reset"), "{row}: {logged:?}");
        }
    };
    let by_address = UpstreamBehaviour { names: &["127.0.0.1"], ..VALID_UPSTREAM };
    let other = UpstreamBehaviour { names: &["other.test"], ..VALID_UPSTREAM };
    let asks = UpstreamBehaviour { asks: true, ..VALID_UPSTREAM };
    let asks_h1 = UpstreamBehaviour { asks: true, speaks: &[b"http/1.1"], ..VALID_UPSTREAM };
    check("by name", "localhost", VALID_UPSTREAM, pki.tls(false, None), true);
    check("by address", "127.0.0.1", by_address, pki.tls(false, None), true);
    check("an address that it does not name", "127.0.0.1", VALID_UPSTREAM, pki.tls(false, None), false);
    check("another name", "localhost", other, pki.tls(false, None), false);
    check("another name, expected", "localhost", other, pki.tls(false, Some("other.test")), true);
    check(
        "expired",
        "localhost",
        UpstreamBehaviour { expired: true, ..VALID_UPSTREAM },
        pki.tls(false, None),
        false,
    );
    check("of another authority", "localhost", VALID_UPSTREAM, TestPki::new().tls(false, None), false);
    check("asks for ours", "localhost", asks, pki.tls(true, None), true);
    check("asks for ours, there is none", "localhost", asks, pki.tls(false, None), false);
    check("asks for one over HTTP/1.1", "localhost", asks_h1, pki.tls(false, None), false);
}

#[test]
fn upstream_tls_session_is_resumed() {
    let pki = TestPki::new();
    let (at, kinds) = pki.upstream(UpstreamBehaviour { speaks: &[b"http/1.1"], ..VALID_UPSTREAM });
    let gate = gate("localhost", at, pki.tls(false, None), HttpVersion::Http1);
    let mut first = gate.client_with_get();
    assert_eq!(first.answer().2, "h1");
    // One request takes the idle connection, so the other one needs a new one.
    let (mut one, mut other) = (gate.client_with_get(), gate.client_with_get());
    assert_eq!((one.answer().2.as_str(), other.answer().2.as_str()), ("h1", "h1"));
    for _ in 0..20 {
        if kinds.lock().unwrap().contains(&HandshakeKind::Resumed) {
            return;
        }
        let mut burst: Vec<_> = (0..4).map(|_| gate.client_with_get()).collect();
        burst.iter_mut().for_each(|client| assert_eq!(client.answer().2, "h1"));
    }
    panic!("never resumed: {:?}", kinds.lock().unwrap());
}

//! Header fields: no client can set the gateway's own, frame or route against its
//! decision, and an ambiguous field is refused.

use crate::{
    recorder::Received,
    stage::{Stage, exchange_bytes},
};

/// Fields that only the gateway sets.
const IDENTITY: [&str; 6] = [
    "X-Permgate-User",
    "X-Permgate-User-Id",
    "X-Permgate-Groups",
    "X-Permgate-Token-Id",
    "X-Permgate-Service",
    "X-Request-Id",
];

/// Fields that only a trusted proxy may set, or that would re-route after the decision.
const ROUTING: [&str; 58] = [
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Path",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Scheme",
    "X-Forwarded",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Original-Method",
    "X-Envoy-Original-Path",
    "X-Accel-Redirect",
    "X-Accel-Mapping",
    "X-Sendfile-Type",
    "X-HTTP-DestinationURL",
    "New-Uri",
    "Proxy",
    "Remote-User",
    "Remote-Groups",
    "X-Remote-User",
    "X-Remote-Extra-Scopes",
    "X-Auth-User",
    "X-Auth-Roles",
    "X-Auth-Request-Email",
    "X-Authenticated-UserId",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Client-Cert",
    "X-WebAuth-User",
    "X-Authentik-Username",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-IAP-JWT-Assertion",
    "Cf-Access-Jwt-Assertion",
    "Tailscale-User-Login",
    "X-SSL-Client-Cert",
    "SSL-Client-Verify",
    "X-Client-Cert",
    "X-ARR-ClientCert",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Originating-IP",
    "X-ProxyUser-IP",
    "Front-End-Https",
    "X-Url-Scheme",
];

const HOP_BY_HOP: [&str; 9] = [
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Proxy-Connection",
    "Keep-Alive",
    "TE",
    "HTTP2-Settings",
    "Proxy_Authorization",
    "Proxy.Connection",
    "Keep_Alive",
];

/// Spellings of a name that some servers take for the same name.
fn spellings(name: &str) -> Vec<String> {
    let last = name.rfind('-').unwrap_or(0);
    let mut mixed = name.to_owned();
    if last > 0 {
        mixed.replace_range(last..=last, "_");
    }
    let mut all = vec![
        name.to_owned(),
        name.to_ascii_lowercase(),
        name.to_ascii_uppercase(),
        name.replace('-', "_"),
        name.to_ascii_uppercase().replace('-', "_"),
        name.replace('-', "."),
        name.to_ascii_lowercase().replace('-', "."),
        name.replacen('-', "_", 1),
        name.replacen('-', ".", 1),
        mixed,
    ];
    all.sort();
    all.dedup();
    all
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Checks that no field or trailer has the value `spoof`, and that the gateway's fields occur once each.
fn check_gateway_fields(row: &str, received: &Received, failed: &mut Vec<String>) {
    for (name, value) in received.fields.iter().chain(&received.trailers) {
        if value.contains("spoof") {
            failed.push(format!("{row}: {name}: {value} arrived"));
        }
    }
    for (name, expected) in [("x-permgate-user", "alice"), ("x-permgate-service", "tracker")] {
        let all = received.fields.iter().filter(|(n, _)| folded(n) == name);
        let all: Vec<&str> = all.map(|(_, value)| value.as_str()).collect();
        if all != [expected] {
            failed.push(format!("{row}: {name}: {all:?}"));
        }
    }
    if let Some(fault) = &received.fault {
        failed.push(format!("{row}: {fault}"));
    }
}

#[test]
fn client_cannot_forge_the_gateways_fields() {
    let stage = Stage::with_sibling_services();
    let bearer = stage.bearer();
    let (mut failed, mut rows) = (Vec::new(), 0);
    let names = IDENTITY.iter().chain(&ROUTING).chain(&HOP_BY_HOP);
    for spelling in names.flat_map(|name| spellings(name)) {
        let forms = [
            format!("{spelling}: spoof\r\n"),
            format!("{spelling}: spoof\r\n{spelling}: spoof2\r\n"),
            format!("{spelling}:spoof\r\nConnection: {spelling}\r\n"),
            format!("Connection: keep-alive, {}\r\n{spelling}: spoof\r\n", spelling.to_ascii_lowercase()),
        ];
        for (form, field) in forms.iter().enumerate() {
            rows += 1;
            let row = format!("{spelling} in form {form}");
            let (answer, received) = stage.send_one("GET", b"/api/x", &format!("Host: g\r\n{bearer}{field}"));
            match (answer.status, &received[..]) {
                (200, [one]) => check_gateway_fields(&row, one, &mut failed),
                other => failed.push(format!("{row}: {other:?}")),
            }
        }
        rows += 1;
        let row = format!("{spelling} in a trailer");
        let bytes = format!(
            "POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}TE: trailers\r\nTrailer: {spelling}, X-Sum\r\n\
             Transfer-Encoding: chunked\r\nConnection: close, TE\r\n\r\n3\r\nabc\r\n0\r\n{spelling}: spoof\r\nX-Sum: 1\r\n\r\n"
        );
        let heard = exchange_bytes(stage.gateway.proxy, bytes.as_bytes(), false);
        match (heard.answers().first().map(|a| a.status), &stage.recorder.take()[..]) {
            (Some(200), [one]) => {
                check_gateway_fields(&row, one, &mut failed);
                if one.body != b"abc" || one.trailers != [("x-sum".to_owned(), "1".to_owned())] {
                    failed.push(format!("{row}: {:?} {:?}", one.body, one.trailers));
                }
                if one.all("trailer") != ["x-sum"] {
                    failed.push(format!("{row}: Trailer {:?}", one.all("trailer")));
                }
            }
            other => failed.push(format!("{row}: {other:?}")),
        }
    }
    assert!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    println!("{rows} rows");
}

#[test]
fn client_cannot_remove_identity_fields() {
    let stage = Stage::with_sibling_services();
    for listed in
        IDENTITY.iter().chain(&["Host", "Content-Length", "Authorization", "X-Forwarded-For", "Forwarded"])
    {
        let fields = format!(
            "Host: g\r\n{}Connection: {listed}\r\nConnection: {listed}, x-other\r\nX-Other: 1\r\n",
            stage.bearer()
        );
        let (answer, received) = stage.send_one("GET", b"/api/x", &fields);
        let [one] = &received[..] else { panic!("{listed}: {answer:?} {received:?}") };
        let mut failed = Vec::new();
        check_gateway_fields(listed, one, &mut failed);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(one.all("host"), ["g"], "{listed}");
        assert_eq!(one.all("x-forwarded-for"), ["127.0.0.1"], "{listed}");
        assert_eq!(one.all("forwarded").len(), 1, "{listed}");
        assert!(one.all("x-other").is_empty() && one.all("connection").is_empty(), "{listed}: {one:?}");
        assert!(one.all("authorization").is_empty(), "{listed}");
    }
}

#[test]
fn ambiguous_field_is_refused_or_read_in_one_way() {
    let stage = Stage::with_sibling_services();
    let bearer = stage.bearer();
    let long = |n: usize| "a".repeat(n);
    let many = |n: usize| (0..n).map(|i| format!("X-F{i}: 1\r\n")).collect::<String>();
    // Host, Authorization and Connection are added to those.
    let rows: Vec<(&str, String, u16)> = [
        ("plain", "X-A: b\r\n", 200),
        ("no space", "X-A:b\r\n", 200),
        ("spaces around", "X-A:  \t b \t \r\n", 200),
        ("empty", "X-A:\r\n", 200),
        ("a space before the colon", "X-A : b\r\n", 400),
        ("a tab before the colon", "X-A\t: b\r\n", 400),
        ("a space in front", " X-A: b\r\n", 400),
        ("folded", "X-A: b\r\n c\r\n", 400),
        ("folded with a tab", "X-A: b\r\n\tc\r\n", 400),
        ("folded to nothing", "X-A: b\r\n \r\n", 400),
        ("no colon", "X-A\r\n", 400),
        ("no name", ": b\r\n", 400),
        ("a bare LF behind", "X-A: b\n", 200),
        ("a bare CR inside", "X-A: b\rc\r\n", 400),
        ("CR CR LF", "X-A: b\r\r\n", 400),
        ("NUL in the value", "X-A: b\0c\r\n", 400),
        ("NUL in the name", "X-\0A: b\r\n", 400),
        ("a control in the value", "X-A: b\u{1}c\r\n", 400),
        ("DEL in the value", "X-A: b\u{7f}c\r\n", 400),
        ("not ASCII in the name", "X-É: b\r\n", 400),
        ("a bracket in the name", "X-(A): b\r\n", 400),
        ("an at in the name", "X@A: b\r\n", 400),
        ("a slash in the name", "X/A: b\r\n", 400),
        ("a quote in the name", "X\"A: b\r\n", 400),
        ("a semicolon in the name", "X;A: b\r\n", 400),
        ("two Host", "Host: g\r\n", 400),
        ("Host in other letters", "HOST: h\r\n", 400),
        ("an alias of Content-Length", "Content_Length: 5\r\n", 400),
        ("another", "Content.Length: 5\r\n", 400),
        ("an alias of Transfer-Encoding", "Transfer_Encoding: chunked\r\n", 400),
        ("another", "TRANSFER.ENCODING: chunked\r\n", 400),
        ("Expect for a GET", "Expect: 100-continue\r\n", 200),
        ("TE: trailers", "TE: trailers\r\n", 200),
        ("TE: gzip", "TE: gzip, trailers;q=0.5\r\n", 200),
        ("Trailer for a GET", "Trailer: X-Sum\r\n", 200),
        ("Max-Forwards", "Max-Forwards: 0\r\n", 200),
        ("Via", "Via: 1.1 other\r\n", 200),
        ("Connection that says nothing", "Connection: ,,,\r\n", 200),
        ("Connection of the impossible", "Connection: \"x\", @@\r\n", 200),
        ("Connection: Transfer-Encoding", "Connection: Transfer-Encoding\r\n", 200),
    ]
    .into_iter()
    .map(|(row, field, status)| (row, field.to_owned(), status))
    .chain([
        ("a field of 16,000 bytes", format!("X-A: {}\r\n", long(16_000)), 200),
        ("a field beyond 16 KiB", format!("X-A: {}\r\n", long(17_000)), 431),
        ("a name beyond 16 KiB", format!("{}: b\r\n", long(17_000)), 431),
        ("a head of 30,000 bytes", format!("A: {}\r\nB: {}\r\n", long(14_900), long(14_900)), 200),
        (
            "a head beyond 32 KiB",
            format!("A: {}\r\nB: {}\r\nC: {}\r\n", long(12_000), long(12_000), long(12_000)),
            431,
        ),
        ("200 fields", many(197), 200),
        ("201 fields", many(198), 431),
        ("a thousand fields", many(1000), 431),
        ("many of one name", "X-A: b\r\n".repeat(97), 200),
    ])
    .collect();
    let count = rows.len();
    for (row, field, status) in rows {
        let (answer, received) = stage.send_one("GET", b"/api/x", &format!("Host: g\r\n{bearer}{field}"));
        assert_eq!(answer.status, status, "{row}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(received.len(), usize::from(status == 200), "{row}");
        for one in received {
            assert_eq!(one.fault, None, "{row}");
            for name in ["connection", "te", "upgrade", "expect", "keep-alive", "proxy-connection"] {
                let expected: &[&str] =
                    if name == "te" && field.contains("trailers") { &["trailers"] } else { &[] };
                let sent = one.all(name);
                // hyper lists `TE` in `Connection`, as it must.
                if !(name == "connection" && sent == ["TE"]) {
                    assert_eq!(sent, expected, "{row}: {name}");
                }
            }
        }
        if status != 200 {
            let body = answer.json();
            assert_eq!(body["status"], status, "{row}");
            assert!(body["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{row}");
            assert_eq!(answer.field("cache-control"), Some("no-store"), "{row}");
            assert_eq!(answer.field("content-type"), Some("application/json"), "{row}");
        }
    }
    println!("{count} rows");
}

#[test]
fn unanswered_upgrade_opens_no_tunnel() {
    let stage = Stage::with_sibling_services();
    let bearer = stage.bearer();
    for (row, upgrade, asked) in [
        (
            "websocket",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            Some("websocket"),
        ),
        (
            "h2c",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            None,
        ),
        ("h2c beside websocket", "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n", Some("websocket")),
        ("without Connection", "Upgrade: websocket\r\n", None),
        ("TLS", "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n", None),
    ] {
        let bytes = format!(
            "GET /api/x HTTP/1.1\r\nHost: g\r\n{bearer}{upgrade}\r\nGET /hub/api/smuggled HTTP/1.1\r\nHost: g\r\n\r\n"
        );
        let heard = exchange_bytes(stage.gateway.proxy, bytes.as_bytes(), true);
        let answers: Vec<u16> = heard.answers().iter().map(|a| a.status).collect();
        assert_eq!(answers.first(), Some(&200), "{row}: {heard:?}");
        for one in stage.recorder.take() {
            assert_eq!(one.target, "/api/x", "{row}");
            assert_eq!(one.fault, None, "{row}");
            assert_eq!(one.all("upgrade"), Vec::from_iter(asked), "{row}");
            assert_eq!(one.all("connection"), Vec::from_iter(asked.map(|_| "upgrade")), "{row}");
            assert!(one.all("http2-settings").is_empty(), "{row}: {one:?}");
        }
    }
}

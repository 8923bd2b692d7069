//! Every carrier of a token: which one counts, what reaches the upstream, and what an outsider learns.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::{
    recorder::{Received, Recorder},
    stage::{Answer, Stage, all_carriers},
    support::gateway::Gateway,
};

/// `/api` accepts every carrier, `/hub/api` only the default, `/own` the application's own `Authorization`
/// beside a field; `/api/public` and `/hub/api/public` are public.
fn stage() -> Stage {
    let recorder = Recorder::start();
    let service = |name: &str, path: &str, more: &str| {
        format!(
            "[service.{name}]\nupstream = \"one\"\npaths = [\"{path}\"]\nreaders = [\"developers\"]\n{more}\n"
        )
    };
    let public = |name: &str, path: &str| format!("[[public]]\nservice = \"{name}\"\nprefix = \"{path}\"\n");
    let sections = [
        format!("[upstream.one]\nurls = [\"http://{}\"]\n", recorder.address),
        service("tracker", "/api", &all_carriers("X-Api-Key")),
        service("hub", "/hub/api", ""),
        service("own", "/own", "credentials = [\"header:X-Api-Key\"]"),
        public("tracker", "/api/public"),
        public("hub", "/hub/api/public"),
    ];
    let gateway = Gateway::with(&sections.concat());
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "tracker", &["tracker", "own"]);
    Stage { gateway, recorder, token }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

/// Sends a request over HTTP/1.1 and HTTP/2. Returns status, header, body, and what reached the upstream.
fn ask(stage: &Stage, path: &str, fields: Fields<'_>) -> Vec<(u16, HeaderMap, String, Vec<Received>)> {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (answer, received) = stage.send_one("GET", path.as_bytes(), &format!("Host: g\r\n{lines}"));
    let Answer { status, fields: head, body, .. } = answer;
    let head = head.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let mut headers = HeaderMap::new();
    head.for_each(|(name, value): (HeaderName, HeaderValue)| {
        headers.append(name, value);
    });
    let one = (status, headers, String::from_utf8_lossy(&body).into_owned(), received);
    let (status, headers, body) = over_http2(stage, &format!("http://g{path}"), fields);
    vec![one, (status, headers, body, stage.recorder.take())]
}

pub fn over_http2(stage: &Stage, uri: &str, fields: Fields<'_>) -> (u16, HeaderMap, String) {
    call(stage, uri, fields, None)
}

/// Sends a GET, or a POST of one byte with these trailers.
fn call(
    stage: &Stage,
    uri: &str,
    fields: Fields<'_>,
    trailers: Option<HeaderMap>,
) -> (u16, HeaderMap, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(stage.gateway.proxy).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().uri(uri).method(if trailers.is_some() { "POST" } else { "GET" });
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut client = client.ready().await.unwrap();
        let (answer, mut sent) = client.send_request(request.body(()).unwrap(), trailers.is_none()).unwrap();
        if let Some(trailers) = trailers {
            // A refusal may have arrived already.
            let _ = sent.send_data("a".into(), false).and_then(|()| sent.send_trailers(trailers));
        }
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        (head.status.as_u16(), head.headers, String::from_utf8(text).unwrap())
    })
}

/// Checks every answer: 200 exactly if a request reached the upstream, which never sees the token.
fn check(stage: &Stage, row: &str, path: &str, fields: Fields<'_>, expected: (u16, &str)) {
    for (status, _, body, received) in ask(stage, path, fields) {
        assert_eq!(status, expected.0, "{row}: {body}");
        assert_eq!(received.len(), usize::from(status == 200), "{row}");
        let seen = format!("{received:?}");
        let basic = STANDARD.encode(format!("a:{}", stage.token));
        assert!(!seen.contains(&stage.token) && !seen.contains(&basic), "{row}: {seen}");
        assert!(!body.contains(&stage.token), "{row}: {body}");
        if status == 200 {
            let user = received[0].all("x-permgate-user").concat();
            assert_eq!(user, expected.1, "{row}: who is asking");
        } else {
            assert!(body.contains(&format!("\"{}\"", expected.1)), "{row}: {body}");
        }
    }
}

#[test]
fn token_is_accepted_in_each_carrier_and_not_forwarded() {
    let stage = stage();
    let token = stage.token.clone();
    let basic = format!("Basic {}", STANDARD.encode(format!("a:{token}")));
    let bearer = format!("Bearer {token}");
    let protocol = format!("chat, permgate.bearer.{token}");
    let alice = (200, "alice");
    check(&stage, "bearer", "/api", &[("authorization", &bearer)], alice);
    check(&stage, "Basic", "/api", &[("authorization", &basic)], alice);
    check(&stage, "raw", "/api", &[("authorization", &token)], alice);
    check(&stage, "a field", "/api", &[("x-api-key", &token)], alice);
    check(&stage, "a protocol", "/api", &[("sec-websocket-protocol", &protocol)], alice);
    check(&stage, "twice the same", "/api", &[("authorization", &bearer), ("x-api-key", &token)], alice);
    check(&stage, "on a public rule", "/api/public", &[("x-api-key", &token)], alice);
    check(&stage, "none, on a public rule", "/api/public", &[], (200, ""));

    let (field, protocols) =
        ([("x-api-key", token.as_str())], [("sec-websocket-protocol", protocol.as_str())]);
    for carried in [&field, &protocols] {
        let open = (200, "");
        check(
            &stage,
            "in the carrier of another service, on a public rule",
            "/hub/api/public",
            carried,
            open,
        );
    }

    let twice = (400, "invalid_request");
    check(&stage, "two texts", "/api", &[("authorization", &bearer), ("x-api-key", "x")], twice);
    check(&stage, "a field twice", "/api", &[("x-api-key", &token), ("x-api-key", &token)], twice);
    check(&stage, "folded", "/api", &[("x_api_key", &token)], twice);
    check(&stage, "folded beside", "/api", &[("x-api-key", &token), ("x.api.key", &token)], twice);
    check(&stage, "folded, on a public rule", "/api/public", &[("x_api_key", &token)], twice);
    check(&stage, "a protocol alone", "/api", &[("sec-websocket-protocol", &protocol[6..])], twice);
    check(&stage, "an empty field", "/api", &[("x-api-key", "")], twice);
    let twice_authorization = [("authorization", bearer.as_str()), ("authorization", &basic)];
    check(&stage, "two Authorization fields", "/api", &twice_authorization, twice);
    check(
        &stage,
        "two beside a field",
        "/own",
        &[&twice_authorization[..], &[("x-api-key", &token)]].concat(),
        twice,
    );

    let bad = (401, "invalid_token");
    check(&stage, "a bad field", "/api", &[("x-api-key", "x")], bad);
    check(&stage, "a bad field, on a public rule", "/api/public", &[("x-api-key", "x")], bad);
    check(&stage, "a password", "/api", &[("authorization", "Basic YTpiIGM=")], bad);
}

#[test]
fn carrier_counts_only_for_services_that_list_it() {
    let stage = stage();
    let token = stage.token.clone();
    let basic = format!("Basic {}", STANDARD.encode(format!("a:{token}")));
    let bearer = format!("Bearer {token}");
    let wrong = (401, "invalid_token");
    for (row, field) in [
        ("Basic", ("authorization", basic.as_str())),
        ("raw", ("authorization", &token)),
        ("a field", ("x-api-key", &token)),
        ("a protocol", ("sec-websocket-protocol", &format!("chat, permgate.bearer.{token}"))),
    ] {
        let received = ask(&stage, "/hub/api", &[field]);
        for (status, _, body, received) in received {
            assert_eq!((status, received.len()), (401, 0), "{row}: {body}");
            assert!(body.contains("does not accept an access token in this form"), "{row}: {body}");
        }
        check(&stage, row, "/hub/api", &[field], wrong);
        check(&stage, row, "/nowhere", &[field], (404, "not_found"));
    }
    check(
        &stage,
        "a bearer at its service",
        "/hub/api",
        &[("authorization", &bearer)],
        (403, "insufficient_scope"),
    );
    check(&stage, "a bearer elsewhere", "/own", &[("authorization", &bearer)], wrong);
    check(&stage, "a field at its service", "/own", &[("x-api-key", &token)], (200, "alice"));
}

#[test]
fn application_authorization_passes_beside_another_carrier() {
    let stage = stage();
    let token = stage.token.clone();
    let passes = |fields: Fields<'_>, expected: &[&str]| {
        for (status, _, body, received) in ask(&stage, "/own/x", fields) {
            assert_eq!(status, 200, "{body}");
            assert_eq!(received[0].all("authorization"), expected);
            assert!(received[0].all("x-api-key").is_empty());
        }
    };
    passes(&[("authorization", "Bearer app.own.token"), ("x-api-key", &token)], &["Bearer app.own.token"]);
    passes(&[("authorization", "Basic YTpi"), ("x-api-key", &token)], &["Basic YTpi"]);
    passes(&[("authorization", &format!("Bearer {token}")), ("x-api-key", &token)], &[]);
}

#[test]
fn cross_site_page_cannot_use_a_stored_password() {
    let stage = stage();
    let basic = format!("Basic {}", STANDARD.encode(format!("a:{}", stage.token)));
    let sent = ("authorization", basic.as_str());
    check(&stage, "a tool", "/api", &[sent], (200, "alice"));
    check(&stage, "typed", "/api", &[sent, ("sec-fetch-site", "none")], (200, "alice"));
    check(&stage, "our page", "/api", &[sent, ("origin", "http://g")], (200, "alice"));
    for (row, field) in [
        ("cross-site", ("sec-fetch-site", "cross-site")),
        ("same-site", ("sec-fetch-site", "same-site")),
        ("another origin", ("origin", "https://evil.example")),
        ("an opaque origin", ("origin", "null")),
    ] {
        check(&stage, row, "/api", &[sent, field], (401, "unauthorized"));
        check(&stage, row, "/api/public", &[sent, field], (200, ""));
    }
}

#[test]
fn unauthenticated_client_gets_the_same_answer_for_every_path() {
    let stage = stage();
    let rows: [(&str, Fields<'_>); 7] = [
        ("nothing", &[]),
        ("a password", &[("authorization", "Basic YTpi")]),
        ("a broken Basic", &[("authorization", "Basic !")]),
        ("a word", &[("authorization", "abc")]),
        ("a bearer", &[("authorization", "Bearer abc")]),
        ("a field", &[("x-api-key", "abc")]),
        ("a broken field", &[("x-api-key", "a b")]),
    ];
    for (row, fields) in rows {
        let explanation = |path: &str| {
            let answers = ask(&stage, path, fields).into_iter().map(|(status, head, body, received)| {
                assert!(received.is_empty(), "{row} {path}");
                let challenges: Vec<_> = head.get_all("www-authenticate").iter().cloned().collect();
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                (status, challenges, body["error"].clone(), body["error_description"].clone())
            });
            answers.collect::<Vec<_>>()
        };
        let expected = explanation("/api/x");
        for path in ["/hub/api/x", "/own/x", "/nowhere", "/.permgate/x"] {
            assert_eq!(explanation(path), expected, "{row} {path}");
        }
        for (status, challenges, ..) in expected {
            let basic = challenges.iter().any(|c| *c == "Basic realm=\"permgate\", charset=\"UTF-8\"");
            assert_eq!(basic, status == 401, "{row}: {challenges:?}");
        }
    }
}

#[test]
fn carrier_in_trailers_is_ignored_and_dropped() {
    let stage = stage();
    let token = stage.token.clone();
    let sent = |carried: &str, more: &str| {
        let head =
            format!("Host: g\r\n{more}Transfer-Encoding: chunked\r\nTrailer: {carried}\r\nTE: trailers\r\n");
        let bytes = format!(
            "POST /api/x HTTP/1.1\r\n{head}Connection: close\r\n\r\n1\r\na\r\n0\r\n{carried}: {token}\r\n\r\n"
        );
        let heard = crate::stage::exchange_bytes(stage.gateway.proxy, bytes.as_bytes(), false);
        (heard.answers()[0].status, stage.recorder.take())
    };
    for name in ["X-Api-Key", "x_api_key", "Authorization", "Sec-WebSocket-Protocol"] {
        let (status, received) = sent(name, "");
        assert_eq!((status, received.len()), (401, 0), "{name}");
        let (status, received) = sent(name, &format!("X-Api-Key: {token}\r\n"));
        assert_eq!(status, 200, "{name}");
        assert!(!format!("{received:?}").contains(&token), "{name}: {received:?}");
        let over_http2 = |fields: Fields<'_>| {
            let mut trailers = HeaderMap::new();
            trailers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&token).unwrap());
            let (status, ..) = call(&stage, "http://g/api/x", fields, Some(trailers));
            (status, stage.recorder.take())
        };
        let (status, received) = over_http2(&[]);
        assert_eq!((status, received.len()), (401, 0), "{name}, HTTP/2");
        let (status, received) = over_http2(&[("x-api-key", &token), ("te", "trailers")]);
        assert_eq!(status, 200, "{name}, HTTP/2");
        assert!(!format!("{received:?}").contains(&token), "{name}, HTTP/2: {received:?}");
    }
}

#[test]
fn two_carriers_with_different_tokens_are_refused() {
    let stage = stage();
    let (_, other) = stage.gateway.token("alice", "other", &["tracker"]);
    let authorization = |form: &str, text: &str| match form {
        "bearer" => format!("Bearer {text}"),
        "basic" => format!("Basic {}", STANDARD.encode(format!("a:{text}"))),
        _ => text.to_owned(),
    };
    let token = stage.token.clone();
    let protocol = |text: &str| format!("chat, permgate.bearer.{text}");
    for path in ["/api/x", "/api/public"] {
        for form in ["bearer", "basic", "raw"] {
            for (own, its) in [(&token, &other), (&other, &token)] {
                let first = ("authorization", authorization(form, own));
                for second in [("x-api-key", its.clone()), ("sec-websocket-protocol", protocol(its))] {
                    let fields = [(first.0, first.1.as_str()), (second.0, second.1.as_str())];
                    check(&stage, form, path, &fields, (400, "invalid_request"));
                }
            }
        }
        let fields = [("x-api-key", token.as_str()), ("sec-websocket-protocol", &protocol(&other))];
        check(&stage, "a field and a protocol", path, &fields, (400, "invalid_request"));
        let two = format!("chat, permgate.bearer.{token}, permgate.bearer.{other}");
        check(&stage, "two protocols", path, &[("sec-websocket-protocol", &two)], (400, "invalid_request"));
    }
    for name in ["sec_websocket_protocol", "sec.websocket-protocol", "x-api_key", "x.api.key"] {
        let value = if name.starts_with("sec") { protocol(&token) } else { token.clone() };
        check(&stage, name, "/api/x", &[(name, &value)], (400, "invalid_request"));
    }
}

#[test]
fn revocation_applies_to_every_carrier() {
    let stage = stage();
    let (id, text) = stage.gateway.token("alice", "short", &["tracker"]);
    let basic = format!("Basic {}", STANDARD.encode(format!("a:{text}")));
    check(&stage, "before", "/api", &[("authorization", &basic)], (200, "alice"));
    stage.gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    check(&stage, "after", "/api", &[("authorization", &basic)], (401, "invalid_token"));
    check(&stage, "in a field", "/api", &[("x-api-key", &text)], (401, "invalid_token"));
}

#[test]
fn explain_names_the_carrier() {
    let stage = stage();
    let (id, _) = stage.gateway.token("alice", "asked about", &["tracker"]);
    let check = |url: &str, carrier: Option<&str>, reason: &str, looked_at: &str| {
        let body = serde_json::json!({"method": "GET", "url": url, "token_id": id, "carrier": carrier});
        let explanation = stage.gateway.must("POST", "/v1/explain", Some(&body.to_string()));
        let steps = explanation["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["step"] == "credential").unwrap();
        let found = (explanation["reason"].as_str().unwrap(), step["looked_at"].as_str().unwrap());
        assert_eq!(found, (reason, looked_at), "{url} {carrier:?}");
    };
    check("/api", None, "ok", "Authorization");
    check("/api", Some("basic"), "ok", "Authorization, Basic");
    check("/api", Some("raw"), "ok", "Authorization, without a scheme");
    check("/api", Some("header:X-Api-Key"), "ok", "the field x-api-key");
    check("/api", Some("websocket"), "ok", "Sec-WebSocket-Protocol");
    check("/own", None, "scope_denied", "the field x-api-key");
    check("/hub/api", Some("basic"), "wrong_carrier", "a field in which the service does not accept a token");
    check(
        "/hub/api",
        Some("header:X-Api-Key"),
        "wrong_carrier",
        "a field in which the service does not accept a token",
    );
    check("/api", Some("header:Private-Token"), "missing_credentials", "Authorization");
    // It is in the handshake of a WebSocket, which does more than read.
    let (id, _) = stage.gateway.token("alice", "reading", &["tracker:read"]);
    let body = serde_json::json!({"method": "GET", "url": "/api", "token_id": id, "carrier": "websocket"});
    let explanation = stage.gateway.must("POST", "/v1/explain", Some(&body.to_string()));
    assert_eq!(explanation["reason"], "read_only_scope", "{explanation}");
}

use super::{identity::GROUPS, *};
use crate::authz::{
    decide::{Credential, Facts, Query, decide},
    fixture::{self, Fixture},
    path::RequestPath,
    rules::{Authorization, Identity, Secret},
    secret::BearerForm,
    subject::{Token, User, UserIx},
};

mod hops;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    map
}

fn sorted_fields(map: &HeaderMap) -> Vec<(String, String)> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut fields: Vec<_> = map.iter().map(field).collect();
    fields.sort();
    fields
}

fn query() -> Query<'static> {
    Query {
        method: &http::Method::GET,
        host: None,
        path: RequestPath::parse("/api/x"),
        token_in_url: false,
        credential: Credential::Bearer { form: BearerForm::Own, digest: Some(fixture::DIGEST) },
        client: [192, 0, 2, 1].into(),
        upgrade: false,
        method_override: false,
        destination: None,
        stated_hosts: &[],
    }
}

/// Returns the fields that the upstream gets.
fn sent(fixture: &Fixture, fields: &[(&str, &str)], trusted: bool) -> Result<HeaderMap, IdentityTooLarge> {
    let token = fixture.token();
    let facts = Facts { token: Some(&token), ..fixture.facts() };
    let permit = decide(&query(), facts).unwrap();
    let peer = PeerFields::new(Some([192, 0, 2, 1].into()), false);
    let hop = Hop {
        peer: &peer,
        peer_trusted: trusted,
        host: Some(b"example.org:8080"),
        request_id: &HeaderValue::from_static("r1"),
        destination: None,
    };
    let mut headers = map(fields);
    edit_request(&mut headers, &permit, &IdentityCache::new(&fixture.directory), &hop)?;
    Ok(headers)
}

const ALWAYS: [(&str, &str); 10] = [
    ("forwarded", "for=192.0.2.1;proto=http;host=\"example.org:8080\""),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "example.org:8080"),
    ("x-forwarded-proto", "http"),
    ("x-permgate-groups", "developers"),
    ("x-permgate-service", "youtrack"),
    ("x-permgate-token-id", "A1iceYt00001"),
    ("x-permgate-user", "alice"),
    ("x-permgate-user-id", "id-alice"),
    ("x-request-id", "r1"),
];

#[test]
fn the_upstream_gets_what_it_may() {
    let fixture = Fixture::new();
    let check = |name: &str, fields: &[(&str, &str)], expected: &[(&str, &str)]| {
        let all: Vec<_> = ALWAYS.iter().chain(expected).copied().collect();
        assert_eq!(
            sorted_fields(&sent(&fixture, fields, false).unwrap()),
            sorted_fields(&map(&all)),
            "{name}"
        );
    };
    let dropped = |name: &str| check(name, &[(name, "1")], &[]);
    let kept = |name: &str| check(name, &[(name, "1")], &[(name, "1")]);
    for name in [
        "authorization",
        "proxy-authorization",
        "proxy_authorization",
        "connection",
        "keep-alive",
        "keep_alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
        "te",
        "forwarded",
        "x-permgate-user",
        "x_permgate_user",
        "x.permgate.groups",
        "x~permgate!user",
        "remote|user",
        "x^forwarded^for",
        "content~length",
        "X-Permgate_User-Id",
        "x-permgate-anything",
        "x-permgate",
        "x-permgatefuture",
        "x-forwarded-for",
        "x_forwarded_for",
        "x-forwarded-user",
        "x-forwarded-prefix",
        "x.forwarded-proto",
        "x-forwarded-port",
        "x-forwarded",
        "x-original-url",
        "x_original_url",
        "x-original-uri",
        "x-rewrite-url",
        "x-rewrite.url",
        "x-request-id",
        "x_request_id",
        "destination",
        "remote_user",
        "x-auth-request-email",
        "cf-connecting-ip",
        "proxy",
        "proxy-authenticate",
        "x-accel-mapping",
    ] {
        dropped(name);
    }
    for name in [
        "accept",
        "cookie",
        "x-auth-token",
        "cf-ray",
        "x-permission",
        "x-forward",
        "x-custom_name",
        "range",
        "content-length",
        "x",
    ] {
        kept(name);
    }
    check(
        "listed by Connection",
        &[("connection", "Foo , close"), ("foo", "1"), ("bar", "2")],
        &[("bar", "2")],
    );
    check(
        "Connection cannot drop ours, nor what frames and routes",
        &[
            ("connection", "x-permgate-user, x-request-id, host, content-length, x-forwarded-for"),
            ("host", "h"),
        ],
        &[("host", "h")],
    );
    check("two Connection fields", &[("connection", "a"), ("connection", "b"), ("a", "1"), ("b", "1")], &[]);
    check("TE anew", &[("te", "gzip, Trailers;q=1"), ("te", "deflate")], &[("te", "trailers")]);
    check(
        "Trailer anew",
        &[("trailer", "X-Sum, x-permgate-user"), ("trailer", "content-length, host,,grpc-status")],
        &[("trailer", "x-sum, grpc-status")],
    );
    check("a Trailer of nothing that may pass", &[("trailer", "host, x_permgate_user")], &[]);
    check("copies beside each other", &[("x-permgate-user", "a"), ("x-permgate-user", "b")], &[]);
}

#[test]
fn a_service_may_let_a_field_through() {
    let fixture = Fixture::with(|youtrack| {
        let pass = |name: &str, from| PassField { name: name.into(), from };
        youtrack.fields = FieldPolicy {
            drop: [FieldPattern::parse("x-tenant").unwrap()].into(),
            pass: vec![pass("remote-user", PassFrom::Trusted), pass("x-real-ip", PassFrom::Anybody)],
        };
    });
    let fields = [
        ("remote-user", "a"),
        ("remote_user", "b"),
        ("x-real-ip", "c"),
        ("x-tenant", "d"),
        ("cf-connecting-ip", "e"),
        ("cf_connecting_ip", "f"),
    ];
    let check = |trusted: bool, expected: &[&str]| {
        // A client may have listed them before the proxy set them.
        let listed = [&fields[..], &[("connection", "remote-user, x-real-ip, x-tenant")]].concat();
        for sent in [sent(&fixture, &fields, trusted).unwrap(), sent(&fixture, &listed, trusted).unwrap()] {
            let passed = fields.iter().filter(|(name, _)| sent.contains_key(*name));
            assert_eq!(passed.map(|(_, value)| *value).collect::<Vec<_>>(), expected, "{trusted}");
        }
    };
    check(false, &["c"]);
    check(true, &["a", "c", "e"]);
}

#[test]
fn our_cookies_are_nobodys_affair() {
    let fixture = Fixture::new();
    let cookies = |fields: &[(&str, &str)]| {
        let sent = sent(&fixture, fields, false).unwrap();
        let values = sent.get_all("cookie").iter().map(|value| value.to_str().unwrap().to_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(cookies(&[("cookie", "a=b;c=d")]), ["a=b;c=d"]);
    assert_eq!(cookies(&[("cookie", "a=b; permgate=1; c=d")]), ["a=b; c=d"]);
    assert_eq!(cookies(&[("cookie", "__Host-permgate=1"), ("cookie", "a=b")]), ["a=b"]);
    let set = ["permgate=1; Path=/", "a=b", "=permgate=1", "__Host-permgate-flow=1; Secure", "b=permgate"];
    let mut headers = map(&set.map(|value| ("set-cookie", value)));
    edit_response(&mut headers, &HeaderValue::from_static("r1"));
    let kept: Vec<_> = headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(kept, [&b"a=b"[..], b"b=permgate"]);
}

#[test]
fn authorization_is_stripped_kept_or_replaced() {
    let check = |mode: Authorization, expected: Option<&str>| {
        let fixture = Fixture::with(|youtrack| youtrack.authorization = mode.clone());
        let sent = sent(&fixture, &[("authorization", "Bearer x")], false).unwrap();
        assert_eq!(sent.get("authorization").map(|v| v.to_str().unwrap()), expected, "{mode:?}");
    };
    check(Authorization::Strip, None);
    check(Authorization::Keep, Some("Bearer x"));
    check(Authorization::Replace(Secret(HeaderValue::from_static("Basic y"))), Some("Basic y"));
}

#[test]
fn identity_is_told_as_configured() {
    let groups = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let fixture = Fixture::with(|youtrack| youtrack.identity_groups = Some(names.clone()));
        let sent = sent(&fixture, &[], false)?;
        Ok(sent.get(GROUPS).map(|v| v.to_str().unwrap().to_owned()))
    };
    assert_eq!(
        groups(&["Développeurs, 100%", "all-users", "auditors"]).unwrap().as_deref(),
        Some("D%C3%A9veloppeurs%2C%20100%25,all-users")
    );
    assert_eq!(groups(&["DÉVELOPPEURS, 100%"]).unwrap().as_deref(), Some("D%C3%89VELOPPEURS%2C%20100%25"));
    assert_eq!(groups(&["auditors"]).unwrap(), None);
    let long = "l".repeat(199);
    let fitting = vec![long.as_str(); 20];
    assert_eq!(groups(&fitting).unwrap().map(|list| list.len()), Some(20 * 199 + 19));
    assert_eq!(groups(&vec![long.as_str(); 21]), Err(IdentityTooLarge));
    let none = Fixture::with(|youtrack| youtrack.identity = Identity::None);
    let sent = sent(&none, &[("x-permgate-user", "root")], false).unwrap();
    assert!(sent.keys().all(|name| !name.as_str().starts_with("x-permgate")));
}

#[test]
fn an_assertion_is_for_who_asks_for_one() {
    let check = |identity: Identity, asserted: bool, fields: usize| {
        let fixture = Fixture::with(|youtrack| youtrack.identity = identity);
        let token = fixture.token();
        let facts = Facts { token: Some(&token), ..fixture.facts() };
        let permit = decide(&query(), facts).unwrap();
        let claims = Claims::from_permit(&permit, &fixture.directory).unwrap();
        assert_eq!(claims.is_some(), asserted, "{identity:?}");
        if let Some(claims) = claims {
            assert_eq!(claims.service, "youtrack");
            assert_eq!(
                (claims.user_id, claims.login, claims.groups),
                ("id-alice", "alice", vec!["developers"])
            );
        }
        let sent = sent(&fixture, &[("x-permgate-assertion", "e30.e30.")], false).unwrap();
        let ours = sent.keys().filter(|name| name.as_str().starts_with("x-permgate"));
        assert_eq!(ours.count(), fields, "{identity:?}");
    };
    check(Identity::None, false, 0);
    check(Identity::Headers, false, 5);
    check(Identity::Jwt, true, 0);
    check(Identity::Both, true, 5);
}

#[test]
fn trailers_frame_route_and_identify_nothing() {
    let fields = [
        ("x-sum", "1"),
        ("x-permgate-user", "a"),
        ("x_permgate_user", "a"),
        ("x~permgate~user", "a"),
        ("content_length", "1"),
        ("host", "h"),
        ("transfer-encoding", "chunked"),
        ("authorization", "b"),
        ("x-original-url", "/"),
        ("x-forwarded-for", "1"),
        ("x-http-method-override", "PUT"),
        ("te", "x"),
        ("trailer", "y"),
        ("destination", "/b"),
        ("remote-user", "root"),
        ("x-real-ip", "1"),
        ("x-request-id", "z"),
        ("forwarded", "f"),
    ];
    let mut request = map(&fields);
    edit_request_trailers(&mut request, &FieldPolicy::default());
    assert_eq!(sorted_fields(&request), sorted_fields(&map(&[("x-sum", "1")])));
    let mut response = map(&[
        ("grpc-status", "0"),
        ("content-length", "1"),
        ("set-cookie", "a"),
        ("connection", "close"),
        ("alt-svc", "clear"),
    ]);
    edit_response_trailers(&mut response);
    assert_eq!(sorted_fields(&response), sorted_fields(&map(&[("grpc-status", "0")])));
}

#[test]
fn an_answer_loses_what_concerns_one_connection() {
    let mut headers = map(&[
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("x-request-id", "theirs"),
        ("alt-svc", "h3=\":443\""),
        ("etag", "e"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("trailer", "x-sum, host"),
    ]);
    edit_response(&mut headers, &HeaderValue::from_static("r1"));
    let expected = [
        ("x-request-id", "r1"),
        ("etag", "e"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("trailer", "x-sum"),
    ];
    assert_eq!(sorted_fields(&headers), sorted_fields(&map(&expected)));
}

#[test]
fn names_that_pass_for_others_are_seen() {
    let alias = |name: &str| has_framing_alias(&map(&[(name, "1")]));
    for name in ["transfer_encoding", "transfer.encoding", "content_length", "content.length"] {
        assert!(alias(name), "{name}");
    }
    for name in ["transfer-encoding", "content-length", "content_type", "host", "x_content_length"] {
        assert!(!alias(name), "{name}");
    }
    for name in ["x-http-method-override", "x_http_method_override", "x-http-method", "x-method.override"] {
        assert!(method_override(&map(&[(name, "DELETE")])), "{name}");
    }
    let others = map(&[("x-http-method-overridden", "1"), ("x-method", "1")]);
    assert!(!method_override(&others));
    for query in [
        "_method=DELETE",
        "a=1&_method=PUT",
        "%5fmethod=x",
        "_%6Dethod=x",
        ".method=x",
        "+_method=x",
        "_method%00a=x",
        "[_method]=x",
        "%5B_method%5d=x",
        "X-Http-Method-Override=PUT",
        "_method",
    ] {
        assert!(has_method_parameter(query), "{query}");
    }
    for query in ["", "method=DELETE", "a=_method", "_methods=1", "a_method=1", "a[_method]=1", "_METHOD=1"] {
        assert!(!has_method_parameter(query), "{query}");
    }
}

#[test]
fn users_in_one_place_of_the_cache_keep_their_identities() {
    let mut fixture = Fixture::new();
    let alice = fixture.directory.users[0].clone();
    let (ix, id, login) = (UserIx(1024), "id-bob".into(), "bob".into());
    let bob = User { ix, id, login, ..(*alice).clone() };
    fixture.directory.users.resize(1024, alice);
    fixture.directory.users.push(bob.into());
    let cache = IdentityCache::new(&fixture.directory);
    let reported = |owner: u32| {
        let token = Token { owner: UserIx(owner), ..fixture.token() };
        let permit = decide(&query(), Facts { token: Some(&token), ..fixture.facts() }).unwrap();
        let mut headers = HeaderMap::new();
        cache.set(&mut headers, &permit).unwrap();
        headers["x-permgate-user"].clone()
    };
    assert_eq!([0, 1024, 0].map(reported), ["alice", "bob", "alice"]);
}

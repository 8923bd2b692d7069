use http::{HeaderMap, header};

use super::*;
use crate::authz::secret::{Bearer, BearerForm, Digest, TokenText};

const ALL: &[&str] = &["bearer", "basic", "raw", "websocket", "header:x-api-key", "header:private-token"];

fn carriers(texts: &[&str]) -> Carriers {
    let mut carriers = Carriers::NONE;
    texts.iter().for_each(|text| carriers.insert(Carrier::parse(text).unwrap()));
    carriers
}

fn token() -> (String, Digest) {
    let (_, text) = TokenText::generate(None, &mut |bytes| bytes.fill(7));
    (text.expose().to_owned(), text.digest())
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn basic(text: &str) -> String {
    use base64::Engine as _;
    let mut encoded = vec![0; 4096];
    let length = base64::engine::general_purpose::STANDARD.encode_slice(text, &mut encoded).unwrap();
    format!("Basic {}", str::from_utf8(&encoded[..length]).unwrap())
}

/// Returns the credential that counts for a service with these carriers, and its carrier.
fn chosen(accepted: &[&str], fields: &[(&str, &str)], secure: bool) -> (Credential, Option<String>) {
    let headers = headers(fields);
    let authorization = Credential::from_headers(&headers, true, false);
    let site = TargetOrigin { host: Some(b"gate.example:8443"), secure };
    let others = read(&headers, authorization, &carriers(ALL), site, (true, false));
    let (credential, at) = carriers(accepted).choose(authorization, &others);
    (credential, at.map(|at| others[at].carrier.to_string()))
}

#[test]
fn a_carrier_counts_where_it_is_accepted() {
    let (text, digest) = token();
    let own = |kind| Credential::Carried { kind, form: BearerForm::Own, digest: Some(digest) };
    let foreign = Credential::foreign;
    let check = |row: &str, fields: &[(&str, &str)], expected: Credential, stood: Option<&str>| {
        let found = chosen(ALL, fields, true);
        assert_eq!(found, (expected, stood.map(str::to_owned)), "{row}");
        if let Some(carrier) = stood {
            let others: Vec<&str> = ALL.iter().copied().filter(|other| *other != carrier).collect();
            let without = chosen(&others, fields, true);
            assert!(without.0.is_absent(), "{row}, where it is not accepted: {without:?}");
        }
    };
    use CarrierKind::{Basic, Header, Raw, Websocket};
    let password = |name: &str| basic(&format!("{name}:{text}"));
    check("Basic", &[("authorization", &password("alice"))], own(Basic), Some("basic"));
    check("any name", &[("authorization", &password(""))], own(Basic), Some("basic"));
    check(
        "lower case",
        &[("authorization", &password("x").replace("Basic", "basic"))],
        own(Basic),
        Some("basic"),
    );
    check("perm:", &[("authorization", &basic(&format!("a:perm:{text}")))], own(Basic), Some("basic"));
    check("a password", &[("authorization", &basic("alice:hunter 2!"))], foreign(Basic), Some("basic"));
    check("no password", &[("authorization", &basic("alice:"))], foreign(Basic), Some("basic"));
    check(
        "the token as the name",
        &[("authorization", &basic(&format!("{text}:")))],
        foreign(Basic),
        Some("basic"),
    );
    check("no colon", &[("authorization", &basic("alice"))], Credential::Malformed, Some("basic"));
    check("not Base64", &[("authorization", "Basic !")], Credential::Malformed, Some("basic"));
    check("Basic alone", &[("authorization", "Basic")], Credential::Malformed, Some("basic"));
    check("too long", &[("authorization", &basic(&"a".repeat(2000)))], Credential::Malformed, Some("basic"));
    check("Basic-like", &[("authorization", "Basics x")], Credential::UnsupportedScheme, None);
    check("the token alone", &[("authorization", &text)], own(Raw), Some("raw"));
    check("another scheme", &[("authorization", "Digest a=b")], Credential::UnsupportedScheme, None);
    check("a field", &[("x-api-key", &text)], own(Header), Some("header:x-api-key"));
    check("another field", &[("private-token", &text)], own(Header), Some("header:private-token"));
    check("an empty field", &[("x-api-key", "")], Credential::MalformedCarrier, Some("header:x-api-key"));
    check("two words", &[("x-api-key", "Bearer x")], Credential::MalformedCarrier, Some("header:x-api-key"));
    check(
        "a field twice",
        &[("x-api-key", &text), ("x-api-key", &text)],
        Credential::AmbiguousCarrier,
        Some("header:x-api-key"),
    );
    check("folded", &[("x_api_key", &text)], Credential::AmbiguousCarrier, Some("header:x-api-key"));
    check(
        "folded beside",
        &[("x-api-key", &text), ("x.api-key", "a")],
        Credential::AmbiguousCarrier,
        Some("header:x-api-key"),
    );
    let protocol = format!("permgate.bearer.{text}");
    let both = format!("graphql-ws, {protocol}");
    check("a protocol", &[("sec-websocket-protocol", &both)], own(Websocket), Some("websocket"));
    check(
        "in two fields",
        &[("sec-websocket-protocol", &protocol), ("sec-websocket-protocol", "a")],
        own(Websocket),
        Some("websocket"),
    );
    check(
        "a protocol alone",
        &[("sec-websocket-protocol", &protocol)],
        Credential::MalformedCarrier,
        Some("websocket"),
    );
    check(
        "twice",
        &[("sec-websocket-protocol", &format!("{both}, {protocol}"))],
        Credential::AmbiguousCarrier,
        Some("websocket"),
    );
    check("folded", &[("sec_websocket_protocol", &both)], Credential::AmbiguousCarrier, Some("websocket"));
    check("others only", &[("sec-websocket-protocol", "graphql-ws")], Credential::Missing, None);
}

#[test]
fn one_text_is_one_credential_and_two_are_ambiguous() {
    let (text, digest) = token();
    let bearer = Credential::Bearer { form: BearerForm::Own, digest: Some(digest) };
    let other = text.replace("pgt_", "perm:pgt_");
    let check = |row: &str, accepted: &[&str], fields: &[(&str, &str)], expected: Credential| {
        assert_eq!(chosen(accepted, fields, true).0, expected, "{row}");
    };
    let sent = format!("Bearer {text}");
    let both = [("authorization", sent.as_str()), ("x-api-key", &text)];
    check("the same text", ALL, &both, bearer);
    check("with the alias", ALL, &[("authorization", &sent), ("x-api-key", &other)], bearer);
    check(
        "another text",
        ALL,
        &[("authorization", &sent), ("x-api-key", "abc")],
        Credential::AmbiguousCarrier,
    );
    check(
        "a bad bearer",
        ALL,
        &[("authorization", "Bearer x"), ("x-api-key", &text)],
        Credential::AmbiguousCarrier,
    );
    check("two bad ones", ALL, &[("x-api-key", "x"), ("private-token", "x")], Credential::AmbiguousCarrier);
    check("not accepted", &["bearer"], &[("authorization", &sent), ("x-api-key", "abc")], bearer);
    let header =
        Credential::Carried { kind: CarrierKind::Header, form: BearerForm::Own, digest: Some(digest) };
    check(
        "the application's own bearer",
        &["header:x-api-key"],
        &[("authorization", "Bearer x"), ("x-api-key", &text)],
        header,
    );
    let two = [("authorization", sent.as_str()), ("authorization", "Basic YTpi"), ("x-api-key", &text)];
    check("two Authorization fields", &["header:x-api-key"], &two, Credential::Ambiguous);
}

#[test]
fn a_page_of_another_site_cannot_use_a_browsers_password() {
    let (text, _) = token();
    let password = basic(&format!("a:{text}"));
    let check = |row: &str, secure: bool, more: &[(&str, &str)], counts: bool| {
        let fields: Vec<_> = [&[("authorization", password.as_str())], more].concat();
        let (credential, _) = chosen(ALL, &fields, secure);
        assert_eq!(credential.digest().is_some(), counts, "{row}");
        assert!(counts || credential == Credential::UnsupportedScheme, "{row}");
    };
    let (site, origin) = ("sec-fetch-site", "origin");
    check("a tool", true, &[], true);
    check("typed", true, &[(site, "none")], true);
    check("our own page", true, &[(site, "same-origin"), (origin, "https://gate.example:8443")], true);
    check("a sibling", true, &[(site, "same-site")], false);
    check("another site", true, &[(site, "cross-site")], false);
    check("a word of tomorrow", true, &[(site, "same-party")], false);
    check("two words", true, &[(site, "none"), (site, "cross-site")], false);
    check("another origin", true, &[(origin, "https://evil.example")], false);
    check("another port", true, &[(origin, "https://gate.example")], false);
    check("another scheme", true, &[(origin, "http://gate.example:8443")], false);
    check("in clear text either may be ours", false, &[(origin, "http://gate.example:8443")], true);
    check("behind a proxy with TLS", false, &[(origin, "https://gate.example:8443")], true);
    check("an opaque origin", true, &[(origin, "null")], false);
    check("two origins", true, &[(origin, "https://gate.example:8443"), (origin, "null")], false);
}

#[test]
fn some_fields_cannot_hold_a_token() {
    let check = |text: &str, expected: bool| assert_eq!(Carrier::parse(text).is_some(), expected, "{text}");
    for text in ALL {
        check(text, true);
    }
    check("header:X-Auth-Token", true);
    check("header:X-JFrog-Art-Api", true);
    check("header:X-Vault-Token", true);
    for name in [
        "authorization",
        "cookie",
        "host",
        "connection",
        "te",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "proxy-authorization",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-permgate-user",
        "x-request-id",
        "remote-user",
        "destination",
        "x-original-uri",
        "x_api_key",
        "x.api.key",
        "sec-websocket-key",
        "origin",
        "sec-websocket-protocol",
        "expect",
        "trailer",
        "via",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "content-type",
        "a b",
        "",
    ] {
        check(&format!("header:{name}"), false);
    }
    check("Bearer", false);
    check("cookie", false);
    check("", false);
}

#[test]
fn carriers_do_not_reach_the_upstream() {
    let (text, _) = token();
    let check = |row: &str, accepted: &[&str], fields: &[(&str, &str)], left: &[(&str, &str)]| {
        let mut sent = headers(fields);
        strip(&mut sent, &carriers(accepted), true);
        assert_eq!(sent, headers(left), "{row}");
    };
    let protocol = format!("a,permgate.bearer.{text} , b");
    check("a field", ALL, &[("x-api-key", &text), ("x-other", "1")], &[("x-other", "1")]);
    check("a protocol", ALL, &[("sec-websocket-protocol", &protocol)], &[("sec-websocket-protocol", "a, b")]);
    check("Basic", ALL, &[("authorization", "Basic YTpi")], &[]);
    let theirs = [("authorization", "Basic YTpi")];
    check("the application's own", &["header:x-api-key"], &theirs, &theirs);
    check("a token of ours", &["header:x-api-key"], &[("authorization", &format!("Bearer {text}"))], &[]);
    check("raw", &["raw"], &[("authorization", "abc")], &[]);
    let digest = [("authorization", "Digest a=b")];
    check("another scheme", ALL, &digest, &digest);
}

#[test]
fn a_token_in_the_carrier_of_another_service_does_not_reach_this_one() {
    let (text, digest) = token();
    let known = Bearer::parse(b"imported-secret").unwrap().digest();
    let check = |row: &str, accepted: &[&str], fields: &[(&str, &str)], left: &[(&str, &str)]| {
        let mut sent = headers(fields);
        let credential = Credential::from_headers(&sent, true, true);
        let site = TargetOrigin { host: None, secure: true };
        let carried = read(&sent, credential, &carriers(ALL), site, (true, true));
        strip_others(&mut sent, &carried, &carriers(accepted), |one| *one == digest || *one == known);
        assert_eq!(sent, headers(left), "{row}");
    };
    let (basic, chat) = (basic(&format!("a:{text}")), [("sec-websocket-protocol", "chat")]);
    let protocol = format!("permgate.bearer.{text}, chat");
    check("a field", &["bearer"], &[("x-api-key", &text), ("x-other", "1")], &[("x-other", "1")]);
    check("imported", &["bearer"], &[("x-api-key", "imported-secret")], &[]);
    check("in another spelling", &["bearer"], &[("x_api_key", &text)], &[]);
    check("twice", &["bearer"], &[("x-api-key", "a"), ("x-api-key", &text)], &[]);
    check("a protocol", &["bearer"], &[("sec-websocket-protocol", &protocol)], &chat);
    check("Basic", &["bearer"], &[("authorization", &basic)], &[]);
    let (cross, null) = (("sec-fetch-site", "cross-site"), ("origin", "null"));
    check("Basic of another site", &["bearer"], &[("authorization", &basic), cross], &[cross]);
    check("Basic of an opaque origin", &["header:x-api-key"], &[("authorization", &basic), null], &[null]);
    check("raw", &["header:x-api-key"], &[("authorization", &text)], &[]);
    let own = [("x-api-key", "the-applications-own"), ("authorization", "Basic YTpi")];
    check("nothing of ours", &["bearer"], &own, &own);
    check(
        "its own carrier, which is stripped elsewhere",
        ALL,
        &[("x-api-key", &text)],
        &[("x-api-key", &text)],
    );
}

#[test]
fn an_answer_to_another_carrier_is_for_one_caller() {
    let check = |row: &str, used: Option<CarrierKind>, sent: &str, expected: &str| {
        let mut answer = headers(&[("cache-control", sent), ("x-accel-expires", "60"), ("vary", "accept")]);
        restrict_caching(&mut answer, &carriers(&["bearer", "header:x-api-key"]), used);
        assert_eq!(answer[header::CACHE_CONTROL], expected, "{row}");
        let vary: Vec<_> = answer.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["accept, authorization, x-api-key"], "{row}");
        let is_private = used.is_some_and(|kind| !kind.is_authorization());
        assert_eq!(answer.contains_key("x-accel-expires"), !is_private, "{row}");
    };
    let header = Some(CarrierKind::Header);
    check("a bearer", None, "public, max-age=60", "public, max-age=60");
    check("Basic", Some(CarrierKind::Basic), "max-age=60", "max-age=60");
    check("a field", header, "public, max-age=60, S-Maxage=9", "max-age=60, private");
    check("some fields private", header, "private=\"set-cookie\"", "private");
    check("not stored", header, "no-store", "no-store, private");
    let mut answer = headers(&[("cache-control", "public")]);
    restrict_caching(&mut answer, &Carriers::BEARER, None);
    assert_eq!(answer, headers(&[("cache-control", "public")]), "the default stays as it was");
}

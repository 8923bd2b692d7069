use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn check(name: &str, peer: &str, fields: &[(&'static str, &str)], expected: &str) {
    let networks = ["192.0.2.0/24", "2001:db8::/64"].map(|net| net.parse().unwrap());
    let trusted: TrustedProxies = networks.into_iter().collect();
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let peer = peer.parse().unwrap();
    let client = client_address(&headers, peer, trusted.contains(peer), &trusted);
    let client = client.map(|ip| ip.to_string());
    assert_eq!(client.as_deref().unwrap_or("ambiguous"), expected, "{name}");
}

const LIST: &str = "x-forwarded-for";
const ELEMENTS: &str = "forwarded";
const PROXY: &str = "192.0.2.10";

#[test]
fn the_client_is_the_rightmost_hop_that_nobody_vouches_for() {
    check("nothing told", PROXY, &[], PROXY);
    check("not trusted", "198.51.100.7", &[(LIST, "10.0.0.1")], "198.51.100.7");
    check("one hop", PROXY, &[(LIST, "10.0.0.1")], "10.0.0.1");
    check("the client's own claim", PROXY, &[(LIST, "10.9.9.9, 10.1.2.3")], "10.1.2.3");
    check("a chain of proxies", PROXY, &[(LIST, "10.9.9.9, 10.1.2.3,192.0.2.11")], "10.1.2.3");
    check("several fields", PROXY, &[(LIST, "10.9.9.9"), (LIST, "10.1.2.3")], "10.1.2.3");
    check("a chain over fields", PROXY, &[(LIST, "10.9.9.9, 10.1.2.3"), (LIST, "192.0.2.1")], "10.1.2.3");
    check("all trusted", PROXY, &[(LIST, "192.0.2.1")], "192.0.2.1");
    check("garbage ends the chain", PROXY, &[(LIST, "10.0.0.1, x")], PROXY);
    check("garbage behind a hop", PROXY, &[(LIST, "10.0.0.1, x, 192.0.2.11")], "192.0.2.11");
    check("nothing behind a comma", PROXY, &[(LIST, "10.0.0.1, ")], PROXY);
    check("an empty field", PROXY, &[(LIST, "10.0.0.1"), (LIST, "")], PROXY);
    check("unknown", PROXY, &[(LIST, "10.0.0.1, unknown")], PROXY);
    check("the client's bytes are no text", PROXY, &[(LIST, "\u{e9}, 10.1.2.3")], "10.1.2.3");
    check("mapped", "::ffff:192.0.2.10", &[(LIST, "::ffff:10.0.0.1")], "10.0.0.1");
    check("a mapped proxy", PROXY, &[(LIST, "10.1.2.3, ::ffff:192.0.2.11")], "10.1.2.3");
}

#[test]
fn ports_and_brackets_are_read_and_nothing_else_beside_an_address() {
    let case = |name: &str, node: &str, expected: &str| {
        check(name, PROXY, &[(LIST, node)], expected);
        check(name, PROXY, &[(ELEMENTS, &format!("for=\"{node}\""))], expected);
    };
    case("IPv4", "10.0.0.1", "10.0.0.1");
    case("IPv4 and port", "10.0.0.1:80", "10.0.0.1");
    case("IPv4 and hidden port", "10.0.0.1:_a.b-c", "10.0.0.1");
    case("IPv6", "2001:db9::1", "2001:db9::1");
    case("IPv6 in brackets", "[2001:db9::1]", "2001:db9::1");
    case("IPv6 and port", "[2001:db9::1]:443", "2001:db9::1");
    case("mapped in brackets", "[::ffff:10.0.0.1]:1", "10.0.0.1");
    case("no port behind the colon", "10.0.0.1:", PROXY);
    case("no such port", "10.0.0.1:65536", PROXY);
    case("a port with a sign", "10.0.0.1:+80", PROXY);
    case("a hidden port of no name", "10.0.0.1:_", PROXY);
    case("a name for a port", "10.0.0.1:http", PROXY);
    case("an open bracket", "[2001:db9::1", PROXY);
    case("more behind the bracket", "[2001:db9::1]x", PROXY);
    case("IPv4 in brackets", "[10.0.0.1]", PROXY);
    case("a zone", "[fe80::1%eth0]", PROXY);
    case("unknown", "unknown", PROXY);
    case("unknown and port", "unknown:80", PROXY);
    case("hidden", "_secret", PROXY);
    case("a name", "localhost", PROXY);
    case("octal", "010.0.0.1", PROXY);
    case("short", "10.1", PROXY);
    case("nothing", "", PROXY);
}

#[test]
fn an_element_is_read_as_its_proxy_wrote_it() {
    let case = |name: &str, value: &str, expected: &str| check(name, PROXY, &[(ELEMENTS, value)], expected);
    case("several", "for=1.1.1.1, For=\"[2001:db9::2]:1\";proto=https", "2001:db9::2");
    case("without for", "for=1.1.1.1, proto=https", PROXY);
    case("for twice", "for=1.1.1.1;for=1.1.1.2", PROXY);
    case("blanks and an empty end", " for = 1.1.1.1 ; proto=https ; ", "1.1.1.1");
    case("brackets without quotes", "for=[2001:db9::2]:1", "2001:db9::2");
    case("quoted comma", r#"for=1.1.1.1, for=1.1.1.2;host="a, for=1.1.1.3""#, "1.1.1.2");
    case("quoted semicolon", r#"for=1.1.1.2;host="a;for=1.1.1.3""#, "1.1.1.2");
    case("escaped quote", r#"for=1.1.1.2;host="a\", for=1.1.1.3""#, "1.1.1.2");
    case("escaped backslash", r#"for=1.1.1.1, for=1.1.1.2;host="a\\""#, "1.1.1.2");
    case("escapes in the address", r#"for="1.\1.1\.2""#, "1.1.1.2");
    case("a comma in the address", r#"for="1.1.1.1, 1.1.1.2""#, PROXY);
    case("more behind the quotes", r#"for="1.1.1.1"x"#, PROXY);
    case("a pair without value", "for=1.1.1.1;secure", PROXY);
    case("the client's open quote", r#"for="1.1.1.1, for=1.1.1.2"#, "1.1.1.2");
    case("which a proxy's would close", r#"for=1.1.1.1;x=", for="[2001:db9::2]""#, "2001:db9::2");
    case("the client's backslash", r#"for=1.1.1.1;x="\, for="1.1.1.2""#, "1.1.1.2");
    case("only an open quote", r#"for="1.1.1.1"#, PROXY);
    case("a chain", r#"for=1.1.1.1, for=1.1.1.2, for="192.0.2.11:1";by="a, b""#, "1.1.1.2");
    case("hidden behind a hop", "for=1.1.1.1, for=_x, for=192.0.2.11", "192.0.2.11");
}

#[test]
fn two_fields_that_disagree_are_ambiguous() {
    let case = |name: &str, list: &str, element: &str, expected: &str| {
        check(name, "2001:db8::9", &[(LIST, list), (ELEMENTS, element)], expected);
    };
    case("one client", "10.0.0.1", "for=10.0.0.1", "10.0.0.1");
    case("written differently", "::ffff:10.0.0.1", "for=\"10.0.0.1:80\"", "10.0.0.1");
    case("beyond the client it does not matter", "10.0.0.9, 10.0.0.1", "for=10.0.0.1", "10.0.0.1");
    case("two clients", "10.0.0.1", "for=10.0.0.2", "ambiguous");
    case("one hides it", "10.0.0.1", "for=_x", "ambiguous");
    case("one is empty", "", "for=10.0.0.1", "ambiguous");
    case("neither says it", "unknown", "for=unknown", "2001:db8::9");
}

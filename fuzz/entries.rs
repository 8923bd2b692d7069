// What the fuzz targets do with their input; shared with the smoke test. Each function must return.

#[path = "../tests/support/spec.rs"]
mod spec;

use std::{net::IpAddr, path::Path};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use permgate::{
    authz::{
        cookies,
        decide::Credential,
        forwarding::{TrustedProxies, client_address},
        path::RequestPath,
        secret::{contains_token, redact},
    },
    config,
    net::proxy_protocol::{self, Parsed},
    settings::FrontProxy,
    store::{log::entry, record},
};

/// What is judged is what was sent, and no reading of it has a dot segment.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let redacted = redact(text);
    assert!(!contains_token(&redacted));
    let Ok(path) = RequestPath::parse(text) else { return };
    assert_eq!(path.literal(), text);
    for reading in path.readings() {
        // A literal `.` is judged with and without it; nothing else makes one.
        let dots = path.literal().split('/').any(|segment| segment == ".");
        assert!(!reading.text().split('/').any(|segment| segment == ".." || segment == "." && !dots));
    }
    let rules = RULES.with(std::rc::Rc::clone);
    if let Ok(Some(owner)) = rules.owner(&path, None, &Method::GET) {
        assert!(text.starts_with(owner.prefix));
    }
}

/// The digest is there exactly where a look-up follows.
pub fn bearer(bytes: &[u8]) {
    for imports in [false, true] {
        let credential = Credential::from_field(bytes, true, imports);
        assert!(bytes.len() >= "Bearer x".len() || credential.digest().is_none());
        assert!(!format!("{credential:?}").contains("pgt_"));
    }
}

/// A foreign record is an error, never a panic.
pub fn record(bytes: &[u8]) {
    record::decode_any(bytes);
}

/// A configuration is valid or told to be wrong.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(errors) = config::parse(text, Path::new("gateway.toml")) {
        assert!(!errors.to_string().is_empty());
    }
}

/// A PROXY header ends where it ends, however much of what is behind it has come.
pub fn proxy_header(bytes: &[u8]) {
    match proxy_protocol::parse(bytes) {
        whole @ Parsed::Whole(length, _) => {
            assert!(length <= bytes.len());
            assert_eq!(proxy_protocol::parse(&bytes[..length]), whole);
            for cut in 0..length {
                assert_eq!(proxy_protocol::parse(&bytes[..cut]), Parsed::Partial);
            }
        }
        Parsed::Partial => assert!(bytes.len() < 4096),
        Parsed::Malformed(why) => assert!(!why.is_empty()),
    }
}

/// What a stranger wrote in front never hides what the trusted proxy adds behind it, and nobody else is heard.
pub fn forwarded(bytes: &[u8]) {
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    let proxies: TrustedProxies = ["10.0.0.0/8".parse().expect("a network")].into_iter().collect();
    let client = IpAddr::from([203, 0, 113, 9]);
    let lines = [(header::FORWARDED, ", for=203.0.113.9"), (X_FORWARDED_FOR, ", 203.0.113.9")];
    for (name, added) in lines {
        for bytes in [bytes.to_vec(), [bytes, added.as_bytes()].concat()] {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            let headers = HeaderMap::from_iter([(name.clone(), value)]);
            assert_eq!(client_address(&headers, PEER, false, &proxies), Ok(PEER));
            let told = client_address(&headers, PEER, true, &proxies);
            if bytes.ends_with(added.as_bytes()) {
                assert_eq!(told, Ok(client));
            }
            assert!(told.is_ok_and(|told| told == told.to_canonical()));
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// No cookie of ours is left, and none of the others goes.
pub fn cookies(bytes: &[u8]) {
    if let Some(left) = cookies::strip_own(bytes) {
        assert!(cookies::strip_own(&left).is_none());
        assert!(left.len() < bytes.len() + 2 * bytes.iter().filter(|byte| **byte == b';').count());
        for pair in left.split(|byte| *byte == b';') {
            assert!(!cookies::sets_own(pair));
        }
    }
    let pairs = bytes.split(|byte| *byte == b';');
    let own = pairs.filter(|pair| cookies::sets_own(pair)).count();
    assert_eq!(own > 0, cookies::strip_own(bytes).is_some());
}

/// A proxy's question is about one request with an absolute path, or it is refused. The input: a target, then
/// fields, a line each.
pub fn forward_auth(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let Ok(mut request) = Request::builder().uri(target).body(()) else { return };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    for proxy in [FrontProxy::Nginx, FrontProxy::Traefik, FrontProxy::Caddy, FrontProxy::Envoy] {
        if let Ok(asked) = proxy.forwarded_request(&request) {
            assert!(asked.target.path().starts_with('/') && asked.target.authority().is_none());
        }
    }
}

/// What verifies is what was written; one changed bit does not.
pub fn journal_entry(bytes: &[u8]) {
    let (store, previous) =
        (permgate::store::log::StoreId([7; 16]), permgate::store::log::EntryHash([9; 32]));
    let mut written = Vec::new();
    let hash = entry::encode(store, 3, previous, bytes, &mut written);
    let (_, read) = entry::decode(&written).expect("what was written verifies");
    assert_eq!((read.hash, read.position, &*read.operations), (hash, 3, bytes));
    let at = bytes.first().map_or(0, |byte| usize::from(*byte)) % written.len();
    written[at] ^= 1 << (bytes.len() % 8);
    assert!(entry::decode(&written).is_err());
    if let Ok((store, read)) = entry::decode(bytes) {
        let mut again = Vec::new();
        entry::encode(store, read.position, read.previous, &read.operations, &mut again);
        assert!(bytes.starts_with(&again));
    }
}

thread_local! {
    static RULES: std::rc::Rc<permgate::authz::rules::Rules> = std::rc::Rc::new(rules());
}

fn rules() -> permgate::authz::rules::Rules {
    use permgate::authz::rules::{Rules, ServiceIds, Settings};
    let specs = [("root", "/"), ("api", "/api"), ("reports", "/api/reports")];
    let specs = specs.map(|(key, prefix)| spec::service(key, &[prefix], &[])).into();
    let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
    Rules::compile(specs, Vec::new(), settings, &mut ServiceIds::default()).expect("no contradictions")
}

// What the fuzz targets do with their input; shared with the smoke test. Each function must return.

#[path = "../tests/support/spec.rs"]
mod spec;

use std::path::Path;

use http::Method;
use permgate::{
    authz::{
        decide::Credential,
        path::RequestPath,
        secret::{contains_token, redact},
    },
    config,
    store::record,
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

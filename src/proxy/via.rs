//! Loop detection by `Via` (RFC 9110, 7.6.3).

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Request, Version, header};

use crate::authz::forwarding::list_elements;

/// This process's name in `Via`. Every gateway has its own, so a chain of gateways is not a loop.
static PSEUDONYM: LazyLock<String> = LazyLock::new(|| {
    let mut id = [0; 4];
    // Without randomness all have the same name, and only long chains of gateways are refused.
    let _ = getrandom::fill(&mut id);
    format!("permgate-{:08x}", u32::from_be_bytes(id))
});

/// The entry for each version of a received request.
static ENTRIES: LazyLock<[HeaderValue; 3]> = LazyLock::new(|| {
    ["1.0", "1.1", "2.0"].map(|version| {
        HeaderValue::try_from(format!("{version} {}", *PSEUDONYM)).expect("a pseudonym is visible ASCII")
    })
});

/// How often the request has gone through this gateway.
pub fn rounds(headers: &HeaderMap) -> usize {
    let received_by = |entry: &[u8]| {
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by == PSEUDONYM.as_bytes())
    };
    list_elements(headers, header::VIA).filter(|entry| received_by(entry)).count()
}

/// Adds this gateway's entry.
pub fn append<B>(request: &mut Request<B>) {
    let [http10, http11, http2] = &*ENTRIES;
    let entry = match request.version() {
        Version::HTTP_10 => http10,
        Version::HTTP_2 => http2,
        _ => http11,
    };
    request.headers_mut().append(header::VIA, entry.clone());
}

//! The gateway's own cookies. Browsers send them to every port of a host, so they also arrive at the proxy
//! listener. They are removed there: no upstream may see or set them.

/// The session of the admin page, with TLS and without. The `__Host-` prefix binds the cookie to this host
/// and to TLS, so that no sibling domain can set it.
pub const SESSION: [&str; 2] = ["__Host-permgate", "permgate"];
/// Marks a browser in which someone has signed in before, with TLS and without.
pub const KNOWN: [&str; 2] = ["__Host-permgate-known", "permgate-known"];
/// A sign-in in progress at an OpenID provider, with TLS and without.
pub const FLOW: [&str; 2] = ["__Host-permgate-flow", "permgate-flow"];

/// Returns the `Cookie` value without the gateway's own cookies, or `None` if it contains none of them.
pub fn strip_own(value: &[u8]) -> Option<Vec<u8>> {
    if !may_name_own(value) {
        return None;
    }
    let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let (own, others): (Vec<_>, Vec<_>) = pairs.partition(|pair| is_own(pair));
    (!own.is_empty()).then(|| others.join(&b"; "[..]))
}

/// Whether a `Set-Cookie` value sets one of the gateway's own cookies.
pub fn sets_own(value: &[u8]) -> bool {
    may_name_own(value) && is_own(value.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// Browsers send a cookie without a name as its bare value, so `=permgate=x` counts as one of ours too.
fn is_own(pair: &[u8]) -> bool {
    let edge = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'=';
    let start = pair.iter().position(|byte| !edge(byte)).unwrap_or(pair.len());
    let name = pair[start..].split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    SESSION.iter().chain(&KNOWN).chain(&FLOW).any(|own| own.as_bytes().eq_ignore_ascii_case(name))
}

fn may_name_own(value: &[u8]) -> bool {
    value.windows(OWN.len()).any(|window| window.eq_ignore_ascii_case(OWN))
}

/// The part that all of their names share.
const OWN: &[u8] = b"permgate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cookies_are_taken_out_of_what_a_client_sends() {
        let check = |value: &str, expected: Option<&str>| {
            let found = strip_own(value.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{value}");
        };
        check("", None);
        check("a=b; c=d", None);
        check("a=permgate; permgates=1; my-permgate=2", None);
        check("permgate=1", Some(""));
        check("__Host-permgate=1", Some(""));
        check("permgate-flow=1; __Host-permgate-flow=2", Some(""));
        check("permgate-known=1; __Host-permgate-known=2", Some(""));
        check("a=b;permgate=1 ;c=d", Some("a=b; c=d"));
        check("a=b; permgate=1; permgate=2; c=\"d\"", Some("a=b; c=\"d\""));
        check("permgate", Some(""));
        check("=permgate=1; a", Some("a"));
    }

    #[test]
    fn own_cookies_are_seen_in_what_an_upstream_sets() {
        for value in [
            "permgate=1",
            " permgate = 1; Path=/",
            "__Host-permgate=1; Secure; Path=/",
            "__host-permgate=1",
            "permgate-flow=1",
            "permgate-known=1",
            "=permgate=1",
            "permgate",
            "permgate; Path=/",
        ] {
            assert!(sets_own(value.as_bytes()), "{value}");
        }
        for value in ["", "a=permgate", "a=b; permgate=1", "permgate2=1", "=a=permgate"] {
            assert!(!sets_own(value.as_bytes()), "{value}");
        }
    }
}

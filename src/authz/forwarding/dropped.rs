//! The one list of request fields that do not reach an upstream as a client sent them, and what a
//! configuration adds to it and takes from it. `explain` shows the same list.

use std::sync::{Arc, LazyLock};

/// Why a field of the list is dropped, hence from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The gateway sets it itself, or nobody does: from everybody.
    Ours,
    /// It tells an upstream who is asking: from everybody.
    Identity,
    /// It makes an upstream serve another target than the one that was judged: from everybody.
    Reroute,
    /// It tells of the client's address, scheme or host, or of a prefix that was taken off: kept from trusted
    /// proxies under its own spelling.
    Hop,
}

/// A field name in lower case, or with a `*` at its end the beginning of names. Compared after
/// folding `_` and `.` to `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPattern(Box<str>);

/// What a configuration says about a service's request fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPolicy {
    /// Dropped beside those of the list: `server.drop_fields`.
    pub drop: Arc<[FieldPattern]>,
    /// Let through under their own spelling: `service.NAME.pass_fields`.
    pub pass: Vec<PassField>,
}

/// A field that a service lets through although it is on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassField {
    /// In lower case.
    pub name: Box<str>,
    /// From whom.
    pub from: PassFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassFrom {
    /// From trusted proxies alone.
    Trusted,
    Anybody,
}

/// The first that fits decides.
const LIST: &[(&str, Kind)] = &[
    // Set anew.
    ("x-permgate*", Kind::Ours),
    ("x-request-id", Kind::Ours),
    // A copy of Destination (WebDAV), which was judged, and Netscape's and mod_dav's older name for it.
    ("x-http-destination*", Kind::Reroute),
    ("new-uri", Kind::Reroute),
    // The way up to here.
    ("forwarded", Kind::Hop),
    ("x-forwarded-for", Kind::Hop),
    ("x-forwarded-host", Kind::Hop),
    ("x-forwarded-port", Kind::Hop),
    ("x-forwarded-proto", Kind::Hop),
    ("x-forwarded-scheme", Kind::Hop),
    ("x-forwarded-server", Kind::Hop),
    ("x-forwarded-ssl", Kind::Hop),
    ("x-forwarded-prefix", Kind::Hop),
    // Forward-auth's names for the target, then every identity that oauth2-proxy and others tell so.
    ("x-forwarded-method", Kind::Reroute),
    ("x-forwarded-uri", Kind::Reroute),
    ("x-forwarded-path", Kind::Reroute),
    ("x-forwarded*", Kind::Identity),
    ("cf-connecting-ip*", Kind::Hop),
    ("cf-pseudo-ipv4", Kind::Hop),
    ("client-ip", Kind::Hop),
    ("fastly-client-ip", Kind::Hop),
    ("fly-client-ip", Kind::Hop),
    ("front-end-https", Kind::Hop),
    ("proxy-client-ip", Kind::Hop),
    ("script-name", Kind::Hop),
    ("true-client-ip", Kind::Hop),
    ("wl-proxy-client-ip", Kind::Hop),
    ("x-client-ip", Kind::Hop),
    ("x-cluster-client-ip", Kind::Hop),
    ("x-envoy-external-address", Kind::Hop),
    ("x-original-forwarded-for", Kind::Hop),
    ("x-originating-ip", Kind::Hop),
    ("x-proxyuser-ip", Kind::Hop),
    ("x-real-ip", Kind::Hop),
    ("x-remote-addr", Kind::Hop),
    ("x-remote-ip", Kind::Hop),
    ("x-scheme", Kind::Hop),
    ("x-script-name", Kind::Hop),
    ("x-url-scheme", Kind::Hop),
    // Authelia, CGI's REMOTE_USER, and the front proxy of Kubernetes.
    ("remote-user", Kind::Identity),
    ("remote-groups", Kind::Identity),
    ("remote-email", Kind::Identity),
    ("remote-name", Kind::Identity),
    ("x-remote-user", Kind::Identity),
    ("x-remote-uid", Kind::Identity),
    ("x-remote-group", Kind::Identity),
    ("x-remote-groups", Kind::Identity),
    ("x-remote-email", Kind::Identity),
    ("x-remote-name", Kind::Identity),
    ("x-remote-extra-*", Kind::Identity),
    // Not X-Auth-Token, by which clients of applications sign in.
    ("x-auth-user", Kind::Identity),
    ("x-auth-email", Kind::Identity),
    ("x-auth-groups", Kind::Identity),
    ("x-auth-roles", Kind::Identity),
    ("x-auth-request-*", Kind::Identity),
    ("x-authenticated-*", Kind::Identity),
    ("x-authentik-*", Kind::Identity),
    ("x-consumer-*", Kind::Identity),
    ("x-pomerium-*", Kind::Identity),
    ("x-vouch-*", Kind::Identity),
    ("x-webauth-*", Kind::Identity),
    ("cf-access-*", Kind::Identity),
    ("oidc-claim-*", Kind::Identity),
    ("tailscale-user-*", Kind::Identity),
    ("x-amzn-oidc-*", Kind::Identity),
    ("x-goog-authenticated-*", Kind::Identity),
    ("x-goog-iap-*", Kind::Identity),
    ("x-ms-client-principal*", Kind::Identity),
    // Certificates that a proxy has verified.
    ("ssl-client-*", Kind::Identity),
    ("x-amzn-mtls-*", Kind::Identity),
    ("x-arr-clientcert", Kind::Identity),
    ("x-client-cert*", Kind::Identity),
    ("x-ssl-client-*", Kind::Identity),
    // Httpoxy: CGI makes HTTP_PROXY of it.
    ("proxy", Kind::Reroute),
    ("path-info", Kind::Reroute),
    ("x-accel-*", Kind::Reroute),
    ("x-envoy-original-*", Kind::Reroute),
    ("x-host", Kind::Reroute),
    ("x-http-host-override", Kind::Reroute),
    ("x-middleware-subrequest", Kind::Reroute),
    ("x-original-host", Kind::Reroute),
    ("x-original-method", Kind::Reroute),
    ("x-original-upgrade", Kind::Reroute),
    ("x-original-uri", Kind::Reroute),
    ("x-original-url", Kind::Reroute),
    ("x-rewrite-url", Kind::Reroute),
    ("x-sendfile*", Kind::Reroute),
];

/// The list by the first letter that tells its names apart.
static BY_LETTER: LazyLock<[Vec<(FieldPattern, Kind)>; LETTERS]> = LazyLock::new(|| {
    let mut lists = [const { Vec::new() }; LETTERS];
    for (pattern, kind) in LIST {
        lists[letter(pattern.as_bytes())].push((FieldPattern((*pattern).into()), *kind));
    }
    lists
});

const LETTERS: usize = 64;

/// The letter behind `x-`, else the first one.
fn letter(name: &[u8]) -> usize {
    let (first, half) = match name {
        [b'x', _, letter, ..] => (letter, LETTERS / 2),
        [letter, ..] => (letter, 0),
        [] => return 0,
    };
    half + usize::from(first & 31)
}

/// Where a name in lower case stands on the list, in whatever spelling.
pub fn kind(name: &[u8]) -> Option<Kind> {
    let list = &BY_LETTER[letter(name)];
    list.iter().find(|(pattern, _)| pattern.fits(name)).map(|(_, kind)| *kind)
}

/// The patterns of the list, for people.
pub fn patterns() -> impl Iterator<Item = &'static str> {
    LIST.iter().map(|(pattern, _)| *pattern)
}

impl FieldPattern {
    /// `None`: it is no field name in lower case with at most a `*` at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let folded: String =
            name.chars().map(|char| if matches!(char, '_' | '.') { '-' } else { char }).collect();
        let star = if name.len() < text.len() { "*" } else { "" };
        (!name.is_empty() && name.bytes().all(sound)).then(|| Self((folded + star).into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name in lower case is meant, in whatever spelling.
    pub fn fits(&self, name: &[u8]) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => super::names::starts_folded(name, start),
            None => super::names::folds_to(name, &self.0),
        }
    }
}

impl FieldPolicy {
    /// Whether a request's field is dropped. The name is in lower case.
    pub fn drops(&self, name: &[u8], peer_trusted: bool) -> bool {
        let kind = kind(name);
        let listed = match kind {
            None => self.drop.iter().any(|pattern| pattern.fits(name)),
            Some(Kind::Ours) => return true,
            Some(Kind::Identity | Kind::Reroute) => true,
            Some(Kind::Hop) => {
                let disguised = name.iter().any(|byte| matches!(byte, b'_' | b'.'));
                !peer_trusted || disguised || self.drop.iter().any(|pattern| pattern.fits(name))
            }
        };
        listed && !self.passes(name, peer_trusted)
    }

    /// Whether a request's trailer is dropped. Nothing is let through there.
    pub fn drops_trailer(&self, name: &[u8]) -> bool {
        kind(name).is_some() || self.drop.iter().any(|pattern| pattern.fits(name))
    }

    fn passes(&self, name: &[u8], peer_trusted: bool) -> bool {
        self.pass
            .iter()
            .any(|field| field.name.as_bytes() == name && (peer_trusted || field.from == PassFrom::Anybody))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(drop: &[&str], pass: &[(&str, PassFrom)]) -> FieldPolicy {
        FieldPolicy {
            drop: drop.iter().map(|pattern| FieldPattern::parse(pattern).unwrap()).collect(),
            pass: pass.iter().map(|(name, from)| PassField { name: (*name).into(), from: *from }).collect(),
        }
    }

    #[test]
    fn the_list_is_in_the_form_that_it_is_compared_in() {
        for (pattern, _) in LIST {
            assert_eq!(FieldPattern::parse(pattern).unwrap().as_str(), *pattern);
        }
    }

    #[test]
    fn from_whom_a_field_is_dropped() {
        let none = FieldPolicy::default();
        let check = |name: &str, from_client: bool, from_proxy: bool| {
            let found = (none.drops(name.as_bytes(), false), none.drops(name.as_bytes(), true));
            assert_eq!(found, (from_client, from_proxy), "{name}");
        };
        for name in [
            "remote-user",
            "remote_user",
            "x-remote-groups",
            "x-remote-extra-scopes",
            "x-auth-request-email",
            "x_auth_request_user",
            "x-authenticated-userid",
            "x-forwarded-user",
            "x-forwarded-access-token",
            "x-forwarded-client-cert",
            "x-forwarded",
            "x-webauth-user",
            "x-goog-authenticated-user-email",
            "x-goog-iap-jwt-assertion",
            "cf-access-jwt-assertion",
            "tailscale-user-login",
            "ssl_client_verify",
            "x-ssl-client-s-dn",
            "x-client-cert",
            "x-client-certificate",
            "x-original-method",
            "x-envoy-original-path",
            "x-accel-mapping",
            "x-sendfile-type",
            "proxy",
            "x-permgate-user",
            "x-request-id",
            "cf_connecting_ip",
            "x.forwarded.proto",
        ] {
            check(name, true, true);
        }
        for name in [
            "cf-connecting-ip",
            "true-client-ip",
            "fastly-client-ip",
            "x-originating-ip",
            "x-proxyuser-ip",
            "x-cluster-client-ip",
            "front-end-https",
            "x-url-scheme",
            "x-forwarded-prefix",
            "x-forwarded-proto",
            "forwarded",
        ] {
            check(name, true, false);
        }
        for name in [
            "x-auth-token",
            "x-auth-key",
            "x-remote-control",
            "x-amzn-trace-id",
            "x-envoy-attempt-count",
            "x-client-version",
            "x-forward",
            "remote-users",
            "cf-ray",
            "proxies",
            "x",
            "x-",
            "",
        ] {
            check(name, false, false);
        }
    }

    #[test]
    fn a_configuration_adds_and_lets_through() {
        let policy = policy(
            &["x-tenant", "x_team-*", "x-auth-key"],
            &[
                ("x-auth-key", PassFrom::Trusted),
                ("remote-user", PassFrom::Trusted),
                ("x-real-ip", PassFrom::Anybody),
            ],
        );
        let check = |name: &str, from_client: bool, from_proxy: bool| {
            let found = (policy.drops(name.as_bytes(), false), policy.drops(name.as_bytes(), true));
            assert_eq!(found, (from_client, from_proxy), "{name}");
        };
        check("x-tenant", true, true);
        check("x_tenant", true, true);
        check("x-team-name", true, true);
        check("x-teams", false, false);
        check("x-auth-key", true, false);
        check("remote-user", true, false);
        check("remote_user", true, true);
        check("x-real-ip", false, false);
        check("x_real_ip", true, true);
        assert!(policy.drops_trailer(b"x-real-ip") && policy.drops_trailer(b"x-tenant"));
        assert!(!policy.drops_trailer(b"x-sum"));
    }
}

//! The list of request fields that do not reach an upstream as a client sent them, and its changes by the
//! configuration. `explain` shows the same list.

use std::sync::{Arc, LazyLock};

use strum::{EnumString, VariantNames};

use super::names::has_alias_byte;

/// Why a field on the list is dropped, which determines from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Only the gateway may set it: dropped from every sender.
    Ours,
    /// It tells an upstream who sent the request: dropped from every sender.
    Identity,
    /// It makes an upstream serve another target than the judged one: dropped from every sender.
    Reroute,
    /// It describes the client's address, scheme or host, or a removed prefix: kept from trusted proxies, in
    /// its own spelling only.
    Hop,
}

/// A field name in lower case, or with a final `*` the start of names. Names are folded for comparison:
/// everything but letters and digits becomes `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPattern(Box<str>);

/// The configuration's changes to the list for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPolicy {
    /// Dropped in addition: `server.drop_fields`.
    pub drop: Arc<[FieldPattern]>,
    /// Let through in their own spelling: `service.NAME.pass_fields`.
    pub pass: Vec<PassField>,
}

/// A field on the list that a service lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassField {
    /// In lower case.
    pub name: Box<str>,
    /// The senders from whom it is let through.
    pub from: PassFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum PassFrom {
    /// Only from trusted proxies.
    Trusted,
    Anybody,
}

/// The first matching entry applies.
const DROPPED: &[(&str, DropReason)] = &[
    // Set by the gateway.
    ("x-permgate*", DropReason::Ours),
    ("x-request-id", DropReason::Ours),
    // A copy of Destination (WebDAV), and the older name for it in Netscape and mod_dav.
    ("x-http-destination*", DropReason::Reroute),
    ("new-uri", DropReason::Reroute),
    // The request's way to the gateway.
    ("forwarded", DropReason::Hop),
    ("x-forwarded-for", DropReason::Hop),
    ("x-forwarded-host", DropReason::Hop),
    ("x-forwarded-port", DropReason::Hop),
    ("x-forwarded-proto", DropReason::Hop),
    ("x-forwarded-scheme", DropReason::Hop),
    ("x-forwarded-server", DropReason::Hop),
    ("x-forwarded-ssl", DropReason::Hop),
    ("x-forwarded-prefix", DropReason::Hop),
    // Forward-auth's names for the target, then the identities of oauth2-proxy and others.
    ("x-forwarded-method", DropReason::Reroute),
    ("x-forwarded-uri", DropReason::Reroute),
    ("x-forwarded-path", DropReason::Reroute),
    ("x-forwarded*", DropReason::Identity),
    ("cf-connecting-ip*", DropReason::Hop),
    ("cf-pseudo-ipv4", DropReason::Hop),
    ("client-ip", DropReason::Hop),
    ("fastly-client-ip", DropReason::Hop),
    ("fly-client-ip", DropReason::Hop),
    ("front-end-https", DropReason::Hop),
    ("proxy-client-ip", DropReason::Hop),
    ("script-name", DropReason::Hop),
    ("true-client-ip", DropReason::Hop),
    ("wl-proxy-client-ip", DropReason::Hop),
    ("x-client-ip", DropReason::Hop),
    ("x-cluster-client-ip", DropReason::Hop),
    ("x-envoy-external-address", DropReason::Hop),
    ("x-original-forwarded-for", DropReason::Hop),
    ("x-originating-ip", DropReason::Hop),
    ("x-proxyuser-ip", DropReason::Hop),
    ("x-real-ip", DropReason::Hop),
    ("x-remote-addr", DropReason::Hop),
    ("x-remote-ip", DropReason::Hop),
    ("x-scheme", DropReason::Hop),
    ("x-script-name", DropReason::Hop),
    ("x-url-scheme", DropReason::Hop),
    // Authelia, CGI's REMOTE_USER, and the front proxy of Kubernetes.
    ("remote-user", DropReason::Identity),
    ("remote-groups", DropReason::Identity),
    ("remote-email", DropReason::Identity),
    ("remote-name", DropReason::Identity),
    ("x-remote-user", DropReason::Identity),
    ("x-remote-uid", DropReason::Identity),
    ("x-remote-group", DropReason::Identity),
    ("x-remote-groups", DropReason::Identity),
    ("x-remote-email", DropReason::Identity),
    ("x-remote-name", DropReason::Identity),
    ("x-remote-extra-*", DropReason::Identity),
    // X-Auth-Token is missing on purpose: clients of some applications sign in with it.
    ("x-auth-user", DropReason::Identity),
    ("x-auth-email", DropReason::Identity),
    ("x-auth-groups", DropReason::Identity),
    ("x-auth-roles", DropReason::Identity),
    ("x-auth-request-*", DropReason::Identity),
    ("x-authenticated-*", DropReason::Identity),
    ("x-authentik-*", DropReason::Identity),
    ("x-consumer-*", DropReason::Identity),
    ("x-pomerium-*", DropReason::Identity),
    ("x-vouch-*", DropReason::Identity),
    ("x-webauth-*", DropReason::Identity),
    ("cf-access-*", DropReason::Identity),
    ("oidc-claim-*", DropReason::Identity),
    ("tailscale-user-*", DropReason::Identity),
    ("x-amzn-oidc-*", DropReason::Identity),
    ("x-goog-authenticated-*", DropReason::Identity),
    ("x-goog-iap-*", DropReason::Identity),
    ("x-ms-client-principal*", DropReason::Identity),
    // Certificates that a proxy verified.
    ("ssl-client-*", DropReason::Identity),
    ("x-amzn-mtls-*", DropReason::Identity),
    ("x-arr-clientcert", DropReason::Identity),
    ("x-client-cert*", DropReason::Identity),
    ("x-ssl-client-*", DropReason::Identity),
    // Httpoxy: CGI turns it into HTTP_PROXY.
    ("proxy", DropReason::Reroute),
    ("path-info", DropReason::Reroute),
    ("x-accel-*", DropReason::Reroute),
    ("x-envoy-original-*", DropReason::Reroute),
    ("x-host", DropReason::Reroute),
    ("x-http-host-override", DropReason::Reroute),
    ("x-middleware-subrequest", DropReason::Reroute),
    ("x-original-host", DropReason::Reroute),
    ("x-original-method", DropReason::Reroute),
    ("x-original-upgrade", DropReason::Reroute),
    ("x-original-uri", DropReason::Reroute),
    ("x-original-url", DropReason::Reroute),
    ("x-rewrite-url", DropReason::Reroute),
    ("x-sendfile*", DropReason::Reroute),
];

/// The list, grouped by the letter that best separates its names.
static BY_LETTER: LazyLock<[Vec<(FieldPattern, DropReason)>; LETTERS]> = LazyLock::new(|| {
    let mut lists = [const { Vec::new() }; LETTERS];
    for (pattern, kind) in DROPPED {
        lists[letter(pattern.as_bytes())].push((FieldPattern((*pattern).into()), *kind));
    }
    lists
});

const LETTERS: usize = 64;

/// The slot of the letter after `x-`, or else of the first one.
fn letter(name: &[u8]) -> usize {
    let (first, half) = match name {
        [b'x', _, letter, ..] => (letter, LETTERS / 2),
        [letter, ..] => (letter, 0),
        [] => return 0,
    };
    half + usize::from(first & 31)
}

/// Looks a lower-case name up in the list, in any spelling that folds onto an entry.
pub fn drop_reason(name: &[u8]) -> Option<DropReason> {
    let list = &BY_LETTER[letter(name)];
    list.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, kind)| *kind)
}

/// The patterns of the list, to be shown.
pub fn patterns() -> impl Iterator<Item = &'static str> {
    DROPPED.iter().map(|(pattern, _)| *pattern)
}

impl FieldPattern {
    /// `None` unless the text is a field name in lower case, with at most one `*`, at its end.
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

    /// Whether a lower-case name, folded, matches the pattern.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => super::names::starts_folded(name, start),
            None => super::names::folds_to(name, &self.0),
        }
    }
}

impl FieldPolicy {
    /// Whether a request's field is dropped. `name` is in lower case.
    pub fn drops(&self, name: &[u8], peer_trusted: bool) -> bool {
        let kind = drop_reason(name);
        let listed = match kind {
            None => self.drop.iter().any(|pattern| pattern.matches(name)),
            Some(DropReason::Ours) => return true,
            Some(DropReason::Identity | DropReason::Reroute) => true,
            Some(DropReason::Hop) => {
                !peer_trusted || has_alias_byte(name) || self.drop.iter().any(|pattern| pattern.matches(name))
            }
        };
        listed && !self.passes(name, peer_trusted)
    }

    /// Whether a field is on the list or the configuration adds it. The name is in lower case.
    pub fn lists(&self, name: &[u8]) -> bool {
        drop_reason(name).is_some() || self.drop.iter().any(|pattern| pattern.matches(name))
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
        for (pattern, _) in DROPPED {
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
        assert!(policy.lists(b"x-real-ip") && policy.lists(b"x-tenant"));
        assert!(!policy.lists(b"x-sum"));
    }
}

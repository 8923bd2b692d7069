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
const DROPPED: &[(DropReason, &str)] = &[
    // Set by the gateway.
    (DropReason::Ours, "x-permgate* x-request-id"),
    // A copy of Destination (WebDAV), and the older name for it in Netscape and mod_dav.
    (DropReason::Reroute, "x-http-destination* new-uri"),
    // The request's way to the gateway.
    (
        DropReason::Hop,
        "forwarded x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-forwarded-scheme \
         x-forwarded-server x-forwarded-ssl x-forwarded-prefix",
    ),
    // Forward-auth's names for the target, then the identities of oauth2-proxy and others.
    (DropReason::Reroute, "x-forwarded-method x-forwarded-uri x-forwarded-path"),
    (DropReason::Identity, "x-forwarded*"),
    (
        DropReason::Hop,
        "cf-connecting-ip* cf-pseudo-ipv4 cf-visitor client-ip cloudfront-forwarded-proto do-connecting-ip \
         fastly-client-ip fly-client-ip forwarded-for front-end-https proxy-client-ip script-name \
         true-client-ip wl-proxy-client-ip wl-proxy-ssl x-appengine-user-ip x-azure-clientip x-azure-socketip \
         x-client-ip x-cluster-client-ip x-envoy-external-address x-original-forwarded-for x-originating-ip \
         x-proxied-https x-proxyuser-ip x-real-ip x-remote-addr x-remote-ip x-scheme x-script-name \
         x-true-client-ip x-url-scheme",
    ),
    // Authelia, CGI's REMOTE_USER, NetBox, Dex, and the front proxy of Kubernetes.
    (
        DropReason::Identity,
        "remote-user remote-user-* remote-groups remote-email remote-name x-remote-user x-remote-user-* \
         x-remote-uid x-remote-group x-remote-groups x-remote-email x-remote-name x-remote-extra-*",
    ),
    // X-Auth-Token is missing on purpose: clients of some applications sign in with it.
    (
        DropReason::Identity,
        "x-auth-user x-auth-userid x-auth-username x-auth-subject x-auth-email x-auth-groups x-auth-roles \
         x-auth-couchdb-* x-auth-request-* x-authenticated-* x-authentik-* x-anonymous-consumer x-consumer-* \
         x-credential-identifier x-credential-username x-pomerium-* x-proxy-user x-proxy-roles x-proxy-ext-* \
         x-rstudio-username x-vouch-* x-webauth-* cf-access-* ngrok-auth-user-* oidc-claim-* \
         tailscale-user-* tailscale-app-capabilities teleport-jwt-assertion x-amzn-oidc-* \
         x-apigateway-api-userinfo x-endpoint-api-userinfo x-goog-authenticated-* x-goog-iap-* \
         x-ms-client-principal* x-ms-token-*",
    ),
    // IBM WebSEAL, Oracle, SiteMinder.
    (
        DropReason::Identity,
        "iv-user* iv-groups iv-creds* oam-remote-user* osso-user-* proxy-remote-user sm-user* sm-universalid",
    ),
    // Certificates that a proxy verified: RFC 9440, and the names of products.
    (
        DropReason::Identity,
        "client-cert client-cert-* ssl-client-* wl-proxy-client-cert* x-amzn-mtls-* x-arr-clientcert \
         x-client-cert* x-client-dn x-client-verify x-ssl-client-*",
    ),
    // Httpoxy: CGI turns it into HTTP_PROXY.
    (
        DropReason::Reroute,
        "proxy path-info x-accel-* x-envoy-original-* x-host x-http-host-override x-original-host \
         x-original-method x-original-upgrade x-original-uri x-original-url x-rewrite-url x-sendfile* \
         x-waws-unencoded-url",
    ),
    // Next.js; and the sidecar proxy of Linkerd, which in ingress mode sends the request to this host.
    (DropReason::Reroute, "x-invoke-path x-matched-path x-middleware-subrequest l5d-dst-override"),
];

/// The list, grouped by the letter that best separates its names.
static BY_LETTER: LazyLock<[Vec<(FieldPattern, DropReason)>; LETTERS]> = LazyLock::new(|| {
    let mut lists = [const { Vec::new() }; LETTERS];
    for (pattern, kind) in entries() {
        lists[letter(pattern.as_bytes())].push((FieldPattern(pattern.into()), kind));
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
    entries().map(|(pattern, _)| pattern)
}

fn entries() -> impl Iterator<Item = (&'static str, DropReason)> {
    DROPPED.iter().flat_map(|(kind, patterns)| patterns.split(' ').map(|pattern| (pattern, *kind)))
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
        let listed = match drop_reason(name) {
            None => self.adds(name),
            Some(DropReason::Ours) => return true,
            Some(DropReason::Identity | DropReason::Reroute) => true,
            Some(DropReason::Hop) => !peer_trusted || has_alias_byte(name) || self.adds(name),
        };
        listed && !self.passes(name, peer_trusted)
    }

    /// Whether a field is on the list or the configuration adds it. The name is in lower case.
    pub fn lists(&self, name: &[u8]) -> bool {
        drop_reason(name).is_some() || self.adds(name)
    }

    fn adds(&self, name: &[u8]) -> bool {
        self.drop.iter().any(|pattern| pattern.matches(name))
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
        for pattern in patterns() {
            assert_eq!(FieldPattern::parse(pattern).unwrap().as_str(), pattern);
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
            "client-cert",
            "client_cert_chain",
            "wl-proxy-client-cert",
            "x-client-verify",
            "remote-user-group",
            "x-remote-user-id",
            "x-auth-username",
            "x_proxy_roles",
            "iv-user-l",
            "sm_user",
            "x-ms-token-aad-id-token",
            "l5d-dst-override",
            "x-matched-path",
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
            "forwarded-for",
            "do-connecting-ip",
            "x-azure-clientip",
            "wl-proxy-ssl",
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
            "x-client-data",
            "client-certs",
            "x-middleware-prefetch",
            "l5d-client-id",
            "sm-token",
            "x-proxy-authorization",
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
            &["x-tenant", "x_team-*", "x-auth-key", "true-client-ip"],
            &[
                ("x-permgate-user", PassFrom::Anybody),
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
        check("true-client-ip", true, true);
        check("x-permgate-user", true, true);
        assert!(policy.lists(b"x-real-ip") && policy.lists(b"x-tenant"));
        assert!(!policy.lists(b"x-sum"));
    }
}

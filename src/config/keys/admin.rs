//! The keys of `[admin]`.

use super::TLS;
use crate::config::key::{Key, ValueKind, count, flag, key, secret, size, table, tables, text, texts, word};

pub(super) const ADMIN: &[Key] = &[
    // Loopback, and a socket whose peer the kernel identifies.
    texts("listen", "Addresses as in `server.listen`. Not reloadable.").with_default(r#"["127.0.0.1:8081", "unix:permgate.sock"]"#),
    tables("tls", TLS, "Certificates as in `server.tls`; unix sockets never use TLS."),
    text("tls_client_ca", "As `server.tls_client_ca`."),
    // Operators who name authorities usually want certificates to be required.
    word("tls_client_certificate", &["required", "optional"], "As `server.tls_client_certificate`.")
        .with_default(r#""required""#),
    // In addition to the addresses listened on and `localhost`, which are always allowed.
    texts("hosts", "Host names that the admin listener accepts, in addition to its own addresses and localhost. Not reloadable.")
    .with_default("[]"),
    text("url", "The URL at which browsers reach the admin listener, for invitation links; https makes cookies Secure. Not reloadable."),
    text("user_header", "Header field in which a proxy in front sends the user's login; needs `user_header_from`. Not reloadable."),
    texts("user_header_from", "Addresses and networks of the proxies whose `user_header` is trusted. Not reloadable."),
    secret("user_header_key", "`\"file:PATH\"` or `\"env:NAME\"`: a secret of 32 characters or more that signs CSRF tokens for users of `user_header` and marks browsers as known; the same on every gateway of a cluster. Each start draws a new one unless set. Not reloadable."),
    table("oidc", OIDC, "Sign-in through an OpenID Connect provider; needs `admin.url`."),
    // The names that applications behind a gateway give to their first account.
    texts("reserved_logins", "Logins that upstreams give power to by name: giving one to an account needs the permission `admin-write`.")
    .with_default(r#"["admin", "root", "administrator"]"#),
    // More than a person or a pipeline needs, and little compared with what the store can take.
    text("write_rate", "Changes that one account may make in a time, as in `limits.rate`; 429 beyond. Changes that only take power away, the operator's socket and imports do not count.")
    .with_default(r#""50/s""#),
    // Enough to tidy up a page of tokens.
    count("write_burst", 1, 10_000_000, "How many changes an account may make at once after a pause.")
        .with_default("500"),
    texts("trusted_proxies", "Networks of proxies in front whose `Forwarded` or `X-Forwarded-For` is trusted for the client's address; `\"unix\"`: peers on unix sockets. Not reloadable.")
    .with_default("[]"),
    // Scrapers on this machine need no token, but requests through a proxy on this machine do.
    text("metrics", "Who may read `/metrics` without a token: `\"local\"` (this machine, not through a proxy), `\"socket\"` (the unix socket), `\"listener\"` (everybody who reaches the admin listener), or an address that serves only metrics. Not reloadable.")
    .with_default(r#""local""#),
    count("connections", 8, 100_000, "Connections to the admin listener, separate from those of the proxy; derived from `ulimit -n` unless set."),
    // The largest request before signing in.
    size("bodies", 16 << 10, "Memory for all buffered request bodies together; derived from the machine's memory unless set."),
    flag("allow_remote", "Unsafe: allows addresses in `admin.listen` that other machines can reach.")
        .with_default("false"),
];

const OIDC: &[Key] = &[
    text("issuer", "The provider's URL, exactly as `issuer` in its metadata. Not reloadable, like this whole table.")
        .required(),
    text("client_id", "The client id under which permgate is registered at the provider.").required(),
    secret("client_secret", "`\"file:PATH\"` or `\"env:NAME\"`; leave it out for a public client, which only PKCE protects."),
    text("title", "The text of the sign-in button.").with_default("\"single sign-on\""),
    // OpenID Connect Core, 5.4: these contain login, name and address.
    texts("scopes", "The scopes to request; `\"openid\"` must be one of them.").with_default("[\"openid\", \"profile\", \"email\"]"),
    text("login_claim", "The claim that becomes the login of a new account.")
        .with_default("\"preferred_username\""),
    text("groups_claim", "The claim that lists groups.").with_default("\"groups\""),
    // By default the provider does not give anyone power.
    key(
        "groups",
        ValueKind::TextsOrTables(OIDC_GROUP),
        "Groups whose membership follows the provider's claim; `{ claim = \"...\", group = \"...\" }` if the provider uses another name.",
    )
    .with_default("[]"),
    flag("link_logins", "Unsafe: a user of the provider signs in to the existing account with the same login.")
    .with_default("false"),
    text("ca", "PEM file: certificate authorities for the provider's URL; the system's unless set."),
];

const OIDC_GROUP: &[Key] = &[
    text("claim", "The provider's name for the group.").required(),
    text("group", "The group's name here.").required(),
];

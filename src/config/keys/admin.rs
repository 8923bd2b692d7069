//! The keys of `[admin]`.

use super::TLS;
use crate::config::key::{Key, ValueKind, count, flag, key, size, table, text, texts, word};

pub(super) const ADMIN: &[Key] = &[
    // Loopback, and a socket whose peer the kernel identifies.
    texts("listen", "Addresses as in `server.listen`. Not reloadable.").or(r#"["127.0.0.1:8081", "unix:permgate.sock"]"#),
    key("tls", ValueKind::TableOrTables(TLS), "Certificates as in `server.tls`; unix sockets have none."),
    text("tls_client_ca", "As `server.tls_client_ca`."),
    // Operators who name authorities usually want certificates to be required.
    word("tls_client_certificate", &["required", "optional"], "As `server.tls_client_certificate`.")
        .or(r#""required""#),
    // In addition to the addresses listened on and `localhost`, which are always allowed.
    texts("hosts", "Host names that the admin listener answers to, beside its own addresses and localhost. Not reloadable.")
    .or("[]"),
    text("url", "Where browsers reach the admin listener: used in invitation links; https makes cookies Secure. Not reloadable."),
    text("user_header", "Header field in which a proxy in front names the user; needs `user_header_from`. Not reloadable."),
    texts("user_header_from", "Addresses and networks of the proxies from which `user_header` is believed. Not reloadable."),
    key(
        "user_header_key",
        ValueKind::Secret,
        "`\"file:PATH\"` or `\"env:NAME\"`: a secret of 32 characters or more that signs forms behind `user_header`; the same on every gateway of a cluster. Not reloadable.",
    ),
    table("oidc", OIDC, "Sign-in by an OpenID Connect provider; needs `admin.url`."),
    // The names that applications behind a gateway give to their first account.
    texts("reserved_logins", "Logins that upstreams trust by name: taking one needs the permission `admin-write`.")
    .or(r#"["admin", "root", "administrator"]"#),
    // More than a person or a pipeline needs, and little compared with what the store can take.
    text("write_rate", "Changes that one account may make in a time, as in `limits.rate`; 429 beyond. Whatever only takes power away, the operator's socket and imports are not counted.")
    .or(r#""50/s""#),
    // Enough to tidy up a page of tokens.
    count("write_burst", 1, 10_000_000, "How many of them may come at once after a pause.")
        .or("500"),
    texts("trusted_proxies", "Networks of proxies in front whose `Forwarded` or `X-Forwarded-For` names the client; `\"unix\"`: peers on unix sockets. Not reloadable.")
    .or("[]"),
    // Scrapers on this machine need no token, but requests through a proxy on this machine do.
    text("metrics", "Who gets `/metrics` without a token: `\"local\"` (this machine, but not through a proxy), `\"socket\"` (the unix socket), `\"listener\"` (whoever reaches it), or an address to listen on for nothing else. Not reloadable.")
    .or(r#""local""#),
    count("connections", 8, 100_000, "Connections, which clients of the proxy cannot use up; derived from `ulimit -n` unless set."),
    size("bodies", "Request bodies that are gathered in memory, all together; derived from the memory unless set."),
    flag("allow_remote", "Unsafe: lets `admin.listen` name addresses that other machines can reach.")
        .or("false"),
];

const OIDC: &[Key] = &[
    text("issuer", "The provider's URL, exactly as `issuer` in its metadata. Not reloadable, like this whole table.")
        .required(),
    text("client_id", "The name under which permgate is registered at the provider.").required(),
    key(
        "client_secret",
        ValueKind::Secret,
        "`\"file:PATH\"` or `\"env:NAME\"`; none for a public client, which only PKCE protects.",
    ),
    text("title", "The provider's name on the sign-in button.").or("\"single sign-on\""),
    // OpenID Connect Core, 5.4: these contain login, name and address.
    texts("scopes", "The scopes that are requested; `\"openid\"` must be one of them.").or("[\"openid\", \"profile\", \"email\"]"),
    text("login_claim", "The claim that becomes the login of a new account.")
        .or("\"preferred_username\""),
    text("groups_claim", "The claim that lists groups.").or("\"groups\""),
    // By default the provider does not give anyone power.
    key(
        "groups",
        ValueKind::TextsOrTables(OIDC_GROUP),
        "Groups whose members the provider's claim decides; `{ claim = \"...\", group = \"...\" }` where the provider's name differs.",
    )
    .or("[]"),
    flag("link_logins", "Unsafe: whoever has a login at the provider takes over the account with that login here.")
    .or("false"),
    text("ca", "PEM file: the authorities that are trusted; the system's unless set."),
];

const OIDC_GROUP: &[Key] = &[
    text("claim", "The provider's name for the group.").required(),
    text("group", "The group's name here.").required(),
];

//! The keys of `[admin]`.

use super::TLS;
use crate::config::key::{Key, ValueKind, key};

pub(super) const ADMIN: &[Key] = &[
    // Loopback, and a socket whose peer the kernel identifies.
    key("listen", ValueKind::Texts, "Addresses as in `server.listen`. Not reloadable.").or(r#"["127.0.0.1:8081", "unix:permgate.sock"]"#),
    key("tls", ValueKind::TableOrTables(TLS), "Certificates as in `server.tls`; unix sockets have none."),
    key("tls_client_ca", ValueKind::Text, "As `server.tls_client_ca`."),
    // Operators who name authorities usually want certificates to be required.
    key("tls_client_certificate", ValueKind::Word(&["required", "optional"]), "As `server.tls_client_certificate`.")
        .or(r#""required""#),
    // In addition to the addresses listened on and `localhost`, which are always allowed.
    key(
        "hosts",
        ValueKind::Texts,
        "Host names that the admin listener answers to, beside its own addresses and localhost. Not reloadable.",
    )
    .or("[]"),
    key(
        "url",
        ValueKind::Text,
        "Where browsers reach the admin listener: used in invitation links; https makes cookies Secure. Not reloadable.",
    ),
    key(
        "user_header",
        ValueKind::Text,
        "Header field in which a proxy in front names the user; needs `user_header_from`. Not reloadable.",
    ),
    key(
        "user_header_from",
        ValueKind::Texts,
        "Addresses and networks of the proxies from which `user_header` is believed. Not reloadable.",
    ),
    key(
        "user_header_key",
        ValueKind::Secret,
        "`\"file:PATH\"` or `\"env:NAME\"`: a secret of 32 characters or more that signs forms behind `user_header`; the same on every gateway of a cluster. Not reloadable.",
    ),
    key(
        "oidc",
        ValueKind::Table(OIDC),
        "Sign-in by an OpenID Connect provider; needs `admin.url`.",
    ),
    // The names that applications behind a gateway give to their first account.
    key(
        "reserved_logins",
        ValueKind::Texts,
        "Logins that upstreams trust by name: taking one needs the permission `admin-write`.",
    )
    .or(r#"["admin", "root", "administrator"]"#),
    // More than a person or a pipeline needs, and little compared with what the store can take.
    key(
        "write_rate",
        ValueKind::Text,
        "Changes that one account may make in a time, as in `limits.rate`; 429 beyond. Whatever only takes power away, the operator's socket and imports are not counted.",
    )
    .or(r#""50/s""#),
    // Enough to tidy up a page of tokens.
    key("write_burst", ValueKind::Count(1, 10_000_000), "How many of them may come at once after a pause.")
        .or("500"),
    key(
        "trusted_proxies",
        ValueKind::Texts,
        "Networks of proxies in front whose `Forwarded` or `X-Forwarded-For` names the client; `\"unix\"`: peers on unix sockets. Not reloadable.",
    )
    .or("[]"),
    // Scrapers on this machine need no token, but requests through a proxy on this machine do.
    key(
        "metrics",
        ValueKind::Text,
        "Who gets `/metrics` without a token: `\"local\"` (this machine, but not through a proxy), `\"socket\"` (the unix socket), `\"listener\"` (whoever reaches it), or an address to listen on for nothing else. Not reloadable.",
    )
    .or(r#""local""#),
    key(
        "connections",
        ValueKind::Count(8, 100_000),
        "Connections, which clients of the proxy cannot use up; derived from `ulimit -n` unless set.",
    ),
    key(
        "bodies",
        ValueKind::Size,
        "Request bodies that are gathered in memory, all together; derived from the memory unless set.",
    ),
    key("allow_remote", ValueKind::Flag, "Unsafe: lets `admin.listen` name addresses that other machines can reach.")
        .or("false"),
];

const OIDC: &[Key] = &[
    key("issuer", ValueKind::Text, "The provider's URL, exactly as `issuer` in its metadata. Not reloadable, like this whole table.")
        .required(),
    key("client_id", ValueKind::Text, "The name under which permgate is registered at the provider.").required(),
    key(
        "client_secret",
        ValueKind::Secret,
        "`\"file:PATH\"` or `\"env:NAME\"`; none for a public client, which only PKCE protects.",
    ),
    key("title", ValueKind::Text, "The provider's name on the sign-in button.").or("\"single sign-on\""),
    // OpenID Connect Core, 5.4: these contain login, name and address.
    key("scopes", ValueKind::Texts, "The scopes that are requested; `\"openid\"` must be one of them.").or("[\"openid\", \"profile\", \"email\"]"),
    key("login_claim", ValueKind::Text, "The claim that becomes the login of a new account.")
        .or("\"preferred_username\""),
    key("groups_claim", ValueKind::Text, "The claim that lists groups.").or("\"groups\""),
    // By default the provider does not give anyone power.
    key(
        "groups",
        ValueKind::TextsOrTables(OIDC_GROUP),
        "Groups whose members the provider's claim decides; `{ claim = \"...\", group = \"...\" }` where the provider's name differs.",
    )
    .or("[]"),
    key(
        "link_logins",
        ValueKind::Flag,
        "Unsafe: whoever has a login at the provider takes over the account with that login here.",
    )
    .or("false"),
    key("ca", ValueKind::Text, "PEM file: the authorities that are trusted; the system's unless set."),
];

const OIDC_GROUP: &[Key] = &[
    key("claim", ValueKind::Text, "The provider's name for the group.").required(),
    key("group", ValueKind::Text, "The group's name here.").required(),
];

//! Every key of `gateway.toml`, once. The check for unknown keys and wrong types, the JSON Schema and the tables of
//! `docs/configuration.md` are made from these tables (`PERMGATE_WRITE_DOCS=1 cargo test --test docs` writes the last).

use super::{
    defaults as d,
    key::{Key, Kind, key},
};

mod admin;
mod budgets;
mod service;

pub const ROOT: &[Key] = &[
    key("version", Kind::Count(1, 1), "The version of this file's format: 1.").required(),
    key("server", Kind::Table(SERVER), "What clients connect to."),
    key("admin", Kind::Table(admin::ADMIN), "The admin listener: page, API, health, metrics."),
    key("store", Kind::Table(STORE), "Where users, groups, tokens and the audit log are kept."),
    key("tokens", Kind::Table(TOKENS), "Rules for all tokens."),
    key(
        "assertion",
        Kind::Table(ASSERTION),
        "How requests are signed for services with `identity = \"jwt\"` or `\"both\"`.",
    ),
    key(
        "limiter",
        Kind::Table(LIMITER),
        "Slows down addresses that keep sending bad tokens; off unless set.",
    ),
    key(
        "forward_auth",
        Kind::Table(FORWARD_AUTH),
        "Decisions for a proxy that forwards requests itself; off unless set.",
    ),
    key("log", Kind::Table(LOG), "The access log, and messages."),
    key("metrics", Kind::Table(METRICS), "What `/metrics` reports."),
    key("upstream", Kind::Named(UPSTREAM), "Where requests are sent. The name is yours to choose."),
    key(
        "service",
        Kind::Named(service::SERVICE),
        "What a token may be scoped to. The name is the scope word.",
    ),
    key(
        "exchange",
        Kind::Named(EXCHANGE),
        "Who gets a short token for an OpenID Connect token of a CI system, by `POST /.permgate/token`.",
    ),
    key("public", Kind::Tables(service::PUBLIC), "Paths that need no token. There is no other way past one."),
    key("limits", Kind::TableOrTables(service::LIMIT), "Limits over all services."),
];

const SERVER: &[Key] = &[
    key(
        "listen",
        Kind::Texts,
        "Addresses: `\"IP:PORT\"`, `\"unix:PATH\"` or `\"systemd:NAME\"`; `\"http://IP:PORT\"` has no TLS, `\"https://IP:PORT\"` needs it. Not reloadable.",
    )
    .or(d::LISTEN),
    key(
        "url",
        Kind::Text,
        "Where clients reach the services: shown in the page's `curl` lines. Not reloadable.",
    ),
    key("tls", Kind::TableOrTables(TLS), "Certificates, chosen by server name; the first one if none matches."),
    key("tls_client_ca", Kind::Text, "PEM file: the authorities that sign clients' certificates."),
    key("tls_client_certificate", Kind::Word(&["required", "optional"]), "Whether a client must show a certificate.")
        .or(d::TLS_CLIENT_CERTIFICATE),
    key("unix_mode", Kind::Text, "The mode of unix sockets that are listened on. Not reloadable.").or(d::UNIX_MODE),
    key(
        "trusted_proxies",
        Kind::Texts,
        "Networks whose `Forwarded` and `X-Forwarded-*` fields are believed; `\"unix\"`: peers on unix sockets.",
    )
    .or(d::TRUSTED_PROXIES),
    key(
        "proxy_protocol",
        Kind::Word(&["off", "required"]),
        "`\"required\"`: connections of trusted proxies begin with a PROXY header, v1 or v2. Not reloadable.",
    )
    .or(d::PROXY_PROTOCOL),
    key(
        "drop_fields",
        Kind::Texts,
        "Request fields that no upstream receives, beside the built-in list: `\"X-Tenant\"`, `\"X-Tenant-*\"`.",
    )
    .or(d::DROP_FIELDS),
    key("workers", Kind::Count(1, 1024), "Worker threads; one per core unless set. Not reloadable."),
    key("max_body", Kind::Size, "Largest request body, 413 beyond; unlimited unless set."),
    key("drain", Kind::Duration(0), "How long requests in flight may take to end after SIGTERM.").or(d::DRAIN),
    key("limits", Kind::Table(LIMITS), "Sizes and counts."),
    key(
        "budgets",
        Kind::Table(budgets::BUDGETS),
        "What all clients together may use; derived from `ulimit -n` and memory unless set, see `permgate check`.",
    ),
    key("timeouts", Kind::Table(TIMEOUTS), "Deadlines for clients."),
];

const TLS: &[Key] = &[
    key("cert", Kind::Text, "PEM file: the certificate, then its chain.").required(),
    key("key", Kind::Text, "PEM file: the private key.").required(),
];

const LIMITS: &[Key] = &[
    key("head", Kind::Size, "Request line and header fields together; 431 beyond.").or(d::HEAD),
    key("field", Kind::Size, "One header field, name and value; 431 beyond.").or(d::FIELD),
    key("fields", Kind::Count(1, 1000), "Number of header fields; 431 beyond.").or(d::FIELDS),
    key("target", Kind::Size, "The request target; 414 beyond.").or(d::TARGET),
    key("connections", Kind::Count(1, 10_000_000), "Connections over all workers.").or(d::CONNECTIONS),
    key(
        "connections_per_address",
        Kind::Count(1, 10_000_000),
        "Connections per client address, trusted proxies exempt; unlimited unless set.",
    ),
];

const TIMEOUTS: &[Key] = &[
    key("head", Kind::Duration(1), "From the first byte of a request until its head is complete.")
        .or(d::HEAD_TIMEOUT),
    key("tls_handshake", Kind::Duration(1), "The TLS handshake.").or(d::TLS_HANDSHAKE),
    key("idle", Kind::Duration(1), "Between two requests. Longer than balancers in front keep connections (AWS ALB: 60 s), so that it is the balancer that closes.").or(d::IDLE),
    key("body", Kind::Duration(1), "Between two pieces of a request body, until the response begins.")
        .or(d::BODY),
    key("write", Kind::Duration(1), "How long a client may take nothing at all of a response; one that reads slowly is not cut.").or(d::WRITE),
    key(
        "ping",
        Kind::Duration(1),
        "After this time without a byte, an HTTP/2 client with requests under way is pinged; it is given up after twice the time.",
    )
    .or(d::PING),
];

const STORE: &[Key] = &[
    key("path", Kind::Text, "The store's directory. Not reloadable.").or(d::STORE_PATH),
    key("ballast", Kind::Size, "Size of the file that is given back when the disk is full. Not reloadable.")
        .or(d::BALLAST),
    key(
        "audit_retention",
        Kind::Duration(86_400_000),
        "Audit events older than this are dropped; all are kept unless set.",
    ),
];

const TOKENS: &[Key] = &[
    key("perm_alias", Kind::Flag, "Accept `perm:` or `perm-` in front of a token, as JetBrains Hub has it.")
        .or(d::PERM_ALIAS),
    key("max_lifetime", Kind::Duration(1000), "The longest lifetime of a new token; unlimited unless set."),
    key("self_rotation", Kind::Flag, "A token may replace itself by `POST /.permgate/rotate`.")
        .or(d::SELF_ROTATION),
    key(
        "announce_end",
        Kind::Duration(1000),
        "Answers carry `Deprecation` and `Sunset` for so long before their token ends, and while it is in its grace; never unless set.",
    ),
    key("max_per_user", Kind::Count(1, 1_000_000), "Live tokens per user.").or(d::MAX_PER_USER),
];

const EXCHANGE: &[Key] = &[
    key("issuer", Kind::Text, "The claim `iss`, such as `\"https://token.actions.githubusercontent.com\"`.")
        .required(),
    key("audience", Kind::Text, "One of the claim `aud`.").required(),
    key("claims", Kind::TableOrTables(CLAIM), "What the token says, each exactly; at least one.").required(),
    key("account", Kind::Text, "Login of the service account that the tokens act for.").required(),
    key("scope", Kind::Texts, "Services: `\"tracker\"`, `\"hub:read\"`.").required(),
    key("lifetime", Kind::Duration(1000), "Of a token that is given; 1h at most.").or(d::EXCHANGE_LIFETIME),
    key(
        "max_tokens",
        Kind::Count(1, 100_000),
        "Live tokens at one time; they do not count for `tokens.max_per_user`.",
    )
    .or(d::EXCHANGE_TOKENS),
    key(
        "ca",
        Kind::Text,
        "PEM file: the authorities that are trusted for the issuer; the system's unless set.",
    ),
];

const CLAIM: &[Key] = &[
    key("name", Kind::Text, "The claim's name.").required(),
    key("value", Kind::Text, "Its value, exactly; flags and numbers as text.").required(),
];

const ASSERTION: &[Key] = &[
    key("issuer", Kind::Text, "The claim `iss`.").or(d::ISSUER),
    key("lifetime", Kind::Duration(1000), "How long an assertion is valid, 30s at most.")
        .or(d::ASSERTION_LIFETIME),
    key(
        "algorithm",
        Kind::Word(&["EdDSA", "ES256"]),
        "The algorithm of the keys that permgate creates (`EdDSA`: Ed25519); verifiers name the same one.",
    )
    .or(d::ALGORITHM),
    key("rotate", Kind::Duration(4000), "How long a key signs.").or(d::ROTATE),
    key(
        "publish_ahead",
        Kind::Duration(2000),
        "How long a key is in `/.permgate/jwks.json` before it signs; half of `rotate` at most.",
    )
    .or(d::PUBLISH_AHEAD),
    key(
        "keys",
        Kind::Secret,
        "`\"file:PATH\"`, PEM: the first key signs, all are published; permgate keeps its own in the store's directory unless set.",
    ),
];

const LIMITER: &[Key] = &[
    key("bad_tokens", Kind::Count(1, 1_000_000), "How many bad tokens one address may send; 429 beyond.")
        .required(),
    key("per", Kind::Duration(1000), "In which time.").required(),
];

const FORWARD_AUTH: &[Key] = &[key(
    "proxy",
    Kind::Word(&["nginx", "traefik", "caddy", "envoy"]),
    "The proxy that asks at `/.permgate/auth`, which decides how the original request is read. Needs `server.trusted_proxies`.",
)
.required()];

const LOG: &[Key] = &[
    key("access", Kind::Text, "Where one JSON line a request goes: `\"stdout\"`, `\"off\"` or a file.")
        .or(d::ACCESS_LOG),
    key(
        "level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "The least severe messages that are written to stderr.",
    )
    .or(d::LOG_LEVEL),
];

const METRICS: &[Key] = &[key(
    "old_names",
    Kind::Flag,
    "Also report metrics under their old names. The old names and this key go away with the next release.",
)
.or(d::OLD_NAMES)];

const UPSTREAM: &[Key] = &[
    key(
        "urls",
        Kind::TextsOrTables(URL),
        "`\"http://HOST:PORT\"`, `\"https://HOST\"`, `\"h2c://HOST:PORT\"` or `\"unix:PATH\"`; with a weight: `{ url = \"...\", weight = 3 }`.",
    )
    .required(),
    key(
        "balance",
        Kind::Word(&["round-robin", "least-requests", "hash"]),
        "How one of several urls is chosen; `hash` goes by user.",
    )
    .or(d::BALANCE),
    key("host", Kind::Text, "The Host field sent upstream; the client's own unless set."),
    key(
        "http",
        Kind::Word(&["auto", "1.1", "2"]),
        "The HTTP version; `auto` decides by the url and the TLS handshake.",
    )
    .or(d::UPSTREAM_HTTP),
    key("tls", Kind::Table(UPSTREAM_TLS), "TLS of `https://` urls."),
    key("timeouts", Kind::Table(UPSTREAM_TIMEOUTS), "Deadlines for the upstream."),
    key("eject", Kind::Table(EJECT), "When one of several urls is left out after failures."),
    key("health", Kind::Table(HEALTH), "Health checks of each url; off unless set."),
    key("retries", Kind::Count(0, 10), "How often a request is sent again where that does no harm.")
        .or(d::RETRIES),
    key("resolve", Kind::Duration(1000), "How often host names are looked up.").or(d::RESOLVE),
    key(
        "max_connections",
        Kind::Count(1, 1_000_000),
        "Connections over all workers; unlimited unless set.",
    ),
    key(
        "max_in_flight",
        Kind::Count(1, 1_000_000),
        "Requests at one time over all workers; unlimited unless set.",
    ),
    key("queue", Kind::Count(0, 1_000_000), "Requests that may wait while one of these limits is reached; 503 beyond.")
        .or(d::QUEUE),
    key("queue_timeout", Kind::Duration(1), "How long they may wait; 503 beyond.").or(d::QUEUE_TIMEOUT),
];

const UPSTREAM_TLS: &[Key] = &[
    key("ca", Kind::Text, "PEM file: the authorities that are trusted; the system's unless set."),
    key("cert", Kind::Text, "PEM file: the certificate that is shown to the upstream, then its chain."),
    key("key", Kind::Text, "PEM file: its private key."),
    key("server_name", Kind::Text, "The name in the upstream's certificate; the url's host unless set."),
];

const UPSTREAM_TIMEOUTS: &[Key] = &[
    key("connect", Kind::Duration(1), "Until a connection is made; 502 beyond.").or(d::CONNECT),
    key("first_byte", Kind::Duration(1), "Until the head of the response; 504 beyond.").or(d::FIRST_BYTE),
    key("body_idle", Kind::Duration(1), "Between two pieces of the response body.").or(d::BODY_IDLE),
    key(
        "stream_idle",
        Kind::Duration(1),
        "The same for event streams, gRPC and requests with `watch=`; a gRPC client then gets UNAVAILABLE.",
    )
    .or(d::STREAM_IDLE),
    key(
        "ping",
        Kind::Duration(1),
        "How often an HTTP/2 upstream with requests under way is pinged; it is given up after 20s without a reply.",
    )
    .or(d::UPSTREAM_PING),
    key("tunnel_idle", Kind::Duration(1), "How long a tunnel (a WebSocket or another upgrade) may stay silent.").or(d::TUNNEL_IDLE),
    key("pool_idle", Kind::Duration(0), "How long an idle connection is kept, unless the upstream announces less.").or(d::POOL_IDLE),
];

const URL: &[Key] = &[
    key("url", Kind::Text, "As a text in `urls`.").required(),
    key("weight", Kind::Count(0, 1000), "This url's share of the requests; 0 drains it.").or(d::WEIGHT),
];

const HEALTH: &[Key] = &[
    key("path", Kind::Text, "The path that is requested, with GET and without credentials.").required(),
    key("interval", Kind::Duration(10), "Between two checks.").or(d::HEALTH_INTERVAL),
    key("timeout", Kind::Duration(10), "Until the head of the response.").or(d::HEALTH_TIMEOUT),
    key("rise", Kind::Count(1, 1000), "Good responses in a row that bring a url back.").or(d::HEALTH_RISE),
    key("fall", Kind::Count(1, 1000), "Failures in a row that take a url out.").or(d::HEALTH_FALL),
    key("status", Kind::Count(200, 599), "The only good status; 200 to 399 unless set."),
];

const EJECT: &[Key] = &[
    key("failures", Kind::Count(1, 1000), "Failures in a row after which a url is left out.")
        .or(d::EJECT_FAILURES),
    key("for", Kind::Duration(1), "How long it is left out; doubled each time, up to 60s.").or(d::EJECT_FOR),
];

//! Every key of `gateway.toml`. From these tables come the check of keys and types, the JSON Schema, and the
//! tables of `docs/configuration.md` (written by `PERMGATE_WRITE_DOCS=1 cargo test --test docs`). A default
//! is written as in the file; the comment above a key gives the reason for it.

mod admin;
mod service;
mod upstream;

use strum::VariantNames as _;

use self::{
    admin::ADMIN,
    service::{LIMIT, PUBLIC, SERVICE},
    upstream::UPSTREAM,
};
use super::key::{
    Key, ValueKind, count, duration, flag, key, named, secret, size, table, tables, text, texts, word,
};
use crate::{assertion::Algorithm, settings::FrontProxy};

pub const ROOT: &[Key] = &[
    count("version", 1, 1, "The version of this file's format: 1.").required(),
    table("server", SERVER, "What clients connect to."),
    table("admin", ADMIN, "The admin listener: page, API, health, metrics."),
    table("store", STORE, "Where users, groups, tokens and the audit log are kept."),
    table("tokens", TOKENS, "Rules for all tokens."),
    table("assertion", ASSERTION, "Signed assertions for services with `identity = \"jwt\"` or `\"both\"`."),
    table("limiter", LIMITER, "Answers 429 to addresses that keep sending bad tokens; off unless set."),
    table(
        "forward_auth",
        FORWARD_AUTH,
        "Authorization decisions for another proxy that forwards the requests itself; off unless set.",
    ),
    table("log", LOG, "The access log and the messages on stderr."),
    table("metrics", METRICS, "What `/metrics` reports."),
    named(
        "upstream",
        UPSTREAM,
        "A server, or several equal ones, that requests are forwarded to. NAME is yours to choose.",
    ),
    named("service", SERVICE, "A part of an upstream that a token's scope may name. NAME is the scope word."),
    named(
        "exchange",
        EXCHANGE,
        "A rule that exchanges a CI system's OpenID Connect token for a short-lived token, at `POST /.permgate/token`.",
    ),
    key("public", ValueKind::Tables(PUBLIC), "Paths that need no token. Everything else needs one."),
    tables("limits", LIMIT, "Limits that apply to all services together."),
];

const SERVER: &[Key] = &[
    // Loopback: an unconfigured gateway serves only its own machine.
    texts("listen", "Addresses: `\"IP:PORT\"`, `\"unix:PATH\"` or `\"systemd:NAME\"`; `\"http://IP:PORT\"` never uses TLS, `\"https://IP:PORT\"` requires it. Not reloadable.")
    .with_default(r#"["127.0.0.1:8080"]"#),
    text("url", "The URL at which clients reach the services, for the `curl` lines on the page. Not reloadable."),
    tables("tls", TLS, "Certificates, chosen by server name; the first one if none matches."),
    text("tls_client_ca", "PEM file: the authorities that sign clients' certificates."),
    // Operators who name authorities usually want certificates to be required.
    word("tls_client_certificate", &["required", "optional"], "Whether a client must show a certificate.")
        .with_default(r#""required""#),
    // The owner only. If the proxy in front is another user, its group must be let in.
    text("unix_mode", "The file mode of the unix sockets in `listen`. Not reloadable.").with_default(r#""0600""#),
    // No peer may report another client's address unless it is listed.
    texts("trusted_proxies", "Networks whose `Forwarded` and `X-Forwarded-*` fields are trusted; `\"unix\"`: peers on unix sockets.")
    .with_default("[]"),
    // Otherwise clients could send the header themselves.
    word("proxy_protocol", &["off", "required"], "`\"required\"`: connections from trusted proxies must begin with a PROXY header, v1 or v2. Not reloadable.")
    .with_default(r#""off""#),
    // The built-in list covers well-known products. Only the operator knows what else an upstream trusts.
    texts("drop_fields", "Request fields that are not forwarded, in addition to the built-in list: `\"X-Tenant\"`, `\"X-Tenant-*\"`.")
    .with_default("[]"),
    count("workers", 1, 1024, "Worker threads; one per core unless set. Not reloadable."),
    size("max_body", 1, "Largest request body, 413 beyond; unlimited unless set."),
    // Enough for most requests, and less than the stop timeouts of `deploy/` (45 s).
    duration("drain", 0, "How long requests in flight may continue after SIGTERM.").with_default(r#""30s""#),
    table("limits", LIMITS, "Sizes and counts."),
    table("budgets", BUDGETS, "Limits for all clients together; derived from `ulimit -n` and memory unless set, see `permgate check`."),
    table("timeouts", TIMEOUTS, "Timeouts for clients."),
];

const TLS: &[Key] = &[
    text("cert", "PEM file: the certificate, then its chain.").required(),
    text("key", "PEM file: the private key.").required(),
];

const LIMITS: &[Key] = &[
    // Room for a field of 16 KiB and a dozen usual ones.
    size("head", 1, "Request line and header fields together, 8k to 1m; 431 beyond.")
        .with_default(r#""32k""#),
    // Four times the largest cookie; a credential is much shorter.
    size("field", 1, "One header field, name and value, at most `head`; 431 beyond.")
        .with_default(r#""16k""#),
    // Browsers send about 20, chains of proxies add 10.
    count("fields", 1, 1000, "Number of header fields; 431 beyond.").with_default("200"),
    // Most upstreams refuse longer targets anyway.
    size("target", 1, "The request target, at most `head`; 414 beyond.").with_default(r#""16k""#),
    // When all are busy, about 300 MB of memory; two descriptors each.
    count("connections", 1, 10_000_000, "Connections of all workers together.").with_default("10000"),
    count(
        "connections_per_address",
        1,
        10_000_000,
        "Connections per client address (an IPv6 /64 counts as one), except trusted proxies; unlimited unless set.",
    ),
];

const TIMEOUTS: &[Key] = &[
    // Clients send the head at once; ten seconds allow for lossy links, not for slow attackers.
    duration("head", 1, "From the first byte of a request until its head is complete.")
        .with_default(r#""10s""#),
    // Two round trips, with the same allowance as the head.
    duration("tls_handshake", 1, "The TLS handshake.").with_default(r#""10s""#),
    duration("idle", 1, "Between two requests. Longer than load balancers in front keep idle connections (AWS ALB: 60 s), so that the balancer closes first.").with_default(r#""75s""#),
    // Ends requests whose body is needed but does not arrive.
    duration("body", 1, "Between two pieces of a request body, until the response begins.")
        .with_default(r#""30s""#),
    // Ends responses that the client does not read.
    duration("write", 1, "How long a client may read nothing of a response; a client that reads slowly is not cut.").with_default(r#""60s""#),
    // Finds a dead client sooner than an idle one is closed.
    duration("ping", 1, "An HTTP/2 client that is silent this long with requests in flight is pinged; its connection is closed after twice this time.")
    .with_default(r#""20s""#),
];

const STORE: &[Key] = &[
    // Next to the configuration file.
    text("path", "The store's directory. Not reloadable.").with_default(r#""permgate-data""#),
    // sled needs free space to open a store; a full disk gets this much back.
    size("ballast", 1, "Size of a file that is deleted when the disk is full, so that the store can still open. Not reloadable.")
        .with_default(r#""16m""#),
    duration(
        "audit_retention",
        86_400_000,
        "Audit events older than this are deleted; all are kept unless set.",
    ),
    table(
        "cluster",
        CLUSTER,
        "Several gateways that share one store through etcd; a single gateway unless set. Not reloadable.",
    ),
];

const TOKENS: &[Key] = &[
    // Clients that hard-code Hub's prefix keep working.
    flag("perm_alias", "Accept `perm:` or `perm-` in front of a token, as in JetBrains Hub.")
        .with_default("true"),
    duration("max_lifetime", 1000, "The longest lifetime of a new token; unlimited unless set."),
    // Useful to pipelines, but also to a thief of the token.
    flag("self_rotation", "A token may replace itself by `POST /.permgate/rotate`.").with_default("false"),
    duration(
        "announce_end",
        1000,
        "For this long before a token expires, and during its grace period, responses carry `Deprecation` and `Sunset`; never unless set.",
    ),
    // No pipeline needs more; stops a runaway script.
    count("max_per_user", 1, 1_000_000, "Live tokens per user.").with_default("500"),
];

const EXCHANGE: &[Key] = &[
    text("issuer", "The claim `iss`, such as `\"https://token.actions.githubusercontent.com\"`.").required(),
    text("audience", "A value that the claim `aud` must contain.").required(),
    tables("claims", CLAIM, "Claims that the CI system's token must have; at least one.").required(),
    text("account", "Login of the service account that owns the issued tokens.").required(),
    texts("scope", "Scope of an issued token: `\"tracker\"`, `\"hub:read\"`.").required(),
    // Longer than most jobs run.
    duration("lifetime", 1000, "Lifetime of an issued token; at most 1h.").with_default(r#""15m""#),
    // A busy project has a few hundred jobs an hour.
    count(
        "max_tokens",
        1,
        100_000,
        "Issued tokens alive at one time; they do not count towards `tokens.max_per_user`.",
    )
    .with_default("500"),
    text("ca", "PEM file: certificate authorities for the issuer's URL; the system's unless set."),
];

const CLAIM: &[Key] = &[
    text("name", "The claim's name.").required(),
    text("value", "Its exact value; booleans and numbers as text.").required(),
];

const ASSERTION: &[Key] = &[
    // The `iss` that upstreams expect. The same for all gateways of a team, unless upstreams distinguish
    // them.
    text("issuer", "The claim `iss`.").with_default(r#""permgate""#),
    // Allows for a queue in front of the upstream and slightly different clocks, not for more.
    duration("lifetime", 1000, "How long an assertion is valid; at most 30s.").with_default(r#""30s""#),
    // Small and fast, with no parameters to choose wrongly.
    word(
        "algorithm",
        Algorithm::VARIANTS,
        "The algorithm of the keys that permgate creates (`EdDSA`: Ed25519); configure the same one in verifiers.",
    )
    .with_default(r#""EdDSA""#),
    // Limits how long a key that leaked unnoticed can be used.
    duration("rotate", 4000, "How long a key is used to sign.").with_default(r#""30d""#),
    // Verifiers fetch the keys every few minutes; an hour allows for an outage on their side.
    duration(
        "publish_ahead",
        2000,
        "How long a key is in `/.permgate/jwks.json` before it signs; at most half of `rotate`.",
    )
    .with_default(r#""1h""#),
    secret("keys", "`\"file:PATH\"`, PEM: the first key signs, all are published. Unless set, permgate creates its own in the store's directory."),
];

const LIMITER: &[Key] = &[
    count("bad_tokens", 1, 1_000_000, "How many bad tokens an address may send; 429 beyond.").required(),
    duration("per", 1000, "The time in which they are counted.").required(),
];

const FORWARD_AUTH: &[Key] = &[word(
    "proxy",
    FrontProxy::VARIANTS,
    "The proxy that sends its requests to `/.permgate/auth`; determines which fields describe the original \
     request. Needs `server.trusted_proxies`.",
)
.required()];

const LOG: &[Key] = &[
    text(
        "access",
        "Where the access log, one JSON line per request, is written: `\"stdout\"`, `\"off\"` or a file.",
    )
    .with_default(r#""stdout""#),
    word(
        "level",
        &["error", "warn", "info", "debug", "trace"],
        "The lowest severity of the messages that are written to stderr.",
    )
    .with_default(r#""info""#),
];

const METRICS: &[Key] = &[
    // Gives dashboards and alerts one release to change over.
    flag(
        "old_names",
        "Also report metrics under their old names. The next release removes the old names and this key.",
    )
    .with_default("true"),
];

/// `[server.budgets]`, which all clients of the proxy share.
const BUDGETS: &[Key] = &[
    count("upstream_connections", 2, 10_000_000, "Sockets to upstreams; 503 beyond."),
    count("streams", 16, 10_000_000, "Open HTTP/2 streams; 503 beyond."),
    count("tunnels", 1, 10_000_000, "WebSockets and other upgraded connections; 503 beyond."),
    // A forgotten unit would cut every client.
    size(
        "send_buffers",
        1 << 20,
        "Response bytes that clients have not read. Above half, clients slower than 1 KiB/s are cut; when full, those that hold the most.",
    ),
    size(
        "receive_buffers",
        1 << 20,
        "How much HTTP/2 clients may send ahead of reading: 1 MiB each; 64 KiB each when used up.",
    ),
];

/// `[store.cluster]`.
const CLUSTER: &[Key] = &[
    texts("endpoints", "The members of etcd: `\"https://HOST:2379\"`.").required(),
    text("prefix", "Prefix of every key in etcd; one for each cluster.")
        .with_default(r#""/permgate""#),
    text("node", "This gateway's name in the cluster; unique.").required(),
    // Longer than an election of etcd takes, and short enough to wait for.
    duration("lease", 5000, "How long a gateway that has lost etcd still serves, and how long a revocation may wait for it; the same on every gateway.")
    .with_default(r#""10s""#),
    table("tls", ETCD_TLS, "TLS of `https://` endpoints."),
    table("user", ETCD_USER, "An etcd user, if client certificates do not identify one."),
];

const ETCD_TLS: &[Key] = &[
    text("ca", "PEM file: certificate authorities for etcd.").required(),
    text("cert", "PEM file: permgate's client certificate for etcd."),
    text("key", "PEM file: its private key."),
];

const ETCD_USER: &[Key] = &[
    text("name", "The user's name.").required(),
    secret("password", "`\"file:PATH\"`, read at every sign-in.").required(),
];

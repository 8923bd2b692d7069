//! Every key of `gateway.toml`. From these tables come the check of keys and types, the JSON Schema, and the
//! tables of `docs/configuration.md` (written by `PERMGATE_WRITE_DOCS=1 cargo test --test docs`). A default
//! is written as in the file; the comment above a key gives the reason for it.

mod admin;
mod budgets;
mod cluster;
mod service;
mod upstream;

use strum::VariantNames as _;

use self::{
    admin::ADMIN,
    budgets::BUDGETS,
    service::{LIMIT, PUBLIC, SERVICE},
    upstream::UPSTREAM,
};
use super::key::{Key, ValueKind, count, duration, flag, key, size, table, text, texts, word};
use crate::{assertion::Algorithm, settings::FrontProxy};

pub const ROOT: &[Key] = &[
    count("version", 1, 1, "The version of this file's format: 1.").required(),
    table("server", SERVER, "What clients connect to."),
    table("admin", ADMIN, "The admin listener: page, API, health, metrics."),
    table("store", STORE, "Where users, groups, tokens and the audit log are kept."),
    table("tokens", TOKENS, "Rules for all tokens."),
    table(
        "assertion",
        ASSERTION,
        "How requests are signed for services with `identity = \"jwt\"` or `\"both\"`.",
    ),
    table("limiter", LIMITER, "Slows down addresses that keep sending bad tokens; off unless set."),
    table(
        "forward_auth",
        FORWARD_AUTH,
        "Decisions for a proxy that forwards requests itself; off unless set.",
    ),
    table("log", LOG, "The access log, and messages."),
    table("metrics", METRICS, "What `/metrics` reports."),
    key("upstream", ValueKind::Named(UPSTREAM), "Where requests are sent. The name is yours to choose."),
    key("service", ValueKind::Named(SERVICE), "What a token may be scoped to. The name is the scope word."),
    key(
        "exchange",
        ValueKind::Named(EXCHANGE),
        "Who gets a short token for an OpenID Connect token of a CI system, by `POST /.permgate/token`.",
    ),
    key("public", ValueKind::Tables(PUBLIC), "Paths that need no token. There is no other way past one."),
    key("limits", ValueKind::TableOrTables(LIMIT), "Limits over all services."),
];

const SERVER: &[Key] = &[
    // Loopback: an unconfigured gateway serves only its own machine.
    texts("listen", "Addresses: `\"IP:PORT\"`, `\"unix:PATH\"` or `\"systemd:NAME\"`; `\"http://IP:PORT\"` has no TLS, `\"https://IP:PORT\"` needs it. Not reloadable.")
    .or(r#"["127.0.0.1:8080"]"#),
    text("url", "Where clients reach the services: shown in the page's `curl` lines. Not reloadable."),
    key("tls", ValueKind::TableOrTables(TLS), "Certificates, chosen by server name; the first one if none matches."),
    text("tls_client_ca", "PEM file: the authorities that sign clients' certificates."),
    // Operators who name authorities usually want certificates to be required.
    word("tls_client_certificate", &["required", "optional"], "Whether a client must show a certificate.")
        .or(r#""required""#),
    // The owner only. If the proxy in front is another user, its group must be let in.
    text("unix_mode", "The mode of unix sockets that are listened on. Not reloadable.").or(r#""0600""#),
    // No peer may report another client's address unless it is listed.
    texts("trusted_proxies", "Networks whose `Forwarded` and `X-Forwarded-*` fields are believed; `\"unix\"`: peers on unix sockets.")
    .or("[]"),
    // Otherwise clients could send the header themselves.
    word("proxy_protocol", &["off", "required"], "`\"required\"`: connections of trusted proxies begin with a PROXY header, v1 or v2. Not reloadable.")
    .or(r#""off""#),
    // The built-in list covers well-known products. Only the operator knows what else an upstream trusts.
    texts("drop_fields", "Request fields that no upstream receives, beside the built-in list: `\"X-Tenant\"`, `\"X-Tenant-*\"`.")
    .or("[]"),
    count("workers", 1, 1024, "Worker threads; one per core unless set. Not reloadable."),
    size("max_body", "Largest request body, 413 beyond; unlimited unless set."),
    // Enough for most requests, and less than the stop timeouts of `deploy/` (45 s).
    duration("drain", 0, "How long requests in flight may take to end after SIGTERM.").or(r#""30s""#),
    table("limits", LIMITS, "Sizes and counts."),
    table("budgets", BUDGETS, "What all clients together may use; derived from `ulimit -n` and memory unless set, see `permgate check`."),
    table("timeouts", TIMEOUTS, "Deadlines for clients."),
];

const TLS: &[Key] = &[
    text("cert", "PEM file: the certificate, then its chain.").required(),
    text("key", "PEM file: the private key.").required(),
];

const LIMITS: &[Key] = &[
    // Room for a field of 16 KiB and a dozen usual ones.
    size("head", "Request line and header fields together; 431 beyond.").or(r#""32k""#),
    // Four times the largest cookie; a credential is much shorter.
    size("field", "One header field, name and value; 431 beyond.").or(r#""16k""#),
    // Browsers send about 20, chains of proxies add 10.
    count("fields", 1, 1000, "Number of header fields; 431 beyond.").or("200"),
    // Most upstreams refuse longer targets anyway.
    size("target", "The request target; 414 beyond.").or(r#""16k""#),
    // When all are busy, about 300 MB of memory; two descriptors each.
    count("connections", 1, 10_000_000, "Connections over all workers.").or("10000"),
    count(
        "connections_per_address",
        1,
        10_000_000,
        "Connections per client address, trusted proxies exempt; unlimited unless set.",
    ),
];

const TIMEOUTS: &[Key] = &[
    // Clients send the head at once; ten seconds allow for lossy links, not for slow attackers.
    duration("head", 1, "From the first byte of a request until its head is complete.")
        .or(r#""10s""#),
    // Two round trips, with the same allowance as the head.
    duration("tls_handshake", 1, "The TLS handshake.").or(r#""10s""#),
    duration("idle", 1, "Between two requests. Longer than balancers in front keep connections (AWS ALB: 60 s), so that it is the balancer that closes.").or(r#""75s""#),
    // Ends requests whose body is needed but does not arrive.
    duration("body", 1, "Between two pieces of a request body, until the response begins.")
        .or(r#""30s""#),
    // Ends responses that the client does not read.
    duration("write", 1, "How long a client may take nothing at all of a response; one that reads slowly is not cut.").or(r#""60s""#),
    // Finds a dead client sooner than an idle one is closed.
    duration("ping", 1, "After this time without a byte, an HTTP/2 client with requests under way is pinged; it is given up after twice the time.")
    .or(r#""20s""#),
];

const STORE: &[Key] = &[
    // Next to the configuration file.
    text("path", "The store's directory. Not reloadable.").or(r#""permgate-data""#),
    // sled needs free space to open a store; a full disk gets this much back.
    size("ballast", "Size of the file that is given back when the disk is full. Not reloadable.")
        .or(r#""16m""#),
    duration(
        "audit_retention",
        86_400_000,
        "Audit events older than this are dropped; all are kept unless set.",
    ),
    table(
        "cluster",
        cluster::CLUSTER,
        "Several gateways over one store, whose changes are in etcd; one gateway unless set. Not reloadable.",
    ),
];

const TOKENS: &[Key] = &[
    // Clients that hard-code Hub's prefix keep working.
    flag("perm_alias", "Accept `perm:` or `perm-` in front of a token, as JetBrains Hub has it.").or("true"),
    duration("max_lifetime", 1000, "The longest lifetime of a new token; unlimited unless set."),
    // Useful to pipelines, but also to a thief of the token.
    flag("self_rotation", "A token may replace itself by `POST /.permgate/rotate`.").or("false"),
    duration(
        "announce_end",
        1000,
        "Answers carry `Deprecation` and `Sunset` for so long before their token ends, and while it is in its grace; never unless set.",
    ),
    // No pipeline needs more; stops a runaway script.
    count("max_per_user", 1, 1_000_000, "Live tokens per user.").or("500"),
];

const EXCHANGE: &[Key] = &[
    text("issuer", "The claim `iss`, such as `\"https://token.actions.githubusercontent.com\"`.").required(),
    text("audience", "One of the claim `aud`.").required(),
    key("claims", ValueKind::TableOrTables(CLAIM), "What the token says, each exactly; at least one.")
        .required(),
    text("account", "Login of the service account that the tokens act for.").required(),
    texts("scope", "Services: `\"tracker\"`, `\"hub:read\"`.").required(),
    // Longer than most jobs run.
    duration("lifetime", 1000, "Of a token that is given; 1h at most.").or(r#""15m""#),
    // A busy project has a few hundred jobs an hour.
    count("max_tokens", 1, 100_000, "Live tokens at one time; they do not count for `tokens.max_per_user`.")
        .or("500"),
    text("ca", "PEM file: the authorities that are trusted for the issuer; the system's unless set."),
];

const CLAIM: &[Key] = &[
    text("name", "The claim's name.").required(),
    text("value", "Its value, exactly; flags and numbers as text.").required(),
];

const ASSERTION: &[Key] = &[
    // The `iss` that upstreams expect. The same for all gateways of a team, unless upstreams distinguish
    // them.
    text("issuer", "The claim `iss`.").or(r#""permgate""#),
    // Allows for a queue in front of the upstream and slightly different clocks, not for more.
    duration("lifetime", 1000, "How long an assertion is valid, 30s at most.").or(r#""30s""#),
    // Small and fast, with no parameters to choose wrongly.
    word(
        "algorithm",
        Algorithm::VARIANTS,
        "The algorithm of the keys that permgate creates (`EdDSA`: Ed25519); verifiers name the same one.",
    )
    .or(r#""EdDSA""#),
    // Limits how long a key that leaked unnoticed can be used.
    duration("rotate", 4000, "How long a key signs.").or(r#""30d""#),
    // Verifiers fetch the keys every few minutes; an hour allows for an outage on their side.
    duration(
        "publish_ahead",
        2000,
        "How long a key is in `/.permgate/jwks.json` before it signs; half of `rotate` at most.",
    )
    .or(r#""1h""#),
    key(
        "keys",
        ValueKind::Secret,
        "`\"file:PATH\"`, PEM: the first key signs, all are published; permgate keeps its own in the store's directory unless set.",
    ),
];

const LIMITER: &[Key] = &[
    count("bad_tokens", 1, 1_000_000, "How many bad tokens one address may send; 429 beyond.").required(),
    duration("per", 1000, "In which time.").required(),
];

const FORWARD_AUTH: &[Key] = &[word(
    "proxy",
    FrontProxy::VARIANTS,
    "The proxy that asks at `/.permgate/auth`, which decides how the original request is read. \
     Needs `server.trusted_proxies`.",
)
.required()];

const LOG: &[Key] = &[
    text("access", "Where one JSON line a request goes: `\"stdout\"`, `\"off\"` or a file.")
        .or(r#""stdout""#),
    word(
        "level",
        &["error", "warn", "info", "debug", "trace"],
        "The least severe messages that are written to stderr.",
    )
    .or(r#""info""#),
];

const METRICS: &[Key] = &[
    // Gives dashboards and alerts one release to change over.
    flag("old_names", "Also report metrics under their old names. The old names and this key go away with the next release.")
.or("true")];

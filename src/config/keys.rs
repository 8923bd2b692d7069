//! Every key of `gateway.toml`, once: the check for unknown keys and wrong types, the JSON Schema and
//! the test of the example all read these tables.

use super::{
    defaults as d,
    key::{Key, Kind, key},
};

pub const ROOT: &[Key] = &[
    key("version", Kind::Count(1, 1), "The version of this file's form: 1.").required(),
    key("server", Kind::Table(SERVER), "What clients connect to."),
    key("admin", Kind::Table(ADMIN), "The admin listener: API, health, metrics."),
    key("store", Kind::Table(STORE), "Where users, groups, tokens and the audit log are kept."),
    key("tokens", Kind::Table(TOKENS), "Rules for tokens of every service."),
    key("assertion", Kind::Table(ASSERTION), "How requests are signed for services that ask for it."),
    key(
        "limiter",
        Kind::Table(LIMITER),
        "Slows addresses down that keep sending bad tokens; off unless written.",
    ),
    key(
        "forward_auth",
        Kind::Table(FORWARD_AUTH),
        "Decisions for a proxy that forwards by itself; off unless written.",
    ),
    key("log", Kind::Table(LOG), "Access log and messages."),
    key("metrics", Kind::Table(METRICS), "What /metrics reports."),
    key("upstream", Kind::Named(UPSTREAM), "Where requests are sent, by name."),
    key("service", Kind::Named(SERVICE), "What a token may be scoped to, by its scope word."),
    key("public", Kind::Tables(PUBLIC), "The only way past a token."),
    key(
        "limits",
        Kind::TableOrTables(LIMIT),
        "Limits over all services: `per`, `rate`, `burst`, `concurrent`.",
    ),
];

const SERVER: &[Key] = &[
    key(
        "listen",
        Kind::Texts,
        "Addresses: \"IP:PORT\", \"unix:PATH\" or \"systemd:NAME\"; \"http://IP:PORT\" has no TLS, \"https://IP:PORT\" needs it. Not reloadable.",
    )
    .or(d::LISTEN),
    key(
        "url",
        Kind::Text,
        "Where clients reach the services: in the lines to copy that the page shows. Not reloadable.",
    ),
    key("tls", Kind::TableOrTables(TLS), "Certificates, chosen by server name; the first one otherwise."),
    key("tls_client_ca", Kind::Text, "PEM file: who signs the certificates that clients show."),
    key("tls_client_certificate", Kind::Word(&["required", "optional"]), "Whether a client must show one.")
        .or(d::TLS_CLIENT_CERTIFICATE),
    key("unix_mode", Kind::Text, "The mode of unix sockets listened on. Not reloadable.").or(d::UNIX_MODE),
    key(
        "trusted_proxies",
        Kind::Texts,
        "Networks whose Forwarded and X-Forwarded-* fields are believed; \"unix\": peers on unix sockets.",
    )
    .or(d::TRUSTED_PROXIES),
    key(
        "proxy_protocol",
        Kind::Word(&["off", "required"]),
        "\"required\": connections of trusted proxies begin with a PROXY header, v1 or v2. Not reloadable.",
    )
    .or(d::PROXY_PROTOCOL),
    key(
        "drop_fields",
        Kind::Texts,
        "Request fields that no upstream gets, beside those of the list: \"X-Tenant\", \"X-Tenant-*\".",
    )
    .or(d::DROP_FIELDS),
    key("workers", Kind::Count(1, 1024), "Worker threads; one per core unless written. Not reloadable."),
    key("max_body", Kind::Size, "Largest request body, 413 beyond; unlimited unless written."),
    key("drain", Kind::Duration(0), "How long requests in flight may last after SIGTERM.").or(d::DRAIN),
    key("limits", Kind::Table(LIMITS), "Sizes and counts."),
    key("timeouts", Kind::Table(TIMEOUTS), "Deadlines towards clients."),
];

const TLS: &[Key] = &[
    key("cert", Kind::Text, "PEM file: the certificate, then its chain.").required(),
    key("key", Kind::Text, "PEM file: the private key.").required(),
];

const LIMITS: &[Key] = &[
    key("head", Kind::Size, "Request line and fields together.").or(d::HEAD),
    key("field", Kind::Size, "One field, name and value.").or(d::FIELD),
    key("fields", Kind::Count(1, 1000), "How many fields.").or(d::FIELDS),
    key("target", Kind::Size, "The request target.").or(d::TARGET),
    key("connections", Kind::Count(1, 10_000_000), "Connections over all workers.").or(d::CONNECTIONS),
    key(
        "connections_per_address",
        Kind::Count(1, 10_000_000),
        "Connections per client address, trusted proxies exempt; unlimited unless written.",
    ),
];

const TIMEOUTS: &[Key] = &[
    key("head", Kind::Duration(1), "From the first byte of a request until its head is complete.")
        .or(d::HEAD_TIMEOUT),
    key("tls_handshake", Kind::Duration(1), "The TLS handshake.").or(d::TLS_HANDSHAKE),
    key("idle", Kind::Duration(1), "Between two requests. Longer than a balancer in front keeps connections.").or(d::IDLE),
    key("body", Kind::Duration(1), "Between two pieces of a request body, until the answer begins.")
        .or(d::BODY),
    key("write", Kind::Duration(1), "An answer of which the client takes nothing.").or(d::WRITE),
    key(
        "ping",
        Kind::Duration(1),
        "An HTTP/2 client with requests under way that is silent for so long is pinged, and given up after twice the time.",
    )
    .or(d::PING),
];

const ADMIN: &[Key] = &[
    key("listen", Kind::Texts, "Addresses as in server.listen. Not reloadable.").or(d::ADMIN_LISTEN),
    key("tls", Kind::TableOrTables(TLS), "Certificates as in server.tls; unix sockets have none."),
    key("tls_client_ca", Kind::Text, "As server.tls_client_ca."),
    key("tls_client_certificate", Kind::Word(&["required", "optional"]), "As server.tls_client_certificate.")
        .or(d::TLS_CLIENT_CERTIFICATE),
    key(
        "hosts",
        Kind::Texts,
        "Host names under which the admin listener answers, beside its own. Not reloadable.",
    )
    .or(d::ADMIN_HOSTS),
    key(
        "url",
        Kind::Text,
        "Where browsers reach the admin listener: in invitation links; https makes cookies Secure. Not reloadable.",
    ),
    key(
        "user_header",
        Kind::Text,
        "Field in which a proxy in front names the user; needs user_header_from. Not reloadable.",
    ),
    key(
        "user_header_from",
        Kind::Texts,
        "Addresses and networks of the proxies that user_header is believed from.",
    ),
    key(
        "oidc",
        Kind::Table(OIDC),
        "Sign-in by an OpenID Connect provider; needs admin.url and the cargo feature sso.",
    ),
    key("allow_remote", Kind::Flag, "Unsafe: lets admin.listen name addresses that other machines reach.")
        .or(d::ALLOW_REMOTE),
];

const OIDC: &[Key] = &[
    key("issuer", Kind::Text, "The provider's URL, as its metadata says `issuer`. Not reloadable, as all of this.")
        .required(),
    key("client_id", Kind::Text, "What the provider calls permgate.").required(),
    key(
        "client_secret",
        Kind::Secret,
        "\"file:PATH\" or \"env:NAME\"; none for a public client, which PKCE alone protects.",
    ),
    key("title", Kind::Text, "What the button calls the provider.").or(d::OIDC_TITLE),
    key("scopes", Kind::Texts, "What is asked for; \"openid\" is one of them.").or(d::OIDC_SCOPES),
    key("login_claim", Kind::Text, "The claim that is the login of an account that is made.")
        .or(d::OIDC_LOGIN_CLAIM),
    key("groups_claim", Kind::Text, "The claim that lists groups.").or(d::OIDC_GROUPS_CLAIM),
    key(
        "groups",
        Kind::TextsOrTables(OIDC_GROUP),
        "Groups that the provider decides about, by its claim; { claim = \"...\", group = \"...\" } where it calls them otherwise.",
    )
    .or(d::OIDC_GROUPS),
    key(
        "link_logins",
        Kind::Flag,
        "Unsafe: whoever has a login at the provider takes over the account that has it here.",
    )
    .or(d::OIDC_LINK_LOGINS),
    key("ca", Kind::Text, "PEM file: the authorities that are trusted; the system's unless written."),
];

const OIDC_GROUP: &[Key] = &[
    key("claim", Kind::Text, "As the provider calls it.").required(),
    key("group", Kind::Text, "As it is called here.").required(),
];

const STORE: &[Key] = &[
    key("path", Kind::Text, "The store's directory. Not reloadable.").or(d::STORE_PATH),
    key("ballast", Kind::Size, "Size of the file that is given back when the disk is full. Not reloadable.")
        .or(d::BALLAST),
    key(
        "audit_retention",
        Kind::Duration(86_400_000),
        "Older audit events are dropped; none unless written.",
    ),
];

const TOKENS: &[Key] = &[
    key("perm_alias", Kind::Flag, "Accept perm: or perm- in front of a token.").or(d::PERM_ALIAS),
    key("max_lifetime", Kind::Duration(1000), "The longest life of a new token; unlimited unless written."),
    key("max_per_user", Kind::Count(1, 1_000_000), "Live tokens per user.").or(d::MAX_PER_USER),
];

const ASSERTION: &[Key] = &[
    key("issuer", Kind::Text, "The claim `iss`.").or(d::ISSUER),
    key("lifetime", Kind::Duration(1000), "How long an assertion holds, 30s at most.")
        .or(d::ASSERTION_LIFETIME),
    key("algorithm", Kind::Word(&["EdDSA", "ES256"]), "Of the keys that permgate makes.").or(d::ALGORITHM),
    key("rotate", Kind::Duration(4000), "How long a key signs.").or(d::ROTATE),
    key(
        "publish_ahead",
        Kind::Duration(2000),
        "How long a key is in /.permgate/jwks.json before it signs; half of `rotate` at most.",
    )
    .or(d::PUBLISH_AHEAD),
    key(
        "keys",
        Kind::Secret,
        "\"file:PATH\", PEM: the first key signs, all are published; permgate's own in the store's directory unless written.",
    ),
];

const LIMITER: &[Key] = &[
    key("bad_tokens", Kind::Count(1, 1_000_000), "Bad tokens that one address may send.").required(),
    key("per", Kind::Duration(1000), "In this time.").required(),
];

const FORWARD_AUTH: &[Key] = &[key(
    "proxy",
    Kind::Word(&["nginx", "traefik", "caddy", "envoy"]),
    "Which one asks: how it tells the original request.",
)
.required()];

const LOG: &[Key] = &[
    key("access", Kind::Text, "One JSON line a request: \"stdout\", \"off\" or a file.").or(d::ACCESS_LOG),
    key("level", Kind::Word(&["error", "warn", "info", "debug", "trace"]), "Messages on stderr.")
        .or(d::LOG_LEVEL),
];

const METRICS: &[Key] = &[key(
    "old_names",
    Kind::Flag,
    "Report metrics under their old names, too. The old names and this key go with the next release.",
)
.or(d::OLD_NAMES)];

const UPSTREAM: &[Key] = &[
    key(
        "urls",
        Kind::TextsOrTables(URL),
        "\"http://HOST:PORT\", \"https://HOST\", \"h2c://HOST:PORT\" or \"unix:PATH\"; with a weight { url = \"...\", weight = 3 }, 0 to drain it.",
    )
    .required(),
    key(
        "balance",
        Kind::Word(&["round-robin", "least-requests", "hash"]),
        "How one of several urls is chosen.",
    )
    .or(d::BALANCE),
    key("host", Kind::Text, "Host field sent upstream; the client's own unless written."),
    key(
        "http",
        Kind::Word(&["auto", "1.1", "2"]),
        "Which HTTP is spoken: by the url and the handshake, or this one.",
    )
    .or(d::UPSTREAM_HTTP),
    key("tls", Kind::Table(UPSTREAM_TLS), "Of https:// urls: whom to trust, and who is shown."),
    key("timeouts", Kind::Table(UPSTREAM_TIMEOUTS), "Deadlines towards the upstream."),
    key("eject", Kind::Table(EJECT), "When one of several urls is left out."),
    key("health", Kind::Table(HEALTH), "Asks each url whether it serves; off unless written."),
    key("retries", Kind::Count(0, 10), "How often a request is sent again where that does no harm.")
        .or(d::RETRIES),
    key("resolve", Kind::Duration(1000), "How often names are looked up.").or(d::RESOLVE),
    key(
        "max_connections",
        Kind::Count(1, 1_000_000),
        "Connections over all workers; unlimited unless written.",
    ),
    key(
        "max_in_flight",
        Kind::Count(1, 1_000_000),
        "Requests at one time over all workers; unlimited unless written.",
    ),
    key("queue", Kind::Count(0, 1_000_000), "Requests that may wait for one of the two, 503 beyond.")
        .or(d::QUEUE),
    key("queue_timeout", Kind::Duration(1), "How long they may wait, 503 beyond.").or(d::QUEUE_TIMEOUT),
];

const UPSTREAM_TLS: &[Key] = &[
    key("ca", Kind::Text, "PEM file: the authorities that are trusted; the system's unless written."),
    key("cert", Kind::Text, "PEM file: the certificate that is shown to the upstream, then its chain."),
    key("key", Kind::Text, "PEM file: its private key."),
    key("server_name", Kind::Text, "The name in the upstream's certificate; the url's host unless written."),
];

const UPSTREAM_TIMEOUTS: &[Key] = &[
    key("connect", Kind::Duration(1), "Until connected; 502 beyond.").or(d::CONNECT),
    key("first_byte", Kind::Duration(1), "Until the answer's head; 504 beyond.").or(d::FIRST_BYTE),
    key("body_idle", Kind::Duration(1), "Between two pieces of the answer.").or(d::BODY_IDLE),
    key(
        "stream_idle",
        Kind::Duration(1),
        "The same for event streams, gRPC and requests with `watch=`; a gRPC client is told UNAVAILABLE.",
    )
    .or(d::STREAM_IDLE),
    key(
        "ping",
        Kind::Duration(1),
        "How often an HTTP/2 upstream with requests under way is pinged; given up after 20s without an answer.",
    )
    .or(d::UPSTREAM_PING),
    key("tunnel_idle", Kind::Duration(1), "How long nothing may pass after an upgrade.").or(d::TUNNEL_IDLE),
    key("pool_idle", Kind::Duration(0), "How long an idle connection is kept.").or(d::POOL_IDLE),
];

const URL: &[Key] = &[
    key("url", Kind::Text, "\"http://HOST:PORT\".").required(),
    key("weight", Kind::Count(0, 1000), "Its share of the requests; 0 drains it.").or(d::WEIGHT),
];

const HEALTH: &[Key] = &[
    key("path", Kind::Text, "What is requested, with GET and without credentials.").required(),
    key("interval", Kind::Duration(10), "Between two checks.").or(d::HEALTH_INTERVAL),
    key("timeout", Kind::Duration(10), "Until the head of the answer.").or(d::HEALTH_TIMEOUT),
    key("rise", Kind::Count(1, 1000), "Sound answers in a row that bring a url back.").or(d::HEALTH_RISE),
    key("fall", Kind::Count(1, 1000), "Failures in a row that take it out.").or(d::HEALTH_FALL),
    key("status", Kind::Count(200, 599), "The one sound status; 200 to 399 unless written."),
];

const EJECT: &[Key] = &[
    key("failures", Kind::Count(1, 1000), "Failures in a row.").or(d::EJECT_FAILURES),
    key("for", Kind::Duration(1), "How long it is left out.").or(d::EJECT_FOR),
];

const SERVICE: &[Key] = &[
    key("title", Kind::Text, "Shown where tokens are made; the scope word unless written."),
    key("about", Kind::Text, "Shown beside the title."),
    key("upstream", Kind::Text, "Name of an [upstream.NAME].").required(),
    key("paths", Kind::Texts, "Absolute prefixes of whole segments, 1 to 32, without trailing slash.")
        .required(),
    key(
        "hosts",
        Kind::Texts,
        "Host names; any unless written. Letters beyond ASCII in the form that is sent: \"xn--bcher-kva.example\".",
    ),
    key("readers", Kind::Texts, "Groups that may read this service; nobody unless written."),
    key("methods", Kind::Texts, "Methods that pass; all but TRACE and CONNECT unless written."),
    key("read_methods", Kind::Texts, "What a read-only token may use: \"METHOD\", \"METHOD /prefix\", \"METHOD /a/*/b\" (any one segment) or \"METHOD */end\".")
        .or(d::READ_METHODS),
    key(
        "authorization",
        Kind::Secret,
        "\"strip\", \"keep\", or what replaces it: \"file:PATH\", \"env:NAME\".",
    )
    .or(d::AUTHORIZATION),
    key(
        "credentials",
        Kind::Texts,
        "Where a token may stand: \"bearer\", \"basic\" (as the password), \"raw\" (alone in Authorization), \"header:NAME\", \"websocket\".",
    )
    .or(d::CREDENTIALS),
    key("registry", Kind::Flag, "A container registry: clients sign in at /.permgate/registry; errors below /v2/ are OCI's.")
        .or(d::REGISTRY),
    key("identity", Kind::Word(&["headers", "jwt", "both", "none"]), "How the upstream is told who asks.")
        .or(d::IDENTITY),
    key("identity_groups", Kind::Texts, "Groups told to the upstream; the readers unless written."),
    key(
        "pass_fields",
        Kind::TableOrTables(PASS_FIELD),
        "Unsafe: fields of the list that pass, `{ name = \"X-Remote-User\", from = \"trusted\" }`; from trusted proxies or from \"anybody\".",
    ),
    key(
        "allow",
        Kind::Words(&["letter-case", "empty-segments", "encoded-slashes", "path-parameters", "invalid-utf8"]),
        "Unsafe: readings of a path that need not agree, for upstreams known not to read so.",
    ),
    key("max_body", Kind::Size, "Largest request body; the server's unless written."),
    key(
        "limits",
        Kind::TableOrTables(LIMIT),
        "Limits of this service, beside those over all: `per`, `rate`, `burst`, `concurrent`.",
    ),
];

const PASS_FIELD: &[Key] = &[
    key("name", Kind::Text, "The field's name.").required(),
    key("from", Kind::Word(&["trusted", "anybody"]), "From trusted proxies alone, or from anybody.")
        .required(),
];

const LIMIT: &[Key] = &[
    key("per", Kind::Word(&["token", "user", "address", "service"]), "Of whom count is kept.").required(),
    key("rate", Kind::Text, "\"100/s\": so many requests in s, m, h, d or a duration; 429 beyond."),
    key(
        "burst",
        Kind::Count(1, 10_000_000),
        "So many at once after a pause; the rate's number unless written.",
    ),
    key("concurrent", Kind::Count(1, 10_000_000), "So many at one time; 429 beyond."),
];

const PUBLIC: &[Key] = &[
    key("service", Kind::Text, "The service that the rule opens.").required(),
    key("methods", Kind::Texts, "Methods that pass; GET, HEAD and OPTIONS unless written."),
    key("path", Kind::Text, "This path exactly."),
    key("prefix", Kind::Text, "This path and everything below."),
];

//! The keys of `[upstream.NAME]`.

use strum::VariantNames as _;

use crate::{
    config::key::{Key, ValueKind, count, duration, key, table, text, word},
    settings::{Balance, HttpVersion},
};

pub(super) const UPSTREAM: &[Key] = &[
    key(
        "urls",
        ValueKind::TextsOrTables(URL),
        "`\"http://HOST:PORT\"`, `\"https://HOST\"`, `\"h2c://HOST:PORT\"` or `\"unix:PATH\"`; with a weight: `{ url = \"...\", weight = 3 }`.",
    )
    .required(),
    // Fair without any further information.
    word("balance", Balance::VARIANTS, "How one of several urls is chosen; `hash` keeps a user at one url.")
    .with_default(r#""round-robin""#),
    text("host", "The Host field sent upstream; the client's own unless set."),
    // The URL and negotiation rarely give the wrong version.
    word("http", HttpVersion::VARIANTS, "The HTTP version; `auto` takes it from the url's scheme and the TLS handshake.")
    .with_default(r#""auto""#),
    table("tls", UPSTREAM_TLS, "TLS of `https://` urls."),
    table("timeouts", UPSTREAM_TIMEOUTS, "Timeouts for the upstream."),
    table("eject", EJECT, "When one of several urls is no longer used after failures."),
    table("health", HEALTH, "Health checks of each url; off unless set."),
    // Once covers a connection that was just closed; more would only add load.
    count("retries", 0, 10, "How often a failed request is sent again, if that is safe.")
        .with_default("1"),
    // The usual TTL of a record that is meant to change.
    duration("resolve", 1000, "How often host names are looked up.").with_default(r#""30s""#),
    count("max_connections", 1, 1_000_000, "Connections of all workers together; unlimited unless set."),
    count("max_in_flight", 1, 1_000_000, "Requests at one time, of all workers together; unlimited unless set."),
    // Enough for a burst, not for lasting overload.
    count("queue", 0, 1_000_000, "Requests that may wait while one of these limits is reached; 503 beyond.")
        .with_default("100"),
    // A client that would have to wait longer had better get the error.
    duration("queue_timeout", 1, "How long they may wait; 503 beyond.").with_default(r#""1s""#),
];

const UPSTREAM_TLS: &[Key] = &[
    text("ca", "PEM file: certificate authorities for the upstream; the system's unless set."),
    text("cert", "PEM file: permgate's client certificate for the upstream, then its chain."),
    text("key", "PEM file: its private key."),
    text("server_name", "The name that the upstream's certificate must have; the url's host unless set."),
];

const UPSTREAM_TIMEOUTS: &[Key] = &[
    // A TCP handshake within a data centre takes a millisecond; two seconds allow for one lost packet.
    duration("connect", 1, "Until a connection is made; 502 beyond.").with_default(r#""2s""#),
    // Reports and exports take long to produce their first byte.
    duration("first_byte", 1, "Until the head of the response; 504 beyond.").with_default(r#""60s""#),
    duration("body_idle", 1, "Between two pieces of the response body.").with_default(r#""60s""#),
    // A WebSocket in use pings more often than once an hour.
    duration("stream_idle", 1, "The same for event streams, gRPC, Connect and requests with `watch=` or `follow=`; a gRPC client then gets UNAVAILABLE.")
    .with_default(r#""1h""#),
    duration("ping", 1, "How often an HTTP/2 upstream with requests in flight is pinged; its connection is closed after 20s without a reply.")
    .with_default(r#""5m""#),
    duration("tunnel_idle", 1, "How long a tunnel (a WebSocket or another upgrade) may stay silent.").with_default(r#""1h""#),
    // Shorter than the keep-alive of common upstreams (nginx 75 s, Jetty 30 s); for Node (5 s), retries
    // apply.
    duration("pool_idle", 0, "How long an idle connection is kept, unless the upstream announces less; `0s`: each request closes its connection.").with_default(r#""15s""#),
];

const URL: &[Key] = &[
    text("url", "As a text in `urls`.").required(),
    // All URLs alike.
    count("weight", 0, 1000, "This url's share of the requests; 0 drains it.").with_default("1"),
];

const HEALTH: &[Key] = &[
    text("path", "The path to request, with GET and without credentials.").required(),
    // Six requests a minute are no load.
    duration("interval", 10, "Between two checks.").with_default(r#""10s""#),
    // An upstream that takes longer for its health check is not healthy.
    duration("timeout", 10, "Until the head of the response.").with_default(r#""2s""#),
    // A single good response may be the last before the next crash.
    count("rise", 1, 1000, "Good responses in a row after which a url is used again.").with_default("2"),
    // As for ejection.
    count("fall", 1, 1000, "Failures in a row after which a url is no longer used.").with_default("3"),
    count("status", 200, 599, "The only good status; 200 to 399 unless set."),
];

const EJECT: &[Key] = &[
    // One lost connection is chance, three in a row are not.
    count("failures", 1, 1000, "Failures in a row after which a url is no longer used.").with_default("3"),
    // For the first time; it doubles while the URL keeps failing.
    duration("for", 1, "How long it is not used; doubled each time, up to 60s.").with_default(r#""5s""#),
];

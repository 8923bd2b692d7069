//! `[service.NAME]`, `[[public]]` and `[[limits]]`.

use crate::config::key::{Key, Kind, key};

pub(super) const SERVICE: &[Key] = &[
    key("title", Kind::Text, "The title shown where tokens are created; the scope word unless set."),
    key("about", Kind::Text, "A description shown beside the title."),
    key("upstream", Kind::Text, "The NAME of an `[upstream.NAME]`.").required(),
    key("paths", Kind::Texts, "Absolute path prefixes of whole segments, 1 to 32, without a trailing slash.")
        .required(),
    key(
        "hosts",
        Kind::Texts,
        "Host names; any unless set. Letters beyond ASCII are written as they are sent, `\"xn--bcher-kva.example\"`; IPv6 in any spelling: `\"[::1]\"`.",
    ),
    key("readers", Kind::Texts, "Groups that may read this service. Without any, only holders of `read-service` may."),
    key("methods", Kind::Texts, "Methods that pass, 405 beyond; all but TRACE and CONNECT unless set."),
    // The reading methods of RFC 9110 that change nothing.
    key("read_methods", Kind::Texts, "What a read-only token may use: `\"METHOD\"`, `\"METHOD /prefix\"`, `\"METHOD /a/*/b\"` (any one segment) or `\"METHOD */end\"` (the end of the path).")
        .or(r#"["GET", "HEAD", "OPTIONS"]"#),
    key(
        "authorization",
        Kind::Secret,
        "What happens to `Authorization`: `\"strip\"`, `\"keep\"`, or what replaces it: `\"file:PATH\"`, `\"env:NAME\"`.",
    )
    .or(r#""strip""#),
    // The one that no browser sends by itself and every cache knows to be private.
    key(
        "credentials",
        Kind::Texts,
        "Where a token may be: `\"bearer\"`, `\"basic\"` (as the password), `\"raw\"` (alone in `Authorization`), `\"header:NAME\"`, `\"websocket\"`.",
    )
    .or(r#"["bearer"]"#),
    key("registry", Kind::Flag, "A container registry: clients sign in at `/.permgate/registry`, and errors below `/v2/` have OCI's form.")
        .or("false"),
    key("identity", Kind::Word(&["headers", "jwt", "both", "none"]), "How the upstream learns who is asking; `jwt` is a signed assertion.")
        .or(r#""headers""#),
    key("identity_groups", Kind::Texts, "Groups that the upstream learns about; the readers unless set."),
    key(
        "pass_fields",
        Kind::TableOrTables(PASS_FIELD),
        "Unsafe: fields of the built-in list that pass nevertheless: `{ name = \"X-Remote-User\", from = \"trusted\" }`.",
    ),
    key(
        "allow",
        Kind::Words(&["letter-case", "empty-segments", "encoded-slashes", "path-parameters", "invalid-utf8"]),
        "Unsafe: readings of a path that need not agree, for upstreams known not to read paths that way; `invalid-utf8` lets such escapes pass.",
    ),
    key("max_body", Kind::Size, "Largest request body, 413 beyond; the server's unless set."),
    key(
        "limits",
        Kind::TableOrTables(LIMIT),
        "Limits of this service, beside those over all services.",
    ),
];

const PASS_FIELD: &[Key] = &[
    key("name", Kind::Text, "The field's name.").required(),
    key("from", Kind::Word(&["trusted", "anybody"]), "From trusted proxies only, or from anybody.")
        .required(),
];

pub(super) const LIMIT: &[Key] = &[
    key("per", Kind::Word(&["token", "user", "address", "service"]), "What is counted separately.")
        .required(),
    key(
        "rate",
        Kind::Text,
        "Requests in a time: `\"100/s\"`, `/m`, `/h`, `/d` or a duration, `\"10/5m\"`; 429 beyond.",
    ),
    key(
        "burst",
        Kind::Count(1, 10_000_000),
        "How many may come at once after a pause; the rate's number unless set.",
    ),
    key("concurrent", Kind::Count(1, 10_000_000), "How many at one time, streams included."),
    // A package manager opens a few dozen connections at once and gives up after a few refusals.
    key("queue", Kind::Count(0, 10_000), "How many beyond `concurrent` may wait for a place; 429 beyond.")
        .or("100"),
    // Shorter than any client's own patience.
    key("queue_timeout", Kind::Duration(1), "How long they may wait; 429 beyond.").or(r#""5s""#),
];

pub(super) const PUBLIC: &[Key] = &[
    key("service", Kind::Text, "The service that the rule opens.").required(),
    key("methods", Kind::Texts, "Methods that need no token; GET, HEAD and OPTIONS unless set."),
    key("path", Kind::Text, "Exactly this path."),
    key("prefix", Kind::Text, "This path and everything below it."),
];

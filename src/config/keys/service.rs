//! The keys of `[service.NAME]`, `[[public]]` and `[[limits]]`.

use crate::config::key::{Key, ValueKind, key};

pub(super) const SERVICE: &[Key] = &[
    key("title", ValueKind::Text, "The title shown where tokens are created; the scope word unless set."),
    key("about", ValueKind::Text, "A description shown beside the title."),
    key("upstream", ValueKind::Text, "The NAME of an `[upstream.NAME]`.").required(),
    key("paths", ValueKind::Texts, "Absolute path prefixes of whole segments, 1 to 32, without a trailing slash.")
        .required(),
    key(
        "hosts",
        ValueKind::Texts,
        "Host names; any unless set. Letters beyond ASCII are written as they are sent, `\"xn--bcher-kva.example\"`; IPv6 in any spelling: `\"[::1]\"`.",
    ),
    key("readers", ValueKind::Texts, "Groups that may read this service. Without any, only holders of `read-service` may."),
    key("methods", ValueKind::Texts, "Methods that pass, 405 beyond; all but TRACE and CONNECT unless set."),
    // The safe methods of RFC 9110 except TRACE.
    key("read_methods", ValueKind::Texts, "What a read-only token may use: `\"METHOD\"`, `\"METHOD /prefix\"`, `\"METHOD /a/*/b\"` (any one segment) or `\"METHOD */end\"` (the end of the path).")
        .or(r#"["GET", "HEAD", "OPTIONS"]"#),
    key(
        "authorization",
        ValueKind::Secret,
        "What happens to `Authorization`: `\"strip\"`, `\"keep\"`, or what replaces it: `\"file:PATH\"`, `\"env:NAME\"`.",
    )
    .or(r#""strip""#),
    // Browsers never send it on their own, and caches treat the response as private.
    key(
        "credentials",
        ValueKind::Texts,
        "Where a token may be: `\"bearer\"`, `\"basic\"` (as the password), `\"raw\"` (alone in `Authorization`), `\"header:NAME\"`, `\"websocket\"`.",
    )
    .or(r#"["bearer"]"#),
    key("registry", ValueKind::Flag, "A container registry: clients sign in at `/.permgate/registry`, and errors below `/v2/` have OCI's form.")
        .or("false"),
    key("identity", ValueKind::Word(&["headers", "jwt", "both", "none"]), "How the upstream learns who is asking; `jwt` is a signed assertion.")
        .or(r#""headers""#),
    key("identity_groups", ValueKind::Texts, "Groups that the upstream learns about; the readers unless set."),
    key(
        "pass_fields",
        ValueKind::TableOrTables(PASS_FIELD),
        "Unsafe: fields of the built-in list that pass nevertheless: `{ name = \"X-Remote-User\", from = \"trusted\" }`.",
    ),
    key(
        "allow",
        ValueKind::Words(&["letter-case", "empty-segments", "encoded-slashes", "path-parameters", "invalid-utf8"]),
        "Unsafe: readings of a path that need not agree, for upstreams known not to read paths that way; `invalid-utf8` lets such escapes pass.",
    ),
    key("max_body", ValueKind::Size, "Largest request body, 413 beyond; the server's unless set."),
    key(
        "limits",
        ValueKind::TableOrTables(LIMIT),
        "Limits of this service, beside those over all services.",
    ),
];

const PASS_FIELD: &[Key] = &[
    key("name", ValueKind::Text, "The field's name.").required(),
    key("from", ValueKind::Word(&["trusted", "anybody"]), "From trusted proxies only, or from anybody.")
        .required(),
];

pub(super) const LIMIT: &[Key] = &[
    key("per", ValueKind::Word(&["token", "user", "address", "service"]), "What is counted separately.")
        .required(),
    key(
        "rate",
        ValueKind::Text,
        "Requests in a time: `\"100/s\"`, `/m`, `/h`, `/d` or a duration, `\"10/5m\"`; 429 beyond.",
    ),
    key(
        "burst",
        ValueKind::Count(1, 10_000_000),
        "How many may come at once after a pause; the rate's number unless set.",
    ),
    key("concurrent", ValueKind::Count(1, 10_000_000), "How many at one time, streams included."),
    // A package manager opens a few dozen connections at once, and gives up after a few refusals.
    key(
        "queue",
        ValueKind::Count(0, 10_000),
        "How many beyond `concurrent` may wait for a place; 429 beyond.",
    )
    .or("100"),
    // Shorter than the timeouts of clients.
    key("queue_timeout", ValueKind::Duration(1), "How long they may wait; 429 beyond.").or(r#""5s""#),
];

pub(super) const PUBLIC: &[Key] = &[
    key("service", ValueKind::Text, "The service that the rule opens.").required(),
    key("methods", ValueKind::Texts, "Methods that need no token; GET, HEAD and OPTIONS unless set."),
    key("path", ValueKind::Text, "Exactly this path."),
    key("prefix", ValueKind::Text, "This path and everything below it."),
];

//! The keys of `[service.NAME]`, `[[public]]` and `[[limits]]`.

use strum::VariantNames as _;

use crate::{
    authz::{
        forwarding::PassFrom,
        rules::{Allowance, Identity},
    },
    config::key::{Key, ValueKind, count, duration, flag, key, size, text, texts, word},
    settings::LimitKey,
};

pub(super) const SERVICE: &[Key] = &[
    text("title", "The title shown where tokens are created; the scope word unless set."),
    text("about", "A description shown beside the title."),
    text("upstream", "The NAME of an `[upstream.NAME]`.").required(),
    texts("paths", "Absolute path prefixes of whole segments, 1 to 32, without a trailing slash.")
        .required(),
    texts("hosts", "Host names; any unless set. Letters beyond ASCII are written as they are sent, `\"xn--bcher-kva.example\"`; IPv6 in any spelling: `\"[::1]\"`."),
    texts("readers", "Groups that may read this service. Without any, only holders of `read-service` may."),
    texts("methods", "Methods that pass, 405 beyond; all but TRACE and CONNECT unless set."),
    // The safe methods of RFC 9110 except TRACE.
    texts("read_methods", "What a read-only token may use: `\"METHOD\"`, `\"METHOD /prefix\"`, `\"METHOD /a/*/b\"` (any one segment) or `\"METHOD */end\"` (the end of the path).")
        .or(r#"["GET", "HEAD", "OPTIONS"]"#),
    key(
        "authorization",
        ValueKind::Secret,
        "What happens to `Authorization`: `\"strip\"`, `\"keep\"`, or what replaces it: `\"file:PATH\"`, `\"env:NAME\"`.",
    )
    .or(r#""strip""#),
    // Browsers never send it on their own, and caches treat the response as private.
    texts("credentials", "Where a token may be: `\"bearer\"`, `\"basic\"` (as the password), `\"raw\"` (alone in `Authorization`), `\"header:NAME\"`, `\"websocket\"`.")
    .or(r#"["bearer"]"#),
    flag("registry", "A container registry: clients sign in at `/.permgate/registry`, and errors below `/v2/` have OCI's form.")
        .or("false"),
    word("identity", Identity::VARIANTS, "How the upstream learns who is asking; `jwt` is a signed assertion.")
        .or(r#""headers""#),
    texts("identity_groups", "Groups that the upstream learns about; the readers unless set."),
    key(
        "pass_fields",
        ValueKind::TableOrTables(PASS_FIELD),
        "Unsafe: fields of the built-in list that pass nevertheless: `{ name = \"X-Remote-User\", from = \"trusted\" }`.",
    ),
    key(
        "allow",
        ValueKind::Words(Allowance::VARIANTS),
        "Unsafe: readings of a path that need not agree, for upstreams known not to read paths that way; `invalid-utf8` lets such escapes pass.",
    ),
    size("max_body", "Largest request body, 413 beyond; the server's unless set."),
    key(
        "limits",
        ValueKind::TableOrTables(LIMIT),
        "Limits of this service, beside those over all services.",
    ),
];

const PASS_FIELD: &[Key] = &[
    text("name", "The field's name.").required(),
    word("from", PassFrom::VARIANTS, "From trusted proxies only, or from anybody.").required(),
];

pub(super) const LIMIT: &[Key] = &[
    word("per", LimitKey::VARIANTS, "What is counted separately.").required(),
    text("rate", "Requests in a time: `\"100/s\"`, `/m`, `/h`, `/d` or a duration, `\"10/5m\"`; 429 beyond."),
    count("burst", 1, 10_000_000, "How many may come at once after a pause; the rate's number unless set."),
    count("concurrent", 1, 10_000_000, "How many at one time, streams included."),
    // A package manager opens a few dozen connections at once, and gives up after a few refusals.
    count("queue", 0, 10_000, "How many beyond `concurrent` may wait for a place; 429 beyond.").or("100"),
    // Shorter than the timeouts of clients.
    duration("queue_timeout", 1, "How long they may wait; 429 beyond.").or(r#""5s""#),
];

pub(super) const PUBLIC: &[Key] = &[
    text("service", "The service that the rule opens.").required(),
    texts("methods", "Methods that need no token; GET, HEAD and OPTIONS unless set."),
    text("path", "Exactly this path."),
    text("prefix", "This path and everything below it."),
];

//! The keys of `[service.NAME]`, `[[public]]` and `[[limits]]`.

use strum::VariantNames as _;

use crate::{
    authz::{
        forwarding::PassFrom,
        rules::{Allowance, Identity},
    },
    config::key::{Key, ValueKind, count, duration, flag, key, secret, size, tables, text, texts, word},
    settings::LimitKey,
};

pub(super) const SERVICE: &[Key] = &[
    text("title", "The title shown where tokens are created; the scope word unless set."),
    text("about", "A description shown beside the title."),
    text("upstream", "The NAME of an `[upstream.NAME]`.").required(),
    texts("paths", "Absolute path prefixes of whole segments, 1 to 32, without a trailing slash.")
        .required(),
    texts("hosts", "Host names; any unless set. Names with non-ASCII letters in their ASCII form, `\"xn--bcher-kva.example\"`; IPv6 in any spelling: `\"[::1]\"`."),
    texts("readers", "Groups that may read this service. Without any, only accounts with the permission `read-service` may."),
    texts("methods", "Allowed methods, 405 for others; all but TRACE and CONNECT unless set."),
    // The safe methods of RFC 9110 except TRACE.
    texts("read_methods", "What a read-only token may use: `\"METHOD\"`, `\"METHOD /prefix\"`, `\"METHOD /a/*/b\"` (any one segment) or `\"METHOD */end\"` (the end of the path).")
        .with_default(r#"["GET", "HEAD", "OPTIONS"]"#),
    secret("authorization", "What happens to `Authorization`: `\"strip\"`, `\"keep\"`, or replace it by a value from `\"file:PATH\"` or `\"env:NAME\"`.")
    .with_default(r#""strip""#),
    // Browsers never send it on their own, and caches treat the response as private.
    texts("credentials", "Where clients may send a token: `\"bearer\"`, `\"basic\"` (as the password), `\"raw\"` (alone in `Authorization`), `\"header:NAME\"`, `\"websocket\"`.")
    .with_default(r#"["bearer"]"#),
    flag("registry", "A container registry: clients sign in at `/.permgate/registry`, and errors below `/v2/` have the form that OCI specifies.")
        .with_default("false"),
    word("identity", Identity::VARIANTS, "How the user's identity is sent upstream; `jwt` is a signed assertion.")
        .with_default(r#""headers""#),
    texts("identity_groups", "Groups whose membership is sent to the upstream; the readers unless set."),
    tables("pass_fields", PASS_FIELD, "Unsafe: fields of the built-in list that are forwarded anyway: `{ name = \"X-Remote-User\", from = \"trusted\" }`."),
    key(
        "allow",
        ValueKind::Words(Allowance::VARIANTS),
        "Unsafe: readings of a path that may disagree, for upstreams known not to use them; `invalid-utf8` allows escapes that are not UTF-8.",
    ),
    size("max_body", 1, "Largest request body, 413 beyond; the server's unless set."),
    tables("limits", LIMIT, "Limits of this service, in addition to those in `[[limits]]`."),
];

const PASS_FIELD: &[Key] = &[
    text("name", "The field's name.").required(),
    word("from", PassFrom::VARIANTS, "From trusted proxies only, or from anybody.").required(),
];

pub(super) const LIMIT: &[Key] = &[
    word("per", LimitKey::VARIANTS, "What is counted separately.").required(),
    text("rate", "Requests in a time: `\"100/s\"`, `/m`, `/h`, `/d` or a duration, `\"10/5m\"`; 429 beyond."),
    count(
        "burst",
        1,
        10_000_000,
        "How many requests may come at once after a pause; the rate's number unless set.",
    ),
    count("concurrent", 1, 10_000_000, "Requests at one time, streams included."),
    // A package manager opens a few dozen connections at once, and gives up after a few refusals.
    count("queue", 0, 10_000, "How many requests beyond `concurrent` may wait; 429 beyond.")
        .with_default("100"),
    // Shorter than the timeouts of clients.
    duration("queue_timeout", 1, "How long they may wait; 429 beyond.").with_default(r#""5s""#),
];

pub(super) const PUBLIC: &[Key] = &[
    text("service", "The service that the rule opens.").required(),
    texts("methods", "Methods that need no token; GET, HEAD and OPTIONS unless set."),
    text("path", "Exactly this path."),
    text("prefix", "This path and everything below it."),
];

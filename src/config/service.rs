//! `[service.NAME]` and `[[public]]`: reads the specifications that `authz` compiles, with where a request
//! may carry a token (`credentials`) and which client fields reach upstreams (`pass_fields`,
//! `server.drop_fields`).

use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use http::Method;

use super::{
    address::host,
    secret,
    section::{Section, SpannedText, ValueError, wrong},
    suggest::{advice, closest, did_you_mean},
};
use crate::authz::{
    accounts::ALL_USERS,
    carriers::{Carrier, Carriers},
    forwarding::{DropReason, FieldPattern, FieldPolicy, PassField, PassFrom, drop_reason},
    path::{PathError, RequestPath},
    rules::{
        Authorization, BUILT_IN_SERVICE, Identity, PublicPath, PublicSpec, ReadMethod, ServiceKey,
        ServiceSpec,
    },
};

/// docs/domain.md, "Entities". More prefixes should be several services.
const MAX_PATHS: usize = 32;

/// Reads a service. Problems are reported; `None` if they leave no service.
pub(super) fn service(
    name: &SpannedText<'_>,
    section: &Section<'_>,
    upstreams: &BTreeSet<&str>,
    dropped: &Arc<[FieldPattern]>,
) -> Option<ServiceSpec> {
    // Everything is read before something missing ends the function, so that all problems are reported.
    let key = name.parse(service_key);
    let upstream = section.text("upstream");
    if let Some(upstream) = upstream.as_ref().filter(|u| !upstreams.contains(u.value.as_str())) {
        report_unknown_name("upstream", upstream, upstreams);
    }
    let readers = group_names(&section.texts("readers"));
    if readers.is_empty() {
        let message = format!("no group may read the service {:?}", name.value);
        name.warn(message, "name groups in `readers`, such as [\"all-users\"]");
    }
    let paths = paths(section);
    let read_methods = section.all_parsed("read_methods", read_method);
    let methods = methods(section);
    let hosts = section.all_parsed("hosts", host);
    let identity_groups = section.optional_texts("identity_groups").map(|texts| group_names(&texts));
    let allow = section.texts("allow").iter().filter_map(|word| word.value.parse().ok()).collect();
    let fields = field_policy(section, dropped);
    let authorization = authorization(section);
    let credentials = credentials(section);
    let title = section.text("title").map_or_else(|| name.value.clone(), |t| line(&t, 200));
    let about = section.text("about").map(|t| line(&t, 500)).unwrap_or_default();
    Some(ServiceSpec {
        // Without a valid path, compilation would only report again that the service has none.
        paths: Some(paths).filter(|paths| !paths.is_empty())?,
        key: key?,
        title,
        about,
        upstream: upstream?.value.into(),
        hosts,
        readers,
        methods,
        read_methods,
        authorization: authorization?,
        credentials,
        registry: section.flag("registry"),
        identity: section.word("identity").unwrap_or(Identity::None),
        identity_groups,
        allow,
        fields,
        max_body: section.size("max_body"),
        origin: section.document.origin(&section.at),
    })
}

/// Reads a `[[public]]` rule.
pub(super) fn public(section: &Section<'_>, services: &BTreeSet<&str>) -> Option<PublicSpec> {
    let service = section.text("service")?;
    if !services.contains(service.value.as_str()) {
        report_unknown_name("service", &service, services);
        return None;
    }
    let path = match (section.text("path"), section.text("prefix")) {
        (Some(path), None) => path.parse(|path| prefix_or_path(path, false)).map(PublicPath::Exact),
        (None, Some(prefix)) => prefix.parse(|prefix| prefix_or_path(prefix, true)).map(PublicPath::Prefix),
        (Some(_), Some(prefix)) => {
            prefix.error("a public rule has `path` or `prefix`, not both", "write two rules");
            None
        }
        (None, None) if section.is_set("path") || section.is_set("prefix") => None,
        (None, None) => {
            let advice = "add `path = \"/...\"` for one path, `prefix = \"/...\"` for all below it";
            section.document.error(&section.at, "this public rule opens nothing", advice);
            None
        }
    };
    Some(PublicSpec {
        service: ServiceKey::parse(&service.value)?,
        methods: methods(section),
        path: path?,
        origin: section.document.origin(&section.at),
    })
}

/// Reports a reference to a table that does not exist.
fn report_unknown_name(what: &str, name: &SpannedText<'_>, known: &BTreeSet<&str>) {
    let advice = advice(&name.value, known.iter().copied(), || {
        let known = known.iter().copied().collect::<Vec<_>>().join(", ");
        let is_bare = name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if is_bare && !name.value.is_empty() {
            format!("add a table `[{what}.{}]`, or name one of: {known}", name.value)
        } else {
            format!("add a table `[{what}.NAME]` and write its NAME here, or name one of: {known}")
        }
    });
    name.error(format!("there is no {what} {:?}", name.value), advice);
}

fn service_key(name: &str) -> Result<ServiceKey, ValueError> {
    if name == BUILT_IN_SERVICE {
        let message = format!("the service {BUILT_IN_SERVICE:?} is built in: it is the admin listener");
        return wrong(message, "choose another name");
    }
    ServiceKey::parse(name).ok_or_else(|| {
        let advice = "write a lower-case letter, then at most 62 lower-case letters, digits and `-`";
        (format!("{name:?} cannot be a service's scope word"), advice.into())
    })
}

fn paths(section: &Section<'_>) -> Vec<String> {
    if let Some(count) = section.optional_texts("paths").map(|texts| texts.len())
        && !(1..=MAX_PATHS).contains(&count)
    {
        section.error("paths", format!("`paths` has {count} prefixes, not 1 to {MAX_PATHS}"), "");
    }
    section.all_parsed("paths", |path| prefix_or_path(path, true))
}

/// Checks that a request can have this path. A rule for another would never match.
fn prefix_or_path(path: &str, is_prefix: bool) -> Result<String, ValueError> {
    if path.contains("://") {
        return wrong(
            format!("{path:?} is a URL"),
            "write its path, such as \"/api\"; a host goes into `hosts`",
        );
    }
    if !path.starts_with('/') {
        let advice = format!("write {:?}", format!("/{path}"));
        return wrong(format!("{path:?} does not start with \"/\""), advice);
    }
    if is_prefix && path.len() > 1 && path.ends_with('/') {
        let bare = path.trim_end_matches('/');
        let bare = if bare.is_empty() { "/" } else { bare };
        let advice = format!("write {bare:?}: prefixes match whole segments");
        return wrong(format!("{path:?} ends with \"/\""), advice);
    }
    if path.ends_with("/*") {
        let advice = "leave out the \"/*\": a prefix matches everything below it";
        return wrong(format!("{path:?} has a wildcard"), advice);
    }
    if path.contains('?') {
        return wrong(format!("{path:?} has a query"), "rules match only the path");
    }
    match RequestPath::parse(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(error) => {
            let advice = match error {
                PathError::Byte(byte) if byte != b'#' && !byte.is_ascii_control() => {
                    "rules have no escapes either: name a path above it"
                }
                _ => "",
            };
            wrong(format!("{path:?} can never match: {error}"), advice)
        }
    }
}

/// `None` for the default.
fn methods(section: &Section<'_>) -> Option<Vec<Method>> {
    if section.optional_texts("methods")?.is_empty() {
        let advice = "leave `methods` out for the default, or name some";
        section.error("methods", "`methods` is empty: every request would be refused", advice);
    }
    Some(section.all_parsed("methods", method))
}

fn method(text: &str) -> Result<Method, ValueError> {
    match Method::from_str(text) {
        Ok(Method::TRACE | Method::CONNECT) => wrong(format!("{text} is never forwarded"), "leave it out"),
        Ok(method) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            let upper = method.as_str().to_ascii_uppercase();
            wrong(format!("{text:?} is not a method: they are upper case"), did_you_mean(&upper))
        }
        Ok(method) => Ok(method),
        Err(_) => wrong(format!("{text:?} is not a method"), "write one such as \"GET\""),
    }
}

fn read_method(text: &str) -> Result<ReadMethod, ValueError> {
    let Some((word, prefix)) = text.split_once(' ') else {
        return Ok(ReadMethod { method: method(text)?, prefix: None });
    };
    let plain = prefix.strip_prefix('*').unwrap_or(prefix);
    let sound = prefix == "/" || (plain.starts_with('/') && !plain.ends_with('/'));
    if !sound || RequestPath::parse(plain).is_err() {
        let advice = "write \"POST /api/search\", \"POST /api/*/search\" for any one segment, or \"POST */search\" for \
                      the end of a path";
        return wrong(format!("{text:?} is not a method with a prefix"), advice);
    }
    Ok(ReadMethod { method: method(word)?, prefix: Some(prefix.to_owned()) })
}

fn authorization(section: &Section<'_>) -> Option<Authorization> {
    let text = section.text("authorization")?;
    match text.value.as_str() {
        "strip" => Some(Authorization::Strip),
        "keep" => {
            let message = "the upstream receives the client's token";
            text.warn(message, "the upstream and its operators can then use the token");
            Some(Authorization::Keep)
        }
        _ => text.ok_or_report(secret::read(&text)).map(Authorization::Replace),
    }
}

/// Reads group names, and warns about likely typos of the built-in one. The others are in the store.
fn group_names(texts: &[SpannedText<'_>]) -> Vec<String> {
    for text in texts {
        let name = &text.value;
        if name != ALL_USERS && closest(name, [ALL_USERS]).is_some() {
            let message = format!("the group {name:?} looks like the built-in {ALL_USERS:?}");
            text.warn(message, did_you_mean(ALL_USERS));
        }
    }
    texts.iter().map(|text| line(text, 200)).collect()
}

/// A trimmed text for one line of a page: without control characters, 1 to `longest` characters.
fn line(text: &SpannedText<'_>, longest: usize) -> String {
    let shown = text.value.trim();
    if shown.is_empty() || shown.chars().count() > longest || shown.chars().any(char::is_control) {
        text.error(format!("this must be one line of 1 to {longest} characters"), "");
    }
    shown.to_owned()
}

/// Warns about a rule that opens a whole prefix to more than preflights, or lets anonymous clients change
/// things.
pub(super) fn warn_of_risks(section: &Section<'_>, rule: &PublicSpec, service: &ServiceSpec) {
    let preflights = rule.methods.as_ref().is_some_and(|all| all.iter().all(|one| one == Method::OPTIONS));
    if let PublicPath::Prefix(prefix) = &rule.path
        && !preflights
        && let Some(whole) = service.paths.iter().find(|path| is_at_or_below(path, prefix))
    {
        let message =
            format!("{prefix:?} opens all of {whole:?}, a path of the service {:?}", service.key.as_str());
        let advice = "nothing below it needs a token any more: name only what is meant to be public";
        section.warn("prefix", message, advice);
    }
    let changing = rule.methods.iter().flatten().find(|method| !reads(method));
    if let Some(method) = changing {
        let message = format!("{method} needs no token");
        section.warn("methods", message, "see that the upstream expects anonymous requests");
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What every service drops in addition to the built-in list.
pub(super) fn dropped(server: &Section<'_>) -> Arc<[FieldPattern]> {
    server.all_parsed("drop_fields", pattern).into()
}

pub(super) fn field_policy(service: &Section<'_>, drop: &Arc<[FieldPattern]>) -> FieldPolicy {
    let tables = service.tables("pass_fields");
    let pass = tables.iter().filter_map(|table| pass_field(&table.text("name")?, table.word("from")?, drop));
    FieldPolicy { pass: pass.collect(), drop: Arc::clone(drop) }
}

/// Fields that cannot be dropped: without them the forwarded request would differ from the judged one.
const UNDROPPABLE: &str = "host content-length content-type transfer-encoding connection te trailer upgrade expect \
                           authorization cookie";

fn pattern(text: &str) -> Result<FieldPattern, ValueError> {
    let lower = text.to_ascii_lowercase();
    let Some(pattern) = FieldPattern::parse(&lower) else {
        let advice = "write \"X-Tenant\", or \"X-Tenant-*\" for all names that begin with it";
        return wrong(format!("{text:?} is not a field name"), advice);
    };
    match UNDROPPABLE.split(' ').find(|needed| pattern.matches(needed.as_bytes())) {
        Some(needed) => wrong(format!("{text:?} would drop {needed}, which `drop_fields` cannot drop"), ""),
        None => Ok(pattern),
    }
}

fn pass_field(name: &SpannedText<'_>, from: PassFrom, drop: &[FieldPattern]) -> Option<PassField> {
    let field = name.value.to_ascii_lowercase();
    if FieldPattern::parse(&field).is_none_or(|pattern| pattern.as_str() != field) || field.ends_with('*') {
        let message = format!("{:?} is not the name of one field", name.value);
        name.error(message, "write one such as \"X-Remote-User\": `*`, `_` and `.` are not allowed");
        return None;
    }
    let listed = drop_reason(field.as_bytes());
    let set_anew = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    if listed == Some(DropReason::Ours) || set_anew.contains(&field.as_str()) {
        name.error(format!("{:?} is never forwarded: permgate sets it", name.value), "leave it out");
        return None;
    }
    if listed.is_none() && !drop.iter().any(|pattern| pattern.matches(field.as_bytes())) {
        name.warn(
            format!("`pass_fields` has no effect on {:?}: it is not dropped by a list", name.value),
            "leave it out",
        );
    }
    if from == PassFrom::Anybody && matches!(listed, Some(DropReason::Identity | DropReason::Reroute)) {
        let message = format!("every client with a token can send {:?}", name.value);
        name.warn(message, "see that the upstream does not trust it, or write `from = \"trusted\"`");
    }
    Some(PassField { name: field.into(), from })
}

/// A service with more fields is really several services. Each field is looked up in every request.
const MAX_HEADERS: usize = 8;

pub(super) fn credentials(section: &Section<'_>) -> Carriers {
    if section.texts("credentials").is_empty() && section.is_set("credentials") {
        section.error(
            "credentials",
            "`credentials` is empty: no token would be accepted",
            "name at least \"bearer\"",
        );
    }
    let mut carriers = Carriers::NONE;
    for carrier in section.all_parsed("credentials", carrier) {
        if carriers.accepts(&carrier) {
            section.error("credentials", format!("`credentials` lists \"{carrier}\" twice"), "list it once");
        }
        carriers.insert(carrier);
    }
    if carriers.headers.len() > MAX_HEADERS {
        let message = format!("`credentials` lists more than {MAX_HEADERS} fields");
        section.error("credentials", message, "list fewer");
    }
    carriers
}

fn carrier(text: &str) -> Result<Carrier, ValueError> {
    if let Some(carrier) = Carrier::parse(text) {
        return Ok(carrier);
    }
    if let Some(name) = text.strip_prefix("header:") {
        let message = format!("the field {name:?} cannot hold a token");
        let advice = "name a field such as \"header:X-Api-Key\": letters, digits and `-`, and none that \
                      frames or routes a request, describes its sender, or has another meaning";
        return wrong(message, advice);
    }
    let known = ["bearer", "basic", "raw", "websocket", "header:NAME"];
    let advice = advice(text, known, || format!("known: {}", known.join(", ")));
    wrong(format!("{text:?} is not a way to send a token"), advice)
}

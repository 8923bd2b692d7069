//! `[service.NAME]` and `[[public]]` to the specifications that `authz` compiles.

use std::{path::Path, str::FromStr, sync::Arc};

use http::Method;

use super::{
    address::{Wrong, host},
    credentials, fields,
    problem::Problems,
    secret,
    section::{Section, Text},
    suggest::{closest, did_you_mean},
};
use crate::authz::{
    forwarding::FieldPattern,
    path::RequestPath,
    rules::{
        Allowance, Authorization, BUILT_IN_SERVICE, Identity, Origin, PublicPath, PublicSpec, ReadMethod,
        ServiceKey, ServiceSpec,
    },
};

/// domain.md, "Entities": more prefixes than this belong to several services.
const MOST_PATHS: usize = 32;
/// The group that everybody is in; the one name that the file alone can tell typos of.
const EVERYBODY: &str = "all-users";

/// The service, as far as it makes sense; what does not is reported.
pub(super) fn service(
    problems: &Problems<'_>,
    name: &Text,
    section: &Section<'_>,
    upstreams: &[&str],
    dropped: &Arc<[FieldPattern]>,
    directory: &Path,
) -> Option<ServiceSpec> {
    // Everything is looked at before anything missing ends it.
    let key = service_key(problems, name);
    let upstream = section.text("upstream");
    if let Some(upstream) = upstream.as_ref().filter(|u| !upstreams.contains(&u.get_ref().as_str())) {
        unknown_name(problems, "upstream", upstream, upstreams);
    }
    let readers = group_names(problems, &section.texts("readers"));
    if readers.is_empty() {
        let message = format!("nobody may read the service {:?}", name.get_ref());
        problems.warn(&name.span(), message, "name groups in `readers`, such as [\"all-users\"]");
    }
    let paths = paths(problems, section);
    let read_methods = collect(problems, section.texts("read_methods"), read_method);
    let methods = section.texts_if_any("methods").map(|texts| methods(problems, section, texts));
    let hosts = collect(problems, section.texts("hosts"), host);
    let identity_groups = section.texts_if_any("identity_groups").map(|texts| group_names(problems, &texts));
    let allow = section.texts("allow").iter().filter_map(|word| allowance(word.get_ref())).collect();
    let fields = fields::policy(problems, section, dropped);
    let authorization = authorization(problems, section, directory);
    let credentials = credentials::credentials(problems, section);
    let title = section.text("title").map_or_else(|| name.get_ref().clone(), |t| line(problems, &t, 200));
    let about = section.text("about").map(|t| line(problems, &t, 500)).unwrap_or_default();
    Some(ServiceSpec {
        // Without any sound path the service would only be called pathless: an echo.
        paths: Some(paths).filter(|paths| !paths.is_empty())?,
        key: key?,
        title,
        about,
        upstream: Arc::from(upstream?.get_ref().as_str()),
        hosts,
        readers,
        methods,
        read_methods,
        authorization: authorization?,
        credentials,
        registry: section.flag("registry"),
        identity: section.text("identity").map_or(Identity::None, |word| identity(word.get_ref())),
        identity_groups,
        allow,
        fields,
        max_body: section.size("max_body"),
        origin: origin(problems, section),
    })
}

/// A `[[public]]` rule.
pub(super) fn public(
    problems: &Problems<'_>,
    section: &Section<'_>,
    services: &[&str],
) -> Option<PublicSpec> {
    let service = section.text("service")?;
    if !services.contains(&service.get_ref().as_str()) {
        unknown_name(problems, "service", &service, services);
        return None;
    }
    let path = match (section.text("path"), section.text("prefix")) {
        (Some(path), None) => prefix_or_path(problems, &path, false).map(PublicPath::Exact),
        (None, Some(prefix)) => prefix_or_path(problems, &prefix, true).map(PublicPath::Prefix),
        (Some(_), Some(prefix)) => {
            problems.error(&prefix.span(), "a public rule has either `path` or `prefix`", "write two rules");
            None
        }
        (None, None) if section.is_written("path") || section.is_written("prefix") => None,
        (None, None) => {
            let advice = "add `path = \"/...\"` for one path, `prefix = \"/...\"` for all below it";
            problems.error(&section.at, "this public rule opens nothing", advice);
            None
        }
    };
    Some(PublicSpec {
        service: ServiceKey::parse(service.get_ref())?,
        methods: section.texts_if_any("methods").map(|texts| methods(problems, section, texts)),
        path: path?,
        origin: origin(problems, section),
    })
}

/// Reports a name that nothing in the file defines.
fn unknown_name(problems: &Problems<'_>, what: &str, name: &Text, known: &[&str]) {
    let advice = closest(name.get_ref(), known.iter().copied()).map_or_else(
        || format!("add a table `[{what}.{}]`, or name one of: {}", name.get_ref(), known.join(", ")),
        did_you_mean,
    );
    problems.error(&name.span(), format!("there is no {what} {:?}", name.get_ref()), advice);
}

fn service_key(problems: &Problems<'_>, name: &Text) -> Option<ServiceKey> {
    if name.get_ref() == BUILT_IN_SERVICE {
        let message = format!("the service {BUILT_IN_SERVICE:?} is built in: it is the admin listener");
        problems.error(&name.span(), message, "choose another name");
        return None;
    }
    let key = ServiceKey::parse(name.get_ref());
    if key.is_none() {
        let message = format!("{:?} cannot be a service's scope word", name.get_ref());
        let advice = "write a lower-case letter, then at most 62 lower-case letters, digits and `-`";
        problems.error(&name.span(), message, advice);
    }
    key
}

fn paths(problems: &Problems<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(written) = section.texts_if_any("paths") else {
        return Vec::new();
    };
    if !(1..=MOST_PATHS).contains(&written.len()) {
        let message = format!("`paths` has {} prefixes, not 1 to {MOST_PATHS}", written.len());
        problems.error(&section.at("paths"), message, "");
    }
    written.iter().filter_map(|path| prefix_or_path(problems, path, true)).collect()
}

/// A path that a request could have: rules for others would never match.
fn prefix_or_path(problems: &Problems<'_>, text: &Text, is_prefix: bool) -> Option<String> {
    let path = text.get_ref().as_str();
    let refuse = |message: String, advice: String| {
        problems.error(&text.span(), message, advice);
        None
    };
    if !path.starts_with('/') {
        return refuse(
            format!("{path:?} does not start with \"/\""),
            format!("write {:?}", format!("/{path}")),
        );
    }
    if is_prefix && path.len() > 1 && path.ends_with('/') {
        let bare = path.trim_end_matches('/');
        let bare = if bare.is_empty() { "/" } else { bare };
        return refuse(
            format!("{path:?} ends with \"/\""),
            format!("write {bare:?}: prefixes match whole segments"),
        );
    }
    if path.ends_with("/*") {
        let advice = "prefixes match whole segments, and everything below: leave the \"/*\" out";
        return refuse(format!("{path:?} has a wildcard"), advice.into());
    }
    if path.contains('?') {
        return refuse(format!("{path:?} has a query"), "rules match the path alone".into());
    }
    match RequestPath::parse(path) {
        Ok(_) => Some(path.to_owned()),
        Err(error) => refuse(format!("{path:?} can never match: {error}"), String::new()),
    }
}

fn methods(problems: &Problems<'_>, section: &Section<'_>, texts: Vec<Text>) -> Vec<Method> {
    if texts.is_empty() {
        let advice = "leave `methods` out for the default, or name some";
        problems.error(&section.at("methods"), "`methods` is empty: nothing would pass", advice);
    }
    collect(problems, texts, method)
}

fn method(text: &str) -> Result<Method, Wrong> {
    match Method::from_str(text) {
        Ok(Method::TRACE | Method::CONNECT) => Err((format!("{text} never passes"), "leave it out".into())),
        Ok(method) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            let upper = method.as_str().to_ascii_uppercase();
            Err((format!("{text:?} is not a method: they are upper case"), did_you_mean(&upper)))
        }
        Ok(method) => Ok(method),
        Err(_) => Err((format!("{text:?} is not a method"), "write one such as \"GET\"".into())),
    }
}

fn read_method(text: &str) -> Result<ReadMethod, Wrong> {
    let Some((word, prefix)) = text.split_once(' ') else {
        return Ok(ReadMethod { method: method(text)?, prefix: None });
    };
    let plain = prefix.strip_prefix('*').unwrap_or(prefix);
    let sound = prefix == "/" || (plain.starts_with('/') && !plain.ends_with('/'));
    if !sound || RequestPath::parse(plain).is_err() {
        let advice = "write \"POST /api/search\", \"POST /api/*/search\" for any one segment, or \"POST */search\" for \
                      the end of a path";
        return Err((format!("{text:?} is not a method with a prefix"), advice.into()));
    }
    Ok(ReadMethod { method: method(word)?, prefix: Some(prefix.to_owned()) })
}

fn authorization(problems: &Problems<'_>, section: &Section<'_>, directory: &Path) -> Option<Authorization> {
    let text = section.text("authorization")?;
    match text.get_ref().as_str() {
        "strip" => Some(Authorization::Strip),
        "keep" => {
            let message = "the upstream receives the client's bearer";
            problems.warn(&text.span(), message, "whoever runs the upstream can then act with the token");
            Some(Authorization::Keep)
        }
        _ => match secret::read(problems, &text, directory) {
            Ok(secret) => Some(Authorization::Replace(secret)),
            Err((message, advice)) => {
                problems.error(&text.span(), message, advice);
                None
            }
        },
    }
}

/// An unknown word has been reported.
fn identity(word: &str) -> Identity {
    match word {
        "headers" => Identity::Headers,
        "jwt" => Identity::Jwt,
        "both" => Identity::Both,
        _ => Identity::None,
    }
}

fn allowance(word: &str) -> Option<Allowance> {
    match word {
        "letter-case" => Some(Allowance::LetterCase),
        "empty-segments" => Some(Allowance::EmptySegments),
        "encoded-slashes" => Some(Allowance::EncodedSlashes),
        "path-parameters" => Some(Allowance::PathParameters),
        "invalid-utf8" => Some(Allowance::InvalidUtf8),
        _ => None,
    }
}

/// Group names; whether the store has them is the store's affair, but one of them is built in.
fn group_names(problems: &Problems<'_>, texts: &[Text]) -> Vec<String> {
    for text in texts {
        let name = text.get_ref();
        if name != EVERYBODY && closest(name, [EVERYBODY]).is_some() {
            let message = format!("the group {name:?} looks like the built-in {EVERYBODY:?}");
            problems.warn(&text.span(), message, did_you_mean(EVERYBODY));
        }
    }
    texts.iter().map(|text| line(problems, text, 200)).collect()
}

/// Text fit for one line of a page: no control characters, not empty, not endless.
fn line(problems: &Problems<'_>, text: &Text, longest: usize) -> String {
    let shown = text.get_ref().trim();
    if shown.is_empty() || shown.chars().count() > longest || shown.chars().any(char::is_control) {
        let message = format!("this must be one line of 1 to {longest} characters");
        problems.error(&text.span(), message, "");
    }
    shown.to_owned()
}

/// Every text as `parse` reads it; what it refuses is reported in its place.
pub(super) fn collect<T>(
    problems: &Problems<'_>,
    texts: Vec<Text>,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<T> {
    texts
        .into_iter()
        .filter_map(|text| match parse(text.get_ref()) {
            Ok(value) => Some(value),
            Err((message, advice)) => {
                problems.error(&text.span(), message, advice);
                None
            }
        })
        .collect()
}

fn origin(problems: &Problems<'_>, section: &Section<'_>) -> Origin {
    Origin { file: problems.file().clone(), line: problems.line(&section.at) }
}

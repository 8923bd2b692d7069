//! Warns about public rules that open more than a page or two. They are valid, but worth a second look.

use http::Method;

use super::section::Section;
use crate::authz::rules::{PublicPath, PublicSpec, ServiceSpec};

/// Warns about a rule that opens a whole prefix, or lets anonymous clients change things.
pub(super) fn warn_of_risks(section: &Section<'_>, rule: &PublicSpec, service: &ServiceSpec) {
    if let PublicPath::Prefix(prefix) = &rule.path
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

//! The `WWW-Authenticate` fields of a 401 if some service accepts more than `Authorization: Bearer`. They
//! depend on the host and on whether the path is a container registry's, never on the path's owner.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    authz::rules::HostCarriers,
    proxy::{builtin, context::RequestContext},
};

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"permgate\", charset=\"UTF-8\"");
/// The start of every bearer challenge.
const BEARER: &str = "Bearer realm=\"permgate\"";

/// Replaces the default challenge of a 401 by those of the request's host.
pub fn set(headers: &mut HeaderMap, status: StatusCode, context: &RequestContext) {
    if status != StatusCode::UNAUTHORIZED {
        return;
    }
    let Some(on_host) = context.rules.carriers_on(context.facts.host_name()) else { return };
    let Some(bearer) = headers.remove(header::WWW_AUTHENTICATE) else { return };
    let HostCarriers { basic, registry, .. } = *on_host;
    let in_registry = is_registry_path(context.path());
    if registry && context.path() == builtin::REGISTRY_PATH {
        headers.insert(header::WWW_AUTHENTICATE, BASIC);
        return;
    }
    let bearer = if in_registry && registry {
        registry_challenge(&bearer, context)
    } else {
        // A registry client would take this realm for a URL.
        (!basic || on_host.bearer && !in_registry).then_some(bearer)
    };
    for challenge in bearer.into_iter().chain(basic.then_some(BASIC)) {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
}

/// Whether the request is for a container registry, by its host and path.
pub fn in_registry(context: &RequestContext) -> bool {
    let on_host = context.rules.carriers_on(context.facts.host_name());
    let is_asked = is_registry_path(context.path()) || context.path() == builtin::REGISTRY_PATH;
    on_host.is_some_and(|on_host| on_host.registry) && is_asked
}

/// Whether a path is `/v2` or below, the API of container registries.
pub fn is_registry_path(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The challenge for the registry's token authentication, with the error parameters of ours. `None`: HTTP/1.0
/// without Host.
fn registry_challenge(bearer: &HeaderValue, context: &RequestContext) -> Option<HeaderValue> {
    let host = str::from_utf8(context.facts.host_field()?).ok()?;
    let scheme = if context.facts.secure { "https" } else { "http" };
    let error = bearer.to_str().ok()?.strip_prefix(BEARER)?;
    let path = builtin::REGISTRY_PATH;
    let challenge = format!("Bearer realm=\"{scheme}://{host}{path}\",service=\"{host}\"{error}");
    HeaderValue::try_from(challenge).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_paths_are_below_v2() {
        let check = |path: &str, expected: bool| assert_eq!(is_registry_path(path), expected, "{path}");
        check("/v2", true);
        check("/v2/", true);
        check("/v2/name/manifests/latest", true);
        check("/v2x", false);
        check("/api/v2", false);
        check("/V2/", false);
    }
}

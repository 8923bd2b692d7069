//! Protects browsers from being abused against the listener: checks of Host, Origin and CSRF token, and
//! security headers for every response.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};

use super::{
    ApiResult, Problem,
    error::{Rejected, rejected},
    session::Csrf,
};
use crate::authz::reason::Reason;

/// Added to every response that has not set its own.
const FIELDS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(super) fn set_security_headers(headers: &mut HeaderMap) {
    for (name, value) in FIELDS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Requires a Host that is configured, `localhost`, or an IP address. Addresses need no list: in DNS
/// rebinding the browser sends the attacker's name.
pub(super) fn check_host(headers: &HeaderMap, hosts: &[String]) -> ApiResult<()> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (name, address) = split_port(host);
    let ours =
        || name.eq_ignore_ascii_case("localhost") || hosts.iter().any(|h| h.eq_ignore_ascii_case(name));
    if address.is_some() || ours() {
        return Ok(());
    }
    let text = "The admin listener does not accept this host name. Its operator adds the name to admin.hosts, or sets \
                admin.url";
    let details = Reason::Misdirected.details(None);
    Err(Problem::new(details.status, details.error, text))
}

/// Refuses changes that a page of another origin requests.
pub(super) fn check_origin(method: &Method, headers: &HeaderMap) -> ApiResult<()> {
    if is_reading(method) {
        return Ok(());
    }
    let field = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = field(&HeaderName::from_static("sec-fetch-site"));
    let origin = field(&header::ORIGIN);
    let host = field(&header::HOST).unwrap_or_default();
    let same = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    if site.is_none_or(|site| matches!(site, "same-origin" | "none")) && origin.is_none_or(same) {
        return Ok(());
    }
    let text = "Pages of another origin may not make this request";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", text))
}

/// Whether the path works without authentication: everything but the API. Pages decide what they show.
pub(super) fn is_public(path: &str) -> bool {
    let is_api = ["/v1", "/oauth2", "/hub", "/metrics"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    !is_api
}

/// Whether the request signs in, so that the caller's previous credential is ignored.
pub(super) fn is_sign_in(method: &Method, path: &str) -> bool {
    match *method {
        Method::POST => matches!(path, "/v1/session" | "/v1/invitation" | "/v1/invitation/check"),
        Method::GET => path == super::oidc::CALLBACK,
        _ => false,
    }
}

/// Requires the CSRF token for changes by a browser's own credential: in the header `X-CSRF-Token`, or as
/// `csrf` in a form.
pub(super) fn check_csrf(csrf: &Csrf, parts: &Parts, body: &[u8]) -> Result<(), Rejected> {
    if is_reading(&parts.method) {
        return Ok(());
    }
    let mut fields = parts.headers.get_all("x-csrf-token").iter();
    let repeated = match (fields.next(), fields.next()) {
        (Some(sent), None) => csrf.matches(sent.as_bytes()),
        (Some(_), Some(_)) => false,
        (None, _) if !has_media_type(&parts.headers, FORM) => false,
        (None, _) if body.len() > MAX_FORM => return Err(rejected(Reason::BodyTooLarge)),
        (None, _) => {
            let mut sent = form_urlencoded::parse(body).filter(|(name, _)| name == "csrf");
            sent.next().is_some_and(|(_, sent)| csrf.matches(sent.as_bytes())) && sent.next().is_none()
        }
    };
    if repeated {
        return Ok(());
    }
    let text = "This page is out of date or from another site: load it again. A script repeats the `csrf` of \
                GET /v1/session as X-CSRF-Token";
    Err((Reason::BadRequest, Problem::new(StatusCode::FORBIDDEN, "csrf", text)))
}

/// The longest form in bytes: it has a token or a CSRF token, and is parsed on the control thread.
pub(super) const MAX_FORM: usize = 16 << 10;
/// The media type of an HTML form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Whether the body has this media type, whatever its parameters.
pub(super) fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    sent.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

pub(super) fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The host without its port, and the address if it is one.
pub(super) fn split_port(host: &str) -> (&str, Option<IpAddr>) {
    let after_bracket = host.rfind(']').map_or(0, |at| at + 1);
    let name = host[after_bracket..].rfind(':').map_or(host, |colon| &host[..after_bracket + colon]);
    (name, name.trim_start_matches('[').trim_end_matches(']').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn only_our_names_are_answered() {
        fn check(host: &'static str, accepted: bool) {
            let hosts = ["gate.example".to_owned()];
            assert_eq!(check_host(&headers(&[("host", host)]), &hosts).is_ok(), accepted, "{host}");
        }
        check("localhost", true);
        check("localhost:8081", true);
        check("LOCALHOST", true);
        check("127.0.0.1:8081", true);
        check("[::1]:8081", true);
        check("[::1]", true);
        check("10.0.0.7", true);
        check("gate.example:8081", true);
        check("Gate.Example", true);
        check("evil.example", false);
        check("localhost.evil.example", false);
        check("127.0.0.1.evil.example", false);
        check("gate.example.evil", false);
        check("", false);
    }

    #[test]
    fn a_change_comes_from_our_own_pages_or_from_no_page() {
        fn check(name: &str, method: &Method, fields: &[(&'static str, &'static str)], accepted: bool) {
            let mut headers = headers(fields);
            headers.insert(header::HOST, HeaderValue::from_static("localhost:8081"));
            assert_eq!(check_origin(method, &headers).is_ok(), accepted, "{name}");
        }
        let post = &Method::POST;
        check("no browser", post, &[], true);
        check(
            "own page",
            post,
            &[("origin", "http://localhost:8081"), ("sec-fetch-site", "same-origin")],
            true,
        );
        check("address bar", post, &[("sec-fetch-site", "none")], true);
        check("another port", post, &[("origin", "http://localhost:9000")], false);
        check("another page", post, &[("origin", "https://evil.example")], false);
        check("no origin to tell", post, &[("origin", "null")], false);
        check("another site", post, &[("sec-fetch-site", "cross-site")], false);
        check("another site of ours", &Method::DELETE, &[("sec-fetch-site", "same-site")], false);
        check("a read is harmless", &Method::GET, &[("sec-fetch-site", "cross-site")], true);
    }
}

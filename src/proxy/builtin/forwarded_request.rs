//! Reads the original request from a forward-auth request. Only the configured proxy's fields are read;
//! another proxy's fields in the same request come from its client, so the request is refused.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};

use crate::{
    authz::{forwarding, host::Authority, reason::Reason},
    proxy::facts::{HostCache, HostName},
    settings::FrontProxy,
};

/// The original request, which is decided instead of the one that carries it.
#[derive(Debug)]
pub struct ForwardedRequest {
    pub method: Method,
    pub target: Uri,
    /// `None`: HTTP/1.0 without Host.
    pub host: Option<Rc<HostName>>,
    /// The Host of the forward-auth request, if the original request has a different one.
    pub proxy_host: Option<Rc<HostName>>,
    pub upgrade: bool,
}

/// Path of the forward-auth route. Envoy appends the original target.
pub const PATH: &str = "/.permgate/auth";

const METHOD: &str = "x-original-method";
const URI: &str = "x-original-uri";
const URL: &str = "x-original-url";
/// Set by a proxy that removes Upgrade from the forward-auth request.
const UPGRADE: &str = "x-original-upgrade";
const FORWARDED_METHOD: &str = "x-forwarded-method";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_URI: &str = "x-forwarded-uri";

impl FrontProxy {
    /// Reads the original request. A missing, repeated or contradictory statement is `OriginalUnclear`.
    pub fn forwarded_request<B>(self, request: &Request<B>) -> Result<ForwardedRequest, Reason> {
        let headers = request.headers();
        if forwarding::has_spoofing_field(headers, self.overwritten_fields()) {
            return Err(Reason::OriginalUnclear);
        }
        let (method, target, host, proxy_host) = match self {
            FrontProxy::Nginx => from_original_fields(request)?,
            FrontProxy::Traefik | FrontProxy::Caddy => {
                let host = Some(Rc::new(HostName::parse(exactly_one(headers, FORWARDED_HOST)?)?));
                let method = method(exactly_one(headers, FORWARDED_METHOD)?)?;
                (method, text(exactly_one(headers, FORWARDED_URI)?)?, host, None)
            }
            FrontProxy::Envoy => {
                let target = request.uri().path_and_query().map_or("", |target| target.as_str());
                let target = target.strip_prefix(PATH).ok_or(Reason::OriginalUnclear)?;
                (request.method().clone(), target, HostCache::default().of(headers)?, None)
            }
        };
        // Checked, not ignored: the proxy forwards the field to its upstream.
        if at_most_one(headers, FORWARDED_HOST)?.is_some_and(|host| Authority::parse(host).is_none()) {
            return Err(Reason::OriginalUnclear);
        }
        let named = at_most_one(headers, UPGRADE)?.is_some_and(|value| !value.is_empty());
        let upgrade = named || headers.contains_key(header::UPGRADE);
        Ok(ForwardedRequest { method, target: parse(target)?, host, proxy_host, upgrade })
    }

    /// The fields that this proxy always overwrites.
    fn overwritten_fields(self) -> &'static [&'static str] {
        match self {
            FrontProxy::Nginx => &[METHOD, URI, URL, UPGRADE],
            FrontProxy::Traefik | FrontProxy::Caddy => &[FORWARDED_METHOD, FORWARDED_URI, UPGRADE],
            FrontProxy::Envoy => &[UPGRADE],
        }
    }
}

/// Method, target, host, and the forward-auth request's Host if it differs.
type OriginalRequest<'r> = (Method, &'r str, Option<Rc<HostName>>, Option<Rc<HostName>>);

/// Reads the target from `x-original-uri` (with Host), from `x-original-url`, or from both if they agree.
/// With a URL alone, Host may be the gateway's own.
fn from_original_fields<B>(request: &Request<B>) -> Result<OriginalRequest<'_>, Reason> {
    let headers = request.headers();
    let asked = HostCache::default().of(headers)?;
    let method = method(exactly_one(headers, METHOD)?)?;
    let target = at_most_one(headers, URI)?.map(text).transpose()?;
    let Some(url) = at_most_one(headers, URL)?.map(text).transpose()? else {
        return Ok((method, target.ok_or(Reason::OriginalUnclear)?, asked, None));
    };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or(Reason::OriginalUnclear)?;
    let (host, at) = rest.split_at(rest.find('/').ok_or(Reason::OriginalUnclear)?);
    let host = Rc::new(HostName::parse(host.as_bytes())?);
    let other = asked.filter(|asked| asked.as_str() != host.as_str());
    if target.is_some_and(|target| target != at || other.is_some()) {
        return Err(Reason::OriginalUnclear);
    }
    Ok((method, at, Some(host), other))
}

/// The value of a field that occurs at most once.
fn at_most_one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>, Reason> {
    let value = forwarding::at_most_one(headers, name).map_err(|_| Reason::OriginalUnclear)?;
    Ok(value.map(HeaderValue::as_bytes))
}

fn exactly_one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h [u8], Reason> {
    at_most_one(headers, name)?.ok_or(Reason::OriginalUnclear)
}

fn method(value: &[u8]) -> Result<Method, Reason> {
    Method::from_bytes(value).map_err(|_| Reason::OriginalUnclear)
}

fn text(value: &[u8]) -> Result<&str, Reason> {
    str::from_utf8(value).ok().filter(|text| text.is_ascii()).ok_or(Reason::BadPath)
}

/// Parses the exact bytes. A parser that drops something, such as a fragment, has read
/// another target, so that is an error.
fn parse(target: &str) -> Result<Uri, Reason> {
    let parsed = PathAndQuery::try_from(target).ok().filter(|parsed| parsed.as_str() == target);
    parsed.filter(|_| target.starts_with('/')).map(Uri::from).ok_or(Reason::BadPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, host and target, or the error.
    fn read(
        proxy: FrontProxy,
        line: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<(String, String, String), Reason> {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let original = proxy.forwarded_request(&request.body(()).unwrap())?;
        let host = original.host.map_or_else(String::new, |host| host.as_str().to_owned());
        Ok((original.method.to_string(), host, original.target.to_string()))
    }

    fn check(
        row: &str,
        proxy: FrontProxy,
        fields: &[(&'static str, &str)],
        expected: Result<(&str, &str, &str), Reason>,
    ) {
        let found = read(proxy, "GET /.permgate/auth", fields);
        let expected = expected.map(|(m, h, t)| (m.to_owned(), h.to_owned(), t.to_owned()));
        assert_eq!(found, expected, "{row}");
    }

    const UNCLEAR: Result<(&str, &str, &str), Reason> = Err(Reason::OriginalUnclear);

    #[test]
    fn nginx_uses_x_original_fields() {
        let check = |row: &str, more: &[(&'static str, &str)], expected| {
            let host = [("host", "A.example:80")];
            check(row, FrontProxy::Nginx, &[&host, more].concat(), expected);
        };
        let (method, uri) = (("x-original-method", "PUT"), ("x-original-uri", "/api/x?q=%20"));
        let url = ("x-original-url", "https://b.example/api/x?q=%20");
        check("method and target", &[method, uri], Ok(("PUT", "a.example", "/api/x?q=%20")));
        check("a url names the host", &[method, url], Ok(("PUT", "b.example", "/api/x?q=%20")));
        let same = ("x-original-url", "https://a.example/api/x?q=%20");
        check("both, the same", &[method, uri, same], Ok(("PUT", "a.example", "/api/x?q=%20")));
        check("both, another host", &[method, uri, url], UNCLEAR);
        check("both, another", &[method, ("x-original-uri", "/api/y"), url], UNCLEAR);
        check("no method", &[uri], UNCLEAR);
        check("no target", &[method], UNCLEAR);
        check("nothing", &[], UNCLEAR);
        check("two methods", &[method, method, uri], UNCLEAR);
        check("two targets", &[method, uri, uri], UNCLEAR);
        check("no method's name", &[("x-original-method", "P T"), uri], UNCLEAR);
        check("a url of no host", &[method, ("x-original-url", "https:///x")], Err(Reason::BadRequest));
        check("a url without a path", &[method, ("x-original-url", "https://b")], UNCLEAR);
        check("a url with a user", &[method, ("x-original-url", "https://u@b/")], Err(Reason::BadRequest));
        check("another scheme", &[method, ("x-original-url", "ftp://b/")], UNCLEAR);
        for target in ["", "api", "*", "http://b/api", "/api#/x", "/a b", "/a?b#", "?x"] {
            check(target, &[method, ("x-original-uri", target)], Err(Reason::BadPath));
        }
        for other in ["x-forwarded-uri", "x-forwarded-method"] {
            check(other, &[method, uri, (other, "/api/x")], UNCLEAR);
        }
        for host in ["b, a", "b,a", "b:99999", "u@b", ""] {
            check(host, &[method, uri, ("x-forwarded-host", host)], UNCLEAR);
        }
    }

    #[test]
    fn traefik_and_caddy_use_x_forwarded_fields() {
        let check = |row: &str, fields: &[(&'static str, &str)], expected| {
            for proxy in [FrontProxy::Traefik, FrontProxy::Caddy] {
                check(row, proxy, fields, expected);
            }
        };
        let method = ("x-forwarded-method", "POST");
        let (host, uri) = (("x-forwarded-host", "A.example:80"), ("x-forwarded-uri", "/api/x"));
        check("all", &[method, host, uri, ("host", "b")], Ok(("POST", "a.example", "/api/x")));
        check("no method", &[host, uri], UNCLEAR);
        check("no host", &[method, uri, ("host", "b")], UNCLEAR);
        check("no target", &[method, host], UNCLEAR);
        check("two hosts", &[method, host, host, uri], UNCLEAR);
        check("a list of hosts", &[method, ("x-forwarded-host", "a, b"), uri], Err(Reason::BadRequest));
        check("two targets", &[method, host, uri, uri], UNCLEAR);
        for other in ["x-original-uri", "x-original-url", "x-original-method"] {
            check(other, &[method, host, uri, (other, "/api/x")], UNCLEAR);
        }
    }

    #[test]
    fn envoy_sends_the_original_request() {
        let check = |line: &str, more: &[(&'static str, &str)], expected: Result<(&str, &str), Reason>| {
            let found = read(FrontProxy::Envoy, line, &[&[("host", "a.example")], more].concat());
            let expected = expected.map(|(m, t)| (m.to_owned(), "a.example".to_owned(), t.to_owned()));
            assert_eq!(found, expected, "{line}");
        };
        check("PUT /.permgate/auth/api/x?y", &[], Ok(("PUT", "/api/x?y")));
        check("GET /.permgate/auth/", &[], Ok(("GET", "/")));
        check("GET /.permgate/auth//x", &[], Ok(("GET", "//x")));
        check("GET /.permgate/auth", &[], Err(Reason::BadPath));
        for other in ["x-original-uri", "x-forwarded-uri", "x-original-method", "x-forwarded-method"] {
            check("GET /.permgate/auth/api", &[(other, "/x")], Err(Reason::OriginalUnclear));
        }
    }

    #[test]
    fn fields_that_forwarding_would_drop_are_refused() {
        let sound = [
            ("host", "a.example"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-uri", "/api"),
        ];
        let check = |name: &'static str, misleads: bool| {
            let fields = [&sound[..], &[(name, "1")]].concat();
            let found = read(FrontProxy::Traefik, "GET /.permgate/auth", &fields);
            assert_eq!(found.is_err(), misleads, "{name}");
        };
        for name in [
            "x-permgate-user",
            "x_permgate_user",
            "x.permgate.groups",
            "x-rewrite-url",
            "x-forwarded-prefix",
            "x-forwarded-user",
            "x_forwarded_for",
            "x_forwarded_uri",
            "x_original_uri",
            "x_original_upgrade",
        ] {
            check(name, true);
        }
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-server",
            "x-real-ip",
            "x-request-id",
            "accept",
        ] {
            check(name, false);
        }
    }

    #[test]
    fn upgrade_is_detected_in_every_form() {
        let check = |fields: &[(&'static str, &str)], expected: bool| {
            let mut request = http::Request::builder().uri("/.permgate/auth/api").header("host", "a");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let original = FrontProxy::Envoy.forwarded_request(&request.body(()).unwrap());
            assert_eq!(original.unwrap().upgrade, expected, "{fields:?}");
        };
        check(&[], false);
        check(&[("x-original-upgrade", "")], false);
        check(&[("x-original-upgrade", "websocket")], true);
        check(&[("upgrade", "websocket")], true);
    }
}

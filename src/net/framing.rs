//! Checks what hyper and h2 leave open about a request's head: sizes, the host, and where the body ends. The
//! same for HTTP/1 and HTTP/2, and only here, so that no later part reads the message differently.
//! Also [`RequestError`], why a request is refused before a service gets it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING},
    request::Parts,
};

use super::{Connection, Limits};
use crate::authz::{
    forwarding::{at_most_one, has_framing_alias},
    host::Authority,
    reason::{ErrorDetails, Reason},
};

/// Checks a head and normalizes it: a target without a host, one Host, one Cookie.
pub(super) fn check(parts: &mut Parts, limits: &Limits, connection: &Connection) -> Result<(), RequestError> {
    join_cookies(&mut parts.headers);
    check_sizes(parts, limits)?;
    check_body(&mut parts.headers)?;
    host(parts)?;
    if connection.is_withdrawn() {
        return Err(RequestError::Misdirected);
    }
    if let Some(host) = parts.headers.get(HOST)
        // A trusted proxy may use one connection for all of its hosts.
        && !connection.peer.is_trusted(&limits.trusted_proxies)
        && connection.is_misdirected(host.as_bytes())
    {
        return Err(RequestError::Misdirected);
    }
    if parts.method != Method::CONNECT
        && let Some(target) = parts.uri.path_and_query()
        && parts.uri.authority().is_some()
    {
        // RFC 9112, 3.2.1: an empty path is sent as `/`.
        let target = match target.as_str() {
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        };
        parts.uri = Uri::try_from(target).map_err(|_| MALFORMED_TARGET)?;
    }
    Ok(())
}

const MALFORMED_TARGET: RequestError = RequestError::BadRequest("the request target is malformed");

/// Joins the Cookie fields, which HTTP/2 clients split for better compression (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Joining valid values gives a valid one.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// In bytes; longer than any registered method.
const MAX_METHOD: usize = 32;

/// Bytes that `Name: value` has besides name and value: in the field, and in its line with CR LF.
const FIELD_OVERHEAD: usize = 2;
const LINE_OVERHEAD: usize = 4;

fn check_sizes(parts: &Parts, limits: &Limits) -> Result<(), RequestError> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    if target > limits.target {
        return Err(RequestError::TargetTooLong);
    }
    // A token that was sent as the method by mistake must not reach the log.
    if parts.method.as_str().len() > MAX_METHOD {
        return Err(RequestError::BadRequest("the method is too long"));
    }
    let (mut head, mut largest) = (parts.method.as_str().len() + target + authority, 0);
    for (name, value) in &parts.headers {
        let text = name.as_str().len() + value.len();
        head += text + LINE_OVERHEAD;
        largest = largest.max(text + FIELD_OVERHEAD);
    }
    if head > limits.head || largest > limits.field || parts.headers.len() > limits.fields {
        return Err(RequestError::HeadTooLarge);
    }
    Ok(())
}

/// Rejects a head that leaves open where the body ends, and normalizes Content-Length.
fn check_body(headers: &mut HeaderMap) -> Result<(), RequestError> {
    if let Some(coding) =
        single_value(headers, &TRANSFER_ENCODING, "Transfer-Encoding was sent more than once")?
        && !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Err(RequestError::BadRequest("Transfer-Encoding is not \"chunked\""));
    }
    if let Some(length) = single_value(headers, &CONTENT_LENGTH, "Content-Length was sent more than once")? {
        let digits = length.to_str().ok().filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(value) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
            return Err(RequestError::BadRequest("Content-Length is malformed"));
        };
        if length.len() > 1 && length.as_bytes()[0] == b'0' {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(value));
        }
    }
    if has_framing_alias(headers) {
        return Err(RequestError::BadRequest(
            "servers may read a field as Content-Length or Transfer-Encoding",
        ));
    }
    Ok(())
}

fn single_value<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    several: &'static str,
) -> Result<Option<&'h HeaderValue>, RequestError> {
    at_most_one(headers, name).map_err(|_| RequestError::BadRequest(several))
}

/// Requires one valid Host that agrees with the target's authority. Over HTTP/2, sets a missing Host from it.
fn host(parts: &mut Parts) -> Result<(), RequestError> {
    let host = single_value(&parts.headers, &HOST, "Host was sent more than once")?;
    let parse = |text, malformed| Authority::parse(text).ok_or(RequestError::BadRequest(malformed));
    let named = host.map(|host| parse(host.as_bytes(), "Host is malformed")).transpose()?;
    let http2 = parts.version == Version::HTTP_2;
    let authority = match (&parts.method, parts.uri.path()) {
        // RFC 9112, 3.2.3 and 3.2.4.
        (&Method::CONNECT, _) | (&Method::OPTIONS, "*") => parts.uri.authority(),
        (_, path) if parts.uri.authority().is_none() => {
            if !path.starts_with('/') {
                return Err(MALFORMED_TARGET);
            }
            None
        }
        _ => match parts.uri.scheme_str() {
            Some("http" | "https") => parts.uri.authority(),
            // A relative path, or `host:port` without CONNECT.
            _ => return Err(MALFORMED_TARGET),
        },
    };
    let Some(authority) = authority.map(http::uri::Authority::as_str) else {
        let optional = parts.version == Version::HTTP_10;
        return if named.is_some() || optional {
            Ok(())
        } else {
            Err(RequestError::BadRequest("Host is missing"))
        };
    };
    let target = parse(authority.as_bytes(), "the host of the target is malformed")?;
    // The scheme's default port applies if none is written (RFC 9110, 4.2.3).
    let port = if parts.uri.scheme_str() == Some("https") { 443 } else { 80 };
    match named {
        Some(named) if named.is_same(&target, port) => Ok(()),
        Some(_) => Err(RequestError::BadRequest("the target and Host name different hosts")),
        None if http2 => {
            let host = HeaderValue::from_str(authority).map_err(|_| MALFORMED_TARGET)?;
            parts.headers.insert(HOST, host);
            Ok(())
        }
        None => Err(RequestError::BadRequest("the target names a host, but Host is missing")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// 400; the text ends "The request is malformed: …".
    BadRequest(&'static str),
    /// 501: an extended CONNECT (RFC 8441) for another protocol than WebSocket.
    UnknownProtocol,
    /// 408: the head did not arrive in time.
    HeadTimeout,
    /// 414.
    TargetTooLong,
    /// 421: the connection's certificate is not valid for the host.
    Misdirected,
    /// 431: the head, one field or the number of fields is too large.
    HeadTooLarge,
    /// 503: the process has no room for another HTTP/2 stream.
    OverBudget,
}

impl RequestError {
    pub fn status(self) -> StatusCode {
        Reason::from(self).status()
    }

    /// The response. That to a malformed request says what is malformed.
    pub fn details(self) -> ErrorDetails {
        let mut details = Reason::from(self).details(None);
        if let Self::BadRequest(what) = self {
            details.description = format!("{}: {what}", details.description);
        }
        details
    }
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::BadRequest(_) => Self::BadRequest,
            RequestError::UnknownProtocol => Self::UnknownProtocol,
            RequestError::HeadTimeout => Self::RequestTimeout,
            RequestError::TargetTooLong => Self::TargetTooLong,
            RequestError::Misdirected => Self::Misdirected,
            RequestError::HeadTooLarge => Self::HeadTooLarge,
            RequestError::OverBudget => Self::OverBudget,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::net::Peer;

    /// Checks a head. `expected`: the normalized target with its fields, or a status.
    fn check_as(
        row: &str,
        version: Version,
        target: &str,
        fields: &[(&str, String)],
        expected: Result<&str, u16>,
    ) {
        let mut request = http::Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let connection = Connection::detached(Peer::Inet((Ipv4Addr::LOCALHOST, 1).into()));
        let judged = check(&mut parts, &Limits::default(), &connection);
        let status = judged.map(|()| {
            let fields: Vec<_> = parts
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
                .collect();
            format!("{} {}", parts.uri, fields.join(", "))
        });
        let status = status.as_deref().map_err(|error| error.status().as_u16());
        assert_eq!(status, expected, "{row}");
    }

    fn field(name: &'static str, value: &str) -> (&'static str, String) {
        (name, value.to_owned())
    }

    #[test]
    fn http2_heads_are_normalized_to_http1_form() {
        let check = |row: &str, target: &str, fields: &[(&str, String)], expected| {
            check_as(row, Version::HTTP_2, target, fields, expected);
        };
        check("an authority", "https://g.example/x?y=1", &[], Ok("/x?y=1 host: g.example"));
        check("Host alone", "/x", &[field("host", "g:80")], Ok("/x host: g:80"));
        check("both", "http://g/x", &[field("host", "G")], Ok("/x host: G"));
        check("a port of http", "http://g:80/", &[field("host", "g")], Ok("/ host: g"));
        check("and the reverse", "http://g/", &[field("host", "g:80")], Ok("/ host: g:80"));
        check("a port of https", "https://g:443/", &[field("host", "g")], Ok("/ host: g"));
        check("an empty port", "https://g/", &[field("host", "g:")], Ok("/ host: g:"));
        check("IPv6", "http://[::1]:80/", &[field("host", "[::1]")], Ok("/ host: [::1]"));
        check("the port of the other scheme", "http://g:443/", &[field("host", "g")], Err(400));
        check("and mirrored", "https://g/", &[field("host", "g:80")], Err(400));
        check("another port", "http://g:8080/", &[field("host", "g")], Err(400));
        check("another name", "http://g/", &[field("host", "h:80")], Err(400));
        check("two Hosts", "http://g/", &[field("host", "g"), field("host", "g")], Err(400));
        check("a user", "http://u@g/", &[], Err(400));
        check("neither", "/x", &[], Err(400));
        let crumbs = [field("host", "g"), field("cookie", "a=1"), field("cookie", "b=2; c=3")];
        check("crumbs", "/", &crumbs, Ok("/ host: g, cookie: a=1; b=2; c=3"));
        let lengths = |one: &str, other: &str| {
            [field("host", "g"), field("content-length", one), field("content-length", other)]
        };
        check("two lengths", "/", &lengths("1", "2"), Err(400));
        check("a malformed one", "/", &[field("host", "g"), field("content-length", "+1")], Err(400));
    }

    #[test]
    fn head_size_limits_are_enforced() {
        let check = |row: &str, target: &str, fields: &[(&str, String)], expected| {
            check_as(row, Version::HTTP_2, target, fields, expected);
        };
        let long = |name, length: usize| [field("host", "g"), (name, "x".repeat(length))];
        let longest = "x".repeat((16 << 10) - 5);
        let kept = format!("/ host: g, x-a: {longest}");
        check("a field as long as may be", "/", &long("x-a", longest.len()), Ok(&kept));
        check("a longer one", "/", &long("x-a", longest.len() + 1), Err(431));
        let crumbs: Vec<_> = (0..9).map(|_| ("cookie", "x".repeat(2 << 10))).collect();
        check("crumbs that are too long together", "http://g/", &crumbs, Err(431));
        let many: Vec<_> = (0..201).map(|_| field("x-a", "1")).collect();
        check("too many fields", "http://g/", &many, Err(431));
        let large: Vec<_> = (0..5).map(|_| ("x-a", "x".repeat(8 << 10))).collect();
        check("a head that is too large", "http://g/", &large, Err(431));
        check("a target that is too long", &format!("http://g/{}", "x".repeat(16 << 10)), &[], Err(414));
    }

    #[test]
    fn http1_request_needs_one_host_and_one_body_length() {
        let check = |row: &str, target: &str, fields: &[(&str, String)], expected| {
            check_as(row, Version::HTTP_11, target, fields, expected);
        };
        let coded = |name, value: &str| [field("host", "g"), field(name, value)];
        check(
            "chunked",
            "/",
            &coded("transfer-encoding", "Chunked"),
            Ok("/ host: g, transfer-encoding: Chunked"),
        );
        check("gzip, chunked", "/", &coded("transfer-encoding", "gzip, chunked"), Err(400));
        check("transfer_encoding", "/", &coded("transfer_encoding", "chunked"), Err(400));
        check("content.length", "/", &coded("content.length", "1"), Err(400));
        let length = |value: &str| coded("content-length", value);
        check("a length", "/", &length("10"), Ok("/ host: g, content-length: 10"));
        check("a length with zeros", "/", &length("0010"), Ok("/ host: g, content-length: 10"));
        check("nothing", "/", &length("0"), Ok("/ host: g, content-length: 0"));
        for malformed in ["", "+1", "1 ", "1, 1", "0x1", "18446744073709551616"] {
            check(malformed, "/", &length(malformed), Err(400));
        }
        check("content_type", "/", &coded("content_type", "a"), Ok("/ host: g, content_type: a"));
        check("absolute", "http://g:80?x", &[field("host", "g")], Ok("/?x host: g"));
        check("another scheme", "ftp://g/", &[field("host", "g")], Err(400));
        check("a relative path", "a", &[field("host", "g")], Err(400));
        check("no Host", "/", &[], Err(400));
        check("only in the target", "http://g/", &[], Err(400));
        check("two, the same", "/", &[field("host", "g"), field("host", "g")], Err(400));
        let two = [field("host", "g"), field("host", "h")];
        check_as("two in HTTP/1.0", Version::HTTP_10, "/", &two, Err(400));
        check_as("no Host in HTTP/1.0", Version::HTTP_10, "/", &[], Ok("/ "));
        for host in [
            "", ":80", "a..", "a..b", "a/b", "u@a", "a, b", "a:8o", "a:99999", "[::1", "[::1]a", "a%2f",
            "a:80:80",
        ] {
            check(host, "/", &[field("host", host)], Err(400));
        }
    }
}

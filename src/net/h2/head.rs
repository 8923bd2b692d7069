//! Heads between HTTP/2 and what handlers know. A request's is within the limits, has one Host that
//! agrees with `:authority`, and one Cookie; it is gone through twice and kept in no map.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request};

use crate::{
    message::{Fields, Request, RequestHead, Target, length_of},
    net::{Clock, Limits, Refusal},
};

/// A request as handlers know it, and what its fields say about its body.
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) length: Option<u64>,
    /// The client waits for leave to send the body.
    pub(super) expects: bool,
}

/// What a field costs in an HTTP/1 head beside its name and value.
const SEPARATORS: usize = 4;

/// What a field costs in HTTP/2's count beside its name and value.
const OVERHEAD: usize = 32;

/// The largest field section that h2 may take in: what measures `head` in HTTP/1, measured its way.
pub(super) fn largest(limits: &Limits) -> u32 {
    u32::try_from(limits.head + limits.fields * (OVERHEAD - SEPARATORS)).unwrap_or(u32::MAX)
}

pub(super) fn take(parts: request::Parts, limits: &Limits) -> Result<Head, Refusal> {
    let survey = Survey::of(&parts.headers);
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
    let line = parts.method.as_str().len() + target + authority.len();
    if line + survey.text > limits.head || survey.largest > limits.field || survey.fields > limits.fields {
        return Err(Refusal::HeadTooLarge);
    }
    let host = survey.host(authority)?;
    let mut fields =
        Fields::with_room(survey.fields + 1, survey.text + authority.len() + HOST.len() + SEPARATORS);
    let mut cookie = (survey.crumbs > 1).then(|| joined(&parts.headers));
    for (name, value) in &parts.headers {
        if survey.crumbs > 1 && *name == header::COOKIE {
            // All of them where the first one stands.
            cookie.take().iter().for_each(|cookie| fields.append(COOKIE.as_bytes(), cookie));
        } else {
            fields.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(host) = host {
        fields.append(HOST.as_bytes(), host.as_bytes());
    }
    // The scheme says nothing that the connection does not say, and Host has the authority now.
    let target = Target::from(&parts.uri);
    let head = RequestHead { method: parts.method, target, version: parts.version, fields };
    Ok(Head { request: Request::from_parts(head, ()), length: survey.length, expects: survey.expects })
}

const HOST: &str = "host";
const COOKIE: &str = "cookie";

/// What one look at a request's fields tells.
#[derive(Default)]
struct Survey<'a> {
    /// Cookies count as the one that they become.
    fields: usize,
    text: usize,
    largest: usize,
    crumbs: usize,
    host: Option<&'a HeaderValue>,
    hosts: usize,
    length: Option<u64>,
    expects: bool,
}

impl<'a> Survey<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut survey = Self::default();
        let mut cookie = 0;
        for (name, value) in headers {
            match *name {
                header::COOKIE => {
                    survey.crumbs += 1;
                    cookie += value.len() + CRUMBS_BETWEEN.len();
                    continue;
                }
                header::HOST => {
                    survey.hosts += 1;
                    survey.host = survey.host.or(Some(value));
                }
                header::CONTENT_LENGTH => survey.length = survey.length.or(length_of(value.as_bytes())),
                header::EXPECT => survey.expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
            survey.count(name, value.len());
        }
        if survey.crumbs > 0 {
            survey.count(&header::COOKIE, cookie - CRUMBS_BETWEEN.len());
        }
        survey
    }

    fn count(&mut self, name: &HeaderName, value: usize) {
        let field = name.as_str().len() + value + SEPARATORS;
        self.fields += 1;
        self.text += field;
        self.largest = self.largest.max(field);
    }

    /// The Host that handlers look for, where none was sent.
    fn host<'t>(&self, authority: &'t str) -> Result<Option<&'t str>, Refusal> {
        match (self.host, authority) {
            _ if self.hosts > 1 => Err(Refusal::BadRequest("more than one Host")),
            (None, "") => Err(Refusal::BadRequest("no authority and no Host")),
            (None, authority) => Ok(Some(authority)),
            (Some(_), "") => Ok(None),
            (Some(host), authority) if host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => Ok(None),
            (Some(_), _) => Err(Refusal::BadRequest("the authority and Host disagree")),
        }
    }
}

const CRUMBS_BETWEEN: &[u8] = b"; ";

/// RFC 9113, 8.2.3: clients split the field so that its parts compress better.
fn joined(headers: &HeaderMap) -> Vec<u8> {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    crumbs.join(CRUMBS_BETWEEN)
}

/// An answer's head. `length`: of a body that it must tell, should its fields not do so.
pub(super) fn answer(
    status: StatusCode,
    fields: &Fields,
    length: Option<u64>,
    clock: &Clock,
) -> http::Response<()> {
    let mut headers = HeaderMap::with_capacity(MORE + fields.len());
    let (mut dated, mut measured) = (false, false);
    for (name, value) in fields.iter().filter(|(name, _)| !is_hop(name)) {
        // Both were read or set as what they are.
        let (Some(name), Ok(mut value)) = (field_name(name), HeaderValue::from_bytes(value)) else {
            continue;
        };
        match name {
            header::DATE => dated = true,
            header::CONTENT_LENGTH => measured = true,
            // No two answers have the same: in the table of fields it would only push others out.
            _ => value.set_sensitive(name == REQUEST_ID),
        }
        headers.append(name, value);
    }
    if let Some(length) = length.filter(|_| !measured) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !dated {
        headers.insert(header::DATE, clock.http_date());
    }
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = headers;
    head
}

/// What nearly every answer has is known by its bytes; to have any other name read costs five times
/// as much.
fn field_name(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"cache-control" => header::CACHE_CONTROL,
        b"content-encoding" => header::CONTENT_ENCODING,
        b"content-length" => header::CONTENT_LENGTH,
        b"content-type" => header::CONTENT_TYPE,
        b"date" => header::DATE,
        b"etag" => header::ETAG,
        b"last-modified" => header::LAST_MODIFIED,
        b"server" => header::SERVER,
        b"set-cookie" => header::SET_COOKIE,
        b"vary" => header::VARY,
        _ if name == REQUEST_ID.as_bytes() => HeaderName::from_static(REQUEST_ID),
        _ => HeaderName::from_bytes(name).ok()?,
    })
}

/// Fields that may have to be made.
const MORE: usize = 2;

const REQUEST_ID: &str = "x-request-id";

/// What speaks of an HTTP/1 connection has no place on a stream. The name is in lower case.
pub(super) fn is_hop(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive" | b"proxy-connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the head: the fields as they then are, or the refusal's status.
    fn check(row: &str, target: &str, fields: &[(&'static str, String)], expected: Result<&str, u16>) {
        let mut request = http::Request::new(());
        *request.uri_mut() = target.parse().expect("a target");
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        let judged = take(request.into_parts().0, &Limits::default()).map(|Head { request, .. }| {
            let text = |bytes| str::from_utf8(bytes).expect("ASCII");
            let fields = request.fields.iter();
            let told: Vec<_> =
                fields.map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
            format!("{} {}", request.target.as_str(), told.join(", "))
        });
        let judged = judged.map_err(|refusal| refusal.status().as_u16());
        assert_eq!(judged.as_deref().map_err(|status| *status), expected, "{row}");
    }

    #[test]
    fn a_head_becomes_what_handlers_know_or_is_refused() {
        let field = |name: &'static str, value: &str| (name, value.to_owned());
        let at = "http://gate:81/x?y";
        check("an authority", at, &[], Ok("/x?y host: gate:81"));
        check("both, the same", at, &[field("host", "Gate:81")], Ok("/x?y host: Gate:81"));
        check("both, differing", at, &[field("host", "gate")], Err(400));
        check("two hosts", at, &[field("host", "gate:81"), field("host", "gate:81")], Err(400));
        check("Host alone", "/x", &[field("host", "gate")], Ok("/x host: gate"));
        check("neither", "/x", &[], Err(400));
        let crumbs = [field("host", "g"), field("cookie", "a=1"), field("cookie", "b=2; c=3")];
        check("crumbs", "/", &crumbs, Ok("/ host: g, cookie: a=1; b=2; c=3"));
        let long = |name, length: usize| [field("host", "g"), (name, "x".repeat(length))];
        let longest = "x".repeat((16 << 10) - 7);
        let kept = format!("/ host: g, x-a: {longest}");
        check("a field as long as may be", "/", &long("x-a", longest.len()), Ok(&kept));
        check("a longer one", "/", &long("x-a", (16 << 10) - 6), Err(431));
        let crumbs: Vec<_> = (0..9).map(|_| ("cookie", "x".repeat(2 << 10))).collect();
        check("crumbs that are too long together", "http://g/", &crumbs, Err(431));
        let many: Vec<_> = (0..101).map(|_| field("x-a", "1")).collect();
        check("too many fields", "http://g/", &many, Err(431));
        let large: Vec<_> = (0..5).map(|_| ("x-a", "x".repeat(8 << 10))).collect();
        check("a head that is too large", "http://g/", &large, Err(431));
        check("a target that is too long", &format!("http://g/{}", "x".repeat(16 << 10)), &[], Err(414));
    }
}

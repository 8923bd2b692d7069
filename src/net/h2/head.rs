//! A request's head as HTTP/2 brings it, made what handlers know: within the limits, one Host that
//! agrees with `:authority`, one Cookie.

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use crate::net::{Limits, Refusal};

/// What a field costs in an HTTP/1 head beside its name and value.
const SEPARATORS: usize = 4;

/// What a field costs in HTTP/2's count beside its name and value.
const OVERHEAD: usize = 32;

/// The largest field section that h2 may take in: what measures `head` in HTTP/1, measured its way.
pub(super) fn largest(limits: &Limits) -> u32 {
    u32::try_from(limits.head + limits.fields * (OVERHEAD - SEPARATORS)).unwrap_or(u32::MAX)
}

pub(super) fn judge<B>(request: &mut Request<B>, limits: &Limits) -> Result<(), Refusal> {
    join_cookies(request.headers_mut());
    within(request, limits)?;
    host(request)
}

fn within<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    let headers = request.headers();
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    let line = request.method().as_str().len() + target + authority;
    let (mut total, mut largest) = (line, 0);
    for (name, value) in headers {
        let field = name.as_str().len() + value.len() + SEPARATORS;
        total += field;
        largest = largest.max(field);
    }
    if total > limits.head || largest > limits.field || headers.len() > limits.fields {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// RFC 9113, 8.2.3: clients split the field so that its parts compress better.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = HeaderValue::from_bytes(&all.join(&b"; "[..])).expect("made of valid values");
    headers.insert(header::COOKIE, whole);
}

/// Handlers look for Host.
fn host<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let Some(authority) = request.uri().authority() else {
        return if host.is_some() { Ok(()) } else { Err(Refusal::BadRequest("no authority and no Host")) };
    };
    let authority = authority.as_str();
    match host {
        Some(host) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return Err(Refusal::BadRequest("the authority and Host disagree"));
        }
        Some(_) => {}
        None => {
            let host =
                HeaderValue::from_str(authority).map_err(|_| Refusal::BadRequest("malformed authority"))?;
            request.headers_mut().insert(header::HOST, host);
        }
    }
    if request.method() == Method::CONNECT {
        // It has no target, and whoever refuses it is told what it names.
        return Ok(());
    }
    // The scheme says nothing that the connection does not say, and Host has the authority now.
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(Uri::default, Uri::from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the head: the fields as they then are, or the refusal's status.
    fn check(row: &str, target: &str, fields: &[(&'static str, String)], expected: Result<&str, u16>) {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().expect("a target");
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        let judged = judge(&mut request, &Limits::default()).map(|()| {
            let fields = request.headers().iter();
            let told: Vec<_> =
                fields.map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect();
            format!("{} {}", request.uri(), told.join(", "))
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

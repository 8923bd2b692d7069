//! What a head must be at this level: of one host.

use std::{borrow::Cow, cell::RefCell, rc::Rc};

use http::{HeaderMap, Request, Version, header};

use crate::authz::{answer::Reason, forwarding, host::Authority};

/// The host a request is for: lower case, without port; empty for HTTP/1.0 without Host.
#[derive(Debug)]
pub struct HostName {
    field: Option<Box<[u8]>>,
    length: usize,
    /// Where the client's spelling differs from the one that is compared.
    folded: Option<Box<str>>,
}

impl HostName {
    pub fn as_str(&self) -> Option<&str> {
        if let Some(folded) = &self.folded {
            return Some(folded);
        }
        str::from_utf8(self.field.as_ref()?).ok()?.get(..self.length)
    }

    /// As the client sent it.
    pub fn field(&self) -> Option<&[u8]> {
        self.field.as_deref()
    }
}

/// The name that was asked for last: hardly a client asks for two.
#[derive(Default)]
pub struct KnownHost(RefCell<Option<Rc<HostName>>>);

impl KnownHost {
    fn name(&self, field: &[u8]) -> Result<Rc<HostName>, Reason> {
        let mut known = self.0.borrow_mut();
        if let Some(known) = known.as_ref().filter(|known| known.field() == Some(field)) {
            return Ok(Rc::clone(known));
        }
        Ok(Rc::clone(known.insert(Rc::new(host_name(field)?))))
    }
}

/// The one valid host of a request whose fields can be forwarded safely.
pub fn host<B>(request: &Request<B>, known: &KnownHost) -> Result<Rc<HostName>, Reason> {
    let headers = request.headers();
    if forwarding::framing_alias(headers) || !one_coding(headers) {
        return Err(Reason::BadRequest);
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(field), None) => known.name(field.as_bytes())?,
        (None, _) if request.version() == Version::HTTP_10 => {
            Rc::new(HostName { field: None, length: 0, folded: None })
        }
        _ => return Err(Reason::BadRequest),
    };
    Ok(host)
}

/// A host that stands in a field of whatever name.
pub fn host_name(field: &[u8]) -> Result<HostName, Reason> {
    parse(field).ok_or(Reason::BadRequest)
}

fn one_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match codings.next() {
        None => true,
        Some(coding) => codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
    }
}

fn parse(text: &[u8]) -> Option<HostName> {
    let (length, folded) = match Authority::parse(text)?.host {
        Cow::Borrowed(host) => (host.len(), None),
        Cow::Owned(host) => (0, Some(host.into())),
    };
    Some(HostName { field: Some(text.into()), length, folded })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        row: &str,
        version: Version,
        target: &str,
        hosts: &[&'static str],
        expected: Result<Option<&str>, Reason>,
    ) {
        let mut request = http::Request::new(());
        *request.version_mut() = version;
        *request.uri_mut() = target.parse().expect("a target");
        for host in hosts {
            request.headers_mut().append("host", http::HeaderValue::from_static(host));
        }
        let found = host(&request, &KnownHost::default());
        let found = found.as_ref().map(|host| host.as_str()).map_err(|reason| *reason);
        assert_eq!(found, expected, "{row}");
    }

    #[test]
    fn a_request_has_one_valid_host_and_its_target_agrees() {
        let (new, old, bad) = (Version::HTTP_11, Version::HTTP_10, Err(Reason::BadRequest));
        check("a name", new, "/", &["a.example"], Ok(Some("a.example")));
        check("case is folded", new, "/", &["A.Example:8080"], Ok(Some("a.example")));
        check("a port is cut", new, "/", &["a.example:8080"], Ok(Some("a.example")));
        check("IPv6", new, "/", &["[::1]:80"], Ok(Some("[::1]")));
        check("IPv6 in another spelling", new, "/", &["[0:0::0001]:80"], Ok(Some("[::1]")));
        check("a dot behind", new, "/", &["a.example."], Ok(Some("a.example")));
        check("two dots within", new, "/", &["a..b"], bad);
        check("a port beyond all", new, "/", &["a:99999"], bad);
        check("none", new, "/", &[], bad);
        check("none in HTTP/1.0", old, "/", &[], Ok(None));
        check("two, the same", new, "/", &["a", "a"], bad);
        check("two in HTTP/1.0", old, "/", &["a", "b"], bad);
        check("empty", new, "/", &[""], bad);
        check("only a port", new, "/", &[":80"], bad);
        check("two dots behind", new, "/", &["a.."], bad);
        check("a path", new, "/", &["a/b"], bad);
        check("a user", new, "/", &["u@a"], bad);
        check("a list", new, "/", &["a, b"], bad);
        check("a port that is none", new, "/", &["a:8o"], bad);
        check("broken IPv6", new, "/", &["[::1"], bad);
        check("something behind IPv6", new, "/", &["[::1]a"], bad);
    }
}

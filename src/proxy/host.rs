//! The host that a request is for, as the decision compares it.

use std::{cell::RefCell, rc::Rc};

use http::{HeaderMap, header};

use crate::authz::{answer::Reason, host::Authority};

#[derive(Debug)]
pub struct HostName {
    field: Box<[u8]>,
    name: Box<str>,
}

impl HostName {
    /// A host that stands in a field of whatever name. An error: it is malformed.
    pub fn parse(field: &[u8]) -> Result<Self, Reason> {
        let authority = Authority::parse(field).ok_or(Reason::BadRequest)?;
        Ok(Self { field: field.into(), name: authority.host.into() })
    }

    /// In lower case and without port.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// As the client sent it.
    pub fn field(&self) -> &[u8] {
        &self.field
    }
}

/// The host that was asked for last: a client rarely asks for two.
#[derive(Default)]
pub struct HostCache(RefCell<Option<Rc<HostName>>>);

impl HostCache {
    /// The host of a request, of which `net` lets one at most pass; `None`: HTTP/1.0 without Host.
    pub fn of(&self, headers: &HeaderMap) -> Result<Option<Rc<HostName>>, Reason> {
        let Some(field) = headers.get(header::HOST) else { return Ok(None) };
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| *last.field == *field.as_bytes()) {
            return Ok(Some(Rc::clone(last)));
        }
        Ok(Some(Rc::clone(last.insert(Rc::new(HostName::parse(field.as_bytes())?)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_in_one_spelling() {
        let cache = HostCache::default();
        let check = |row: &str, field: Option<&'static str>, expected: Result<Option<&str>, Reason>| {
            let mut headers = HeaderMap::new();
            headers.extend(field.map(|field| (header::HOST, http::HeaderValue::from_static(field))));
            // The second time, it is known.
            for _ in 0..2 {
                let found = cache.of(&headers);
                let found = found.as_ref().map(|host| host.as_ref().map(|host| host.as_str()));
                assert_eq!(found.map_err(|reason| *reason), expected, "{row}");
            }
        };
        check("a name", Some("a.example"), Ok(Some("a.example")));
        check("case is folded", Some("A.Example:8080"), Ok(Some("a.example")));
        check("a port is cut", Some("a.example:8080"), Ok(Some("a.example")));
        check("IPv6", Some("[::1]:80"), Ok(Some("[::1]")));
        check("IPv6 in another spelling", Some("[0:0::0001]:80"), Ok(Some("[::1]")));
        check("a dot behind", Some("a.example."), Ok(Some("a.example")));
        check("none", None, Ok(None));
        check("malformed", Some("a..b"), Err(Reason::BadRequest));
    }
}

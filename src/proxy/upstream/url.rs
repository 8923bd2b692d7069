//! Where an upstream is: one of its urls.

use std::{fmt, net::IpAddr, sync::Arc};

use http::HeaderValue;

/// `http://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    host: Host,
    port: u16,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// Looked up at connect, and again in time.
    Name(Arc<str>),
}

/// Why a url is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{0}:// upstreams are not supported, only http://")]
    Scheme(&'static str),
    #[error("an upstream url is http://HOST[:PORT]")]
    Form,
    #[error("an upstream url has no path, query, fragment or user")]
    Extra,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl UpstreamUrl {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Form)?;
        if let Some(known) = ["https", "h2c", "h2", "ws", "wss", "unix"].into_iter().find(|s| scheme == *s) {
            return Err(UrlError::Scheme(known));
        }
        if scheme != "http" {
            return Err(UrlError::Form);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(UrlError::Extra);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (address, rest) = v6.split_once(']').ok_or(UrlError::Form)?;
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| UrlError::Form)?;
                let port =
                    if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(UrlError::Form)?) };
                (Host::Address(address.into()), port)
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (Host::parse(host).ok_or(UrlError::Form)?, port)
            }
        };
        let port = match port {
            None => 80,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        Ok(Self { host, port })
    }

    /// What has to be looked up.
    pub fn name(&self) -> Option<(Arc<str>, u16)> {
        match &self.host {
            Host::Address(_) => None,
            Host::Name(name) => Some((name.clone(), self.port)),
        }
    }

    /// As a Host field.
    pub fn authority(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("a url is ASCII")
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let sound = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        (text.len() <= 253 && name.split('.').all(sound))
            .then(|| Self::Name(text.to_ascii_lowercase().into()))
    }
}

/// `host:port`, as log and metrics name it.
impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, UrlError>) {
        let parsed = UpstreamUrl::parse(text).map(|url| url.to_string());
        assert_eq!(parsed.as_deref().map_err(|e| *e), expected, "{text}");
    }

    #[test]
    fn urls_are_http_host_and_port() {
        check("http://127.0.0.1:8090", Ok("127.0.0.1:8090"));
        check("http://127.0.0.1/", Ok("127.0.0.1:80"));
        check("http://[::1]:8090", Ok("[::1]:8090"));
        check("http://YouTrack.internal", Ok("youtrack.internal:80"));
        check("https://a", Err(UrlError::Scheme("https")));
        check("h2c://a", Err(UrlError::Scheme("h2c")));
        check("ftp://a", Err(UrlError::Form));
        check("a:80", Err(UrlError::Form));
        check("http://", Err(UrlError::Form));
        check("http://a/b", Err(UrlError::Extra));
        check("http://u:p@a", Err(UrlError::Extra));
        check("http://a?b", Err(UrlError::Extra));
        check("http://a:0", Err(UrlError::Port));
        check("http://a:65536", Err(UrlError::Port));
        check("http://a:+80", Err(UrlError::Port));
        check("http://a..b", Err(UrlError::Form));
        check("http://[::1", Err(UrlError::Form));
        check("http://[::1]80", Err(UrlError::Form));
    }
}

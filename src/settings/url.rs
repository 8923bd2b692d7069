//! The URLs of an upstream.

use std::{fmt, net::IpAddr, path::Path, sync::Arc};

use http::HeaderValue;

/// `http://HOST[:PORT]`, `https://HOST[:PORT]`, `h2c://HOST[:PORT]` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// The protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    /// HTTP/2 from the first byte, without TLS.
    H2c,
}

/// The host to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// Resolved at connect, and again from time to time.
    Name(Arc<str>),
    Socket(Arc<Path>),
}

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{0}:// upstreams are not supported")]
    Scheme(&'static str),
    #[error("an upstream url is http://HOST[:PORT], https://HOST[:PORT], h2c://HOST[:PORT] or unix:PATH")]
    Form,
    #[error("an upstream url has no path, query, fragment or user")]
    Extra,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("a socket's path has 1 to {MAX_SOCKET_PATH} bytes, none of them NUL, and does not begin with //")]
    Socket,
}

/// The longest path in bytes that the kernel accepts.
pub const MAX_SOCKET_PATH: usize = 107;

impl UpstreamUrl {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::socket(path);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Form)?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            "h2c" => (Scheme::H2c, 80),
            _ => {
                let known = ["h2", "ws", "wss"].into_iter().find(|known| scheme == *known);
                return Err(known.map_or(UrlError::Form, UrlError::Scheme));
            }
        };
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
            None => default_port,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        Ok(Self { scheme, host, port })
    }

    fn socket(path: &str) -> Result<Self, UrlError> {
        // `unix://run/x` is /run/x to the kernel, and a host `run` to a reader.
        let sound =
            matches!(path.len(), 1..=MAX_SOCKET_PATH) && !path.starts_with("//") && !path.contains('\0');
        if !sound {
            return Err(UrlError::Socket);
        }
        Ok(Self { scheme: Scheme::Http, host: Host::Socket(Path::new(path).into()), port: 0 })
    }

    /// Resolves the path of a unix socket against `directory`.
    pub fn relative_to(self, directory: &Path) -> Result<Self, UrlError> {
        let Host::Socket(path) = &self.host else { return Ok(self) };
        let path = directory.join(path);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(UrlError::Socket);
        }
        Ok(Self { host: Host::Socket(path.into()), ..self })
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the name and the port to resolve; `None` for an address or a socket.
    pub fn name(&self) -> Option<(Arc<str>, u16)> {
        match &self.host {
            Host::Address(_) | Host::Socket(_) => None,
            Host::Name(name) => Some((name.clone(), self.port)),
        }
    }

    /// Returns the value for a Host field.
    pub fn authority(&self) -> HeaderValue {
        match self.host {
            Host::Socket(_) => HeaderValue::from_static("localhost"),
            Host::Address(_) | Host::Name(_) => {
                HeaderValue::try_from(self.to_string()).expect("a name and a port are ASCII")
            }
        }
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port, which has no meaning for a socket.
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

/// `host:port` or `unix:path`, as in the log and in metrics.
impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, UrlError>) {
        let parsed = UpstreamUrl::parse(text)
            .and_then(|url| url.relative_to(Path::new("/etc")))
            .map(|url| url.to_string());
        assert_eq!(parsed.as_deref().map_err(|e| *e), expected, "{text}");
    }

    #[test]
    fn upstream_url_has_scheme_and_address() {
        check("http://127.0.0.1:8090", Ok("127.0.0.1:8090"));
        check("http://127.0.0.1/", Ok("127.0.0.1:80"));
        check("http://[::1]:8090", Ok("[::1]:8090"));
        check("http://YouTrack.internal", Ok("youtrack.internal:80"));
        check("h2c://a", Ok("a:80"));
        check("h2c://127.0.0.1:50051", Ok("127.0.0.1:50051"));
        check("unix:/run/app.sock", Ok("unix:/run/app.sock"));
        check("unix:app.sock", Ok("unix:/etc/app.sock"));
        check("unix:", Err(UrlError::Socket));
        check("unix://run/app.sock", Err(UrlError::Socket));
        check(&format!("unix:/{}", "a".repeat(107)), Err(UrlError::Socket));
        check("https://a", Ok("a:443"));
        check("wss://a", Err(UrlError::Scheme("wss")));
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

//! Parses addresses: listen addresses, networks, upstream URLs, host names.

use std::{
    borrow::Cow,
    net::IpAddr,
    path::{Component, Path},
};

use http::uri::Authority;
use ipnet::IpNet;

use super::{
    punycode,
    section::{ValueError, wrong},
};
use crate::{
    authz::{host::canonical, network},
    net::Address,
    settings::{MAX_SOCKET_PATH, UpstreamUrl, UrlError},
};

/// A configured listen address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: Address,
    /// `None`: TLS if the listener has certificates.
    pub scheme: Option<Scheme>,
}

/// The scheme of one address, whatever the listener's other addresses have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Listen {
    /// Whether this address has TLS, given whether its listener has certificates.
    pub fn uses_tls(&self, certificates: bool) -> bool {
        match (self.scheme, &self.address) {
            (Some(Scheme::Http), _) | (None, Address::Unix(_)) => false,
            (Some(Scheme::Https), _) => true,
            (None, Address::Tcp(_) | Address::Inherited(_)) => certificates,
        }
    }
}

/// Parses a listen address. A relative path is relative to `directory`.
pub(super) fn listen(text: &str, directory: &Path) -> Result<Listen, ValueError> {
    let (scheme, bare) = match text.split_once("://") {
        Some(("http", bare)) => (Some(Scheme::Http), bare),
        Some(("https", bare)) => (Some(Scheme::Https), bare),
        _ => (None, text),
    };
    let address = match bare.parse() {
        Ok(Address::Unix(path)) if scheme.is_none() => {
            let path = directory.join(path);
            if path.as_os_str().len() > MAX_SOCKET_PATH {
                let message = format!("the path of a unix socket has at most {MAX_SOCKET_PATH} bytes");
                return Err((message, "choose a shorter one".into()));
            }
            Some(Address::Unix(path))
        }
        Ok(address @ Address::Tcp(_)) => Some(address),
        Ok(address) if scheme.is_none() => Some(address),
        Ok(_) | Err(_) => None,
    };
    address.map(|address| Listen { address, scheme }).ok_or_else(|| {
        let message = format!("{text:?} is not an address to listen on");
        let scheme = text.strip_suffix(bare).unwrap_or_default();
        (message, format!("write {}", suggestion(scheme, bare)))
    })
}

/// The address in the one spelling in which listen addresses are compared.
pub(super) fn canonical_listen(address: &Address) -> Address {
    match address {
        Address::Tcp(socket) => Address::Tcp((socket.ip().to_canonical(), socket.port()).into()),
        Address::Unix(path) => {
            Address::Unix(path.components().filter(|part| *part != Component::CurDir).collect())
        }
        Address::Inherited(_) => address.clone(),
    }
}

/// Whether `wide` is every interface, and `one` the same port of one interface, which takes precedence there.
pub(super) fn includes(wide: &Address, one: &Address) -> bool {
    let (Address::Tcp(wide), Address::Tcp(one)) = (wide, one) else { return false };
    let every = wide.ip().is_unspecified() && !one.ip().is_unspecified();
    every && wide.port() == one.port() && wide.port() != 0 && (wide.is_ipv6() || one.is_ipv4())
}

/// Parses an octal file mode, as chmod takes it.
pub(super) fn mode(text: &str) -> Result<u32, ValueError> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => wrong(
            format!("{text:?} is not a file's mode"),
            "write \"0600\" for the owner only, \"0660\" for the group too",
        ),
    }
}

/// Whether only this machine can reach the address, as far as the configuration shows.
pub(super) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
        // The process that passes the socket chose its address, which is checked once the socket is there.
        Address::Unix(_) | Address::Inherited(_) => true,
    }
}

/// Suggests a correction for an address without IP, port or path prefix.
fn suggestion(scheme: &str, text: &str) -> String {
    let (host, written) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = written.parse::<u16>().ok();
    match (host, port) {
        ("" | "*", Some(port)) => {
            let (every, this) = (format!("{scheme}0.0.0.0:{port}"), format!("{scheme}127.0.0.1:{port}"));
            format!("{every:?} for every interface, {this:?} for this machine only")
        }
        ("localhost", Some(port)) => format!("\"{scheme}127.0.0.1:{port}\""),
        (_, None) if written.parse::<u64>().is_ok() => "a port of at most 65535".into(),
        _ => match (text.parse::<IpAddr>(), text.parse::<u16>()) {
            (Ok(IpAddr::V6(ip)), _) => format!("\"{scheme}[{ip}]:8080\""),
            (Ok(ip), _) => format!("\"{scheme}{ip}:8080\""),
            (_, Ok(port)) => format!("\"{scheme}127.0.0.1:{port}\""),
            _ if !scheme.is_empty() => format!("\"{scheme}IP:PORT\": other addresses have no scheme"),
            _ if text.starts_with("systemd:") => {
                "\"systemd:NAME\" with the NAME of the unit's FileDescriptorName=".into()
            }
            _ if text.starts_with('/') => format!("\"unix:{text}\""),
            _ => "\"IP:PORT\" or \"unix:PATH\"".into(),
        },
    }
}

/// Parses a network, or an address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, ValueError> {
    let advice = "write an address such as \"10.0.0.7\" or a network such as \"10.0.0.0/8\"";
    let net = network::parse(text).map(|net| net.trunc());
    net.ok_or_else(|| (format!("{text:?} is not a network"), advice.into()))
}

/// A host with an optional port, without user information.
pub(super) fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    (!authority.host().is_empty() && !text.contains('@')).then_some(authority)
}

/// Parses an upstream's URL. It has only scheme, host and port, so that the judged path is the forwarded
/// path.
pub(super) fn upstream_url(text: &str, directory: &Path) -> Result<UpstreamUrl, ValueError> {
    UpstreamUrl::parse(text).and_then(|url| url.relative_to(directory)).map_err(|error| {
        let advice = match error {
            UrlError::Extra if text.contains('@') => {
                "write a credential into the service: `authorization = \"file:PATH\"` or \"env:NAME\""
            }
            UrlError::Extra => "leave it out: permgate forwards the request's path unchanged",
            UrlError::Scheme(_) | UrlError::Form | UrlError::Port => {
                "write \"http://HOST:PORT\", \"https://HOST\", \"h2c://HOST:PORT\" or \"unix:PATH\""
            }
            UrlError::Socket => "write \"unix:PATH\", such as \"unix:/run/app.sock\"",
        };
        (error.to_string(), advice.to_owned())
    })
}

/// Parses a host name without port, and returns its canonical form.
pub(super) fn host(text: &str) -> Result<String, ValueError> {
    const FORM: &str = "write only the name, such as \"youtrack.example.com\"";
    if let Some(sent) = (!text.is_ascii()).then(|| punycode::host(text)).flatten() {
        let message = format!("{text:?} has non-ASCII letters, which clients send in another form");
        return Err((message, format!("write {sent:?}")));
    }
    let name = canonical(text).filter(|name| name.len() <= 253 && !name.starts_with(['.', '-', '~']));
    name.map(Cow::into_owned).ok_or_else(|| (format!("{text:?} is not a host name"), FORM.into()))
}

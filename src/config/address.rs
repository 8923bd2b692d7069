//! Addresses as written: what to listen on, networks, upstream URLs.

use std::{net::IpAddr, path::Path};

use ipnet::IpNet;

use crate::{
    net::Address,
    proxy::{UpstreamUrl, UrlError},
};

/// Why an address is none, and what to write.
pub(super) type Wrong = (String, String);

/// Where to listen. A relative path is relative to `directory`.
pub(super) fn listen(text: &str, directory: &Path) -> Result<Address, Wrong> {
    if text.starts_with("systemd:") {
        let message = "inherited sockets are not supported by this version".to_owned();
        return Err((message, "write \"IP:PORT\" or \"unix:PATH\"".into()));
    }
    match text.parse() {
        Ok(Address::Unix(path)) => Ok(Address::Unix(directory.join(path))),
        Ok(tcp) => Ok(tcp),
        Err(_) => {
            let message = format!("{text:?} is not an address to listen on");
            Err((message, format!("write {}", suggestion(text))))
        }
    }
}

/// Whether only this machine reaches it.
pub(super) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Address::Unix(_) => true,
    }
}

/// What was probably meant by an address that has no IP, no port or no path prefix.
fn suggestion(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = port.parse::<u16>().ok();
    match (host, port) {
        ("" | "*", Some(port)) => {
            format!("\"0.0.0.0:{port}\" for every interface, \"127.0.0.1:{port}\" for this machine")
        }
        ("localhost", Some(port)) => format!("\"127.0.0.1:{port}\""),
        _ => match (text.parse::<IpAddr>(), text.parse::<u16>()) {
            (Ok(IpAddr::V6(ip)), _) => format!("\"[{ip}]:8080\""),
            (Ok(ip), _) => format!("\"{ip}:8080\""),
            (_, Ok(port)) => format!("\"127.0.0.1:{port}\""),
            _ if text.starts_with('/') => format!("\"unix:{text}\""),
            _ => "\"IP:PORT\" or \"unix:PATH\"".into(),
        },
    }
}

/// A network, or one address as a network of itself.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc()).map_err(|_| {
        (
            format!("{text:?} is not a network"),
            "write an address such as \"10.0.0.7\" or a network such as \"10.0.0.0/8\"".into(),
        )
    })
}

/// An upstream's URL: scheme, host and port, nothing else, so that the path that was judged is the
/// path that is sent.
pub(super) fn upstream_url(text: &str) -> Result<UpstreamUrl, Wrong> {
    UpstreamUrl::parse(text).map_err(|error| {
        let advice = match error {
            UrlError::Extra if text.contains('@') => {
                "a credential goes into the service: `authorization = \"file:PATH\"` or \"env:NAME\""
            }
            UrlError::Extra => "leave it out: the path that was judged is the path that is sent",
            UrlError::Scheme(_) | UrlError::Form | UrlError::Port => "write \"http://HOST:PORT\"",
        };
        (error.to_string(), advice.to_owned())
    })
}

/// A host name as a `Host` field has it, without port, in lower case.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    const FORM: &str = "write the name alone, such as \"youtrack.example.com\"";
    let name = text.to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let sound = match bare {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                && !name.starts_with(['.', '-'])
        }
    };
    if sound { Ok(name) } else { Err((format!("{text:?} is not a host name"), FORM.into())) }
}

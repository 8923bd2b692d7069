//! Addresses as written: what to listen on, networks, upstream URLs.

use std::{net::IpAddr, path::Path};

use http::Uri;
use ipnet::IpNet;

use crate::net::Address;

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
pub(super) fn upstream_url(text: &str) -> Result<Uri, Wrong> {
    const FORM: &str = "write \"http://HOST:PORT\"";
    let uri: Uri = text.parse().map_err(|_| ("this is not a URL".to_owned(), FORM.to_owned()))?;
    let refuse = |message: &str, advice: &str| Err((message.to_owned(), advice.to_owned()));
    match uri.scheme_str() {
        Some("http") => {}
        Some(scheme @ ("https" | "h2c" | "h2")) => {
            return refuse(&format!("{scheme}:// upstreams are not supported by this version"), FORM);
        }
        Some(scheme) => return refuse(&format!("an upstream is not reached by {scheme}://"), FORM),
        None => return refuse("the URL has no scheme", FORM),
    }
    let Some(authority) = uri.authority() else {
        return refuse("the URL has no host", FORM);
    };
    if authority.as_str().contains('@') {
        return refuse(
            "a URL must not carry credentials",
            "give the service `authorization = \"file:PATH\"` or \"env:NAME\" instead",
        );
    }
    if authority.host().is_empty() {
        return refuse("the URL has no host", FORM);
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0) {
        return refuse("the URL's port is not one of 1 to 65535", FORM);
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return refuse(
            "an upstream's URL has no path: the path that was judged is the path that is sent",
            &format!("write \"http://{authority}\""),
        );
    }
    Ok(uri)
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

//! Refuses an upstream that is this gateway itself. Requests would loop until a resource is used up, and on
//! the admin listener's unix socket an outside request would come from the operator's own process.

use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use super::LocalAddr;
use crate::{
    net::Address,
    settings::{Host, UpstreamSettings, UpstreamUrl},
};

/// The addresses of all listeners of this gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnAddresses(Vec<Address>);

/// An upstream URL that leads back to this gateway.
#[derive(Debug, thiserror::Error)]
#[error(
    "upstream.{upstream}: {url} is an address that this gateway listens on: name the server behind permgate"
)]
pub struct LoopError {
    upstream: String,
    url: String,
}

impl OwnAddresses {
    pub fn new<'a>(places: impl Iterator<Item = &'a LocalAddr>) -> Self {
        Self(places.map(|place| place.address.clone()).collect())
    }

    /// Fails if an upstream leads back here. May block, because it resolves names that have a listener's
    /// port.
    pub fn check<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a Arc<UpstreamSettings>>,
    ) -> Result<(), LoopError> {
        for upstream in upstreams {
            if let Some(one) = upstream.urls.iter().find(|one| self.contains(&one.url)) {
                return Err(LoopError { upstream: upstream.name.to_string(), url: one.url.to_string() });
            }
        }
        Ok(())
    }

    fn contains(&self, url: &UpstreamUrl) -> bool {
        match url.host() {
            Host::Socket(path) => self.0.iter().any(|own| match own {
                Address::Unix(own) => is_same_file(own, path),
                Address::Tcp(_) | Address::Inherited(_) => false,
            }),
            Host::Address(address) => self.listens_at((*address, url.port()).into()),
            // A name that cannot be resolved is reported by the health check.
            Host::Name(name) if self.has_port(url.port()) => {
                let found = (&**name, url.port()).to_socket_addrs().into_iter().flatten();
                found.into_iter().any(|address| self.listens_at(address))
            }
            Host::Name(_) => false,
        }
    }

    fn has_port(&self, port: u16) -> bool {
        self.0.iter().any(|own| matches!(own, Address::Tcp(own) if own.port() == port))
    }

    fn listens_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.iter().any(|own| match own {
            Address::Tcp(own) if own.port() == address.port() => is_reached(own.ip().to_canonical(), ip),
            _ => false,
        })
    }
}

/// Whether a client that connects to `ip` reaches a listener at `own`.
fn is_reached(own: IpAddr, ip: IpAddr) -> bool {
    if own == ip {
        return true;
    }
    // The kernel connects to this machine.
    if ip.is_unspecified() {
        return own.is_loopback() || own.is_unspecified();
    }
    // A listener on every IPv6 address also takes IPv4.
    own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()) && is_local_address(ip)
}

/// Tries to bind the address, which works only for the machine's own addresses.
fn is_local_address(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether both paths lead to the same file, also through links.
fn is_same_file(own: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    own == other || file(own).is_some_and(|own| file(other) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_address_is_detected_in_every_spelling() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("gate.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = directory.path().join("link.sock");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let check = |own: &str, url: &str, expected: bool| {
            let own = OwnAddresses(vec![own.parse().unwrap()]);
            assert_eq!(own.contains(&UpstreamUrl::parse(url).unwrap()), expected, "{own:?}, {url}");
        };
        check("127.0.0.1:8090", "http://127.0.0.1:8090", true);
        check("127.0.0.1:8090", "http://[::ffff:127.0.0.1]:8090", true);
        check("127.0.0.1:8090", "http://0.0.0.0:8090", true);
        check("127.0.0.1:8090", "https://localhost:8090", true);
        check("127.0.0.1:80", "h2c://localhost", true);
        check("0.0.0.0:8090", "http://127.0.0.9:8090", true);
        check("[::]:8090", "http://127.0.0.1:8090", true);
        check("[::]:8090", "http://[::1]:8090", true);
        check("127.0.0.1:8090", "http://127.0.0.2:8090", false);
        check("127.0.0.1:8090", "http://127.0.0.1:8091", false);
        check("0.0.0.0:8090", "http://192.0.2.7:8090", false);
        check("0.0.0.0:8090", "http://[::1]:8090", false);
        let unix = |path: &Path| format!("unix:{}", path.display());
        check(&unix(&socket), &unix(&socket), true);
        check(&unix(&socket), &unix(&link), true);
        check(&unix(&socket), &unix(&directory.path().join("./gate.sock")), true);
        check(&unix(&socket), &unix(&directory.path().join("app.sock")), false);
        check(&unix(&socket), "http://127.0.0.1:8090", false);
    }
}

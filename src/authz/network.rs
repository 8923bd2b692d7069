//! Networks as people write them, in the form that clients' addresses are compared in, and the part of an address
//! that one client has to itself.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A network, or one address as a network of itself. Of IPv4 as IPv6 sees it (`::ffff:10.0.0.0/104`) the one of
/// IPv4, since no client has an address in the other.
pub fn parse(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(mapped) = net else { return Some(net) };
    let length = mapped.prefix_len().checked_sub(96);
    let ipv4 = mapped.addr().to_ipv4_mapped().zip(length);
    Some(ipv4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(net, IpNet::V4))
}

/// The unit in which clients are counted: an IPv4 address, or an IPv6 /64, all of which one client may own.
pub fn of_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !0 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_that_of_its_clients() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse(text).map(|net| net.to_string()).as_deref(), expected, "{text}");
        };
        check("10.0.0.7", Some("10.0.0.7/32"));
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("2001:db8::/32", Some("2001:db8::/32"));
        check("::1", Some("::1/128"));
        check("::ffff:10.0.0.7", Some("10.0.0.7/32"));
        check("::ffff:10.0.0.0/104", Some("10.0.0.0/8"));
        check("::ffff:0:0/96", Some("0.0.0.0/0"));
        check("::/0", Some("::/0"));
        check("::ffff:0:0/95", Some("::ffff:0.0.0.0/95"));
        check("10.0.0.0/33", None);
        check("a.example", None);
    }
}

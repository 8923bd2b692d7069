//! The PROXY protocol, versions 1 and 2: the header in which a proxy names a connection's client. Only the
//! header's own bytes are taken from the socket, so that TLS or HTTP begins where it ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::net::RecvFlags;

use super::stream::Socket;

/// The client for which a proxy has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    Client(SocketAddr),
    /// A client whose address the proxy does not name.
    Unnamed,
    /// The proxy itself, such as for a health check.
    Own,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the connection ended within the PROXY header")]
    Ended,
    /// No byte arrived, as in a check whether the port is open.
    #[error("the connection ended before the PROXY header")]
    Silent,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header. The caller applies the deadline.
pub(super) async fn read(socket: &Socket) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut header = Vec::new();
    let mut buffered = vec![0; MAX_HEADER];
    loop {
        let seen = socket.receive(&mut buffered, RecvFlags::PEEK).await?;
        if seen == 0 {
            return Err(if header.is_empty() { ProxyHeaderError::Silent } else { ProxyHeaderError::Ended });
        }
        let before = header.len();
        header.extend_from_slice(&buffered[..seen]);
        let (len, proxy_header) = match parse(&header) {
            Parsed::Partial => (header.len(), None),
            Parsed::Whole(len, proxy_header) => (len, Some(proxy_header)),
            Parsed::Malformed(why) => return Err(ProxyHeaderError::Malformed(why)),
        };
        // The peeked bytes are available. Only the header's part of them is consumed.
        let mut left = len - before;
        while left > 0 {
            left -= socket.receive(&mut buffered[..left], RecvFlags::empty()).await?;
        }
        if let Some(proxy_header) = proxy_header {
            return Ok(proxy_header);
        }
    }
}

/// The result of parsing the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Partial,
    /// A complete header of this many bytes.
    Whole(usize, ProxyHeader),
    Malformed(&'static str),
}

/// In bytes; room for every address and for the extensions that proxies send, except certificates.
const MAX_HEADER: usize = 4 << 10;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of signature, command, family and length.
const FIXED_PART: usize = 16;
const V1_PREFIX: &[u8; 6] = b"PROXY ";
/// Bytes of the longest line of version 1, including CR LF.
const MAX_LINE: usize = 107;

/// Parses the bytes received so far. While the verdict is `Partial`, call again with the same bytes and more.
pub fn parse(bytes: &[u8]) -> Parsed {
    if may_begin_with(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if may_begin_with(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else {
        Parsed::Malformed("it begins like neither version 1 nor version 2")
    }
}

/// Whether both agree as far as the shorter one goes.
fn may_begin_with(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_PART) else { return Parsed::Partial };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_PART + length > MAX_HEADER {
        return Parsed::Malformed("longer than 4096 bytes");
    }
    let Some(block) = rest.get(..length) else { return Parsed::Partial };
    // Extensions follow the addresses and are ignored.
    let proxy_header = match (fixed[12], fixed[13]) {
        // LOCAL: what follows is ignored.
        (0x20, _) => ProxyHeader::Own,
        // No family, or a unix socket, whose path does not identify a client.
        (0x21, 0x00) => ProxyHeader::Unnamed,
        (0x21, 0x31) if block.len() >= 216 => ProxyHeader::Unnamed,
        (0x21, 0x11) => match block {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                client(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low]))
            }
            _ => return Parsed::Malformed("too short for its addresses"),
        },
        (0x21, 0x21) => match (block.first_chunk::<16>(), block.get(32..36)) {
            (Some(address), Some([high, low, _, _])) => {
                client(Ipv6Addr::from(*address).into(), u16::from_be_bytes([*high, *low]))
            }
            _ => return Parsed::Malformed("too short for its addresses"),
        },
        (0x21, 0x31) => return Parsed::Malformed("too short for its addresses"),
        (0x21, _) => return Parsed::Malformed("the family or protocol is not one of stream sockets"),
        _ => return Parsed::Malformed("an unknown version or command"),
    };
    Parsed::Whole(FIXED_PART + length, proxy_header)
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        let full = within.len() == MAX_LINE;
        return if full { Parsed::Malformed("a line longer than 107 bytes") } else { Parsed::Partial };
    };
    let text = within[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(V1_PREFIX));
    let Some(text) = text else { return Parsed::Malformed("a line that does not end with CR LF") };
    // For an unknown client, the rest of the line is ignored.
    if text == b"UNKNOWN" || text.starts_with(b"UNKNOWN ") {
        return Parsed::Whole(end + 1, ProxyHeader::Unnamed);
    }
    match std::str::from_utf8(text).ok().and_then(parse_address) {
        Some(proxy_header) => Parsed::Whole(end + 1, proxy_header),
        None => Parsed::Malformed("a line without two addresses and two ports"),
    }
}

fn parse_address(text: &str) -> Option<ProxyHeader> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => Some(word.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(word.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    let (from, _to) = (address()?, address()?);
    let (from_port, _to_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| client(from, from_port))
}

/// Parses decimal digits without a sign or a leading zero.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

fn client(address: IpAddr, port: u16) -> ProxyHeader {
    ProxyHeader::Client(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]

    use super::*;

    /// Expects this outcome for the whole header with bytes after it, and `Partial` for every prefix.
    fn check(name: &str, header: &[u8], expected: &str) {
        let outcome = |bytes: &[u8]| match parse(bytes) {
            Parsed::Partial => "partial".to_owned(),
            Parsed::Malformed(_) => "malformed".to_owned(),
            Parsed::Whole(len, proxy_header) => {
                assert_eq!(len, header.len(), "{name}: its bytes and no more");
                match proxy_header {
                    ProxyHeader::Client(client) => client.to_string(),
                    ProxyHeader::Unnamed => "unnamed".to_owned(),
                    ProxyHeader::Own => "own".to_owned(),
                }
            }
        };
        assert_eq!(outcome(&[header, b"GET / HTTP/1.1\r\nPROXY \n"].concat()), expected, "{name}");
        if !matches!(expected, "malformed" | "partial") {
            for end in 0..header.len() {
                assert_eq!(outcome(&header[..end]), "partial", "{name}: {end} bytes of it");
            }
        }
    }

    #[test]
    fn version_1_line_names_the_client() {
        let v4 = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        check("TCP4", v4.as_bytes(), "192.0.2.1:56324");
        check("TCP6", b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", "[2001:db8::1]:1");
        check("a mapped address", b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1");
        check("ports of nothing", b"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", "192.0.2.1:0");
        check("unknown", b"PROXY UNKNOWN\r\n", "unnamed");
        check("unknown with more", b"PROXY UNKNOWN ffff::1 whatever 0 x\r\n", "unnamed");
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
        check("107 bytes", longest.as_bytes(), "unnamed");
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15));
        check("108 bytes", longer.as_bytes(), "malformed");
        for (name, line) in [
            ("a line feed alone", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"),
            ("two blanks", "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"),
            ("a blank at the end", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"),
            ("a port too few", "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"),
            ("the wrong family", "PROXY TCP4 ::1 ::1 1 2\r\n"),
            ("mixed families", "PROXY TCP6 ::1 192.0.2.2 1 2\r\n"),
            ("an unknown family", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"),
            ("UNKNOWN run on", "PROXY UNKNOWNS\r\n"),
            ("small letters", "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
            ("a signed port", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n"),
            ("a zero in front", "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"),
            ("a zero in front of a byte", "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n"),
            ("a port too large", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"),
            ("brackets", "PROXY TCP6 [::1] ::1 1 2\r\n"),
            ("a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
            ("nothing", "PROXY \r\n"),
            ("no header", ""),
        ] {
            check(name, line.as_bytes(), "malformed");
        }
    }

    #[test]
    fn version_2_header_names_the_client() {
        fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
            let length = u16::try_from(block.len()).unwrap().to_be_bytes();
            [&V2_SIGNATURE[..], &[command, family], &length, block].concat()
        }
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[15] = 1;
        six[33] = 80;
        let with = |block: &[u8], more: usize| [block, &vec![4; more]].concat();
        let largest = MAX_HEADER - FIXED_PART;
        check("TCP4", &header(0x21, 0x11, &four), "192.0.2.1:56324");
        check("TCP4 with extensions", &header(0x21, 0x11, &with(&four, 84)), "192.0.2.1:56324");
        check("TCP6", &header(0x21, 0x21, &six), "[2001:db8::1]:80");
        check("the longest", &header(0x21, 0x21, &with(&six, largest - 36)), "[2001:db8::1]:80");
        check("a unix socket", &header(0x21, 0x31, &[0; 216]), "unnamed");
        check("no family", &header(0x21, 0x00, &[]), "unnamed");
        check("no family with more", &header(0x21, 0x00, &[1; 40]), "unnamed");
        check("LOCAL", &header(0x20, 0x00, &[]), "own");
        check("LOCAL with addresses", &header(0x20, 0x11, &four), "own");
        check("TCP4 cut short", &header(0x21, 0x11, &four[..11]), "malformed");
        check("TCP6 cut short", &header(0x21, 0x21, &six[..35]), "malformed");
        check("a unix socket cut short", &header(0x21, 0x31, &[0; 215]), "malformed");
        check("datagrams", &header(0x21, 0x12, &four), "malformed");
        check("a family that is none", &header(0x21, 0x41, &four), "malformed");
        check("a command that is none", &header(0x22, 0x11, &four), "malformed");
        check("version 1 in the binary form", &header(0x11, 0x11, &four), "malformed");
        check("too long", &header(0x21, 0x11, &with(&four, largest)), "malformed");
    }
}

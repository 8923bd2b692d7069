//! How servers may read a path, independent of the gateway's own code: decoders that are applied in any order
//! and up to five times. A path that they can turn into another service's must never be forwarded.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;

type Decoder = fn(&[u8]) -> Vec<u8>;

const DECODERS: [Decoder; 16] = [
    percent,
    percent_u,
    overlong,
    |p| p.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect(),
    merge,
    dots,
    |p| segments(p, |s| s.split(|b| *b == b';').next().unwrap_or_default().to_vec()),
    |p| segments(p, |s| trimmed(s, b" .")),
    |p| p.to_ascii_lowercase(),
    |p| p.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
    |p| p.iter().copied().filter(|b| !matches!(b, b'\t' | b'\r' | b'\n')).collect(),
    |p| p.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default().to_vec(),
    |p| String::from_utf8_lossy(p).nfkc().collect::<String>().into_bytes(),
    host,
    session,
    alias,
];

/// Whether a server could read the path as one below one of the prefixes.
pub fn could_reach<'p>(path: &str, prefixes: &[&'p str]) -> Option<(&'p str, String)> {
    let mut known: BTreeSet<Vec<u8>> = BTreeSet::from([path.as_bytes().to_vec()]);
    let mut edge: Vec<Vec<u8>> = known.iter().cloned().collect();
    for _ in 0..5 {
        let mut next = Vec::new();
        for one in &edge {
            for decoder in DECODERS {
                let decoded = decoder(one);
                if known.len() < 4000 && known.insert(decoded.clone()) {
                    next.push(decoded);
                }
            }
        }
        edge = next;
    }
    for reading in &known {
        for prefix in prefixes {
            let below = reading.strip_prefix(prefix.as_bytes());
            if below.is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'/' | b'?' | b'#' | b';')) {
                return Some((prefix, String::from_utf8_lossy(reading).into_owned()));
            }
        }
    }
    None
}

fn percent(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

fn percent_u(path: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(path).replace("%U", "%u");
    let mut parts = text.split("%u");
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) {
            Some(char) => {
                decoded.push(char);
                decoded += &part[4..];
            }
            None => decoded = decoded + "%u" + part,
        }
    }
    decoded.into_bytes()
}

/// Two and three bytes that a lenient decoder reads as an ASCII character.
fn overlong(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < path.len() {
        match path[at..] {
            [a @ 0xc0..=0xc1, b, ..] => {
                decoded.push((a & 1) << 6 | b & 0x3f);
                at += 2;
            }
            [0xe0, a @ 0x80..=0x81, b, ..] => {
                decoded.push((a & 1) << 6 | b & 0x3f);
                at += 3;
            }
            [0xf0, 0x80, a @ 0x80..=0x81, b, ..] => {
                decoded.push((a & 1) << 6 | b & 0x3f);
                at += 4;
            }
            _ => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn merge(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
    merged
}

/// RFC 3986, section 5.2.4.
fn dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| *b == b'/').skip(1) {
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    [b"/", &kept.join(&b'/')[..]].concat()
}

/// The URL parser of browsers and Node.js, relative to a base.
fn host(path: &[u8]) -> Vec<u8> {
    let slashes = path.iter().take_while(|b| matches!(b, b'/' | b'\\')).count();
    let rest = &path[slashes..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'\\')).unwrap_or(rest.len());
    if slashes < 2 { path.to_vec() } else { rest[end..].to_vec() }
}

/// ASP.NET without cookies.
fn session(path: &[u8]) -> Vec<u8> {
    let Some(start) = path.windows(3).position(|three| three == b"/(S") else { return path.to_vec() };
    match path[start..].windows(2).position(|two| two == b"))") {
        Some(end) => [&path[..start], &path[start + end + 2..]].concat(),
        None => path.to_vec(),
    }
}

/// nginx with `location /a` and `alias /b/`.
fn alias(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<_> = path.split(|b| *b == b'/').collect();
    if let Some(at) = kept.iter().position(|one| one.len() > 2 && one.ends_with(b"..")) {
        kept.remove(at);
    }
    kept.join(&b'/')
}

fn segments(path: &[u8], cut: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    path.split(|b| *b == b'/').map(cut).collect::<Vec<_>>().join(&b'/')
}

/// Dot segments stay.
fn trimmed(segment: &[u8], tail: &[u8]) -> Vec<u8> {
    let end = segment.iter().rposition(|b| !tail.contains(b)).map_or(0, |at| at + 1);
    if end == 0 { segment.iter().copied().filter(|b| *b != b' ').collect() } else { segment[..end].to_vec() }
}

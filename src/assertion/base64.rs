//! Base64 (RFC 4648): the URL's alphabet without padding for what JOSE wants, the common one for PEM.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn url(bytes: &[u8]) -> String {
    let mut text = String::new();
    push_url(&mut text, bytes);
    text
}

pub fn push_url(text: &mut String, bytes: &[u8]) {
    text.reserve(bytes.len().div_ceil(3) * 4);
    push(text, bytes, URL);
}

/// A section of a PEM file (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut body = String::new();
    push(&mut body, der, STANDARD);
    while !body.len().is_multiple_of(4) {
        body.push('=');
    }
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn push(text: &mut String, bytes: &[u8], alphabet: &[u8; 64]) {
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for sextet in 0..=chunk.len() {
            let index = bits >> (18 - 6 * sextet) & 63;
            text.push(char::from(alphabet[index as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_standard() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(url(bytes), expected, "{bytes:?}");
        // RFC 4648, 10.
        check(b"", "");
        check(b"f", "Zg");
        check(b"fo", "Zm8");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg");
        check(b"fooba", "Zm9vYmE");
        check(b"foobar", "Zm9vYmFy");
        check(&[0xfb, 0xff, 0xfe], "-__-");
        let pem = pem("X", &[0xff; 50]);
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!((lines.len(), lines[1].len(), lines[2]), (4, 64, "//8="), "{pem}");
    }
}

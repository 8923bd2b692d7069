//! Finds and redacts token texts where they must not be: in targets, log lines, answers.

use std::borrow::Cow;

use memchr::memchr_iter;

use super::{Bearer, ID, LENGTH, PREFIX, has_checksum, has_shape};

/// Finds the tokens in `bytes`, with their positions. Only texts with a valid checksum count.
pub fn find_tokens(bytes: &[u8]) -> impl Iterator<Item = (usize, Bearer<'_>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + find(&bytes[from..], has_checksum)?;
        from = at + LENGTH;
        Some((at, Bearer { text: &bytes[at..from], has_own_shape: true }))
    })
}

/// Whether `target` contains a permgate token, raw or percent-decoded once.
pub fn contains_token(target: &str) -> bool {
    contains(target, has_checksum)
}

/// Replaces every text of a token's form in `text`, raw or percent-decoded once, by `pgt_<id>_...`; borrows
/// if there is none. For logs, answers and `explain`. Ignores the checksum: a token with a typing error is
/// useless but still nearly as secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !contains(text, |_| true) {
        return Cow::Borrowed(text);
    }
    // A raw token contains no `%` and begins with no hexadecimal digit, so decoding does not change it.
    let (decoded, starts) = decode_once(text.as_bytes());
    let mut redacted = String::new();
    let (mut from, mut copied) = (0, 0);
    while let Some(at) = find(&decoded[from..], |_| true).map(|at| from + at) {
        redacted.push_str(&text[copied..starts[at]]);
        let shown = &decoded[at..=at + PREFIX.len() + ID];
        redacted.extend(shown.iter().map(|b| char::from(*b)));
        redacted.push_str("...");
        from = at + LENGTH;
        copied = starts[from];
    }
    redacted.push_str(&text[copied..]);
    Cow::Owned(redacted)
}

fn contains(text: &str, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    let bytes = text.as_bytes();
    if text.contains('%') {
        find(&decode_once(bytes).0, is_meant).is_some()
    } else {
        find(bytes, is_meant).is_some()
    }
}

/// The position of the first text of a token's form that `is_meant` accepts. Searches for underscores, which
/// are rare in paths and which every token has behind `pgt`.
fn find(bytes: &[u8], is_meant: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let starts = memchr_iter(b'_', bytes).filter_map(|underscore| (underscore + 1).checked_sub(PREFIX.len()));
    starts
        .into_iter()
        .find(|start| bytes.get(*start..start + LENGTH).is_some_and(|text| has_shape(text) && is_meant(text)))
}

/// The bytes after one decoding, and the position of each in the input, followed by the input's length.
fn decode_once(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut decoded, mut starts) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len() + 1));
    let mut at = 0;
    while at < bytes.len() {
        starts.push(at);
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    starts.push(bytes.len());
    (decoded, starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";

    #[test]
    fn a_token_is_found_and_redacted_wherever_it_stands() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(contains_token(text), expected.is_some(), "{text}");
            assert_eq!(redact(text), expected.unwrap_or(text), "{text}");
        };
        let encoded: String = TOKEN.bytes().map(|b| format!("%{b:02X}")).collect();
        check("", None);
        check("_", None);
        check("/a_b/pgt_x?pgt_", None);
        check("/%zz/é_%", None);
        check("pgt_short_0000000000000000000000000000000000000000000000000", None);
        check(TOKEN, Some("pgt_A1iceYt00001_..."));
        check(&format!("/x?t={TOKEN}&y=1"), Some("/x?t=pgt_A1iceYt00001_...&y=1"));
        check(&format!("/x/{TOKEN}{TOKEN}/é"), Some("/x/pgt_A1iceYt00001_...pgt_A1iceYt00001_.../é"));
        check(&format!("a_{TOKEN}0"), Some("a_pgt_A1iceYt00001_...0"));
        check(&format!("/%41?{}", TOKEN.replace('_', "%5F")), Some("/%41?pgt_A1iceYt00001_..."));
        check(&format!("%é{encoded}%"), Some("%épgt_A1iceYt00001_...%"));
        check(&encoded.replace('%', "%25"), None);
        let mistyped = TOKEN.replace("fAP2", "fAPA");
        assert!(!contains_token(&mistyped), "refused before look-up anyway");
        assert_eq!(redact(&mistyped), "pgt_A1iceYt00001_...", "but never shown");
    }
}

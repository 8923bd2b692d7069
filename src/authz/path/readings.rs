//! What other servers may make of a path: every transformation that one of them is known to apply,
//! closed under combination, so that the order in which they are applied does not matter.

use unicode_normalization::UnicodeNormalization;

use super::PathError;
use crate::authz::rules::{Allowance, Allowances};

/// One way to read a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    text: String,
    needs: Allowances,
    decoded: u8,
}

/// Beyond these a path is refused: the closure of a path that people use has at most some dozens.
const MAX_READINGS: usize = 192;
const MAX_BYTES: usize = 192 << 10;
/// Escapes inside escapes are followed so far.
const MAX_DECODED: u8 = 3;

impl Reading {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A service that has one of these allowances does not care for this reading.
    pub fn needs(&self) -> Allowances {
        self.needs
    }
}

/// Every reading of a literal path but itself; refuses what no service may get.
pub fn all(literal: &str) -> Result<Vec<Reading>, PathError> {
    check_escapes(literal)?;
    let mut readings = vec![Reading { text: literal.to_owned(), needs: Allowances::NONE, decoded: 0 }];
    let mut bytes = 0;
    let mut at = 0;
    while at < readings.len() {
        let from = readings[at].clone();
        if from.text.split('/').any(is_dot_segment) {
            return Err(PathError::DotSegment);
        }
        if from.text.contains('\0') {
            return Err(PathError::Control);
        }
        for next in steps(&from) {
            let known = |r: &Reading| r.text == next.text && r.needs.is_subset_of(next.needs);
            if readings.iter().any(known) {
                continue;
            }
            bytes += next.text.len();
            if readings.len() >= MAX_READINGS || bytes > MAX_BYTES {
                return Err(PathError::TooManyReadings);
            }
            readings.push(next);
        }
        at += 1;
    }
    readings.remove(0);
    Ok(readings)
}

/// Whether a segment ends in what some servers cut off, or is a dot segment.
pub fn has_tail(path: &str) -> bool {
    path.split('/').any(|segment| segment.ends_with(is_tail))
}

/// What the bytes of a literal path must hold to: sound escapes, no controls, UTF-8.
fn check_escapes(literal: &str) -> Result<(), PathError> {
    let mut escapes = literal.split('%');
    escapes.next();
    if !escapes.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(PathError::Escape);
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(literal).collect();
    let decoded = String::from_utf8(decoded).map_err(|_| PathError::Utf8)?;
    if decoded.contains(char::is_control) { Err(PathError::Control) } else { Ok(()) }
}

/// Everything one step away.
fn steps(from: &Reading) -> impl Iterator<Item = Reading> + '_ {
    let text = from.text.as_str();
    let step = |next: Option<String>, needs: Option<Allowance>| {
        let needs = needs.map_or(from.needs, |allowance| from.needs.with(allowance));
        next.filter(|next| next != text).map(|text| Reading { text, needs, decoded: from.decoded })
    };
    let decoded = (from.decoded < MAX_DECODED).then(|| decode(text)).flatten();
    [
        step(decoded, None).map(|next| Reading { decoded: from.decoded + 1, ..next }),
        step(separate(text), Some(Allowance::EncodedSlashes)),
        step(text.contains('\\').then(|| text.replace('\\', "/")), None),
        step(merge(text), Some(Allowance::EmptySegments)),
        step(drop_authority(text), Some(Allowance::EmptySegments)),
        step(cut_parameters(text), Some(Allowance::PathParameters)),
        step(text.find(['?', '#']).map(|at| text[..at].to_owned()), None),
        step(cut_tails(text), None),
        step(text.contains(char::is_control).then(|| text.replace(char::is_control, "")), None),
        step((!text.is_ascii()).then(|| fold(text)), None),
    ]
    .into_iter()
    .flatten()
}

/// Decodes every escape once, but for separators: those are a step of their own.
fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%'
            && let Some(byte) = hex(bytes, at + 1, 2)
            && !matches!(byte, 0x2f | 0x5c)
        {
            decoded.push(byte as u8);
            at += 3;
        } else if bytes[at] == b'%'
            && bytes.get(at + 1).is_some_and(|b| b.eq_ignore_ascii_case(&b'u'))
            && let Some(unit) = hex(bytes, at + 2, 4)
        {
            // IIS's own escapes; they can only stand inside of a decoded reading.
            let char = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
            decoded.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    Some(generous_utf8(&decoded))
}

fn hex(bytes: &[u8], from: usize, digits: usize) -> Option<u32> {
    let digits = bytes.get(from..from + digits)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// UTF-8 as a careless decoder takes it: overlong forms stand for their character. The literal
/// path's own bytes are sound UTF-8; those of a path decoded twice need not be.
fn generous_utf8(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (length, head) = match bytes[at] {
            byte @ 0..0x80 => (1, byte),
            byte @ 0xc0..0xe0 => (2, byte & 0x1f),
            byte @ 0xe0..0xf0 => (3, byte & 0x0f),
            byte @ 0xf0..0xf8 => (4, byte & 0x07),
            _ => (1, 0xff),
        };
        let tail = bytes.get(at + 1..at + length).filter(|tail| tail.iter().all(|b| b & 0xc0 == 0x80));
        let value = tail.map(|tail| tail.iter().fold(u32::from(head), |v, b| v << 6 | u32::from(b & 0x3f)));
        let char = value.filter(|_| head != 0xff).and_then(char::from_u32);
        text.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
        at += if tail.is_some() { length } else { 1 };
    }
    text
}

/// `%2F` and `%5C` as separators.
fn separate(text: &str) -> Option<String> {
    let mut separated = String::new();
    let mut copied = 0;
    for (at, _) in text.match_indices('%') {
        let escape = text.get(at + 1..at + 3).unwrap_or_default();
        if escape.eq_ignore_ascii_case("2f") || escape.eq_ignore_ascii_case("5c") {
            separated.push_str(&text[copied..at]);
            separated.push('/');
            copied = at + 3;
        }
    }
    (copied != 0).then(|| separated + &text[copied..])
}

fn merge(text: &str) -> Option<String> {
    text.contains("//").then(|| {
        let mut merged = String::with_capacity(text.len());
        for char in text.chars() {
            if char != '/' || !merged.ends_with('/') {
                merged.push(char);
            }
        }
        merged
    })
}

/// `//host/path` as a reference that names a host.
fn drop_authority(text: &str) -> Option<String> {
    let rest = text.strip_prefix("//")?;
    Some(rest.find('/').map_or("/", |at| &rest[at..]).to_owned())
}

fn cut_parameters(text: &str) -> Option<String> {
    text.contains(';').then(|| by_segment(text, |segment| segment.split(';').next().unwrap_or_default()))
}

fn cut_tails(text: &str) -> Option<String> {
    has_tail(text).then(|| by_segment(text, |segment| segment.trim_end_matches(is_tail)))
}

fn by_segment(text: &str, cut: impl Fn(&str) -> &str) -> String {
    let mut cut_text = String::with_capacity(text.len());
    for (number, segment) in text.split('/').enumerate() {
        if number > 0 {
            cut_text.push('/');
        }
        cut_text.push_str(cut(segment));
    }
    cut_text
}

/// `+` is a space to servers that decode a path like a form.
fn is_tail(char: char) -> bool {
    matches!(char, '.' | ' ' | '+')
}

/// `.` and `..`, also once trailing dots or spaces are cut off, or controls left out.
fn is_dot_segment(segment: &str) -> bool {
    segment.contains('.') && segment.chars().all(|c| is_tail(c) || c.is_control())
}

/// Compatibility forms: full-width letters, dots and slashes and their like, characters that are
/// invisible, and those whose capital is an ASCII one.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for char in text.nfkc() {
        match char {
            '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{2571}' => folded.push('/'),
            '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{2572}' => folded.push('\\'),
            '\u{3002}' => folded.push('.'),
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' => {}
            '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => {}
            char if !char.is_ascii() && char.to_uppercase().all(|c| c.is_ascii()) => {
                folded.extend(char.to_uppercase());
            }
            char => folded.push(char),
        }
    }
    folded
}

//! The ways in which servers may read a path: every transformation that some server is known to apply, closed
//! under combination, so that the order of application does not matter.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::PathError;
use crate::authz::rules::{Allowance, Allowances};

/// One way to read a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    text: String,
    needs: Allowances,
    decoded: u8,
    /// Whether it still contains the path's literal `.` segments.
    keeps_dots: bool,
}

/// A path with more readings, or more bytes in all of them together, is refused. Paths in real use have at
/// most some dozens of readings.
const MAX_READINGS: usize = 96;
const MAX_BYTES: usize = 24 << 10;
/// However long the path is, the byte limit leaves room for this many copies of it.
const LONG_READINGS: usize = 3;
/// Every subset of a path's sessions may be cut out, so more have too many readings, unless they are alike.
const MAX_SESSIONS: usize = 6;
/// The limit of nested escapes, such as `%2525`.
const MAX_DECODED: u8 = 3;

impl Reading {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A service that has one of these allowances ignores this reading.
    pub fn needs(&self) -> Allowances {
        self.needs
    }
}

/// Returns every reading of a literal path except itself, and whether the path decodes to UTF-8. Fails if no
/// service may get the path.
pub fn all(literal: &str) -> Result<(Vec<Reading>, bool), PathError> {
    let utf8 = check_escapes(literal)?;
    let reading =
        |text: String, keeps_dots| Reading { text, needs: Allowances::NONE, decoded: 0, keeps_dots };
    let without = without_dot_segments(literal);
    let mut readings = vec![reading(literal.to_owned(), !without.is_empty())];
    // A dot segment that a transformation produces is found in the readings of these paths without dots.
    readings.extend(without.into_iter().map(|text| reading(text, false)));
    let most = MAX_BYTES.max(LONG_READINGS * literal.len());
    let mut bytes = 0;
    let mut at = 0;
    while at < readings.len() {
        let from = readings[at].clone();
        let is_refused = |segment: &str| is_dot_segment(segment) && !(from.keeps_dots && segment == ".");
        if from.text.split('/').any(is_refused) {
            return Err(PathError::DotSegment);
        }
        if from.text.contains('\0') {
            return Err(PathError::Control);
        }
        // Cutting any of thousands of equal sessions gives one reading, which the limits count once.
        if cookieless_sessions(&from.text).nth(MAX_SESSIONS).is_some() {
            return Err(PathError::TooManyReadings);
        }
        for next in transformations(&from) {
            let known = |r: &Reading| {
                r.text == next.text && r.needs.is_subset_of(next.needs) && r.keeps_dots <= next.keeps_dots
            };
            if readings.iter().any(known) {
                continue;
            }
            bytes += next.text.len();
            if readings.len() >= MAX_READINGS || bytes > most {
                return Err(PathError::TooManyReadings);
            }
            readings.push(next);
        }
        at += 1;
    }
    readings.remove(0);
    Ok((readings, utf8))
}

/// Returns the path without its literal `.` segments, as most servers read it. If the last segment is `.`,
/// returns it with and without a final slash. Empty if the path has no `.` segment.
fn without_dot_segments(literal: &str) -> Vec<String> {
    let segments = || literal.split('/').skip(1);
    if !segments().any(|segment| segment == ".") {
        return Vec::new();
    }
    let kept: Vec<&str> = segments().filter(|segment| *segment != ".").collect();
    let bare = format!("/{}", kept.join("/"));
    if literal.ends_with("/.") && bare != "/" { vec![format!("{bare}/"), bare] } else { vec![bare] }
}

/// Whether some servers cut off the end of a segment, or a session. A dot segment counts too.
pub fn is_cut(path: &str) -> bool {
    has_tail(path) || has_stream(path) || cookieless_sessions(path).next().is_some()
}

fn has_tail(path: &str) -> bool {
    path.split('/').any(|segment| segment.ends_with(is_tail))
}

fn has_stream(path: &str) -> bool {
    path.contains(":$")
}

/// Checks a literal path: every escape is complete, and none encodes a control character or overlong UTF-8.
/// Returns whether the escapes decode to UTF-8.
fn check_escapes(literal: &str) -> Result<bool, PathError> {
    let mut escapes = literal.split('%');
    escapes.next();
    if !escapes.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(PathError::Escape);
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(literal).collect();
    // Valid UTF-8 never contains such a pair.
    let overlong =
        |two: &[u8]| matches!(two, [0xc0..=0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    if decoded.windows(2).any(overlong) {
        return Err(PathError::Utf8);
    }
    let mut utf8 = true;
    for chunk in decoded.utf8_chunks() {
        utf8 &= chunk.invalid().is_empty();
        // The control characters of Latin-1.
        let control = |byte: &u8| (0x80..=0x9f).contains(byte);
        if chunk.valid().contains(char::is_control) || chunk.invalid().iter().any(control) {
            return Err(PathError::Control);
        }
    }
    Ok(utf8)
}

/// Returns every reading that a single transformation produces.
fn transformations(from: &Reading) -> impl Iterator<Item = Reading> + '_ {
    let text = from.text.as_str();
    let step = move |next: Option<String>, needs: Option<Allowance>| {
        let needs = needs.map_or(from.needs, |allowance| from.needs.with(allowance));
        next.filter(|next| next != text).map(|text| Reading { text, needs, ..*from })
    };
    let decoded = if from.decoded < MAX_DECODED { decode(text) } else { Vec::new() };
    let decoded: Vec<_> = decoded
        .into_iter()
        .filter_map(|decoded| step(Some(decoded), None))
        .map(|next| Reading { decoded: from.decoded + 1, ..next })
        .collect();
    let others = [
        step(decode_separators(text), Some(Allowance::EncodedSlashes)),
        step(text.contains('\\').then(|| text.replace('\\', "/")), None),
        step(merge_separators(text), Some(Allowance::EmptySegments)),
        step(drop_authority(text), Some(Allowance::EmptySegments)),
        step(text.strip_prefix("//").and_then(in_root), Some(Allowance::EmptySegments)),
        step(cut_parameters(text), Some(Allowance::PathParameters)),
        step(text.find(['?', '#']).map(|at| text[..at].to_owned()), None),
        step(cut_tails(text), None),
        step(cut_streams(text), None),
        step(text.contains(is_hidden).then(|| text.replace(is_hidden, "")), None),
        step((!text.is_ascii()).then(|| fold(text)), None),
        step(leave_alias(text), None),
    ];
    let without_sessions = cookieless_sessions(text).filter_map(move |at| {
        let rest = [&text[..at.start], &text[at.end..]].concat();
        step(in_root(&rest).or_else(|| Some(format!("/{rest}"))), None)
    });
    decoded.into_iter().chain(others.into_iter().flatten()).chain(without_sessions)
}

/// Decodes every escape once, except separators, which [`decode_separators`] decodes. If the result is not
/// UTF-8, returns three readings: its invalid bytes as replacement characters, as Latin-1, and left out.
fn decode(text: &str) -> Vec<String> {
    if !text.contains('%') {
        return Vec::new();
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
            // `%uXXXX`, an escape of IIS. Only decoded readings contain it: literal paths are checked.
            let char = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
            decoded.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    match String::from_utf8(decoded) {
        Ok(text) => vec![text],
        Err(error) => {
            let bytes = error.as_bytes();
            let unknown = lenient_utf8(bytes, |_| Some(char::REPLACEMENT_CHARACTER));
            vec![unknown, lenient_utf8(bytes, |byte| Some(byte.into())), lenient_utf8(bytes, |_| None)]
        }
    }
}

fn hex(bytes: &[u8], from: usize, digits: usize) -> Option<u32> {
    let digits = bytes.get(from..from + digits)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// Decodes UTF-8 leniently: an overlong form yields its character, and a byte that belongs to no character
/// yields what `invalid` returns. Overlong forms occur only in a path that is decoded twice: the check of the
/// literal path refuses them.
fn lenient_utf8(bytes: &[u8], invalid: impl Fn(u8) -> Option<char>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (length, head) = match bytes[at] {
            byte @ 0..0x80 => (1, byte),
            byte @ 0xc0..0xe0 => (2, byte & 0x1f),
            byte @ 0xe0..0xf0 => (3, byte & 0x0f),
            byte @ 0xf0..0xf8 => (4, byte & 0x07),
            _ => (0, 0),
        };
        let tail = bytes.get(at + 1..at + length).filter(|tail| tail.iter().all(|b| b & 0xc0 == 0x80));
        let value = tail.map(|tail| tail.iter().fold(u32::from(head), |v, b| v << 6 | u32::from(b & 0x3f)));
        match value.and_then(char::from_u32) {
            Some(char) => {
                text.push(char);
                at += length;
            }
            None => {
                text.extend(invalid(bytes[at]));
                at += 1;
            }
        }
    }
    text
}

/// Replaces `%2F` and `%5C` by a slash.
fn decode_separators(text: &str) -> Option<String> {
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

fn merge_separators(text: &str) -> Option<String> {
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

/// Reads `//host/path` as a reference that names a host. URL parsers of browsers and Node.js skip further
/// slashes in front of the host.
fn drop_authority(text: &str) -> Option<String> {
    let rest = text.strip_prefix("//")?.trim_start_matches('/');
    Some(rest.find('/').map_or("/", |at| &rest[at..]).to_owned())
}

/// Returns the text if it is an absolute path, as what follows an empty host is.
fn in_root(text: &str) -> Option<String> {
    text.starts_with('/').then(|| text.to_owned())
}

/// With `location /a` and `alias /b/`, nginx reads `/a../c` as `/b/../c`, which is usually beside `/a`.
fn leave_alias(text: &str) -> Option<String> {
    let mut segments: Vec<_> = text.split('/').collect();
    let at = segments.iter().position(|segment| segment.ends_with("..") && !is_dot_segment(segment))?;
    segments.remove(at);
    Some(if segments.len() == 1 { "/".to_owned() } else { segments.join("/") })
}

/// Where a path has the sessions and tickets that ASP.NET cuts out of it: `/(S(...)F(...))`, also where more
/// of the segment follows. ASP.NET accepts no slash in them. Each is looked for in its own segment only, so
/// that the work grows with the path's length and not with its square.
fn cookieless_sessions(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("/(").filter_map(|(start, opening)| {
        let groups = start + opening.len();
        let segment = text[groups..].split('/').next().unwrap_or_default();
        let mut end = 0;
        while segment[end..].starts_with(|c: char| c.is_ascii_uppercase())
            && segment[end + 1..].starts_with('(')
        {
            end += segment[end..].find(')')? + 1;
        }
        (end > 0 && segment[end..].starts_with(')')).then(|| start..groups + end + 1)
    })
}

fn cut_parameters(text: &str) -> Option<String> {
    text.contains(';').then(|| map_segments(text, |segment| segment.split(';').next().unwrap_or_default()))
}

fn cut_tails(text: &str) -> Option<String> {
    let has_blank = text.contains("/ ");
    (has_blank || has_tail(text))
        .then(|| map_segments(text, |segment| segment.trim_end_matches(is_tail).trim_start_matches(' ')))
}

/// On NTFS, `name::$DATA` is the file `name`, and `name:$i30:$INDEX_ALLOCATION` is the directory `name`.
fn cut_streams(text: &str) -> Option<String> {
    has_stream(text).then(|| {
        map_segments(text, |segment| match segment.split_once(':') {
            Some((name, _)) if has_stream(segment) => name,
            _ => segment,
        })
    })
}

fn map_segments(text: &str, cut: impl Fn(&str) -> &str) -> String {
    let mut cut_text = String::with_capacity(text.len());
    for (number, segment) in text.split('/').enumerate() {
        if number > 0 {
            cut_text.push('/');
        }
        cut_text.push_str(cut(segment));
    }
    cut_text
}

/// Servers that decode a path like a form read `+` as a space.
fn is_tail(char: char) -> bool {
    matches!(char, '.' | ' ' | '+')
}

/// Whether some server may read the segment as `.` or `..`: it does so after cutting off trailing dots and
/// spaces or dropping invisible characters.
fn is_dot_segment(segment: &str) -> bool {
    segment.contains('.') && segment.chars().all(|c| is_tail(c) || is_hidden(c))
}

/// Whether some servers drop this character: Unicode 17 categories Zs (except the plain space), Zl, Zp, Cf
/// and Cc, and the rest of `Default_Ignorable_Code_Point`.
fn is_hidden(char: char) -> bool {
    match char {
        ' '..='~' => false,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' => true,
        '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' => true,
        '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{1680}' => true,
        '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' => true,
        '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{3164}' => true,
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' => true,
        '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' => true,
        '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// Replaces compatibility forms (full-width letters, dots, slashes and similar) and characters whose upper
/// case is ASCII by their ASCII equivalents, and drops invisible characters and accents: databases compare
/// names without accents, and Windows fits letters into a code page.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for char in text.nfkd() {
        match char {
            '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{2571}' => folded.push('/'),
            '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{2572}' => folded.push('\\'),
            // Yen and won: they take the place of the backslash in Japanese and Korean code pages.
            '\u{a5}' | '\u{20a9}' => folded.push('\\'),
            '\u{3002}' => folded.push('.'),
            char if is_hidden(char) || is_combining_mark(char) => {}
            char if !char.is_ascii() && char.to_uppercase().all(|c| c.is_ascii()) => {
                folded.extend(char.to_uppercase());
            }
            char => folded.push(char),
        }
    }
    folded
}

//! Checks and normalizes logins, names, notes, addresses and role keys.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use unicode_normalization::UnicodeNormalization;

use super::{AdminError, AdminErrorCode};
use crate::authz::path::RequestPath;

mod joiners;

/// `me` and `all-users` have a meaning in API paths, the others in the audit log.
const RESERVED_LOGINS: [&str; 4] = ["me", "all-users", "operator", "system"];

/// The most bytes for each character of the limit, before a text is composed and trimmed. Longer texts are
/// refused unread, since names are judged on the thread that makes every change.
const MAX_BYTES: usize = 64;

/// Returns the text in NFC and trimmed. It must have `min` to `max` characters and no control, bidi or
/// invisible ones. Joiners and variation selectors are allowed where they change how letters and emoji are
/// drawn; [`fold`] ignores joiners.
///
/// [`fold`]: crate::authz::accounts::fold
pub fn text(what: &str, text: &str, min: usize, max: usize) -> Result<String, AdminError> {
    let too_long = || invalid(format!("a {what} can have at most {max} characters"));
    if text.len() > MAX_BYTES * max {
        return too_long();
    }
    let clean = if text.is_ascii() { text.to_owned() } else { text.nfc().collect() };
    let clean = clean.trim();
    let length = clean.chars().count();
    if clean.chars().any(is_deceptive) || !joiners::are_valid(clean) {
        return invalid(format!("a {what} must not have control, bidi or invisible characters"));
    }
    match (length < min, length > max) {
        (true, _) => invalid(format!("a {what} must not be empty")),
        (_, true) => too_long(),
        _ => Ok(clean.to_owned()),
    }
}

/// Checks an edit with `check`. An unchanged text passes: the rules may have been others when it was given.
pub fn edited(
    before: Option<&str>,
    after: &str,
    check: impl FnOnce(&str) -> Result<String, AdminError>,
) -> Result<String, AdminError> {
    if before == Some(after) { Ok(after.to_owned()) } else { check(after) }
}

/// A group is a segment of the API's paths, so its name must not be read as another path: otherwise nobody
/// could change or delete the group.
pub fn group(name: &str) -> Result<String, AdminError> {
    let name = text("group name", name, 1, 200)?;
    let path = format!("/{}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
    // Clients remove the segment before they send the path.
    if name == "." || RequestPath::parse(&path).is_err() {
        return invalid(format!(
            "{name:?} cannot be a group name: in the paths of the API it could be read as another path"
        ));
    }
    Ok(name)
}

pub fn login(login: &str) -> Result<String, AdminError> {
    let fits = (1..=64).contains(&login.len())
        && login.starts_with(|c: char| c.is_ascii_alphanumeric())
        && login.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b));
    if !fits {
        return invalid(
            "a login has 1 to 64 of the characters A-Z a-z 0-9 . _ @ + - and begins with a letter or digit",
        );
    }
    if RESERVED_LOGINS.iter().any(|word| login.eq_ignore_ascii_case(word)) {
        return invalid(format!("the login {login:?} is reserved"));
    }
    Ok(login.to_owned())
}

pub fn email(email: &str) -> Result<String, AdminError> {
    let email = text("mail address", email, 3, 254)?;
    let split = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if !split || email.contains(char::is_whitespace) {
        return invalid("write a mail address as NAME@HOST");
    }
    Ok(email)
}

/// `[a-z][a-z0-9-]{0,62}`.
pub fn role_key(key: &str) -> Result<String, AdminError> {
    let fits = (1..=63).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(key.to_owned())
    } else {
        invalid("a role's key has 1 to 63 of the characters a-z 0-9 - and begins with a letter")
    }
}

/// The character as a terminal may show it.
pub fn printable(c: char) -> char {
    if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }
}

/// Whether a character steers a terminal, or is invisible but makes a text another one: controls, bidi
/// controls, separators, and what Unicode lets a font ignore (Default_Ignorable_Code_Point). Excludes the
/// joiners and variation selectors, which `joiners` checks.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, grapheme joiner, Arabic letter mark, Hangul fillers, Khmer inherent vowels,
            // Mongolian vowel separator.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180e}'
            // Zero-width space, marks, separators, bidi controls, invisible operators, the empty Braille
            // pattern.
            | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
            // Hangul fillers, byte order mark, annotations.
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            // Controls of shorthand and of music, tags.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

fn invalid<T>(message: impl Into<String>) -> Result<T, AdminError> {
    Err(AdminError::new(AdminErrorCode::InvalidName, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |name: &str, given: &str, expected: Option<&str>| {
            assert_eq!(text("name", given, 1, 10).ok().as_deref(), expected, "{name}");
        };
        check("plain", "build", Some("build"));
        check("trimmed", "  build\u{3000}", Some("build"));
        check("composed", "e\u{301}", Some("\u{e9}"));
        check("ten characters, not bytes", "éééééééééé", Some("éééééééééé"));
        check("eleven", "xxxxxxxxxxx", None);
        check("ten, decomposed", &"\u{3b1}\u{313}\u{300}\u{345}".repeat(10), Some(&"\u{1f82}".repeat(10)));
        check("more blanks than anybody types", &format!("build{}", " ".repeat(640)), None);
        check("blank", "   ", None);
        check("line feed inside", "a\nb", None);
        check("NUL", "a\0b", None);
        check("right-to-left override", "a\u{202e}b", None);
        check("isolate", "a\u{2066}b", None);
        check("arabic letter mark", "a\u{61c}b", None);
        check("zero width space", "a\u{200b}b", None);
        check("byte order mark", "a\u{feff}b", None);
        check("left-to-right mark", "a\u{200e}b", None);
        check("right-to-left mark", "a\u{200f}b", None);
        check("a joiner that does nothing", "a\u{200d}b", None);
        check("a variation selector that does nothing", "a\u{fe0f}b", None);
        check("soft hyphen", "a\u{ad}b", None);
        check("combining grapheme joiner", "a\u{34f}b", None);
        check("Hangul filler, first", "a\u{115f}b", None);
        check("Hangul filler, middle", "a\u{1160}b", None);
        check("Hangul filler", "\u{3164}", None);
        check("Hangul filler, half width", "a\u{ffa0}b", None);
        check("Khmer inherent vowel", "a\u{17b4}b", None);
        check("Mongolian vowel separator", "a\u{180e}b", None);
        check("invisible plus", "a\u{2064}b", None);
        check("empty Braille pattern", "\u{2800}", None);
        check("annotation", "a\u{fff9}b", None);
        check("shorthand control", "a\u{1bca0}b", None);
        check("music control", "a\u{1d173}b", None);
        check("language tag", "a\u{e0001}b", None);
        check("tag", "a\u{e0041}b", None);
        check("unassigned and ignorable", "a\u{e0fff}b", None);
        check("Hangul", "한글", Some("한글"));
        check("decomposed Hangul", "\u{1112}\u{1161}\u{11ab}", Some("한"));
    }

    #[test]
    fn logins() {
        let check = |login_text: &str, ok: bool| assert_eq!(login(login_text).is_ok(), ok, "{login_text:?}");
        check("alice", true);
        check("Ci-Bot+1@example.com", true);
        check("7of9", true);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
        check("", false);
        check(".hidden", false);
        check("-x", false);
        check("a b", false);
        check("a/b", false);
        check("é", false);
        check("me", false);
        check("ME", false);
        check("All-Users", false);
        check("operator", false);
    }

    #[test]
    fn groups_can_be_named_in_paths() {
        for name in ["R&D", "a/b", "50% of staff", "v1.0", "Ärzte; Pflege?", "日本語", "a+b", "#1", "a\\b"]
        {
            assert_eq!(group(name).ok().as_deref(), Some(name));
        }
        for long in ["é ", "日本", "% ", "/ü"] {
            assert!(group(&format!("{}x", long.repeat(99))).is_ok(), "{long:?}");
        }
        for bad in [".", "..", "...", "..;a", "a/../b", "a/./b", "%2e%2e", "%00", "\u{ff0e}\u{ff0e}", ""] {
            assert!(group(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_and_role_keys() {
        assert!(email("a@b.example").is_ok());
        for bad in ["", "a", "@b", "a@", "a b@c"] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
        assert!(role_key("auditor-2").is_ok());
        for bad in ["", "2x", "A", "a_b", "-"] {
            assert!(role_key(bad).is_err(), "{bad:?}");
        }
    }
}

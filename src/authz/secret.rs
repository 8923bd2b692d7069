//! Token texts: their form, generation, parsing and digests. A text is shown once; only its digest is kept.

use std::fmt;

use zeroize::Zeroizing;

pub use leak::{contains_token, find_tokens, redact};

mod leak;

/// `Debug` of types whose value must not be logged.
macro_rules! redact_debug {
    ($($name:ident $(<$lifetime:lifetime>)?),+) => {
        $(impl std::fmt::Debug for $name $(<$lifetime>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })+
    };
}
pub(crate) use redact_debug;

redact_debug!(Digest, Bearer<'_>, TokenText);

/// A token's public id: 12 base62 characters. It may be shown and logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 12]);

/// BLAKE3 of the canonical token text: the key by which a token is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A new token's text. It has no `Display` and a redacted `Debug`, cannot be recovered from its [`Digest`],
/// and is overwritten when dropped.
pub struct TokenText(Zeroizing<String>);

/// The form of a bearer's text, known before any look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerForm {
    /// `pgt_<id>_<secret><crc>` with the right checksum.
    Own,
    ChecksumMismatch,
    /// Not of permgate's form: looked up only if imported tokens exist.
    Foreign,
}

/// A bearer's text as it was found in a field, before any look-up. Its `Debug` is redacted.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    text: &'a [u8],
    /// Whether the text has permgate's form, apart from the checksum.
    has_own_shape: bool,
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "pgt_";
/// Prefixes that clients written for JetBrains Hub put in front of a token.
const ALIASES: [&[u8]; 2] = [b"perm:", b"perm-"];
const ID: usize = 12;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
/// The length of the text that the checksum covers.
const CHECKED_LENGTH: usize = PREFIX.len() + ID + 1 + SECRET;
/// The length of a token's text in bytes.
pub const LENGTH: usize = CHECKED_LENGTH + CHECKSUM;
/// The longest bearer that is accepted, in bytes.
const MAX_BEARER: usize = 512;

impl TokenText {
    /// Generates a token with the given id, or a random one. `fill` must supply uniformly random bytes;
    /// rejection sampling may call it repeatedly.
    pub fn generate(given: Option<TokenId>, fill: &mut impl FnMut(&mut [u8])) -> (TokenId, TokenText) {
        let mut random: Zeroizing<[u8; ID + SECRET]> = Zeroizing::new(random_base62(fill));
        if let Some(TokenId(given)) = given {
            random[..ID].copy_from_slice(&given);
        }
        let mut id = [0; ID];
        id.copy_from_slice(&random[..ID]);
        // Full capacity at once: growing the string would leave a copy of the secret in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(PREFIX);
        text.extend(random[..ID].iter().map(|b| char::from(*b)));
        text.push('_');
        text.extend(random[ID..].iter().map(|b| char::from(*b)));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.iter().map(|b| char::from(*b)));
        (TokenId(id), TokenText(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> Digest {
        digest(self.0.as_bytes())
    }
}

impl<'a> Bearer<'a> {
    /// Accepts one word of `[A-Za-z0-9._~+/:=-]`, at most 512 characters.
    pub fn parse(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        let text = text.as_ref();
        let bearer = Self { text, has_own_shape: has_shape(text) };
        let sound = (1..=MAX_BEARER).contains(&text.len()) && (bearer.has_own_shape || is_bearer_text(text));
        sound.then_some(bearer)
    }

    /// Strips a `perm:` or `perm-` alias in front of a token of permgate's form if `perm_alias`, and
    /// classifies the rest.
    pub fn classify(self, perm_alias: bool) -> (Bearer<'a>, BearerForm) {
        let alias = || ALIASES.iter().find_map(|alias| self.text.strip_prefix(*alias));
        let behind =
            if self.has_own_shape || !perm_alias { None } else { alias().filter(|rest| has_shape(rest)) };
        let canonical = behind.map_or(self, |text| Bearer { text, has_own_shape: true });
        let form = match canonical {
            Bearer { has_own_shape: false, .. } => BearerForm::Foreign,
            Bearer { text, .. } if has_checksum(text) => BearerForm::Own,
            _ => BearerForm::ChecksumMismatch,
        };
        (canonical, form)
    }

    /// BLAKE3 of the text, which must be canonical (see [`Bearer::classify`]).
    pub fn digest(self) -> Digest {
        digest(self.text)
    }

    /// The id in a text of permgate's form.
    pub fn id(self) -> Option<TokenId> {
        let behind = self.has_own_shape.then(|| &self.text[PREFIX.len()..])?;
        behind.first_chunk().copied().map(TokenId)
    }
}

/// Whether the text begins with an alias that [`Bearer::classify`] can strip.
pub fn has_alias(text: &[u8]) -> bool {
    ALIASES.iter().any(|alias| text.starts_with(alias))
}

/// Whether the text is `pgt_`, 12 base62 characters, `_`, 49 base62 characters. Ignores the checksum.
fn has_shape(text: &[u8]) -> bool {
    text.len() == LENGTH
        && text.starts_with(PREFIX.as_bytes())
        && text[PREFIX.len() + ID] == b'_'
        && is_base62(&text[PREFIX.len()..PREFIX.len() + ID])
        && is_base62(&text[PREFIX.len() + ID + 1..])
}

/// The bytes that any bearer may consist of.
const BEARER_BYTES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        let mark = matches!(byte as u8, b'.' | b'_' | b'~' | b'+' | b'/' | b':' | b'=' | b'-');
        table[byte] = mark || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

fn is_bearer_text(text: &[u8]) -> bool {
    text.iter().fold(true, |all, b| all & BEARER_BYTES[usize::from(*b)])
}

fn digest(text: &[u8]) -> Digest {
    Digest(*blake3::hash(text).as_bytes())
}

/// Reads every byte without an early exit, so that the compiler vectorizes the loop.
fn is_base62(text: &[u8]) -> bool {
    text.iter().fold(true, |all, b| all & b.is_ascii_alphanumeric())
}

fn has_checksum(text: &[u8]) -> bool {
    let (checked, sent) = text.split_at(CHECKED_LENGTH);
    sent == checksum(checked)
}

/// Draws uniformly distributed base62 characters.
fn random_base62<const N: usize>(fill: &mut impl FnMut(&mut [u8])) -> [u8; N] {
    let mut drawn = [0; N];
    let mut have = 0;
    while have < N {
        let mut bytes = Zeroizing::new([0; 64]);
        fill(bytes.as_mut_slice());
        // 248 is the largest multiple of 62 in a byte: values from there on would favour some characters.
        let fair = bytes.iter().filter(|b| **b < 248).map(|b| ALPHABET[usize::from(*b % 62)]);
        for (place, character) in drawn[have..].iter_mut().zip(fair) {
            *place = character;
            have += 1;
        }
    }
    drawn
}

/// CRC-32 (zlib) in big-endian base62, left-padded with `0`.
fn checksum(checked: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(checked);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

impl TokenId {
    /// The first one in their order.
    pub const FIRST: Self = Self([b'0'; ID]);

    /// Generates the id of a token whose text was made elsewhere. `fill` must supply uniformly random bytes.
    pub fn generate(fill: &mut impl FnMut(&mut [u8])) -> Self {
        Self(random_base62(fill))
    }

    /// The next id in their order; after the last one comes the first.
    #[must_use]
    pub fn successor(mut self) -> Self {
        for place in self.0.iter_mut().rev() {
            *place = match *place {
                b'z' => b'0',
                b'9' => b'A',
                b'Z' => b'a',
                character => character + 1,
            };
            if *place != b'0' {
                break;
            }
        }
        self
    }

    pub const fn as_bytes(&self) -> &[u8; ID] {
        &self.0
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes().try_into().ok()?)
    }

    pub fn from_bytes(bytes: [u8; ID]) -> Option<Self> {
        is_base62(&bytes).then_some(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base62 is ASCII")
    }
}

impl Digest {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Parses 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";

    #[test]
    fn a_made_text_is_of_our_form_and_names_its_id() {
        let mut next = 7u8;
        let mut fill = |bytes: &mut [u8]| {
            for byte in bytes {
                next = next.wrapping_mul(29).wrapping_add(13);
                *byte = next;
            }
        };
        let (id, text) = TokenText::generate(None, &mut fill);
        let (bearer, form) = Bearer::parse(text.expose()).unwrap().classify(false);
        assert_eq!((text.expose().len(), form, bearer.id()), (66, BearerForm::Own, Some(id)));
        assert_eq!(bearer.digest(), text.digest());
        assert_eq!(Digest::from_hex(&text.digest().to_hex()), Some(text.digest()));
        assert!(!format!("{text:?}{bearer:?}{:?}", text.digest()).contains(&text.expose()[17..]));
    }

    #[test]
    fn ids_follow_each_other_in_their_order() {
        let id = |text: &str| TokenId::parse(text).unwrap();
        let pairs = [
            ("000000000000", "000000000001"),
            ("A1iceYt00009", "A1iceYt0000A"),
            ("A1iceYt0000Z", "A1iceYt0000a"),
            ("A1iceYt00zzz", "A1iceYt01000"),
        ];
        for (before, after) in pairs {
            assert_eq!(id(before).successor().as_str(), after);
            assert!(id(before) < id(after));
        }
        assert_eq!(id("zzzzzzzzzzzz").successor(), id("000000000000"));
    }

    #[test]
    fn bytes_that_would_favour_some_characters_are_thrown_away() {
        let mut calls = 0;
        let (_, text) = TokenText::generate(None, &mut |bytes: &mut [u8]| {
            bytes.fill(if calls == 0 { 255 } else { 61 });
            calls += 1;
        });
        assert_eq!(calls, 2);
        assert!(text.expose().starts_with("pgt_zzzzzzzzzzzz_zzz"));
    }

    #[test]
    fn a_bearer_is_classified_before_any_look_up() {
        let check = |name: &str, text: &str, alias: bool, expected: BearerForm| {
            let (canonical, form) = Bearer::parse(text).unwrap().classify(alias);
            assert_eq!(form, expected, "{name}");
            if form == BearerForm::Own {
                assert_eq!(canonical.text, TOKEN.as_bytes(), "{name}");
            }
        };
        check("own", TOKEN, true, BearerForm::Own);
        check("alias with a colon", &format!("perm:{TOKEN}"), true, BearerForm::Own);
        check("alias with a dash", &format!("perm-{TOKEN}"), true, BearerForm::Own);
        check("alias switched off", &format!("perm-{TOKEN}"), false, BearerForm::Foreign);
        check("alias twice", &format!("perm:perm:{TOKEN}"), true, BearerForm::Foreign);
        check("alias before something else", "perm:cm9vdA==.dG9r.rNZ38", true, BearerForm::Foreign);
        check("alias before a typo", &format!("perm:{}x", &TOKEN[..65]), true, BearerForm::ChecksumMismatch);
        check("prefix in capitals", &TOKEN.replace("pgt", "PGT"), true, BearerForm::Foreign);
        check("one character changed", &TOKEN.replace("fAP2", "fAPA"), true, BearerForm::ChecksumMismatch);
    }

    #[test]
    fn a_bearer_is_one_word_of_at_most_512() {
        let check = |text: &str, sound: bool| assert_eq!(Bearer::parse(text).is_some(), sound, "{text}");
        check("", false);
        check("a b", false);
        check("a,b", false);
        check("é", false);
        check("aA0._~+/:=-", true);
        check(&"a".repeat(512), true);
        check(&"a".repeat(513), false);
    }
}

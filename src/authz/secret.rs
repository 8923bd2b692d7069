//! Token text: made once, shown once, afterwards only its digest.

use std::fmt;

/// The public handle of a token: 12 base62 characters, may be shown and logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 12]);

/// BLAKE3 of the canonical token text: the key a token is found by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A new token's text. Shown once: no `Display`, a redacted `Debug`, no way back from [`Digest`].
pub struct TokenText(String);

/// What a bearer's text is, before any look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `pgt_<id>_<secret><crc>` with a right checksum.
    Own,
    ChecksumMismatch,
    /// Not of our form: looked up only when imported tokens exist.
    Foreign,
}

/// The text of a bearer, cut out of a field but not yet looked up. Redacted `Debug`.
#[derive(Clone, Copy)]
pub struct Bearer<'a>(&'a str);

impl TokenText {
    /// Makes a text from uniformly random bytes (rejection sampling; asks `fill` for more as needed).
    pub fn generate(_fill: &mut impl FnMut(&mut [u8])) -> (TokenId, TokenText) {
        todo!()
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
    pub fn digest(&self) -> Digest {
        todo!()
    }
}

impl<'a> Bearer<'a> {
    /// One word of `[A-Za-z0-9._~+/:=-]`, at most 512 characters.
    pub fn parse(_text: &'a str) -> Option<Self> {
        todo!()
    }
    /// Drops a `perm:`/`perm-` alias in front of our form when `perm_alias`; classifies the rest.
    pub fn classify(self, _perm_alias: bool) -> (Bearer<'a>, Form) {
        todo!()
    }
    /// BLAKE3 of the text as it stands (after [`Bearer::classify`]).
    pub fn digest(self) -> Digest {
        todo!()
    }
}

impl TokenId {
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
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
    /// 64 hexadecimal digits, lower case.
    pub fn to_hex(&self) -> String {
        todo!()
    }
    /// 64 hexadecimal digits, either case.
    pub fn from_hex(_text: &str) -> Option<Self> {
        todo!()
    }
}

/// Replaces every permgate token (valid checksum) in `text`, raw or percent-decoded once, by
/// `pgt_<id>_...`; borrows when there is none. For logs, answers and `explain`.
pub fn redact(_text: &str) -> std::borrow::Cow<'_, str> {
    todo!()
}

/// Whether a permgate token stands in `target`, raw or decoded once.
pub fn contains_token(_target: &str) -> bool {
    todo!()
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
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}
impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}
impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

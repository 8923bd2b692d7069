//! The text of a session or of an invitation, as the browser holds it. Only its digest is stored; the CSRF
//! token is derived from it.

use zeroize::Zeroizing;

use super::super::{ApiResult, Problem};
use crate::authz::secret::{Digest, redact_debug};

/// 256 random bits in hexadecimal. Shown once, redacted in `Debug`, irreversible from its digest, overwritten
/// when dropped.
pub(in crate::admin) struct Secret(Zeroizing<String>);

/// The CSRF token (synchronizer token) that our forms and scripts repeat: a page of another origin makes the
/// browser send the cookie, but cannot read this.
#[derive(Clone, Copy)]
pub struct Csrf(blake3::Hash);

/// The key of the tokens against request forgery for users whom a proxy names, and of the proofs that known
/// browsers keep.
#[derive(Clone, PartialEq, Eq)]
pub struct FormKey([u8; 32]);

redact_debug!(Secret, FormKey, Csrf);

const SESSION: &str = "permgate 2026-11 session digest";
const CSRF: &str = "permgate 2026-11 session csrf";
const HEADER: &str = "permgate 2026-11 header csrf";
const BROWSER: &str = "permgate 2026-11 known browser";

impl Secret {
    pub(in crate::admin) fn draw() -> ApiResult<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| {
            tracing::error!(%error, "the system has no random bytes");
            Problem::internal("No random bytes are available")
        })?;
        Ok(Self(Zeroizing::new(blake3::Hash::from_bytes(*bytes).to_hex().to_string())))
    }

    pub(in crate::admin) fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub(in crate::admin) fn expose(&self) -> &str {
        &self.0
    }

    pub(in crate::admin) fn digest(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key(SESSION, self.0.as_bytes()))
    }

    pub(in crate::admin) fn csrf(&self) -> Csrf {
        Csrf(blake3::Hash::from_bytes(blake3::derive_key(CSRF, self.0.as_bytes())))
    }
}

impl FormKey {
    /// A random key that lives as long as the process.
    pub(in crate::admin) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from_secret(&bytes))
    }

    pub fn from_secret(secret: &[u8]) -> Self {
        Self(blake3::derive_key(HEADER, secret))
    }

    /// The proof that a known browser keeps; a change of the password invalidates it.
    pub(in crate::admin) fn browser(&self, user: &str, phc: &str) -> Csrf {
        let key = blake3::derive_key(BROWSER, &self.0);
        Csrf(blake3::keyed_hash(&key, format!("{user} {phc}").as_bytes()))
    }

    pub(in crate::admin) fn csrf(&self, user: &str) -> Csrf {
        Csrf(blake3::keyed_hash(&self.0, user.as_bytes()))
    }
}

impl Csrf {
    pub fn text(&self) -> String {
        self.0.to_hex().to_string()
    }

    /// Compares in constant time.
    pub fn matches(&self, sent: &[u8]) -> bool {
        blake3::Hash::from_hex(sent).is_ok_and(|sent| sent == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_and_what_is_repeated_do_not_tell_of_each_other() {
        let (one, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_ne!(one.expose(), other.expose());
        let again = Secret::parse(one.expose()).unwrap();
        assert_eq!((again.digest(), again.csrf().text()), (one.digest(), one.csrf().text()));
        assert_ne!(one.digest().to_hex(), one.csrf().text());
        assert!(one.csrf().matches(one.csrf().text().as_bytes()));
        assert!(!one.csrf().matches(other.csrf().text().as_bytes()) && !one.csrf().matches(b""));
        let shown = format!("{one:?}{:?}", one.csrf());
        assert!(!shown.contains(one.expose()) && !shown.contains(&one.csrf().text()));
    }

    #[test]
    fn a_text_has_one_form() {
        let check = |text: &str, sound: bool| assert_eq!(Secret::parse(text).is_some(), sound, "{text}");
        check(&"0".repeat(64), true);
        check(&"f".repeat(64), true);
        check(&"F".repeat(64), false);
        check(&"0".repeat(63), false);
        check(&"é".repeat(32), false);
        check("", false);
    }
}

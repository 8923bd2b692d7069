//! Signed assertions: what vouches to an upstream for one request, for at most 30 seconds.
//!
//! An assertion is a JWS (RFC 7515) in the form of a JWT (RFC 7519), bound to service, user, token,
//! method and path. The keys rotate by time: the next one is published ahead of its first use, the
//! old one until its last assertion has expired.

mod file;
mod key;
mod keyring;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::HeaderValue;
use serde::Serialize;

pub use key::{Algorithm, Key, KeyError, read_pem};
pub use keyring::{Jwks, Keyring, KeyringError, Settings, Source};

use crate::authz::{forwarding::Claims, time::Timestamp};

/// The one request that an assertion is good for.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    pub method: &'a str,
    /// As it is forwarded, byte for byte, without the query.
    pub path: &'a str,
    pub request_id: &'a str,
    pub at: Timestamp,
}

/// Nothing can be signed: the request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed")]
pub struct Unsigned;

/// RFC 7519 names, `htm` as in RFC 9449, and names of our own.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    login: &'a str,
    groups: &'a [&'a str],
    token_id: &'a str,
    htm: &'a str,
    path_sha256: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
}

/// How far back an assertion begins, in seconds: a verifier's clock may be behind ours.
const CLOCK_SKEW: i64 = 5;
/// From its beginning to its end, in seconds: longer, and an assertion that somebody has copied is worth
/// something.
const LONGEST: i64 = 30;

/// The field value for one request. Nothing of it is kept: a permission that is gone is never told.
fn sign(
    key: &Key,
    issuer: &str,
    lifetime: i64,
    claims: &Claims<'_>,
    bound: &Bound<'_>,
) -> Result<HeaderValue, Unsigned> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bound.path.as_bytes());
    let now = bound.at.as_millis().div_euclid(1000);
    let begins = now - CLOCK_SKEW;
    let payload = Payload {
        iss: issuer,
        aud: claims.service,
        sub: claims.user_id,
        login: claims.login,
        groups: &claims.groups,
        token_id: claims.token.as_str(),
        htm: bound.method,
        path_sha256: &BASE64_URL_SAFE_NO_PAD.encode(hash),
        iat: begins,
        nbf: begins,
        exp: (now + lifetime).min(begins + LONGEST),
        jti: bound.request_id,
    };
    let payload = serde_json::to_vec(&payload).map_err(|_| Unsigned)?;
    let mut text = String::with_capacity(key.header().len() + payload.len() * 4 / 3 + 96);
    text.push_str(key.header());
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(&payload, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    let mut value = HeaderValue::try_from(text).map_err(|_| Unsigned)?;
    // Who reads it in a log could use it for some seconds.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;

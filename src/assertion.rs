//! Signed assertions, which prove to an upstream that permgate has authorized one request. They are valid for
//! at most 30 seconds.
//!
//! An assertion is a JWS (RFC 7515) in the form of a JWT (RFC 7519), bound to service, user, token, method
//! and path. The keys rotate by time: the next one is published before its first use, and the old one until
//! its last assertion has expired.

mod key;
mod keyring;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::HeaderValue;
use serde::Serialize;

pub use key::{Algorithm, Key, KeyError, read_pem};
pub use keyring::{Jwks, KeySource, Keyring, KeyringError, Settings};

use crate::authz::{forwarding::Claims, time::Timestamp};

/// The one request for which an assertion is valid.
#[derive(Clone, Copy, Debug)]
pub struct RequestBinding<'a> {
    pub method: &'a str,
    /// As forwarded, byte for byte, without the query.
    pub path: &'a str,
    pub request_id: &'a str,
    pub at: Timestamp,
}

/// Nothing can be signed, so the request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed")]
pub struct SigningFailed;

/// Names of RFC 7519, `htm` of RFC 9449, and names of our own.
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

/// How many seconds before the request an assertion becomes valid, because a verifier's clock may be behind.
const CLOCK_SKEW: i64 = 5;
/// The longest validity in seconds. With a longer one, a copied assertion would be worth something.
const MAX_VALIDITY: i64 = 30;

/// Returns the field value for one request. Nothing is cached, so a permission that is gone is never
/// asserted.
fn sign(
    key: &Key,
    issuer: &str,
    lifetime: i64,
    claims: &Claims<'_>,
    bound: &RequestBinding<'_>,
) -> Result<HeaderValue, SigningFailed> {
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
        exp: (now + lifetime).min(begins + MAX_VALIDITY),
        jti: bound.request_id,
    };
    let payload = serde_json::to_vec(&payload).map_err(|_| SigningFailed)?;
    let mut text = String::with_capacity(key.header().len() + payload.len() * 4 / 3 + 96);
    text.push_str(key.header());
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(&payload, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    let mut value = HeaderValue::try_from(text).map_err(|_| SigningFailed)?;
    // Anyone who reads the value in a log could use it for some seconds.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;

//! A sign-in in progress at the provider. State, nonce and PKCE verifier are derived from one secret in a
//! cookie: the server stores nothing for anonymous clients, and no other browser can complete the sign-in.

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::{HeaderMap, HeaderValue};

use crate::{
    admin::{
        ApiResult,
        session::{cookie, secret::Secret},
    },
    authz::cookies,
};

/// How long a sign-in at the provider may take, in seconds.
const MAX_AGE: i64 = 600;
/// A longer return path is dropped.
const MAX_NEXT: usize = 1024;

const STATE: &str = "permgate 2026-11 oidc state";
const NONCE: &str = "permgate 2026-11 oidc nonce";
const VERIFIER: &str = "permgate 2026-11 oidc verifier";

pub(in crate::admin) struct AuthorizationRequest {
    secret: Secret,
    /// Where the browser goes in the end: as the page sent it, not yet validated.
    pub next: Option<String>,
}

impl AuthorizationRequest {
    pub(in crate::admin) fn begin(next: Option<String>) -> ApiResult<Self> {
        Ok(Self { secret: Secret::draw()?, next: next.filter(|next| next.len() <= MAX_NEXT) })
    }

    /// The sign-in that this browser began, if the state matches it.
    pub(in crate::admin) fn pending(headers: &HeaderMap, secure: bool, state: &str) -> Option<Self> {
        Self::read(headers, secure).filter(|flow| flow.is_state(state))
    }

    fn read(headers: &HeaderMap, secure: bool) -> Option<Self> {
        let (secret, next) = cookie::sent(headers, cookies::FLOW, secure)?.split_once('.')?;
        let next = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(next).ok()?).ok()?;
        Some(Self { secret: Secret::parse(secret)?, next: Some(next).filter(|next| !next.is_empty()) })
    }

    /// `SameSite=Lax`, because the provider redirects the browser back from another site.
    pub(in crate::admin) fn cookie(&self, secure: bool) -> HeaderValue {
        let next = BASE64_URL_SAFE_NO_PAD.encode(self.next.as_deref().unwrap_or_default().as_bytes());
        let value = format!("{}.{next}", self.secret.expose());
        cookie::written(cookies::FLOW, &value, MAX_AGE, "Lax", secure)
    }

    pub(in crate::admin) fn clear(secure: bool) -> HeaderValue {
        cookie::written(cookies::FLOW, "", 0, "Lax", secure)
    }

    pub(super) fn state(&self) -> String {
        self.derive(STATE).to_hex().to_string()
    }

    /// Compares in constant time.
    fn is_state(&self, state: &str) -> bool {
        blake3::Hash::from_hex(state).is_ok_and(|state| state == self.derive(STATE))
    }

    pub(super) fn nonce(&self) -> String {
        self.derive(NONCE).to_hex().to_string()
    }

    /// The code verifier (RFC 7636, 4.1).
    pub(super) fn verifier(&self) -> String {
        self.derive(VERIFIER).to_hex().to_string()
    }

    /// The code challenge by `S256` (RFC 7636, 4.2).
    pub(super) fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier().as_bytes()).as_ref())
    }

    fn derive(&self, purpose: &str) -> blake3::Hash {
        blake3::Hash::from_bytes(blake3::derive_key(purpose, self.secret.expose().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_browser_carries_its_flow() {
        let flow = AuthorizationRequest::begin(Some("/tokens?user=ann".to_owned())).unwrap();
        let set = flow.cookie(true);
        let (pair, attributes) = set.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
        let read = |fields: &[&str], secure| {
            let fields = fields.iter().map(|f| (header::COOKIE, HeaderValue::from_str(f).unwrap()));
            AuthorizationRequest::read(&fields.collect(), secure)
        };
        let again = read(&["a=b", pair], true).unwrap();
        assert_eq!(again.next.as_deref(), Some("/tokens?user=ann"));
        assert!(again.is_state(&flow.state()) && !again.is_state(&flow.nonce()) && !again.is_state(""));
        assert_eq!((again.nonce(), again.challenge()), (flow.nonce(), flow.challenge()));
        assert!(read(&[pair], false).is_none(), "without TLS it has another name");
        assert!(read(&[pair, pair], true).is_none(), "twice");
        assert!(read(&["__Host-permgate-flow=x.y"], true).is_none());
        let other = AuthorizationRequest::begin(None).unwrap();
        assert!(!other.is_state(&flow.state()));
        let all = [flow.state(), flow.nonce(), flow.verifier()];
        assert!(all.iter().all(|text| !pair.contains(text.as_str())) && all[0] != all[1] && all[1] != all[2]);
    }

    #[test]
    fn a_challenge_is_that_of_the_verifier() {
        // RFC 7636, appendix B.
        let of =
            |verifier: &str| BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref());
        let challenge = of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let flow = AuthorizationRequest::begin(None).unwrap();
        assert_eq!((flow.challenge(), flow.verifier().len()), (of(&flow.verifier()), 64));
    }
}

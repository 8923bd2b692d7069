//! OpenID Connect: signing in by a provider's word. Authorization code with PKCE, state and nonce
//! bound to one browser, discovery, and keys that are fetched again when they change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;
use tokio::sync::{Mutex, Semaphore};

use self::{
    client::Client,
    jws::{Keys, Signed, TokenError},
    metadata::Metadata,
};
use super::{sign_in::Provider, wire::Time};
use crate::authz::time::Timestamp;

mod claims;
mod client;
mod exchange;
mod flow;
mod jws;
mod metadata;

pub(super) use self::{claims::Person, flow::Flow, metadata::ProviderError};

/// Where the provider sends people back to.
pub(super) const CALLBACK: &str = "/sign-in/oidc/callback";

/// Metadata and keys are believed for so long, and beyond that while newer ones cannot be had.
const FRESH: Duration = Duration::from_secs(3600);
/// After keys were fetched in search of one, or metadata in vain, nothing is for so long: a stranger
/// must not be able to make us ask and ask.
const PAUSE: Duration = Duration::from_secs(5);
/// Codes that are redeemed at one time.
const EXCHANGES: usize = 8;

/// The provider and what is known of it.
pub(super) struct Relying {
    provider: Provider,
    /// `{admin.url}` and [`CALLBACK`].
    redirect: String,
    client: Client,
    known: Mutex<Known>,
    exchanges: Semaphore,
}

#[derive(Default)]
struct Known {
    metadata: Option<Held<Metadata>>,
    keys: Option<Held<Keys>>,
    /// When keys were last fetched for one that was not among them.
    searched: Option<Instant>,
    failed: Option<Instant>,
}

struct Held<T> {
    value: Arc<T>,
    since: Instant,
}

/// What the provider sends a browser back with.
pub(super) struct Returned {
    pub code: Option<String>,
    pub issuer: Option<String>,
    /// Its word for why there is no code.
    pub error: Option<String>,
}

impl Relying {
    pub(super) fn new(provider: Provider, base: &str) -> Self {
        let client = Client::new(provider.tls.as_ref().map(|tls| tls.connector.clone()));
        let redirect = format!("{base}{CALLBACK}");
        Self { provider, redirect, client, known: Mutex::default(), exchanges: Semaphore::new(EXCHANGES) }
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Where the browser goes.
    pub(super) async fn authorization(&self, flow: &Flow) -> Result<String, ProviderError> {
        let metadata = self.metadata().await?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &self.provider.scopes.join(" "))
            .append_pair("state", &flow.state())
            .append_pair("nonce", &flow.nonce())
            .append_pair("code_challenge", &flow.challenge())
            .append_pair("code_challenge_method", "S256")
            .finish();
        let mark = if metadata.authorization_endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{}{mark}{query}", metadata.authorization_endpoint))
    }

    /// Whom the provider names. The state has been held against the flow already.
    pub(super) async fn person(&self, flow: &Flow, returned: Returned) -> Result<Person, ProviderError> {
        let metadata = self.metadata().await?;
        // RFC 9207: a code of another provider is not redeemed at this one.
        match returned.issuer {
            Some(issuer) if issuer != self.provider.issuer => return Err(ProviderError::OtherIssuer),
            None if metadata.names_itself => return Err(ProviderError::OtherIssuer),
            _ => {}
        }
        if let Some(error) = returned.error {
            return Err(ProviderError::Refused(plain(&error)));
        }
        let code = returned.code.ok_or(ProviderError::Refused("no code".to_owned()))?;
        let _turn = self.exchanges.try_acquire().map_err(|_| ProviderError::Busy)?;
        let tokens = self.redeem(&metadata, &code, flow).await?;
        let signed = Signed::parse(&tokens.id_token)?;
        let claims = self.verified(&metadata, &signed).await?;
        let now = Time::now();
        let subject = claims::check(&claims, &self.provider, &flow.nonce(), now)?;
        let told = claims::tells_all(&claims, &self.provider);
        let more = match (&metadata.userinfo_endpoint, &tokens.access_token) {
            (Some(endpoint), Some(bearer)) if !told => {
                let more = self.client.userinfo(endpoint, bearer).await?;
                // OpenID Connect Core, 5.3.2: else it may be anybody's.
                if more.get("sub").and_then(|sub| sub.as_str()) != Some(subject.as_str()) {
                    return Err(ProviderError::Claims("userinfo is of another subject"));
                }
                Some(more)
            }
            _ => None,
        };
        Person::of(subject, &claims, more.as_ref(), &self.provider)
    }

    /// A key that is not known, or does not fit, may have been replaced.
    async fn verified(
        &self,
        metadata: &Metadata,
        signed: &Signed<'_>,
    ) -> Result<claims::Claims, ProviderError> {
        match signed.verified(&*self.keys(metadata, false).await?) {
            Err(TokenError::UnknownKey | TokenError::Signature) => {
                Ok(signed.verified(&*self.keys(metadata, true).await?)?)
            }
            verified => Ok(verified?),
        }
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, ProviderError> {
        let mut known = self.known.lock().await;
        let held = known.metadata.as_ref().map(|held| (held.value.clone(), held.since.elapsed()));
        if let Some((value, age)) = &held
            && *age < FRESH
        {
            return Ok(value.clone());
        }
        let pausing = known.failed.is_some_and(|failed| failed.elapsed() < PAUSE);
        let fetched = match pausing {
            true => Err(ProviderError::Unreachable("it could not be asked a moment ago".to_owned())),
            false => Metadata::fetch(&self.client, &self.provider.issuer).await,
        };
        match (fetched, held) {
            (Ok(metadata), _) => {
                let value = Arc::new(metadata);
                known.failed = None;
                known.metadata = Some(Held { value: value.clone(), since: Instant::now() });
                Ok(value)
            }
            (Err(error), held) => {
                if !pausing {
                    known.failed = Some(Instant::now());
                }
                held.map(|(value, _)| value).ok_or(error)
            }
        }
    }

    async fn keys(&self, metadata: &Metadata, again: bool) -> Result<Arc<Keys>, ProviderError> {
        let mut known = self.known.lock().await;
        if let Some(held) = &known.keys {
            let searching = again && known.searched.is_none_or(|searched| searched.elapsed() >= PAUSE);
            if held.since.elapsed() < FRESH && !searching {
                return Ok(held.value.clone());
            }
        }
        if again {
            known.searched = Some(Instant::now());
        }
        let fetched = self.client.get(&metadata.jwks_uri).await;
        match fetched.and_then(|set| Ok(Keys::parse(&set)?)) {
            Ok(keys) => {
                let value = Arc::new(keys);
                known.keys = Some(Held { value: value.clone(), since: Instant::now() });
                Ok(value)
            }
            Err(error) => known.keys.as_ref().map(|held| held.value.clone()).ok_or(error),
        }
    }
}

impl Returned {
    /// `None`: not what a provider sends, or sent twice. With the state beside it.
    pub(super) fn parse(query: &str) -> Option<(String, Self)> {
        let mut state = None;
        let mut returned = Self { code: None, issuer: None, error: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut state,
                "code" => &mut returned.code,
                "iss" => &mut returned.issuer,
                "error" => &mut returned.error,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some((state?, returned))
    }
}

/// What somebody else wrote, fit for a line of the log.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect()
}

/// Seconds, as tokens count.
fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1000)
}

/// A flow that this browser began, if the state is its.
pub(super) fn begun(headers: &HeaderMap, secure: bool, state: &str) -> Option<Flow> {
    Flow::read(headers, secure).filter(|flow| flow.is_state(state))
}

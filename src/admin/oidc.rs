//! Sign-in with an OpenID Connect provider: authorization code flow with PKCE; state and nonce are bound
//! to one browser.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use self::metadata::Metadata;
use super::{sign_in::Provider, wire::Time};
use crate::{
    issuer::{Issuer, SignedToken},
    settings::HttpVersion,
};

mod claims;
mod exchange;
mod flow;
mod metadata;

pub(super) use self::{claims::UserInfo, flow::AuthorizationRequest, metadata::ProviderError};

/// The path of the redirect URI.
pub(super) const CALLBACK: &str = "/sign-in/oidc/callback";

/// How many codes may be redeemed at the same time.
const EXCHANGES: usize = 8;

/// The provider with its metadata and keys.
pub(super) struct RelyingParty {
    pub(super) provider: Provider,
    /// The redirect URI: `{admin.url}` followed by [`CALLBACK`].
    redirect: String,
    /// `None`: plain text, to a provider on this machine.
    tls: Option<TlsConnector>,
    issuer: Arc<Issuer>,
    exchanges: Semaphore,
}

/// The parameters with which the provider redirects the browser back. None of them may be repeated.
#[derive(Deserialize)]
pub(super) struct AuthorizationResponse {
    pub state: String,
    pub code: Option<String>,
    #[serde(rename = "iss")]
    pub issuer: Option<String>,
    /// The provider's error code, if there is no code.
    pub error: Option<String>,
}

impl RelyingParty {
    pub(super) fn new(provider: Provider, base: &str) -> Self {
        let tls = provider.tls.as_ref().map(|tls| tls.0.connector(HttpVersion::Http1));
        let redirect = format!("{base}{CALLBACK}");
        let issuer = Arc::new(Issuer::new(&provider.issuer));
        Self { provider, redirect, tls, issuer, exchanges: Semaphore::new(EXCHANGES) }
    }

    /// The URL of the provider's authorization endpoint for this sign-in.
    pub(super) async fn authorization(&self, flow: &AuthorizationRequest) -> Result<String, ProviderError> {
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

    /// Redeems the code and returns the user. The caller has already checked the state.
    pub(super) async fn user_info(
        &self,
        flow: &AuthorizationRequest,
        returned: AuthorizationResponse,
    ) -> Result<UserInfo, ProviderError> {
        let metadata = self.metadata().await?;
        // RFC 9207: a code from another provider must not be redeemed at this one.
        match returned.issuer {
            Some(issuer) if issuer != self.provider.issuer => return Err(ProviderError::OtherIssuer),
            None if metadata.sends_issuer => return Err(ProviderError::OtherIssuer),
            _ => {}
        }
        if let Some(error) = returned.error {
            return Err(ProviderError::Refused(plain(&error)));
        }
        let code = returned.code.ok_or(ProviderError::Refused("no code".to_owned()))?;
        let _turn = self.exchanges.try_acquire().map_err(|_| ProviderError::Busy)?;
        let tokens = self.redeem(&metadata, &code, flow).await?;
        let token = SignedToken::parse(&tokens.id_token)?;
        let claims = self.issuer.verify(&token, self.tls.as_ref()).await?;
        let now = Time::now();
        let subject = claims::check(&claims, &self.provider, &flow.nonce(), now)?;
        let complete = claims::has_every_claim(&claims, &self.provider);
        let more = match (&metadata.userinfo_endpoint, &tokens.access_token) {
            (Some(endpoint), Some(bearer)) if !complete => {
                let more = self.userinfo(endpoint, bearer).await?;
                // OpenID Connect Core, 5.3.2: without this check it could describe another user.
                if more.get("sub").and_then(|sub| sub.as_str()) != Some(subject.as_str()) {
                    return Err(ProviderError::Claims("userinfo is of another subject"));
                }
                Some(more)
            }
            _ => None,
        };
        UserInfo::from_claims(subject, &claims, more.as_ref(), &self.provider)
    }

    async fn metadata(&self) -> Result<Metadata, ProviderError> {
        let published = self.issuer.published(self.tls.as_ref()).await.map_err(ProviderError::Unreachable)?;
        Metadata::parse(&published.metadata, &self.issuer)
    }
}

/// Foreign text made safe for a log line: printable ASCII, at most 100 characters.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect()
}

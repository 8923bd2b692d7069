//! What `[admin.oidc]` comes to: the provider that people may sign in by, and what it decides.

use std::fmt;

use tokio_rustls::TlsConnector;

use crate::authz::rules::Secret;

/// An OpenID Connect provider. Built by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// As its metadata and every ID token say it, to the letter.
    pub issuer: String,
    pub client_id: String,
    /// `None`: a public client, which PKCE alone protects.
    pub client_secret: Option<Secret>,
    /// What the button calls it.
    pub title: String,
    pub scopes: Vec<String>,
    /// The claim that is the login of an account that is made.
    pub login_claim: String,
    pub groups_claim: String,
    /// The groups that the claim decides about; it says nothing of any other.
    pub groups: Vec<ProvidedGroup>,
    /// Whoever has a login there is the account that has it here.
    pub link_logins: bool,
    /// `None`: plain text, to this machine.
    pub tls: Option<Trust>,
}

/// A group as the provider calls it and as it is called here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedGroup {
    pub claim: String,
    pub group: String,
}

/// Whose certificates the provider may show.
#[derive(Clone)]
pub struct Trust {
    pub connector: TlsConnector,
    /// Tells one from another.
    pub authorities: Option<std::path::PathBuf>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").field(&self.authorities).finish()
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
    }
}

impl Eq for Trust {}

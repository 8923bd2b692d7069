//! `[admin.oidc]` in force: the OpenID Connect provider that users sign in with, and the groups it controls.

use std::fmt;

use tokio_rustls::TlsConnector;

use crate::authz::rules::Secret;

/// An OpenID Connect provider. Built by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Exactly as its metadata and every ID token have it.
    pub issuer: String,
    pub client_id: String,
    /// `None`: a public client, protected by PKCE alone.
    pub client_secret: Option<Secret>,
    /// The provider's name on the button.
    pub title: String,
    pub scopes: Vec<String>,
    /// The claim that becomes the login of a new account.
    pub login_claim: String,
    pub groups_claim: String,
    /// The groups that the claim controls; others are left alone.
    pub groups: Vec<GroupMapping>,
    /// A login at the provider means the account with the same login here.
    pub link_logins: bool,
    /// `None`: plain text, to a provider on this machine.
    pub tls: Option<Trust>,
}

/// A group's name in the provider's claim, and its name here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMapping {
    pub claim: String,
    pub group: String,
}

/// The certificate authorities trusted for the provider.
#[derive(Clone)]
pub struct Trust {
    pub connector: TlsConnector,
    /// Identifies the authorities in comparisons.
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

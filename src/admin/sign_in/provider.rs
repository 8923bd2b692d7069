//! `[admin.oidc]` in force: the OpenID Connect provider that users sign in with, and the groups it controls.

use crate::{authz::rules::Secret, settings::UpstreamTls};

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
    pub tls: Option<ProviderTls>,
}

/// The authorities are compared by their files: an update of those of the system is no change of the
/// configuration.
#[derive(Clone, Debug)]
pub struct ProviderTls(pub UpstreamTls);

/// A group's name in the provider's claim, and its name here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMapping {
    pub claim: String,
    pub group: String,
}

impl PartialEq for ProviderTls {
    fn eq(&self, other: &Self) -> bool {
        self.0.files() == other.0.files()
    }
}

impl Eq for ProviderTls {}

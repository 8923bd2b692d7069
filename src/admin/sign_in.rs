//! The settings for signing in with a browser: the page's address, the identity provider, and the proxies
//! that may name the user.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::session::FormKey;
use crate::{authz::rules::Secret, settings::UpstreamTls};

/// The settings of signing in. Built by `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignIn {
    /// `https://gate.example`, without a trailing slash. With https, cookies are `Secure`.
    pub url: Option<String>,
    /// An address of the listener itself, for links if there is no `url`.
    pub address: Option<String>,
    pub header: Option<UserHeader>,
    /// Signs CSRF tokens of the header's users, and marks known browsers. `None`: each process draws its own.
    pub form_key: Option<FormKey>,
    pub provider: Option<Provider>,
    /// The address at which clients reach the services, for command lines to copy.
    pub gateway: Option<String>,
    /// `permgate demo` is running: links may sign in by themselves, and `/design` shows the components.
    pub demo: bool,
}

/// A header in which a proxy in front names its signed-in user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserHeader {
    pub name: HeaderName,
    /// The trusted peers. Never empty: otherwise any client could pose as any user.
    pub from: Vec<IpNet>,
}

/// The header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TrustedHeader {
    Absent,
    /// A login.
    Login(String),
    /// Sent twice, or not text.
    Ambiguous,
}

impl SignIn {
    pub(super) fn base(&self) -> &str {
        self.url.as_deref().or(self.address.as_deref()).unwrap_or_default()
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.as_deref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Removes the header, whoever sent it.
    pub(super) fn take_user_header(&self, headers: &mut HeaderMap, peer: Option<IpAddr>) -> TrustedHeader {
        let Some(header) = &self.header else { return TrustedHeader::Absent };
        let values: Vec<_> = headers.get_all(&header.name).iter().cloned().collect();
        headers.remove(&header.name);
        let peer = peer.map(|peer| peer.to_canonical());
        if !peer.is_some_and(|peer| header.from.iter().any(|net| net.contains(&peer))) {
            return TrustedHeader::Absent;
        }
        match values.as_slice() {
            [] => TrustedHeader::Absent,
            [one] => match one.to_str().map(str::trim) {
                Ok("") => TrustedHeader::Absent,
                Ok(login) => TrustedHeader::Login(login.to_owned()),
                Err(_) => TrustedHeader::Ambiguous,
            },
            _ => TrustedHeader::Ambiguous,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_is_not_listed_vouches_for_nobody() {
        let name = HeaderName::from_static("x-remote-user");
        let from = vec!["10.0.0.0/8".parse().unwrap()];
        let sign_in = SignIn {
            url: None,
            address: None,
            header: Some(UserHeader { name: name.clone(), from }),
            ..SignIn::default()
        };
        let check = |case: &str, values: &[&'static str], peer: Option<&str>, expected: TrustedHeader| {
            let mut headers: HeaderMap =
                values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect();
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(sign_in.take_user_header(&mut headers, peer), expected, "{case}");
            assert!(headers.is_empty(), "{case}: the field goes no further");
        };
        let ann = || TrustedHeader::Login("ann".to_owned());
        check("listed", &["ann"], Some("10.0.0.1"), ann());
        check("listed, as IPv6 sees it", &["ann"], Some("::ffff:10.0.0.1"), ann());
        check("not listed", &["ann"], Some("192.0.2.1"), TrustedHeader::Absent);
        check("a unix socket", &["ann"], None, TrustedHeader::Absent);
        check("silent", &[], Some("10.0.0.1"), TrustedHeader::Absent);
        check("empty", &[" "], Some("10.0.0.1"), TrustedHeader::Absent);
        check("twice", &["ann", "bob"], Some("10.0.0.1"), TrustedHeader::Ambiguous);
        let off = SignIn::default();
        let mut headers: HeaderMap = [(name.clone(), HeaderValue::from_static("ann"))].into_iter().collect();
        assert_eq!(off.take_user_header(&mut headers, Some([10, 0, 0, 1].into())), TrustedHeader::Absent);
    }
}

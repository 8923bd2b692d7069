//! The rules by which an OpenID Connect token of a CI system is exchanged for a short-lived token. `proxy`
//! exchanges.

use std::time::Duration;

use crate::{authz::subject::Access, settings::UpstreamTls};

/// `[exchange.NAME]`.
#[derive(Clone, Debug)]
pub struct ExchangeRule {
    pub name: String,
    /// The claim `iss`, and where the provider's metadata is found.
    pub issuer: String,
    /// The value that the claim `aud` must contain.
    pub audience: String,
    /// Claims with their exact values; at least one.
    pub claims: Vec<(String, String)>,
    /// The login of the service account that owns the tokens.
    pub account: String,
    pub scope: Vec<(String, Access)>,
    /// At most [`MAX_LIFETIME`].
    pub lifetime: Duration,
    /// How many tokens may be live at one time.
    pub max_tokens: usize,
    /// `None`: the provider is on this machine, reached in clear text.
    pub tls: Option<UpstreamTls>,
}

/// The longest lifetime of an exchanged token.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// The prefix of an exchanged token's author, before the rule's name.
const AUTHOR_PREFIX: &str = "exchange:";

impl ExchangeRule {
    /// Returns the author of the rule's tokens. It depends on what the rule grants and to whom, so that
    /// tokens of an earlier version of the rule end with that version.
    pub fn author(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("permgate 2026-11 exchange rule");
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        [&self.name, &self.issuer, &self.audience, &self.account].into_iter().for_each(|text| add(text));
        for (name, value) in &self.claims {
            add(name);
            add(value);
        }
        for (service, access) in &self.scope {
            add(service);
            add(access.word());
        }
        add(&self.lifetime.as_secs().to_string());
        let digest = hasher.finalize().to_hex();
        format!("{AUTHOR_PREFIX}{}:{}", self.name, &digest[..16])
    }

    /// Whether the author is an exchange rule.
    pub fn is_author(author: &str) -> bool {
        author.starts_with(AUTHOR_PREFIX)
    }
}

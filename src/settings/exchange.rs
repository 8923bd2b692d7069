//! Who gets a short token for an OpenID Connect token of a CI system, as configured; `proxy` exchanges.

use std::time::Duration;

use crate::{authz::subject::Access, settings::UpstreamTls};

/// `[exchange.NAME]`.
#[derive(Clone, Debug)]
pub struct ExchangeRule {
    pub name: String,
    /// The claim `iss`, and where the provider's metadata is.
    pub issuer: String,
    /// One of the claim `aud`.
    pub audience: String,
    /// Exact values; at least one.
    pub claims: Vec<(String, String)>,
    /// Login of the service account that owns the tokens.
    pub account: String,
    pub scope: Vec<(String, Access)>,
    /// At most [`MAX_LIFETIME`].
    pub lifetime: Duration,
    /// Live tokens at one time.
    pub max_tokens: usize,
    /// `None`: the provider is on this machine, in clear text.
    pub tls: Option<UpstreamTls>,
}

/// Of a token that was exchanged for another one.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// Begins the author of an exchanged token, before the rule's name.
const AUTHOR: &str = "exchange:";

impl ExchangeRule {
    /// Of a token that was exchanged.
    pub const LONGEST: Duration = MAX_LIFETIME;

    /// Who is named as the author of its tokens. Another text once anything of the rule changes, so that
    /// what an earlier version of the rule gave ends with that version.
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
            add(if *access == Access::Full { "full" } else { "read" });
        }
        add(&self.lifetime.as_secs().to_string());
        let digest = hasher.finalize().to_hex();
        format!("{AUTHOR}{}:{}", self.name, &digest[..16])
    }

    /// Whether an author is a rule of exchange.
    pub fn is_author(author: &str) -> bool {
        author.starts_with(AUTHOR)
    }
}

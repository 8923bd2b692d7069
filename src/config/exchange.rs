//! `[exchange.NAME]`: rules by which a token of a CI system is exchanged for a short-lived one.

use super::{
    section::{Section, SpannedText},
    suggest::advice,
    tls,
};
use crate::{
    authz::{
        administration::names,
        rules::ServiceSpec,
        subject::{Access, parse_scope_entry},
    },
    settings::{ExchangeRule, MAX_EXCHANGED_LIFETIME},
};

/// Names appear in the audit log and in lists.
const MAX_NAME: usize = 63;

/// Reads a rule. Problems are reported; `None` if they leave no rule.
pub(super) fn rule(
    name: &SpannedText<'_>,
    section: &Section<'_>,
    services: &[ServiceSpec],
) -> Option<ExchangeRule> {
    let text = &name.value;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(plain) {
        let advice = "write 1 to 63 lower-case letters, digits and `-`";
        name.error(format!("{text:?} cannot be the name of an exchange"), advice);
    }
    let issuer = tls::issuer(section);
    let claims: Vec<_> = section
        .tables("claims")
        .iter()
        .filter_map(|claim| Some((filled(claim, "name")?, filled(claim, "value")?.value)))
        .collect();
    if section.is_set("claims") && section.tables("claims").is_empty() {
        let advice = "name what only your jobs have, such as `claims = [{ name = \"repository\", value = \"acme/app\" }]`";
        section.error("claims", "every job of this issuer could exchange its token", advice);
    }
    for (claim, _) in &claims {
        let registered = ["iss", "aud", "exp", "nbf", "iat", "jti"];
        if registered.contains(&claim.value.as_str()) {
            let message = format!("the claim {:?} is always checked", claim.value);
            claim.error(message, "name a claim about the job, such as \"sub\"");
        }
    }
    let scope = scope(section, services);
    let lifetime = section.duration("lifetime").unwrap_or(MAX_EXCHANGED_LIFETIME);
    let audience = filled(section, "audience");
    let account = section.parsed("account", |login| {
        names::login(login).map_err(|refusal| (refusal.message, "name a service account".into()))
    });
    let (issuer, tls) = issuer?;
    Some(ExchangeRule {
        name: text.clone(),
        issuer,
        audience: audience?.value,
        claims: claims.into_iter().map(|(name, value)| (name.value, value)).collect(),
        account: account?,
        scope,
        lifetime,
        max_tokens: section.count("max_tokens").unwrap_or_default(),
        tls,
    })
}

/// A text that is not empty. `None` if it is absent or empty, which is reported.
fn filled<'a>(section: &Section<'a>, name: &str) -> Option<SpannedText<'a>> {
    let text = section.text(name)?;
    if text.value.is_empty() {
        text.error(format!("`{name}` is empty: no token of a CI system could match it"), "");
        return None;
    }
    Some(text)
}

/// `"SERVICE"` or `"SERVICE:read"`.
fn scope(section: &Section<'_>, services: &[ServiceSpec]) -> Vec<(String, Access)> {
    let mut scope: Vec<(String, Access)> = Vec::new();
    for text in section.texts("scope") {
        let (key, access) = match parse_scope_entry(&text.value) {
            Ok(entry) => entry,
            Err(other) => {
                text.error(format!("{other:?} is not an access"), "write \"read\" or \"full\"");
                continue;
            }
        };
        let known: Vec<&str> = services.iter().map(|service| service.key.as_str()).collect();
        if !known.contains(&key) {
            let advice = advice(key, known.iter().copied(), || format!("name one of: {}", known.join(", ")));
            text.error(format!("there is no service {key:?}"), advice);
        } else if scope.iter().any(|(other, _)| other == key) {
            text.error(format!("the scope names {key:?} twice"), "name it once");
        } else {
            scope.push((key.to_owned(), access));
        }
    }
    if section.texts("scope").is_empty() && section.is_set("scope") {
        section.error(
            "scope",
            "the scope is empty: the issued tokens could read no service",
            "name at least one service",
        );
    }
    scope.sort();
    scope
}

//! Validation of an ID token (OpenID Connect Core, 3.1.3.7), and the user that its claims describe.

use serde_json::Value;

use super::metadata::ProviderError;
use crate::{
    admin::sign_in::Provider,
    authz::time::Timestamp,
    issuer::{Claims, audiences, check_times},
};

/// A user as the provider describes them.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::admin) struct UserInfo {
    pub subject: String,
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    /// Every group that the provider's claim controls, and whether the user is a member.
    pub groups: Vec<(String, bool)>,
}

/// The longest `sub`, in bytes (OpenID Connect Core, 2).
const MAX_SUBJECT: usize = 255;

/// Returns the subject if the token was issued to this client, is valid now and belongs to this sign-in.
pub(super) fn check(
    claims: &Claims,
    provider: &Provider,
    nonce: &str,
    now: Timestamp,
) -> Result<String, ProviderError> {
    let wrong = |what: &'static str| Err(ProviderError::Claims(what));
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&provider.issuer) {
        return wrong("it is of another issuer");
    }
    let audience = audiences(claims);
    if !audience.contains(&provider.client_id.as_str()) {
        return wrong("it is for another client");
    }
    let party = claims.get("azp").map(Value::as_str);
    if party.is_some_and(|party| party != Some(&provider.client_id))
        || (audience.len() > 1 && party.is_none())
    {
        return wrong("it was issued to another client");
    }
    check_times(claims, now)?;
    if !claims.contains_key("iat") {
        return wrong("it does not have the time of issue");
    }
    if text("nonce") != Some(nonce) {
        return wrong("it was made for another sign-in");
    }
    match text("sub") {
        Some(sub) if (1..=MAX_SUBJECT).contains(&sub.len()) && !sub.contains(char::is_control) => {
            Ok(sub.to_owned())
        }
        _ => wrong("it has no subject"),
    }
}

/// Whether the ID token has every claim that is needed; otherwise `userinfo` is requested.
pub(super) fn has_every_claim(claims: &Claims, provider: &Provider) -> bool {
    let groups = provider.groups.is_empty() || claims.contains_key(&provider.groups_claim);
    let verified = provider.login_claim != "email" || claims.contains_key("email_verified");
    groups && verified && claims.contains_key(&provider.login_claim)
}

impl UserInfo {
    /// Builds the user; signed claims take precedence over those of `userinfo`.
    pub(super) fn from_claims(
        subject: String,
        claims: &Claims,
        more: Option<&Claims>,
        provider: &Provider,
    ) -> Result<Self, ProviderError> {
        let claim = |name: &str| claims.get(name).or_else(|| more?.get(name));
        let text = |name: &str| claim(name).and_then(Value::as_str).map(str::to_owned);
        let login = text(&provider.login_claim);
        let login = login.ok_or_else(|| ProviderError::NoLogin(provider.login_claim.clone()))?;
        // Otherwise a user who may put any address into their profile could take over any login.
        if provider.login_claim == "email" && claim("email_verified") != Some(&Value::Bool(true)) {
            return Err(ProviderError::Claims("the address that is the login is not verified"));
        }
        let groups = match claim(&provider.groups_claim) {
            _ if provider.groups.is_empty() => Vec::new(),
            // Without the claim the user is in no group.
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) => all
                .iter()
                .map(|group| group.as_str().ok_or(ProviderError::Claims("a group is not text")))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(ProviderError::Claims("the groups are no list")),
        };
        let mut decided: Vec<(String, bool)> = Vec::with_capacity(provider.groups.len());
        for provided in &provider.groups {
            let member = groups.contains(&provided.claim.as_str());
            match decided.iter_mut().find(|(group, _)| *group == provided.group) {
                Some((_, before)) => *before |= member,
                None => decided.push((provided.group.clone(), member)),
            }
        }
        let name = text("name").unwrap_or_else(|| login.clone());
        Ok(Self { subject, name, email: text("email"), groups: decided, login })
    }
}

#[cfg(test)]
mod tests;

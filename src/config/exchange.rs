//! `[exchange.NAME]`: who gets a short token for a token of a CI system.

use std::{cell::OnceCell, path::Path};

use http::Uri;

use super::{
    problem::Problems,
    section::{Section, Text},
    suggest::{closest, did_you_mean},
    tls,
};
use crate::{
    authz::{rules::ServiceSpec, subject::Access},
    settings::{ExchangeRule, MAX_EXCHANGED_LIFETIME, NoSystemRoots, SystemRoots},
};

/// Names stand in the audit log and in lists.
const LONGEST_NAME: usize = 63;

/// The rule, as far as it makes sense; what does not is reported.
pub(super) fn rule(
    problems: &Problems<'_>,
    name: &Text,
    section: &Section<'_>,
    services: &[ServiceSpec],
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<ExchangeRule> {
    let text = name.get_ref();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || text.len() > LONGEST_NAME || !text.bytes().all(plain) {
        let advice = "write 1 to 63 lower-case letters, digits and `-`";
        problems.error(&name.span(), format!("{text:?} cannot name an exchange"), advice);
    }
    let issuer = section.text("issuer").filter(|issuer| is_issuer(problems, issuer));
    let claims: Vec<_> = section
        .tables("claims")
        .iter()
        .filter_map(|claim| Some((claim.text("name")?, claim.text("value")?.into_inner())))
        .collect();
    if claims.is_empty() && section.is_written("claims") {
        let advice = "name what only your jobs have, such as `claims = [{ name = \"repository\", value = \"acme/app\" }]`";
        problems.error(&section.at("claims"), "any job of the issuer could exchange its token", advice);
    }
    for (claim, _) in &claims {
        let registered = ["iss", "aud", "exp", "nbf", "iat", "jti"];
        if registered.contains(&claim.get_ref().as_str()) {
            let message = format!("the claim {:?} is judged anyway", claim.get_ref());
            problems.error(&claim.span(), message, "name a claim about the job, such as \"sub\"");
        }
    }
    let scope = scope(problems, section, services);
    let lifetime = section.duration("lifetime").unwrap_or(MAX_EXCHANGED_LIFETIME);
    if lifetime > MAX_EXCHANGED_LIFETIME {
        problems.error(&section.at("lifetime"), "an exchanged token lives 1h at most", "");
    }
    let issuer = issuer?.into_inner();
    let tls = match issuer.starts_with("http://") {
        true => None,
        false => Some(tls::issuer(problems, section, directory, system)?),
    };
    Some(ExchangeRule {
        name: text.clone(),
        issuer,
        audience: section.text("audience")?.into_inner(),
        claims: claims.into_iter().map(|(name, value)| (name.into_inner(), value)).collect(),
        account: section.text("account")?.into_inner(),
        scope,
        lifetime,
        max_tokens: section.count("max_tokens").unwrap_or_default(),
        tls,
    })
}

fn is_issuer(problems: &Problems<'_>, issuer: &Text) -> bool {
    let text = issuer.get_ref();
    let uri = text.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let is_safe = text.starts_with("https://") || text.starts_with("http://") && is_here;
    let sound = !host.is_empty() && is_safe && !text.contains(['?', '#', '@']);
    if !sound {
        let advice = "write it as its tokens say `iss`, such as \"https://token.actions.githubusercontent.com\"; \
                      http:// is for a provider on this machine alone";
        problems.error(&issuer.span(), format!("{text:?} is not an issuer's URL"), advice);
    }
    sound
}

/// `"SERVICE"` or `"SERVICE:read"`.
fn scope(problems: &Problems<'_>, section: &Section<'_>, services: &[ServiceSpec]) -> Vec<(String, Access)> {
    let mut scope: Vec<(String, Access)> = Vec::new();
    for text in section.texts("scope") {
        let (key, access) = match text.get_ref().split_once(':') {
            None => (text.get_ref().as_str(), Access::Full),
            Some((key, "read")) => (key, Access::Read),
            Some((key, "full")) => (key, Access::Full),
            Some((_, other)) => {
                problems.error(&text.span(), format!("{other:?} is no access"), "write \"read\" or \"full\"");
                continue;
            }
        };
        let known: Vec<&str> = services.iter().map(|service| service.key.as_str()).collect();
        if !known.contains(&key) {
            let advice = closest(key, known.iter().copied())
                .map_or_else(|| format!("name one of: {}", known.join(", ")), did_you_mean);
            problems.error(&text.span(), format!("there is no service {key:?}"), advice);
        } else if scope.iter().any(|(other, _)| other == key) {
            problems.error(&text.span(), format!("the scope names {key:?} twice"), "name it once");
        } else {
            scope.push((key.to_owned(), access));
        }
    }
    if section.texts("scope").is_empty() && section.is_written("scope") {
        problems.error(&section.at("scope"), "the tokens would be good for nothing", "name a service");
    }
    scope.sort();
    scope
}

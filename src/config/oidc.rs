//! `[admin.oidc]`: the provider that people may sign in by.

use std::{cell::OnceCell, path::Path};

use http::Uri;

use super::{
    address::Wrong,
    problem::Problems,
    secret,
    section::{Entry, Section, Text},
    service::collect,
    tls,
};
use crate::{
    admin::{ProvidedGroup, Provider, Trust},
    authz::{accounts::ALL_USERS, administration::names, rules::Secret},
    settings::{HttpVersion, NoSystemRoots, SystemRoots},
};

/// `url` is the page's. `None` where something essential is missing; that has been reported.
pub(super) fn provider(
    problems: &Problems<'_>,
    admin: &Section<'_>,
    url: Option<&str>,
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<Provider> {
    if !admin.is_written("oidc") {
        return None;
    }
    let section = &admin.table("oidc");
    if !cfg!(feature = "sso") {
        let message = "`[admin.oidc]` needs a permgate that was built for it";
        problems.error(&section.at, message, "build it with `cargo build --release --features sso`");
        return None;
    }
    match url {
        None => {
            let advice =
                "write `url = \"https://gate.example.com\"` into [admin]: people are sent back there";
            problems.error(&section.at, "`[admin.oidc]` needs `admin.url`", advice);
        }
        Some(url) if !is_safe(url) => {
            let message = format!("people would come back from the provider to {url:?} in plain text");
            problems.error(&section.at, message, "write an `admin.url` that begins with https://");
        }
        Some(_) => {}
    }
    let issuer = collect(problems, section.text("issuer").into_iter().collect(), issuer).pop();
    let plain = issuer.as_ref().is_some_and(|issuer| issuer.starts_with("http://"));
    let client_id = line(problems, section, "client_id");
    let client_secret = section.text("client_secret").map(|text| {
        let at = text.span();
        client_secret(problems, &text, directory)
            .map_err(|(message, advice)| problems.error(&at, message, advice))
    });
    let trust = if plain { Some(None) } else { trust(problems, section, directory, system).map(Some) };
    let scopes: Vec<String> = collect(problems, section.texts("scopes"), scope);
    if !scopes.iter().any(|scope| scope == "openid") {
        let message = "`scopes` lacks \"openid\": the provider would not say who somebody is";
        problems.error(
            &section.at("scopes"),
            message,
            "write `scopes = [\"openid\", \"profile\", \"email\"]`",
        );
    }
    Some(Provider {
        issuer: issuer?,
        client_id: client_id?,
        client_secret: client_secret.transpose().ok()?,
        title: line(problems, section, "title")?,
        scopes,
        login_claim: line(problems, section, "login_claim")?,
        groups_claim: line(problems, section, "groups_claim")?,
        groups: section.entries("groups").into_iter().filter_map(|entry| group(problems, entry)).collect(),
        link_logins: section.flag("link_logins"),
        tls: trust?,
    })
}

fn issuer(text: &str) -> Result<String, Wrong> {
    let wrong = |message: &str, advice: &str| Err((format!("{text:?} {message}"), advice.to_owned()));
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let Some(uri) = uri.filter(|uri| matches!(uri.scheme_str(), Some("https" | "http"))) else {
        return wrong("is not a provider's URL", "write it as \"https://id.example.com/realms/staff\"");
    };
    if text.contains(['?', '#', '@']) {
        return wrong(
            "has a query, a fragment or a user",
            "write it as the provider's metadata says `issuer`",
        );
    }
    if !is_safe(text) {
        let advice = "write https://; http:// is for a provider on this machine alone";
        return wrong(&format!("is on {} in plain text", uri.host().unwrap_or_default()), advice);
    }
    Ok(text.to_owned())
}

/// Over TLS, or on this machine.
fn is_safe(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    url.starts_with("https://") || uri.and_then(|uri| uri.host().map(Provider::is_here)).unwrap_or_default()
}

fn scope(text: &str) -> Result<String, Wrong> {
    // RFC 6749, 3.3.
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err((format!("{text:?} is not a scope"), "write one word for each".to_owned()))
}

fn client_secret(problems: &Problems<'_>, text: &Text, directory: &Path) -> Result<Secret, Wrong> {
    if !["file:", "env:"].iter().any(|kind| text.get_ref().starts_with(kind)) {
        let advice = "write \"file:PATH\" or \"env:NAME\"; if a secret stood here, replace it";
        return Err(("a credential is not written into this file".to_owned(), advice.to_owned()));
    }
    secret::read(problems, text, directory)
}

/// One line of text that is not empty.
fn line(problems: &Problems<'_>, section: &Section<'_>, name: &str) -> Option<String> {
    let text = section.text(name)?;
    if text.get_ref().is_empty() || text.get_ref().chars().any(char::is_control) {
        problems.error(&text.span(), format!("`admin.oidc.{name}` must be one line of text"), "");
        return None;
    }
    Some(text.into_inner())
}

/// `"developers"`, or `{ claim = "7c3f...", group = "developers" }`.
fn group(problems: &Problems<'_>, entry: Entry<'_>) -> Option<ProvidedGroup> {
    let (claim, group): (String, Text) = match entry {
        Entry::Text(text) => (text.get_ref().clone(), text),
        Entry::Table(section) => (section.text("claim")?.into_inner(), section.text("group")?),
    };
    let at = group.span();
    match names::text("group name", group.get_ref(), 1, 200) {
        Ok(name) if name == ALL_USERS => {
            let message = "`all-users` is built in: whoever signs in is its member";
            problems.error(&at, message, "leave it out");
            None
        }
        Ok(group) => Some(ProvidedGroup { claim, group }),
        Err(refusal) => {
            problems.error(&at, refusal.message, "");
            None
        }
    }
}

fn trust(
    problems: &Problems<'_>,
    section: &Section<'_>,
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<Trust> {
    let tls = tls::issuer(problems, section, directory, system)?;
    let authorities = tls.files().first().cloned();
    Some(Trust { connector: tls.connector(HttpVersion::Http1), authorities })
}

//! `[admin.oidc]`: the provider through which people can sign in.

use http::Uri;

use super::{
    secret,
    section::{ListItem, Section, ValueError},
    tls,
};
use crate::{
    admin::{GroupMapping, Provider, ProviderTls},
    authz::{accounts::ALL_USERS, administration::names},
    issuer::is_loopback_host,
};

/// `url` is that of the admin page. `None` if something essential is missing, which has been reported.
pub(super) fn provider(admin: &Section<'_>, url: Option<&str>) -> Option<Provider> {
    let section = &admin.optional_table("oidc")?;
    match url {
        None => {
            let advice =
                "write `url = \"https://gate.example.com\"` into [admin]: the provider redirects users there";
            admin.error("oidc", "`[admin.oidc]` needs `admin.url`", advice);
        }
        Some(url) if !is_safe(url) => {
            let message = format!("the provider would redirect users to {url:?} in plain text");
            admin.error("oidc", message, "write an `admin.url` that begins with https://");
        }
        Some(_) => {}
    }
    let issuer = section.parsed("issuer", issuer);
    let plain = issuer.as_ref().is_some_and(|issuer| issuer.starts_with("http://"));
    let client_id = line(section, "client_id");
    let client_secret =
        section.text("client_secret").map(|text| text.ok_or_report(secret::referenced(&text)));
    let tls = if plain { Some(None) } else { tls::issuer(section).map(|tls| Some(ProviderTls(tls))) };
    let scopes: Vec<String> = section.all_parsed("scopes", scope);
    if !scopes.iter().any(|scope| scope == "openid") {
        let message = "`scopes` lacks \"openid\": the provider would not identify users";
        section.error("scopes", message, "write `scopes = [\"openid\", \"profile\", \"email\"]`");
    }
    Some(Provider {
        issuer: issuer?,
        client_id: client_id?,
        client_secret: match client_secret {
            None => None,
            Some(secret) => Some(secret?),
        },
        title: line(section, "title")?,
        scopes,
        login_claim: line(section, "login_claim")?,
        groups_claim: line(section, "groups_claim")?,
        groups: section.entries("groups").into_iter().filter_map(group).collect(),
        link_logins: section.flag("link_logins"),
        tls: tls?,
    })
}

fn issuer(text: &str) -> Result<String, ValueError> {
    let wrong = |message: &str, advice: &str| Err((format!("{text:?} {message}"), advice.to_owned()));
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let Some(uri) = uri.filter(|uri| matches!(uri.scheme_str(), Some("https" | "http"))) else {
        return wrong("is not a provider's URL", "write it as \"https://id.example.com/realms/staff\"");
    };
    if text.contains(['?', '#', '@']) {
        let advice = "write it exactly as `issuer` in the provider's metadata";
        return wrong("has a query, a fragment or a user", advice);
    }
    if !is_safe(text) {
        let advice = "write https://; http:// is only for a provider on this machine";
        return wrong(&format!("sends secrets to {} in plain text", uri.host().unwrap_or_default()), advice);
    }
    Ok(text.to_owned())
}

/// Whether the URL has TLS or is on this machine.
fn is_safe(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    url.starts_with("https://") || uri.is_some_and(|uri| uri.host().is_some_and(is_loopback_host))
}

fn scope(text: &str) -> Result<String, ValueError> {
    // RFC 6749, 3.3.
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err((format!("{text:?} is not a scope"), "write each scope as one word".to_owned()))
}

/// A non-empty text of one line.
fn line(section: &Section<'_>, name: &str) -> Option<String> {
    section.parsed(name, |text| {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err((format!("`admin.oidc.{name}` must be one line of text"), String::new()));
        }
        Ok(text.to_owned())
    })
}

/// Reads `"developers"`, or `{ claim = "7c3f...", group = "developers" }`.
fn group(entry: ListItem<'_>) -> Option<GroupMapping> {
    let (claim, group) = match entry {
        ListItem::Text(text) => (text.value.clone(), text),
        ListItem::Table(section) => (section.text("claim")?.value, section.text("group")?),
    };
    let group = group.parse(|name| match names::group(name) {
        Ok(name) if name == ALL_USERS => {
            Err(("`all-users` is built in: every user is its member".into(), "leave it out".into()))
        }
        named => named.map_err(|refusal| (refusal.message, String::new())),
    });
    Some(GroupMapping { claim, group: group? })
}

//! `[admin]`: the addresses of the admin listener, and how people sign in. `[admin.oidc]` is the provider
//! through which they can.

use std::{num::NonZeroU32, sync::Arc};

use http::{HeaderName, Uri, header};

use super::{
    Admin, Server,
    address::{self, Listen, host, is_local},
    document::References,
    limits::rate,
    resolve::{listen, proxies, trusted_proxies},
    secret,
    section::{ListItem, Section, SpannedText, ValueError, wrong},
    tls,
};
use crate::{
    admin::{FormKey, GroupMapping, MetricsAccess, Provider, ProviderTls, SignIn, UserHeader},
    authz::{accounts::ALL_USERS, administration::names, rules::Secret},
    issuer::is_loopback_host,
    net::Address,
    settings::Rate,
};

pub(super) fn admin(root: &Section<'_>, server: &Server) -> Admin {
    let section = &root.table("admin");
    let listen = listen(section);
    let tls = tls::resolve(section);
    let allowed = section.flag("allow_remote");
    let certificates = section.is_set("tls");
    for (listen, at) in listen.iter().filter(|(listen, _)| !is_local(&listen.address)) {
        let address = &listen.address;
        let message = format!("other machines could reach the admin listener at {address}");
        if allowed {
            if !listen.uses_tls(certificates) {
                let advice = "it does not use TLS: set `admin.tls`, or terminate TLS in front of it";
                section.document.warn(at, message, advice);
            }
        } else {
            let advice = "write a loopback address, or add `allow_remote = true` to [admin] if that is meant";
            section.document.error(at, message, advice);
        }
    }
    let proxy = root.table("server");
    for (Listen { address: own, .. }, _) in &listen {
        for Listen { address: other, .. } in &server.listen {
            for (wide, name, one) in [(other, "admin", own), (own, "server", other)] {
                if address::includes(wide, one) {
                    let message = format!("{wide} includes {one}, where clients reach only `{name}.listen`");
                    // One of the two is written, because the defaults differ in the port.
                    let written = if proxy.is_set("listen") { &proxy } else { section };
                    written.warn("listen", message, "give each listener its own port");
                }
            }
        }
    }
    let mut hosts = section.all_parsed("hosts", host);
    let url = section.parsed("url", self::url);
    // The listener also answers to the host of its own URL.
    hosts.extend(url.as_ref().map(|(_, host)| host.clone()));
    let address = reachable_url(certificates, listen.iter().map(|(listen, _)| listen));
    let gateway = root.table("server").parsed("url", self::url).map(|(url, _)| url);
    let gateway = gateway.or_else(|| reachable_url(!server.tls.pairs.is_empty(), &server.listen));
    let header = user_header(section);
    let form_key = section.text("user_header_key").and_then(|text| text.ok_or_report(form_key(&text)));
    let url = url.map(|(url, _)| url);
    let metrics = metrics(section);
    let provider = provider(section, url.as_deref());
    Admin {
        listen: listen.into_iter().map(|(listen, _)| listen).collect(),
        hosts,
        tls,
        allow_remote: allowed,
        trusted_proxies: trusted_proxies(section),
        metrics,
        sign_in: SignIn { url, address, header, form_key, provider, gateway, demo: false },
    }
}

/// `None` if it is no valid rate, which has been reported.
pub(super) fn write_rate(section: &Section<'_>) -> Option<Rate> {
    let burst = section.count("write_burst").and_then(NonZeroU32::new);
    section.parsed("write_rate", |text| rate(text, burst))
}

/// In lower case, as logins are compared.
pub(super) fn reserved_logins(section: &Section<'_>) -> Arc<[String]> {
    let login = |text: &str| match names::login(text) {
        Ok(login) => Ok(login.to_ascii_lowercase()),
        Err(refusal) => Err((refusal.message, String::new())),
    };
    section.all_parsed("reserved_logins", login).into()
}

/// Which clients get `/metrics` without a token.
fn metrics(section: &Section<'_>) -> MetricsAccess {
    let Some(text) = section.text("metrics") else { return MetricsAccess::default() };
    match text.value.as_str() {
        "local" => return MetricsAccess::Local,
        "socket" => return MetricsAccess::Socket,
        "listener" => return MetricsAccess::Listener,
        _ => {}
    }
    match address::listen(&text.value, section.document.directory) {
        Ok(Listen { address: address @ (Address::Tcp(_) | Address::Unix(_)), scheme: None }) => {
            MetricsAccess::SeparateListener(address)
        }
        Ok(_) | Err(_) => {
            let message = format!("{:?} is not a choice for who may read /metrics", text.value);
            let advice = "write \"local\", \"socket\", \"listener\", \"IP:PORT\" or \"unix:PATH\"";
            text.error(message, advice);
            MetricsAccess::default()
        }
    }
}

/// The URL of the first listen address that has one. A port that the kernel chooses is not known yet.
fn reachable_url<'a>(certificates: bool, listen: impl IntoIterator<Item = &'a Listen>) -> Option<String> {
    listen.into_iter().find_map(|listen| match &listen.address {
        Address::Tcp(address) if address.port() != 0 && !address.ip().is_unspecified() => {
            let scheme = if listen.uses_tls(certificates) { "https" } else { "http" };
            Some(format!("{scheme}://{address}"))
        }
        _ => None,
    })
}

/// Refuses a header without the addresses of its proxies: otherwise any client could name any user.
fn user_header(section: &Section<'_>) -> Option<UserHeader> {
    let from: Vec<_> = section.texts("user_header_from").iter().filter_map(proxies).collect();
    let Some(text) = section.text("user_header") else {
        if !from.is_empty() {
            let message = "`user_header_from` does nothing without `user_header`";
            section.warn("user_header_from", message, "");
        }
        return None;
    };
    let name = text.parse(field)?;
    if from.is_empty() {
        let message =
            format!("with `user_header = {:?}` alone, every client could sign in as any user", name.as_str());
        let advice = "name the proxies that set it: `user_header_from = [\"10.0.0.5\"]`";
        text.error(message, advice);
        return None;
    }
    Some(UserHeader { name, from })
}

fn form_key(text: &SpannedText<'_>) -> Result<FormKey, ValueError> {
    const MIN_LENGTH: usize = 32;
    let Secret(secret) = secret::referenced(text)?;
    if secret.len() < MIN_LENGTH && text.document.references == References::Read {
        let advice = "create one with `openssl rand -hex 32`";
        return wrong(format!("the secret is shorter than {MIN_LENGTH} characters"), advice);
    }
    Ok(FormKey::from_secret(secret.as_bytes()))
}

fn field(text: &str) -> Result<HeaderName, ValueError> {
    const TAKEN: [HeaderName; 6] = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    let advice = "write a field that has no other meaning, such as \"X-Forwarded-User\"";
    let name = text.parse::<HeaderName>().ok().filter(|name| !TAKEN.contains(name));
    name.ok_or_else(|| (format!("{text:?} cannot be the field that names the user"), advice.into()))
}

/// The URL without final slashes, and its host.
fn url(text: &str) -> Result<(String, String), ValueError> {
    let trimmed = text.trim_end_matches('/');
    let authority = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://"));
    match authority.and_then(address::authority) {
        Some(authority) => Ok((trimmed.to_owned(), authority.host().to_ascii_lowercase())),
        None => {
            let host = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
            let fault = match host.and_then(address::authority) {
                Some(_) => "has more than a scheme, a host and a port",
                None => "is not an http:// or https:// URL",
            };
            wrong(format!("{text:?} {fault}"), "write it as \"https://gate.example.com\"")
        }
    }
}

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
    let issuer = tls::issuer(section);
    let client_id = section.line("admin.oidc", "client_id");
    let client_secret =
        section.text("client_secret").map(|text| text.ok_or_report(secret::referenced(&text)));
    let scopes: Vec<String> = section.all_parsed("scopes", scope);
    if !scopes.iter().any(|scope| scope == "openid") {
        let message = "`scopes` lacks \"openid\": the provider would not identify users";
        section.error("scopes", message, "write `scopes = [\"openid\", \"profile\", \"email\"]`");
    }
    let (issuer, tls) = issuer?;
    Some(Provider {
        issuer,
        client_id: client_id?,
        client_secret: match client_secret {
            None => None,
            Some(secret) => Some(secret?),
        },
        title: section.line("admin.oidc", "title")?,
        scopes,
        login_claim: section.line("admin.oidc", "login_claim")?,
        groups_claim: section.line("admin.oidc", "groups_claim")?,
        groups: section.entries("groups").into_iter().filter_map(group).collect(),
        link_logins: section.flag("link_logins"),
        tls: tls.map(ProviderTls),
    })
}

/// Whether the URL has TLS or is on this machine.
pub(super) fn is_safe(url: &str) -> bool {
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

//! `[admin]`: where the admin listener is, and how people come in.

use std::{cell::OnceCell, num::NonZeroU32, path::Path, sync::Arc};

use http::{HeaderName, header};

use super::{
    Admin, Server,
    address::{self, Listen, Wrong, host, is_local, network},
    limits::rate,
    oidc,
    problem::Problems,
    resolve::{listen, trusted_proxies},
    section::Section,
    service::collect,
    tls,
};
use crate::{
    admin::{MetricsAccess, SignIn, UserHeader},
    authz::administration::names,
    net::Address,
    settings::{NoSystemRoots, Rate, SystemRoots},
};

pub(super) fn admin(
    problems: &Problems<'_>,
    root: &Section<'_>,
    server: &Server,
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Admin {
    let section = &root.table("admin");
    let listen = listen(problems, section, directory);
    let tls = tls::resolve(problems, section, directory);
    let allowed = section.flag("allow_remote");
    let certificates = section.is_written("tls");
    for (listen, at) in listen.iter().filter(|(listen, _)| !is_local(&listen.address)) {
        let address = &listen.address;
        let message = format!("the admin listener would be reached from other machines at {address}");
        if allowed {
            if !listen.takes_tls(certificates) {
                let advice = "it speaks plain text: set `admin.tls`, or put TLS in front of it";
                problems.warn(at, message, advice);
            }
        } else {
            let advice = "write a loopback address, or add `allow_remote = true` to [admin] if that is meant";
            problems.error(at, message, advice);
        }
    }
    let mut hosts = collect(problems, section.texts("hosts"), host);
    let url = section.text("url").and_then(|text| collect(problems, vec![text], url).pop());
    // Its own name is one that it answers to.
    hosts.extend(url.as_ref().map(|(_, host)| host.clone()));
    let address = reached(certificates, listen.iter().map(|(listen, _)| listen));
    let gateway =
        root.table("server").text("url").and_then(|text| collect(problems, vec![text], self::url).pop());
    let gateway =
        gateway.map(|(url, _)| url).or_else(|| reached(!server.tls.pairs.is_empty(), &server.listen));
    let header = user_header(problems, section);
    let url = url.map(|(url, _)| url);
    let metrics = metrics(problems, section, directory);
    let provider = oidc::provider(problems, section, url.as_deref(), directory, system);
    Admin {
        listen: listen.into_iter().map(|(listen, _)| listen).collect(),
        hosts,
        tls,
        allow_remote: allowed,
        trusted_proxies: trusted_proxies(problems, section),
        metrics,
        sign_in: SignIn { url, address, header, provider, gateway, demo: false },
    }
}

/// `None` where it is no rate; that has been reported.
pub(super) fn write_rate(problems: &Problems<'_>, section: &Section<'_>) -> Option<Rate> {
    let burst = section.count("write_burst").and_then(|n| NonZeroU32::new(u32::try_from(n).ok()?));
    collect(problems, vec![section.text("write_rate")?], |text| rate(text, burst)).pop()
}

/// In lower case: logins are compared so.
pub(super) fn reserved_logins(problems: &Problems<'_>, section: &Section<'_>) -> Arc<[String]> {
    let login = |text: &str| match names::login(text) {
        Ok(login) => Ok(login.to_ascii_lowercase()),
        Err(refusal) => Err((refusal.message, String::new())),
    };
    collect(problems, section.texts("reserved_logins"), login).into()
}

/// Who gets `/metrics` without a token.
fn metrics(problems: &Problems<'_>, section: &Section<'_>, directory: &Path) -> MetricsAccess {
    let Some(text) = section.text("metrics") else { return MetricsAccess::default() };
    match text.get_ref().as_str() {
        "local" => return MetricsAccess::Local,
        "socket" => return MetricsAccess::Socket,
        "listener" => return MetricsAccess::Listener,
        _ => {}
    }
    match address::listen(text.get_ref(), directory) {
        Ok(Listen { address: address @ (Address::Tcp(_) | Address::Unix(_)), scheme: None }) => {
            MetricsAccess::Apart(address)
        }
        Ok(_) | Err(_) => {
            let message = format!("{:?} says not who gets /metrics", text.get_ref());
            let advice = "write \"local\", \"socket\", \"listener\", \"IP:PORT\" or \"unix:PATH\"";
            problems.error(&text.span(), message, advice);
            MetricsAccess::default()
        }
    }
}

/// The URL of the first listener that has one. A port that the kernel chooses is not known here.
fn reached<'a>(certificates: bool, listen: impl IntoIterator<Item = &'a Listen>) -> Option<String> {
    listen.into_iter().find_map(|listen| match &listen.address {
        Address::Tcp(address) if address.port() != 0 && !address.ip().is_unspecified() => {
            let scheme = if listen.takes_tls(certificates) { "https" } else { "http" };
            Some(format!("{scheme}://{address}"))
        }
        _ => None,
    })
}

/// Without addresses anybody could name anybody: that is refused, not ignored.
fn user_header(problems: &Problems<'_>, section: &Section<'_>) -> Option<UserHeader> {
    let from = collect(problems, section.texts("user_header_from"), network);
    let Some(text) = section.text("user_header") else {
        if !from.is_empty() {
            let message = "`user_header_from` does nothing without `user_header`";
            problems.warn(&section.at("user_header_from"), message, "");
        }
        return None;
    };
    let at = text.span();
    let name = collect(problems, vec![text], field).pop()?;
    if from.is_empty() {
        let message = format!("`user_header = {:?}` would let anybody be anybody", name.as_str());
        let advice = "name the proxies that set it: `user_header_from = [\"10.0.0.5\"]`";
        problems.error(&at, message, advice);
        return None;
    }
    Some(UserHeader { name, from })
}

fn field(text: &str) -> Result<HeaderName, Wrong> {
    const TAKEN: [HeaderName; 6] = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    let advice = "write a field of its own, such as \"X-Forwarded-User\"";
    let name = text.parse::<HeaderName>().ok().filter(|name| !TAKEN.contains(name));
    name.ok_or_else(|| (format!("{text:?} cannot name a user"), advice.into()))
}

/// The URL without its last slash, and its host.
fn url(text: &str) -> Result<(String, String), Wrong> {
    let wrong =
        || (format!("{text:?} is not the URL of a page"), "write it as \"https://gate.example.com\"".into());
    let trimmed = text.trim_end_matches('/');
    let authority = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://"));
    let authority = authority.and_then(|text| text.parse::<http::uri::Authority>().ok());
    let authority = authority.filter(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    let host = authority.ok_or_else(wrong)?.host().to_ascii_lowercase();
    Ok((trimmed.to_owned(), host))
}

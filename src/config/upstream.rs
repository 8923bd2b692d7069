//! What stands in `[upstream.NAME]`.

use std::{cell::OnceCell, num::NonZeroUsize, path::Path, sync::Arc};

use http::{HeaderValue, StatusCode};

use super::{
    address::{Listen, upstream_url},
    problem::{Outside, Problems},
    section::{Entry, Section, Text},
    tls,
};
use crate::{
    net::{Address, tls::CertifiedKeyFiles},
    settings::{
        Balance, Ejection, Health, Host, HttpVersion, MADE_AS_AUTHORITY, NoSystemRoots, Scheme, SystemRoots,
        TlsParts, UpstreamSettings, UpstreamTls, UpstreamUrl, WeightedUrl, parse_name,
    },
};

/// `None` where something essential is missing; that has been reported.
pub(super) fn upstream(
    problems: &Problems<'_>,
    name: &Text,
    section: &Section<'_>,
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<UpstreamSettings> {
    let urls = urls(problems, section, directory);
    let host = section.text("host").and_then(|text| {
        let authority = text.get_ref().parse::<http::uri::Authority>().ok();
        let sound = authority.filter(|a| !a.host().is_empty() && !a.as_str().contains('@'));
        if sound.is_none() {
            problems.error(&text.span(), format!("{:?} cannot be a Host field", text.get_ref()), "");
        }
        HeaderValue::from_str(sound?.as_str()).ok()
    });
    let (timeouts, eject) = (section.table("timeouts"), section.table("eject"));
    Some(UpstreamSettings {
        name: Arc::from(name.get_ref().as_str()),
        host,
        http: http_version(problems, section, &urls),
        tls: tls(problems, section, &urls, directory, system),
        urls,
        connect_timeout: timeouts.duration("connect")?,
        first_byte_timeout: timeouts.duration("first_byte")?,
        body_timeout: timeouts.duration("body_idle")?,
        stream_idle_timeout: timeouts.duration("stream_idle")?,
        ping_interval: timeouts.duration("ping")?,
        tunnel_idle_timeout: timeouts.duration("tunnel_idle")?,
        idle_timeout: timeouts.duration("pool_idle")?,
        balance: match section.text("balance")?.get_ref().as_str() {
            "least-requests" => Balance::LeastRequests,
            "hash" => Balance::Hash,
            _ => Balance::RoundRobin,
        },
        ejection: Ejection {
            failures: u32::try_from(eject.count("failures")?).ok()?,
            back_off: eject.duration("for")?,
        },
        health: if section.is_written("health") { health(problems, &section.table("health")) } else { None },
        retries: u32::try_from(section.count("retries")?).ok()?,
        resolve: section.duration("resolve")?,
        max_connections: section.count("max_connections").and_then(NonZeroUsize::new),
        max_in_flight: section.count("max_in_flight").and_then(NonZeroUsize::new),
        queue: section.count("queue")?,
        queue_timeout: section.duration("queue_timeout")?,
    })
}

fn urls(problems: &Problems<'_>, section: &Section<'_>, directory: &Path) -> Vec<WeightedUrl> {
    let entries = section.entries("urls");
    let at = section.at("urls");
    if section.is_written("urls") {
        if entries.is_empty() {
            problems.error(&at, "`urls` is empty", "name at least one, such as \"http://127.0.0.1:8090\"");
        } else if entries.len() > UpstreamSettings::MOST_URLS {
            let message = format!("`urls` may name at most {}", UpstreamSettings::MOST_URLS);
            problems.error(&at, message, "one name may lead to any number of addresses");
        }
    }
    let mut urls: Vec<WeightedUrl> = Vec::with_capacity(entries.len());
    for entry in entries {
        let (text, weight) = match entry {
            Entry::Text(text) => (Some(text), Some(1)),
            Entry::Table(table) => (table.text("url"), table.count("weight")),
        };
        let (Some(text), Some(weight)) = (text, weight) else { continue };
        match upstream_url(text.get_ref(), directory) {
            Ok(url) if urls.iter().any(|other| other.url == url) => {
                problems.error(
                    &text.span(),
                    format!("{:?} is named twice", text.get_ref()),
                    "give it a weight",
                );
            }
            Ok(url) => urls.push(WeightedUrl { url, weight: u32::try_from(weight).unwrap_or(u32::MAX) }),
            Err((message, advice)) => problems.error(&text.span(), message, advice),
        }
    }
    if !urls.is_empty() && urls.iter().all(|one| one.weight == 0) {
        problems.error(&at, "no url has a weight: nothing could be sent", "give one a weight of at least 1");
    }
    urls
}

fn health(problems: &Problems<'_>, section: &Section<'_>) -> Option<Health> {
    let path = section.text("path")?;
    let sound = path.get_ref().starts_with('/') && !path.get_ref().contains('#');
    let parsed = path.get_ref().parse().ok().filter(|_| sound);
    if parsed.is_none() {
        let message = format!("{:?} is not a path", path.get_ref());
        problems.error(&path.span(), message, "write it as it is requested, such as \"/health\"");
    }
    Some(Health {
        path: parsed?,
        interval: section.duration("interval")?,
        timeout: section.duration("timeout")?,
        rise: u32::try_from(section.count("rise")?).ok()?,
        fall: u32::try_from(section.count("fall")?).ok()?,
        status: section
            .count("status")
            .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok()),
    })
}

fn tls(
    problems: &Problems<'_>,
    section: &Section<'_>,
    urls: &[WeightedUrl],
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<UpstreamTls> {
    let written = section.table("tls");
    if !urls.iter().any(|one| one.url.scheme() == Scheme::Https) {
        if section.is_written("tls") && !urls.is_empty() {
            let message = "`tls` is set, but no url is https://: it would do nothing";
            problems.error(&section.at("tls"), message, "write https:// in the url, or leave `tls` out");
        }
        return None;
    }
    let file = |name| tls::file(problems, &written, name, directory);
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if written.is_written(one) && !written.is_written(other) {
            let message = format!("`tls.{one}` without `tls.{other}`: nothing could be shown");
            problems.error(&written.at(one), message, format!("set `tls.{other}`"));
            return None;
        }
    }
    let pair = match written.is_written("cert") {
        true => Some(CertifiedKeyFiles {
            cert: file("cert")?,
            key: tls::key_file(problems, &written, directory)?,
        }),
        false => None,
    };
    let name = match written.text("server_name") {
        None => None,
        Some(text) => {
            let name = parse_name(text.get_ref());
            if name.is_none() {
                let message = format!("{:?} is not a name that a certificate can have", text.get_ref());
                problems.error(&text.span(), message, "write a host name or an address");
            }
            Some(name?)
        }
    };
    if problems.outside == Outside::Ignored {
        return None;
    }
    let from = (&section.at("urls"), "tls.ca");
    let trust = tls::authorities(problems, &written, from, directory, system)?;
    let at = if written.is_written("cert") { written.at("cert") } else { written.at("ca") };
    let loaded = UpstreamTls::load(TlsParts { trust, pair, name })
        .map_err(|error| problems.error(&at, tls::with_sources(&error), ""))
        .ok()?;
    if let Some(one) = urls.iter().find(|one| loaded.authority_is_server(one.url.host())) {
        let message = format!("the certificate in `tls.ca` is that of {} and {MADE_AS_AUTHORITY}", one.url);
        problems.warn(&written.at("ca"), message, "connections fail if the upstream shows it");
    }
    Some(loaded)
}

/// Whether requests to this url come back to one of these addresses.
pub(super) fn leads_to(url: &UpstreamUrl, listen: &[Listen]) -> bool {
    listen.iter().any(|listen| match (&listen.address, url.host()) {
        (Address::Tcp(own), host) if own.port() == url.port() => match host {
            Host::Address(ip) => {
                let (ip, own) = (ip.to_canonical(), own.ip().to_canonical());
                let here = own.is_loopback() || own.is_unspecified();
                ip == own || own.is_unspecified() && ip.is_loopback() || here && ip.is_unspecified()
            }
            Host::Name(name) => {
                &**name == "localhost" && (own.ip().is_loopback() || own.ip().is_unspecified())
            }
            Host::Socket(_) => false,
        },
        (Address::Unix(own), Host::Socket(path)) => own.as_path() == &**path,
        _ => false,
    })
}

fn http_version(problems: &Problems<'_>, section: &Section<'_>, urls: &[WeightedUrl]) -> HttpVersion {
    let version = match section.text("http").as_ref().map(|text| text.get_ref().as_str()) {
        Some("1.1") => HttpVersion::Http1,
        Some("2") => HttpVersion::Http2,
        _ => HttpVersion::Auto,
    };
    if version == HttpVersion::Http1 && urls.iter().any(|one| one.url.scheme() == Scheme::H2c) {
        let message = "`http = \"1.1\"` contradicts a url with h2c://";
        problems.error(&section.at("http"), message, "write http:// in the url, or leave `http` out");
    }
    version
}

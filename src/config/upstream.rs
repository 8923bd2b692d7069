//! `[upstream.NAME]`: reads the settings of an upstream.

use std::num::NonZeroUsize;

use http::{HeaderValue, StatusCode};

use super::{
    address::{self, upstream_url},
    document::References,
    problem::chain,
    section::{ListItem, Section, SpannedText, wrong},
    tls,
};
use crate::{
    net::Address,
    settings::{
        AUTHORITY_AS_SERVER, Ejection, Health, Host, HttpVersion, Scheme, UpstreamSettings, UpstreamTls,
        UpstreamUrl, WeightedUrl, parse_name,
    },
};

/// `None` if something essential is missing, which has been reported.
pub(super) fn upstream(name: &SpannedText<'_>, section: &Section<'_>) -> Option<UpstreamSettings> {
    let urls = urls(section);
    let host = section.parsed("host", |text| {
        let authority = address::authority(text);
        let value = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        value.ok_or_else(|| (format!("{text:?} cannot be a Host field"), String::new()))
    });
    let (timeouts, eject) = (section.table("timeouts"), section.table("eject"));
    if !["max_connections", "max_in_flight"].iter().any(|limit| section.is_set(limit)) {
        for key in ["queue", "queue_timeout"].into_iter().filter(|key| section.is_set(key)) {
            let message = format!("`{key}` has no effect without `max_connections` or `max_in_flight`");
            section.warn(key, message, "");
        }
    }
    Some(UpstreamSettings {
        name: name.value.as_str().into(),
        host,
        http: http_version(section, &urls),
        tls: tls(section, &urls),
        urls,
        connect_timeout: timeouts.duration("connect")?,
        first_byte_timeout: timeouts.duration("first_byte")?,
        body_timeout: timeouts.duration("body_idle")?,
        stream_idle_timeout: timeouts.duration("stream_idle")?,
        ping_interval: timeouts.duration("ping")?,
        tunnel_idle_timeout: timeouts.duration("tunnel_idle")?,
        idle_timeout: timeouts.duration("pool_idle")?,
        balance: section.word("balance").unwrap_or_default(),
        ejection: Ejection { failures: eject.count("failures")?, back_off: eject.duration("for")? },
        health: section.optional_table("health").and_then(|section| health(&section)),
        retries: section.count("retries")?,
        resolve: section.duration("resolve")?,
        max_connections: section.count("max_connections").and_then(NonZeroUsize::new),
        max_in_flight: section.count("max_in_flight").and_then(NonZeroUsize::new),
        queue: section.count("queue")?,
        queue_timeout: section.duration("queue_timeout")?,
    })
}

fn urls(section: &Section<'_>) -> Vec<WeightedUrl> {
    let entries = section.entries("urls");
    let array = section.entry("urls").and_then(|value| value.get_ref().as_array());
    if array.is_some_and(|items| items.is_empty()) {
        let advice = "name at least one, such as \"http://127.0.0.1:8090\"";
        section.error("urls", "`urls` is empty", advice);
    } else if entries.len() > UpstreamSettings::MAX_URLS {
        let message = format!("`urls` may name at most {}", UpstreamSettings::MAX_URLS);
        section.error("urls", message, "a host name may resolve to any number of addresses");
    }
    let mut urls: Vec<WeightedUrl> = Vec::with_capacity(entries.len());
    for entry in entries {
        let (text, weight) = match entry {
            ListItem::Text(text) => (Some(text), Some(1)),
            ListItem::Table(table) => (table.text("url"), table.count("weight")),
        };
        let (Some(text), Some(weight)) = (text, weight) else { continue };
        let url = text.parse(|text| match upstream_url(text, section.document.directory)? {
            url if urls.iter().any(|other| other.url == url) => {
                wrong(format!("{text:?} is named twice"), "give it a weight")
            }
            url => Ok(url),
        });
        urls.extend(url.map(|url| WeightedUrl { url, weight }));
    }
    if !urls.is_empty() && urls.iter().all(|one| one.weight == 0) {
        let message = "every url has the weight 0: no request could be sent";
        section.error("urls", message, "give one a weight of at least 1");
    }
    urls
}

fn health(section: &Section<'_>) -> Option<Health> {
    let path = section.parsed("path", |path| {
        let sound = path.starts_with('/') && !path.contains('#');
        path.parse().ok().filter(|_| sound).ok_or_else(|| {
            let advice = "write the path to request, such as \"/health\"";
            (format!("{path:?} is not a path"), advice.into())
        })
    });
    Some(Health {
        path: path?,
        interval: section.duration("interval")?,
        timeout: section.duration("timeout")?,
        rise: section.count("rise")?,
        fall: section.count("fall")?,
        status: section.count("status").and_then(|status| StatusCode::from_u16(status).ok()),
    })
}

fn tls(section: &Section<'_>, urls: &[WeightedUrl]) -> Option<UpstreamTls> {
    let written = section.table("tls");
    if !urls.iter().any(|one| one.url.scheme() == Scheme::Https) {
        if section.is_set("tls") && !urls.is_empty() {
            let message = "`tls` has no effect: no url is https://";
            section.error("tls", message, "write https:// in the url, or leave `tls` out");
        }
        return None;
    }
    let pair = tls::client_certificate(&written)?;
    let name = match written.text("server_name") {
        None => None,
        Some(text) => Some(text.parse(|name| {
            parse_name(name).ok_or_else(|| {
                let message = format!("{name:?} is not a name that a certificate can have");
                (message, "write a host name or an IP address".into())
            })
        })?),
    };
    if section.document.references == References::Ignored {
        return None;
    }
    let trust = tls::authorities(&written, (&section.at("urls"), "tls.ca"))?;
    let at = if written.is_set("cert") { "cert" } else { "ca" };
    let loaded =
        UpstreamTls::load(trust, pair, name).map_err(|error| written.error(at, chain(&error), "")).ok()?;
    if let Some(one) = urls.iter().find(|one| loaded.has_authority_as_server(one.url.host())) {
        let message =
            format!("the certificate in `tls.ca` is that of {} itself and {AUTHORITY_AS_SERVER}", one.url);
        written.warn("ca", message, "connections fail if the upstream uses it");
    }
    Some(loaded)
}

/// Whether requests to this URL arrive at one of these addresses.
pub(super) fn is_own_address(url: &UpstreamUrl, listen: &[&Address]) -> bool {
    listen.iter().any(|address| match (address, url.host()) {
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
        (Address::Unix(_), Host::Socket(path)) => {
            address::canonical_listen(address)
                == address::canonical_listen(&Address::Unix(path.to_path_buf()))
        }
        _ => false,
    })
}

fn http_version(section: &Section<'_>, urls: &[WeightedUrl]) -> HttpVersion {
    let version: HttpVersion = section.word("http").unwrap_or_default();
    if version == HttpVersion::Http1 && urls.iter().any(|one| one.url.scheme() == Scheme::H2c) {
        let message = "`http = \"1.1\"` contradicts a url with h2c://";
        section.error("http", message, "write http:// in the url, or leave `http` out");
    }
    version
}

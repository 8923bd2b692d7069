//! `[store.cluster]`: several gateways that share one store.

use http::Uri;

use super::{
    secret,
    section::{Section, SpannedText, ValueError, wrong},
    tls::client_certificate,
};
use crate::{
    admin::SignIn,
    assertion::KeySource,
    store::cluster::{Etcd, Settings, Tls, User},
};

/// Names appear in keys of etcd, in responses and in metrics.
const MAX_NAME: usize = 63;

/// `None` for a single gateway, or if something essential is missing.
pub(super) fn cluster(
    store: &Section<'_>,
    assertion: Option<&crate::assertion::Settings>,
    sign_in: &SignIn,
) -> Option<Settings> {
    let section = store.optional_table("cluster")?;
    if cfg!(not(feature = "etcd")) {
        let advice = "use a package of permgate, or build it with `--features etcd`";
        store.error("cluster", "this permgate was built without the feature `etcd`", advice);
    }
    if assertion.is_some_and(|assertion| matches!(assertion.source, KeySource::Generated { .. })) {
        let advice = "give all of them the same file: `keys = \"file:PATH\"` in [assertion]";
        store.error("cluster", "each gateway would sign assertions with its own keys", advice);
    }
    if sign_in.header.is_some() && sign_in.form_key.is_none() {
        let advice = "give all of them the same file: `user_header_key = \"file:PATH\"` in [admin]";
        store.error("cluster", "each gateway would sign CSRF tokens with its own key", advice);
    }
    let lease = section.duration("lease")?;
    let (node, prefix) = (section.parsed("node", node), section.parsed("prefix", prefix));
    let (endpoints, tls) = (endpoints(&section), encryption(&section));
    let user = section.optional_table("user").and_then(|user| {
        let password = user.text("password")?;
        let password_file = password.ok_or_report(secret::file(&password, "a password"))?;
        Some(User { name: user.text("name")?.value, password_file })
    });
    Some(Settings { node: node?, lease, etcd: Etcd { endpoints, prefix: prefix?, tls, user } })
}

fn endpoints(section: &Section<'_>) -> Vec<String> {
    let endpoints = section.texts("endpoints");
    if endpoints.is_empty() && section.is_set("endpoints") {
        section.error("endpoints", "`store.cluster.endpoints` is empty", "name every member of etcd");
    }
    let encrypted = section.is_set("tls");
    endpoints
        .iter()
        .filter_map(|endpoint| endpoint.ok_or_report(self::endpoint(endpoint, encrypted)))
        .collect()
}

fn endpoint(endpoint: &SpannedText<'_>, encrypted: bool) -> Result<String, ValueError> {
    let text = endpoint.value.trim_end_matches('/').to_owned();
    let uri = text.parse::<Uri>().ok();
    let scheme = uri.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
    let plain = |uri: &Uri| uri.path() == "/" && uri.query().is_none() && uri.port_u16().is_some();
    if !uri.as_ref().is_some_and(plain) || !matches!(scheme, "http" | "https") || text.contains('@') {
        return wrong(
            format!("{text:?} is not the URL of an etcd member"),
            "write it as \"https://HOST:2379\"",
        );
    }
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    if scheme == "https" && !encrypted {
        return wrong("no certificate authority is set for etcd", "set `tls = { ca = \"...\" }`");
    }
    if scheme == "http" && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        let message = format!("every change of the store is sent to {text} in plain text");
        endpoint.warn(message, "enable TLS in etcd, and write https://");
    }
    Ok(text)
}

fn encryption(section: &Section<'_>) -> Option<Tls> {
    let tls = section.optional_table("tls")?;
    let ca = tls.file("ca");
    let identity = client_certificate(&tls).flatten().map(|pair| (pair.cert, pair.key));
    Some(Tls { ca: ca?, identity })
}

fn node(text: &str) -> Result<String, ValueError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    wrong(format!("{text:?} cannot name a node"), "write 1 to 63 lower-case letters, digits, `-` and `.`")
}

fn prefix(text: &str) -> Result<String, ValueError> {
    if text.len() > 1 && text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    wrong(format!("{text:?} is not a prefix"), "write it as \"/permgate\"")
}

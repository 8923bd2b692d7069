//! TLS settings: certificates of listeners, authorities for clients, issuers and upstreams.

use std::ops::Range;

use http::Uri;

use super::{
    admin::is_safe,
    document::References,
    problem::chain,
    section::{Section, ValueError, wrong},
};
use crate::{
    net::tls::{Certificates, CertifiedKeyFiles, ClientAuth, Settings},
    settings::{Trust, UpstreamTls},
};

/// Reads a listener's certificates, and whether clients must show theirs.
pub(super) fn resolve(section: &Section<'_>) -> Settings {
    let pairs: Vec<CertifiedKeyFiles> = section
        .tables("tls")
        .iter()
        .filter_map(|tls| {
            let pair = CertifiedKeyFiles { cert: tls.file("cert")?, key: tls.private_file("key")? };
            let alone = Settings { pairs: vec![pair.clone()], clients: None };
            is_loadable(&alone, tls, "cert").then_some(pair)
        })
        .collect();
    let clients = section.is_set("tls_client_ca").then(|| {
        let authorities = section.file("tls_client_ca")?;
        let required = section.text("tls_client_certificate").is_none_or(|text| text.value == "required");
        Some(ClientAuth { authorities, required })
    });
    let settings = Settings { pairs, clients: clients.flatten() };
    if section.is_set("tls_client_ca") && !section.is_set("tls") {
        let message = "`tls_client_ca` has no effect without `tls`";
        section.error("tls_client_ca", message, "set `tls`");
    } else if settings.clients.is_some() && !settings.pairs.is_empty() {
        is_loadable(&settings, section, "tls_client_ca");
    }
    if section.is_set("tls_client_certificate") && !section.is_set("tls_client_ca") {
        let message = "`tls_client_certificate` has no effect without `tls_client_ca`";
        section.error("tls_client_certificate", message, "set `tls_client_ca`");
    }
    settings
}

fn is_loadable(settings: &Settings, section: &Section<'_>, name: &str) -> bool {
    section.document.references == References::Ignored
        || Certificates::load(settings).map_err(|error| section.error(name, chain(&error), "")).is_ok()
}

/// The authorities in `ca`, or else those of the system. An error in the latter is reported at `at`, with the
/// advice to set `key`. `None` if neither can be used.
pub(super) fn authorities(section: &Section<'_>, (at, key): (&Range<usize>, &str)) -> Option<Trust> {
    if section.is_set("ca") {
        return section.file("ca").map(Trust::File);
    }
    if section.document.references == References::Ignored {
        return None;
    }
    match section.document.system_roots() {
        Ok(roots) => Some(Trust::System(roots.clone())),
        Err(error) => {
            let advice = format!("install them (ca-certificates), or name a file in `{key}`");
            section.document.error(at, error.to_string(), advice);
            None
        }
    }
}

/// The files of a client certificate and its key; `Some(None)`: neither is set.
pub(super) fn client_certificate(section: &Section<'_>) -> Option<Option<CertifiedKeyFiles>> {
    let (one, missing) = match (section.is_set("cert"), section.is_set("key")) {
        (false, false) => return Some(None),
        (true, true) => {
            let (cert, key) = section.file("cert").zip(section.private_file("key"))?;
            return Some(Some(CertifiedKeyFiles { cert, key }));
        }
        (true, false) => ("cert", "key"),
        (false, true) => ("key", "cert"),
    };
    section.error(one, format!("`tls.{one}` needs `tls.{missing}`"), format!("set `tls.{missing}`"));
    None
}

/// The URL of an issuer of tokens, and the TLS settings to reach it; `None`: plain text, to an issuer on this
/// machine.
pub(super) fn issuer(section: &Section<'_>) -> Option<(String, Option<UpstreamTls>)> {
    let url = section.parsed("issuer", issuer_url);
    let tls = match &url {
        Some(url) if url.starts_with("http://") => Some(None),
        _ => issuer_tls(section).map(Some),
    };
    Some((url?, tls?))
}

fn issuer_tls(section: &Section<'_>) -> Option<UpstreamTls> {
    let trust = authorities(section, (&section.at, "ca"))?;
    if section.document.references == References::Ignored {
        return None;
    }
    let loaded = UpstreamTls::load(trust, None, None);
    loaded.map_err(|error| section.error("ca", chain(&error), "")).ok()
}

fn issuer_url(text: &str) -> Result<String, ValueError> {
    let advice = "write it exactly as `issuer` in the provider's metadata and `iss` in its tokens, such as \
                  \"https://id.example.com\"";
    // In lower case: the URL is compared with theirs byte by byte, and its scheme decides whether TLS is used.
    let has_scheme = text.starts_with("https://") || text.starts_with("http://");
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let Some(uri) = uri.filter(|_| has_scheme) else {
        return wrong(format!("{text:?} is not a provider's URL"), advice);
    };
    if text.contains(['?', '#', '@']) {
        return wrong(format!("{text:?} has a query, a fragment or a user"), advice);
    }
    if !is_safe(text) {
        let host = uri.host().unwrap_or_default();
        let advice = "write https://; http:// is only for a provider on this machine";
        return wrong(format!("{text:?} sends secrets to {host} in plain text"), advice);
    }
    Ok(text.to_owned())
}

//! TLS of a listener, as it is written: its certificates, and whose certificates clients show.

use std::{
    cell::OnceCell,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    problem::{Outside, Problems},
    section::{Section, Text},
};
use crate::{
    net::tls::{Certificates, CertifiedKeyFiles, ClientAuth, Settings},
    settings::{NoSystemRoots, SystemRoots, TlsParts, Trust, UpstreamTls},
};

/// The certificates of a listener, and whether clients are asked for theirs.
pub(super) fn resolve(problems: &Problems<'_>, section: &Section<'_>, directory: &Path) -> Settings {
    let pairs: Vec<CertifiedKeyFiles> = section
        .tables("tls")
        .iter()
        .filter_map(|tls| {
            let pair = CertifiedKeyFiles {
                cert: file(problems, tls, "cert", directory)?,
                key: key_file(problems, tls, directory)?,
            };
            let alone = Settings { pairs: vec![pair.clone()], clients: None };
            loadable(problems, &alone, &tls.at("cert")).then_some(pair)
        })
        .collect();
    let clients = section.is_written("tls_client_ca").then(|| {
        let authorities = file(problems, section, "tls_client_ca", directory)?;
        let required = section.text("tls_client_certificate").is_none_or(|text| text.get_ref() == "required");
        Some(ClientAuth { authorities, required })
    });
    let settings = Settings { pairs, clients: clients.flatten() };
    if section.is_written("tls_client_ca") && !section.is_written("tls") {
        let message = "`tls_client_ca` without `tls`: nobody would be asked for a certificate";
        problems.error(&section.at("tls_client_ca"), message, "set `tls`");
    } else if settings.clients.is_some() && !settings.pairs.is_empty() {
        loadable(problems, &settings, &section.at("tls_client_ca"));
    }
    if section.is_written("tls_client_certificate") && !section.is_written("tls_client_ca") {
        let message = "`tls_client_certificate` without `tls_client_ca`: nobody says whose are good";
        problems.error(&section.at("tls_client_certificate"), message, "set `tls_client_ca`");
    }
    settings
}

/// The file of a private key.
pub(super) fn key_file(problems: &Problems<'_>, section: &Section<'_>, directory: &Path) -> Option<PathBuf> {
    let path = file(problems, section, "key", directory)?;
    problems.require_private(&section.at("key"), &path);
    Some(path)
}

pub(super) fn file(
    problems: &Problems<'_>,
    section: &Section<'_>,
    name: &str,
    directory: &Path,
) -> Option<PathBuf> {
    let text: Text = section.text(name)?;
    let path: PathBuf = directory.join(text.get_ref());
    if problems.outside == Outside::Ignored {
        return Some(path);
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Some(path),
        Ok(_) => {
            problems.error(&text.span(), format!("{} is not a file", path.display()), "");
            None
        }
        Err(error) => {
            problems.error(&text.span(), format!("{} cannot be read: {error}", path.display()), "");
            None
        }
    }
}

/// Whom `ca` says to trust, or the system's authorities. `key` is how the advice calls it.
pub(super) fn authorities(
    problems: &Problems<'_>,
    section: &Section<'_>,
    (at, key): (&Range<usize>, &str),
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<Trust> {
    if section.is_written("ca") {
        return Some(Trust::File(file(problems, section, "ca", directory)?));
    }
    if problems.outside == Outside::Ignored {
        return None;
    }
    match system.get_or_init(SystemRoots::load) {
        Ok(roots) => Some(Trust::System(roots.clone())),
        Err(error) => {
            let advice = format!("install them (ca-certificates), or name a file in `{key}`");
            problems.error(at, error.to_string(), advice);
            None
        }
    }
}

/// How an issuer of tokens is reached over TLS.
pub(super) fn issuer(
    problems: &Problems<'_>,
    section: &Section<'_>,
    directory: &Path,
    system: &OnceCell<Result<SystemRoots, NoSystemRoots>>,
) -> Option<UpstreamTls> {
    let trust = authorities(problems, section, (&section.at, "ca"), directory, system)?;
    if problems.outside == Outside::Ignored {
        return None;
    }
    let loaded = UpstreamTls::load(TlsParts { trust, pair: None, name: None });
    loaded.map_err(|error| problems.error(&section.at("ca"), with_sources(&error), "")).ok()
}

fn loadable(problems: &Problems<'_>, settings: &Settings, at: &Range<usize>) -> bool {
    if problems.outside == Outside::Ignored {
        return true;
    }
    match Certificates::load(settings) {
        Ok(_) => true,
        Err(error) => {
            problems.error(at, with_sources(&error), "");
            false
        }
    }
}

/// The error and what is behind it, in one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        told.push_str(": ");
        told.push_str(&cause.to_string());
        source = cause.source();
    }
    told
}

//! `[assertion]`: how requests are signed for services that ask for it.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    address::Wrong,
    problem::{Outside, Problems},
    secret,
    section::{Section, Text},
};
use crate::{
    assertion::{Algorithm, Settings, Source, read_pem},
    authz::rules::ServiceSpec,
};

/// Longer, and an assertion that somebody has copied is worth something.
const LONGEST_LIFETIME: Duration = Duration::from_secs(30);
/// In the store's directory.
const KEYS_FILE: &str = "assertion-keys.json";

/// `None` where no service asks for assertions.
pub(super) fn assertion(
    problems: &Problems<'_>,
    section: &Section<'_>,
    is_written: bool,
    services: &[ServiceSpec],
    directory: &Path,
    store: &Path,
) -> Option<Settings> {
    let wanted = services.iter().any(|service| service.identity.has_assertion());
    if is_written && !wanted {
        let advice = "write `identity = \"jwt\"` or \"both\" into a service that reads them";
        problems.warn(&section.at, "no service asks for assertions", advice);
    }
    let issuer = section.text("issuer")?;
    if issuer.get_ref().is_empty() || issuer.get_ref().chars().any(char::is_control) {
        problems.error(&issuer.span(), "`assertion.issuer` must be one line of text", "");
    }
    let lifetime = section.duration("lifetime")?;
    if lifetime > LONGEST_LIFETIME {
        problems.error(&section.at("lifetime"), "`assertion.lifetime` must be at most 30s", "");
    }
    let source = match section.text("keys") {
        Some(keys) => match given(problems, &keys, directory) {
            Ok(source) => {
                let made = ["algorithm", "rotate", "publish_ahead"];
                for key in made.into_iter().filter(|key| section.is_written(key)) {
                    let message = format!("`assertion.{key}` is of no use beside `keys`");
                    problems.error(&section.at(key), message, "the file says which key signs; leave it out");
                }
                source
            }
            Err((message, advice)) => {
                problems.error(&keys.span(), message, advice);
                return None;
            }
        },
        None => made(problems, section, store)?,
    };
    wanted.then(|| Settings { issuer: Arc::from(issuer.get_ref().as_str()), lifetime, source })
}

fn made(problems: &Problems<'_>, section: &Section<'_>, store: &Path) -> Option<Source> {
    let (rotate, ahead) = (section.duration("rotate")?, section.duration("publish_ahead")?);
    if ahead > rotate / 2 {
        let at = section.at(if section.is_written("publish_ahead") { "publish_ahead" } else { "rotate" });
        problems.error(&at, "`assertion.publish_ahead` is more than half of `assertion.rotate`", "");
    }
    let algorithm = match section.text("algorithm")?.get_ref().as_str() {
        "ES256" => Algorithm::Es256,
        _ => Algorithm::EdDsa,
    };
    Some(Source::Made { file: store.join(KEYS_FILE), algorithm, rotate, ahead })
}

fn given(problems: &Problems<'_>, reference: &Text, directory: &Path) -> Result<Source, Wrong> {
    let Some(path) = reference.get_ref().strip_prefix("file:") else {
        let advice = "write \"file:PATH\"; if a secret stood here, replace it";
        return Err(("keys are not written into this file".into(), advice.into()));
    };
    let path = directory.join(path);
    if problems.outside == Outside::Ignored {
        return Ok(Source::Given(Arc::default()));
    }
    problems.require_private(&reference.span(), &path);
    let bytes = secret::read_file(&path).map_err(|error| {
        let message = format!("the file {} cannot be read: {error}", path.display());
        (message, "put a PKCS#8 private key there, readable by permgate alone".to_owned())
    })?;
    let keys = read_pem(&bytes).map_err(|error| {
        let advice = "`openssl genpkey -algorithm ed25519` makes one that fits";
        (format!("the file {} is of no use: {error}", path.display()), advice.to_owned())
    })?;
    Ok(Source::Given(keys.into_iter().map(Arc::new).collect()))
}

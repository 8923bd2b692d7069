//! `[assertion]`: how requests are signed for services that want it.

use std::{path::Path, sync::Arc};

use super::{
    document::References,
    secret,
    section::{Section, SpannedText, ValueError},
};
use crate::{
    assertion::{KeySource, Settings, read_pem},
    authz::rules::ServiceSpec,
};

/// The name of the file in the store's directory.
const KEYS_FILE: &str = "assertion-keys.json";

/// `None` if no service wants assertions, or something essential is missing.
pub(super) fn assertion(root: &Section<'_>, services: &[ServiceSpec], store: &Path) -> Option<Settings> {
    let section = &root.table("assertion");
    let wanted = services.iter().any(|service| service.identity.has_assertion());
    if root.is_set("assertion") && !wanted {
        let advice = "write `identity = \"jwt\"` or \"both\" into a service that verifies them";
        root.warn("assertion", "no service uses assertions", advice);
    }
    let issuer = section.line("assertion", "issuer");
    let lifetime = section.duration("lifetime")?;
    let source = match section.text("keys") {
        Some(keys) => {
            let source = keys.ok_or_report(configured_key(&keys))?;
            let generated_only = ["algorithm", "rotate", "publish_ahead"];
            for key in generated_only.into_iter().filter(|key| section.is_set(key)) {
                let message = format!("`assertion.{key}` has no effect with `keys`");
                section.error(key, message, "leave it out: the first key of the file signs");
            }
            source
        }
        None => generated_keys(section, store)?,
    };
    let issuer = issuer?;
    wanted.then(|| Settings { issuer: issuer.into(), lifetime, source })
}

fn generated_keys(section: &Section<'_>, store: &Path) -> Option<KeySource> {
    let (rotate, publish_ahead) = (section.duration("rotate")?, section.duration("publish_ahead")?);
    if publish_ahead > rotate / 2 {
        let at = if section.is_set("publish_ahead") { "publish_ahead" } else { "rotate" };
        section.error(at, "`assertion.publish_ahead` is more than half of `assertion.rotate`", "");
    }
    Some(KeySource::Generated {
        file: store.join(KEYS_FILE),
        algorithm: section.word("algorithm")?,
        rotate,
        publish_ahead,
    })
}

fn configured_key(reference: &SpannedText<'_>) -> Result<KeySource, ValueError> {
    let path = secret::file(reference, "keys")?;
    if reference.document.references == References::Ignored {
        return Ok(KeySource::Configured(Arc::default()));
    }
    let bytes = secret::read_file(&path).map_err(|error| {
        let message = format!("the file {} cannot be read: {error}", path.display());
        (message, "put a PKCS#8 private key there that only permgate can read".to_owned())
    })?;
    let keys = read_pem(&bytes).map_err(|error| {
        let advice = "create one with `openssl genpkey -algorithm ed25519`";
        (format!("the file {} cannot be used: {error}", path.display()), advice.to_owned())
    })?;
    Ok(KeySource::Configured(keys.into_iter().map(Arc::new).collect()))
}

//! Secrets by reference, `file:PATH` or `env:NAME`: read here, never shown.

use std::{
    env,
    path::{Path, PathBuf},
};

use http::HeaderValue;

use super::{
    document::References,
    problem::reason,
    section::{SpannedText, ValueError, wrong},
};
use crate::{authz::rules::Secret, net::read_regular_file};

/// The longest secret in bytes. A longer file was named by mistake.
const MAX_LENGTH: u64 = 16 << 10;

/// The path of a file that only the gateway's user may read, for keys that allow nothing else. `what` would
/// otherwise be in the configuration.
pub(super) fn file(reference: &SpannedText<'_>, what: &str) -> Result<PathBuf, ValueError> {
    let Some(path) = reference.value.strip_prefix("file:") else {
        let advice = "write \"file:PATH\"; if a secret was written here, replace it";
        return wrong(format!("{what} must not be written into this file"), advice);
    };
    let path = reference.document.directory.join(path);
    reference.document.require_private(&reference.at, &path);
    Ok(path)
}

/// Like [`read`], for keys that allow nothing but a reference.
pub(super) fn referenced(text: &SpannedText<'_>) -> Result<Secret, ValueError> {
    if !["file:", "env:"].iter().any(|kind| text.value.starts_with(kind)) {
        let advice = "write \"file:PATH\" or \"env:NAME\"; if a secret was written here, replace it";
        return wrong("a credential must not be written into this file", advice);
    }
    read(text)
}

/// Reads the value of a whole `Authorization` field, without its final newline. The text itself never appears
/// in a message, since it may be a misplaced secret.
pub(super) fn read(reference: &SpannedText<'_>) -> Result<Secret, ValueError> {
    let ignored = || Ok(Secret(HeaderValue::from_static("ignored")));
    let SpannedText { document, value: reference, at } = reference;
    let (place, bytes) = if let Some(path) = reference.strip_prefix("file:") {
        let path = document.directory.join(path);
        if document.references == References::Ignored {
            return ignored();
        }
        document.require_private(at, &path);
        let place = format!("the file {}", path.display());
        match read_file(&path) {
            Ok(bytes) => (place, bytes),
            Err(error) => {
                let advice = "put the credential there so that only permgate can read it";
                return wrong(format!("{place} cannot be read: {error}"), advice);
            }
        }
    } else if let Some(name) = reference.strip_prefix("env:") {
        if document.references == References::Ignored {
            return ignored();
        }
        let place = format!("the environment variable {name:?}");
        let sound = !name.is_empty() && !name.contains(['=', '\0']);
        match sound.then(|| env::var_os(name)).flatten() {
            Some(value) => (place, value.into_encoded_bytes()),
            None => return wrong(format!("{place} is not set"), "set it where permgate is started"),
        }
    } else {
        return wrong(
            "a credential must not be written into this file",
            "write \"strip\", \"keep\", \"file:PATH\" or \"env:NAME\"; if a secret was written here, replace it",
        );
    };
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        let advice = "write the whole field value into it, such as \"Bearer ...\"";
        return wrong(format!("{place} is empty"), advice);
    }
    match HeaderValue::from_bytes(text) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(Secret(value))
        }
        Err(_) => {
            wrong(format!("{place} has more than one line, or bytes that a header field cannot have"), "")
        }
    }
}

/// Reads a secret's file: a regular one (a pipe or a device could block the start) of at most [`MAX_LENGTH`]
/// bytes.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    read_regular_file(path, MAX_LENGTH).map_err(|error| reason(&error))
}

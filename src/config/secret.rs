//! Secrets by reference, `file:PATH` or `env:NAME`: read here, never shown.

use std::{env, fs::File, io::Read, path::Path};

use http::HeaderValue;

use super::{
    document::References,
    problem::reason,
    section::{SpannedText, ValueError, wrong},
};
use crate::authz::rules::Secret;

/// The longest secret in bytes. A longer file was named by mistake.
const MAX_LENGTH: u64 = 16 << 10;

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

/// Reads a regular file. A pipe or a device could block the start.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = path.metadata().map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| reason(&error))?;
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > MAX_LENGTH {
        Err(format!("it is longer than {MAX_LENGTH} bytes"))
    } else {
        Ok(bytes)
    }
}

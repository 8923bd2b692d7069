//! The file of the keys that permgate generates itself: mode 0600, replaced as a whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Key, keyring::Scheduled, read_pem};
use crate::authz::time::Timestamp;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    /// For people; derived from the key.
    kid: String,
    /// Milliseconds since 1970.
    signs_from: i64,
    pem: Zeroizing<String>,
}

const VERSION: u32 = 1;

/// Returns the keys; none if there is no file.
pub fn load(path: &Path) -> io::Result<Vec<Scheduled>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            "other users could read the assertion keys; if they may have done so, remove the file and reload"
        );
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    if stored.version != VERSION {
        return Err(io::Error::other(format!("it has version {}, not {VERSION}", stored.version)));
    }
    stored.keys.iter().map(scheduled).collect()
}

pub fn save(path: &Path, keys: &[Scheduled]) -> io::Result<()> {
    let one = |key: &Scheduled| StoredKey {
        kid: key.key.id().to_owned(),
        signs_from: key.signs_from.as_millis(),
        pem: key.key.to_pem(),
    };
    let stored = Stored { version: VERSION, keys: keys.iter().map(one).collect() };
    let mut text = Zeroizing::new(serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?);
    text.push(b'\n');
    let new = path.with_extension("new");
    // Created anew, so that the mode is 0600 whatever file was there.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn scheduled(stored: &StoredKey) -> io::Result<Scheduled> {
    let keys = read_pem(stored.pem.as_bytes()).map_err(|_| damaged())?;
    let [key]: [Key; 1] = keys.try_into().map_err(|_| damaged())?;
    Ok(Scheduled { key: key.into(), signs_from: Timestamp::from_millis(stored.signs_from) })
}

/// Omits the parser's message, which may quote the file.
fn damaged() -> io::Error {
    io::Error::other("it is damaged; remove it and reload, and permgate creates new keys")
}

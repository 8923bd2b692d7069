//! The signing keys of the process: which one signs now, which ones are published, and when the next one is
//! created. Workers only read them. The file of the keys that permgate generates itself has mode 0600 and is
//! replaced as a whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Algorithm, Key, KeyError, RequestBinding, SigningFailed, read_pem, sign};
use crate::authz::{forwarding::Claims, time::Timestamp};

/// How assertions are signed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub issuer: Arc<str>,
    pub lifetime: Duration,
    pub source: KeySource,
}

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Generated, kept in a file and rotated here.
    Generated {
        file: PathBuf,
        algorithm: Algorithm,
        rotate: Duration,
        /// How long a key is published before it signs.
        publish_ahead: Duration,
    },
    /// The operator's keys. The first one signs, all are published.
    Configured(Arc<[Arc<Key>]>),
}

/// The response of `/.permgate/jwks.json`.
#[derive(Clone, Debug)]
pub struct Jwks {
    pub body: Bytes,
    /// `Cache-Control`: shorter than the time for which a key is published ahead.
    pub caching: HeaderValue,
}

/// Shared by the workers. Empty until [`Keyring::update_keys`] has filled it.
#[derive(Debug, Default)]
pub struct Keyring {
    published: ArcSwap<Option<Published>>,
    /// Admits one `update_keys` at a time, because file and publication belong together.
    updating: Mutex<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("cannot use the assertion keys in {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("rotating the assertion keys was interrupted")]
    Interrupted,
}

/// A key, and when it begins to sign. It signs until the next one begins.
#[derive(Clone, Debug)]
pub struct Scheduled {
    pub key: Arc<Key>,
    pub signs_from: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Published {
    issuer: Arc<str>,
    lifetime: i64,
    /// Sorted by `signs_from`; at least one.
    keys: Vec<Scheduled>,
    jwks: Jwks,
    /// When `update_keys` has something to do; `None`: never.
    due: Option<Timestamp>,
    /// When `update_keys` was called. Earlier than that, the clock was ahead.
    updated_at: Timestamp,
}

/// How long a key stays after its last assertion has expired, for verifiers whose clocks are behind.
const LEEWAY: Duration = Duration::from_secs(60);
/// How long a verifier may cache the keys, so that a withdrawn key soon becomes unknown.
const MAX_CACHING: Duration = Duration::from_secs(300);

impl Keyring {
    /// Generates, rotates, retires and publishes the keys that are due. Blocks on the disk.
    pub fn update_keys(&self, settings: &Settings, now: Timestamp) -> Result<(), KeyringError> {
        let _tending = self.updating.lock();
        let published = match &settings.source {
            KeySource::Configured(keys) => {
                let always = Timestamp::from_millis(0);
                let keys = keys.iter().cloned().map(|key| Scheduled { key, signs_from: always });
                // The next key comes unannounced, so the caching time is short.
                let caching = MAX_CACHING / 5;
                // The last key by time signs, and that must be the first one of the file.
                Published::new(settings, keys.rev().collect(), caching, None, now)
            }
            KeySource::Generated { file, algorithm, rotate, publish_ahead } => {
                let fail = |source| KeyringError::File { path: file.clone(), source };
                let mut keys = load(file).map_err(fail)?;
                let schedule =
                    Schedule { algorithm: *algorithm, rotate: *rotate, publish_ahead: *publish_ahead };
                let retirement_delay = settings.lifetime + LEEWAY;
                if schedule.apply(&mut keys, retirement_delay, now)? {
                    // A key must not sign before it is on the disk, because a restart would lose it.
                    save(file, &keys).map_err(fail)?;
                }
                let due = schedule.due(&keys, retirement_delay);
                Published::new(settings, keys, MAX_CACHING.min(*publish_ahead / 2), Some(due), now)
            }
        };
        self.published.store(Arc::new(Some(published)));
        Ok(())
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.published
            .load()
            .as_ref()
            .as_ref()
            .and_then(|published| Some((published.due?, published.updated_at)))
            .is_some_and(|(due, updated_at)| now >= due || now < updated_at)
    }

    /// Returns what is published, for [`Keyring::restore`].
    pub fn snapshot(&self) -> Arc<Option<Published>> {
        self.published.load_full()
    }

    pub fn restore(&self, published: Arc<Option<Published>>) {
        self.published.store(published);
    }

    /// Returns the value of `X-Permgate-Assertion` for one request.
    pub fn sign(
        &self,
        claims: &Claims<'_>,
        bound: &RequestBinding<'_>,
    ) -> Result<HeaderValue, SigningFailed> {
        let published = self.published.load();
        let published = published.as_ref().as_ref().ok_or(SigningFailed)?;
        sign(published.signing_key(bound.at)?, &published.issuer, published.lifetime, claims, bound)
    }

    /// Returns the published keys; `None` if nothing is signed here.
    pub fn jwks(&self) -> Option<Jwks> {
        Some(self.published.load().as_ref().as_ref()?.jwks.clone())
    }
}

impl Published {
    fn new(
        settings: &Settings,
        keys: Vec<Scheduled>,
        caching: Duration,
        due: Option<Timestamp>,
        updated_at: Timestamp,
    ) -> Self {
        let public: Vec<Value> = keys.iter().map(|scheduled| scheduled.key.jwk()).collect();
        let caching = format!("public, max-age={}", caching.as_secs());
        Self {
            issuer: settings.issuer.clone(),
            lifetime: i64::try_from(settings.lifetime.as_secs()).unwrap_or(1),
            keys,
            jwks: Jwks {
                body: json!({"keys": public}).to_string().into(),
                caching: HeaderValue::try_from(caching).expect("a number is a field value"),
            },
            due,
            updated_at,
        }
    }

    /// Returns the key by the clock, so that every worker changes keys at one instant without being notified.
    fn signing_key(&self, now: Timestamp) -> Result<&Key, SigningFailed> {
        let begun = self.keys.iter().rev().find(|scheduled| scheduled.signs_from <= now);
        Ok(&begun.or(self.keys.first()).ok_or(SigningFailed)?.key)
    }
}

struct Schedule {
    algorithm: Algorithm,
    rotate: Duration,
    publish_ahead: Duration,
}

impl Schedule {
    /// Applies the schedule to the keys. Returns whether anything changed.
    fn apply(
        &self,
        keys: &mut Vec<Scheduled>,
        retirement_delay: Duration,
        now: Timestamp,
    ) -> Result<bool, KeyError> {
        let before = keys.len();
        keys.sort_by_key(|scheduled| scheduled.signs_from);
        // A key of another algorithm that has not signed yet is not needed.
        if keys.len() > 1 {
            keys.retain(|one| one.signs_from <= now || one.key.algorithm() == self.algorithm);
        }
        let retired = keys.windows(2).filter(|pair| pair[1].signs_from.plus(retirement_delay) <= now).count();
        keys.drain(..retired);
        let mut changed = keys.len() != before;
        match keys.first_mut() {
            None => {
                keys.push(Scheduled { key: Key::generate(self.algorithm)?.into(), signs_from: now });
                return Ok(true);
            }
            // Generated while the clock was ahead. It signs from now on, so that the next key comes in time.
            Some(first) if first.signs_from > now => {
                first.signs_from = now;
                changed = true;
            }
            Some(_) => {}
        }
        // The same for those that were to follow.
        for next in 1..keys.len() {
            let latest = self.earliest_after(&keys[next - 1], now);
            if keys[next].signs_from > latest {
                keys[next].signs_from = latest;
                changed = true;
            }
        }
        if self.next_key_due(keys).is_some_and(|at| at <= now)
            && let Some(newest) = keys.last()
        {
            let signs_from = self.earliest_after(newest, now);
            keys.push(Scheduled { key: Key::generate(self.algorithm)?.into(), signs_from });
            changed = true;
        }
        Ok(changed)
    }

    /// Returns when [`Schedule::apply`] has something to do.
    fn due(&self, keys: &[Scheduled], retirement_delay: Duration) -> Timestamp {
        let retires = keys.get(1).map(|second| second.signs_from.plus(retirement_delay));
        let made = self.next_key_due(keys);
        retires.into_iter().chain(made).min().unwrap_or(Timestamp::from_millis(i64::MAX))
    }

    fn next_key_due(&self, keys: &[Scheduled]) -> Option<Timestamp> {
        let newest = keys.last()?;
        let until = newest.signs_from.plus(self.signing_period(newest));
        Some(until.minus(self.publish_ahead))
    }

    /// Returns when a key that is made now signs, after this one.
    fn earliest_after(&self, key: &Scheduled, now: Timestamp) -> Timestamp {
        now.plus(self.publish_ahead).max(key.signs_from.plus(self.signing_period(key)))
    }

    /// Returns how long the key signs. A key of another algorithm than the configured one is replaced as
    /// soon as possible.
    fn signing_period(&self, key: &Scheduled) -> Duration {
        if key.key.algorithm() == self.algorithm { self.rotate } else { Duration::ZERO }
    }
}

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

//! The listeners' certificates while they serve: replaced with the configuration and when their
//! files change, told of before they expire.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    authz::time::Timestamp,
    config::Config,
    metrics::Metrics,
    net::tls::{Certificates, Settings, TlsError},
};

/// What both listeners show; `None`: plain text.
pub struct Shown {
    pub proxy: Option<Certificates>,
    pub admin: Option<Certificates>,
    metrics: Arc<Metrics>,
    /// The certificates whose end was told of, and when it was told last.
    told: Mutex<HashMap<PathBuf, (Standing, Timestamp)>>,
}

/// Read, and not shown yet.
pub struct Next {
    proxy: Option<Certificates>,
    admin: Option<Certificates>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Sound,
    Ending,
    Expired,
}

const DAY_MS: i64 = 86_400_000;

/// Whoever renews certificates by hand needs a while.
const WARN_MS: i64 = 14 * DAY_MS;

impl Shown {
    pub fn load(config: &Config, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let (proxy, admin) = (load(&config.server.tls)?, load(&config.admin.tls)?);
        let shown = Self { proxy, admin, metrics, told: Mutex::default() };
        shown.tell(now());
        Ok(shown)
    }

    /// The key that a reload cannot switch on or off.
    pub fn unreloadable_change(&self, config: &Config) -> Option<&'static str> {
        [("server.tls", &self.proxy, &config.server.tls), ("admin.tls", &self.admin, &config.admin.tls)]
            .into_iter()
            .find_map(|(key, shown, next)| (shown.is_some() == next.pairs.is_empty()).then_some(key))
    }

    /// Reads what is to be shown next; the key is the one that is at fault.
    pub fn read(&self, config: &Config) -> Result<Next, (&'static str, Box<TlsError>)> {
        Ok(Next {
            proxy: load(&config.server.tls).map_err(|error| ("server.tls", error.into()))?,
            admin: load(&config.admin.tls).map_err(|error| ("admin.tls", error.into()))?,
        })
    }

    /// For handshakes from now on. False: nothing has changed.
    pub fn show(&self, next: &Next) -> bool {
        let replace = |shown: &Option<Certificates>, next: &Option<Certificates>| {
            shown.as_ref().zip(next.as_ref()).is_some_and(|(shown, next)| shown.replace(next))
        };
        let proxy = replace(&self.proxy, &next.proxy);
        let admin = replace(&self.admin, &next.admin);
        if proxy || admin {
            self.metrics.certificate_reloads.add(1);
        }
        self.tell(now());
        proxy || admin
    }

    /// Warns of certificates that end soon, once a day, and keeps the gauges.
    pub fn tell(&self, now: Timestamp) {
        let shown = [&self.proxy, &self.admin].into_iter().flatten();
        let mut ends = Vec::new();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for expiry in shown.flat_map(Certificates::expiries) {
            let (cert, left) = (expiry.cert.display(), expiry.at.as_millis() - now.as_millis());
            ends.push((expiry.cert.display().to_string(), expiry.at.as_millis() / 1000));
            let standing = match left {
                ..=0 => Standing::Expired,
                1..=WARN_MS => Standing::Ending,
                _ => Standing::Sound,
            };
            let before = told.get(&expiry.cert);
            let due = before
                .is_none_or(|(before, at)| *before != standing || now.as_millis() - at.as_millis() >= DAY_MS);
            if !due {
                continue;
            }
            match standing {
                Standing::Sound => {}
                Standing::Ending => {
                    tracing::warn!("the certificate {cert} expires in {} days", left / DAY_MS);
                }
                Standing::Expired => tracing::error!("the certificate {cert} has expired"),
            }
            told.insert(expiry.cert.clone(), (standing, now));
        }
        self.metrics.set_certificates(ends);
    }
}

fn load(settings: &Settings) -> Result<Option<Certificates>, TlsError> {
    if settings.pairs.is_empty() { Ok(None) } else { Certificates::load(settings).map(Some) }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

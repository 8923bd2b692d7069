//! The listeners' certificates while serving: replaced by a reload or when their files change, and reported
//! before they expire. The client certificates for upstreams and etcd are only reported.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    authz::time::Timestamp,
    config::Config,
    metrics::Metrics,
    net::tls::{Certificates, Expiry, Replacement, Settings, TlsError},
};

/// The certificates of both listeners; `None`: plain text.
pub struct ActiveCertificates {
    pub proxy: Option<Certificates>,
    pub admin: Option<Certificates>,
    metrics: Arc<Metrics>,
    /// The last reported state of each certificate, and when it was reported.
    reported: Mutex<HashMap<String, (CertificateState, Timestamp)>>,
}

/// Certificates that were read and are not in use yet.
pub struct PendingCertificates {
    proxy: Option<Certificates>,
    admin: Option<Certificates>,
    /// Those of the client certificates, which others use.
    clients: Vec<Expiry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CertificateState {
    Sound,
    Ending,
    Expired,
}

const DAY_MS: i64 = 86_400_000;

/// Long enough to renew certificates by hand.
const WARN_MS: i64 = 14 * DAY_MS;

impl ActiveCertificates {
    pub fn load(config: &Config, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let (proxy, admin) = (load(&config.server.tls)?, load(&config.admin.tls)?);
        let shown = Self { proxy, admin, metrics, reported: Mutex::default() };
        shown.report_expiry(read_expiries(&client_certificates(config)), now());
        Ok(shown)
    }

    /// Uses these certificates for new handshakes. The caller must cut the requests on connections that are
    /// withdrawn.
    pub fn activate(&self, next: &PendingCertificates) -> Replacement {
        let replace = |shown: &Option<Certificates>, next: &Option<Certificates>| {
            let both = shown.as_ref().zip(next.as_ref());
            both.map_or(Replacement::Nothing, |(shown, next)| shown.replace(next))
        };
        let replaced = replace(&self.proxy, &next.proxy).max(replace(&self.admin, &next.admin));
        if replaced != Replacement::Nothing {
            self.metrics.certificate_reloads.add(1);
        }
        self.report_expiry(next.clients.clone(), now());
        replaced
    }

    /// Logs certificates that expire soon or have expired, once a day, and updates the gauges. Reads no
    /// files: the caller has read those of the client certificates.
    pub fn report_expiry(&self, clients: Vec<Expiry>, now: Timestamp) {
        let shown = [&self.proxy, &self.admin].into_iter().flatten();
        // One file may have several uses, and be newer than what a listener still shows.
        let mut ends = BTreeMap::new();
        for Expiry { cert, at } in shown.flat_map(Certificates::expiries).chain(clients) {
            let end = ends.entry(cert.display().to_string()).or_insert(at);
            *end = at.min(*end);
        }
        let mut reported = self.reported.lock();
        for (cert, end) in &ends {
            let left = end.as_millis() - now.as_millis();
            let state = match left {
                ..=0 => CertificateState::Expired,
                1..=WARN_MS => CertificateState::Ending,
                _ => CertificateState::Sound,
            };
            let before = reported.get(cert);
            let due = before
                .is_none_or(|(before, at)| *before != state || now.as_millis() - at.as_millis() >= DAY_MS);
            if !due {
                continue;
            }
            match state {
                CertificateState::Sound => {}
                CertificateState::Ending => {
                    tracing::warn!("the certificate {cert} expires in {} days", left / DAY_MS);
                }
                CertificateState::Expired => tracing::error!("the certificate {cert} has expired"),
            }
            reported.insert(cert.clone(), (state, now));
        }
        let ends = ends.into_iter().map(|(cert, end)| (cert, end.as_millis() / 1000));
        *self.metrics.certificates.lock() = ends.collect();
    }
}

impl PendingCertificates {
    /// Reads the certificates to use next. The error names the key at fault.
    pub fn read(
        server: &Settings,
        admin: &Settings,
        clients: &[PathBuf],
    ) -> Result<Self, (&'static str, Box<TlsError>)> {
        Ok(Self {
            proxy: load(server).map_err(|error| ("server.tls", error.into()))?,
            admin: load(admin).map_err(|error| ("admin.tls", error.into()))?,
            clients: read_expiries(clients),
        })
    }
}

pub fn client_certificates(config: &Config) -> Vec<PathBuf> {
    config.client_certificates().map(|(_, path)| path.clone()).collect()
}

/// Blocks: the disk may hang.
pub fn read_expiries(files: &[PathBuf]) -> Vec<Expiry> {
    files.iter().filter_map(|path| Expiry::read(path)).collect()
}

fn load(settings: &Settings) -> Result<Option<Certificates>, TlsError> {
    if settings.pairs.is_empty() { Ok(None) } else { Certificates::load(settings).map(Some) }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use std::io;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::{
        metrics::{Format, Readings},
        net::tls::CertifiedKeyFiles,
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn certificate_expiry_is_logged_daily_from_14_days_before() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["gate.test".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2040, 1, 1);
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let client = dir.path().join("client.crt");
        let settings = Settings { pairs: vec![CertifiedKeyFiles { cert, key }], clients: None };
        let proxy = load(&settings).unwrap();
        let shown = ActiveCertificates {
            proxy,
            admin: None,
            metrics: Metrics::new(Arc::default()),
            reported: Mutex::default(),
        };
        let end: jiff::Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
        let check = |row: &str, left: i64, expected: Option<&str>| {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(subscriber, || {
                // A file that has several uses is reported once.
                let clients = read_expiries(&[client.clone(), dir.path().join("tls.crt"), client.clone()]);
                shown.report_expiry(clients, Timestamp::from_millis(end.as_millisecond() - left));
            });
            let logged = String::from_utf8(lines.0.lock().clone()).unwrap();
            match expected {
                Some(words) => {
                    assert!(logged.contains(words) && logged.lines().count() == 1, "{row}: {logged:?}");
                }
                None => assert_eq!(logged, "", "{row}"),
            }
        };
        check("20 days", 20 * DAY_MS, None);
        check("just before", 14 * DAY_MS + 1, None);
        check("14 days", 14 * DAY_MS, Some("expires in 14 days"));
        check("the same day", 13 * DAY_MS + 1, None);
        check("a day later", 13 * DAY_MS, Some("expires in 13 days"));
        check("a moment before the end", 1, Some("expires in 0 days"));
        check("the end", 0, Some("has expired"));
        check("the hour after", -3_600_000, None);
        check("the day after", -DAY_MS, Some("has expired"));
        std::fs::copy(dir.path().join("tls.crt"), &client).unwrap();
        check("what an upstream is shown", -DAY_MS, Some("client.crt has expired"));
        let readings = Readings { tokens: 0, imported: 0, writable: true, ready: true, cluster: None };
        let text = shown.metrics.encode(readings, Format::Prometheus).unwrap();
        let series = |file: &str| {
            let labels = format!("{{certificate=\"{}\"}}", dir.path().join(file).display());
            text.matches(&format!("permgate_tls_certificate_not_after_timestamp_seconds{labels}")).count()
        };
        assert_eq!((series("tls.crt"), series("client.crt")), (1, 1), "{text}");
    }
}

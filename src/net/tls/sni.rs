//! What a client was shown, and whether a request's host is one that it was shown for.

use std::{cell::RefCell, sync::Arc};

use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use super::{Shown, SniResolver, valid_for};

/// Of one connection.
pub struct TlsInfo {
    keys: Arc<SniResolver>,
    /// The server name that the client asked for.
    name: Option<Box<str>>,
    /// The host that was found fit last: clients hardly ever change it.
    fit: RefCell<Option<Box<[u8]>>>,
}

impl TlsInfo {
    pub(in crate::net) fn new(shown: &Shown, name: Option<&str>) -> Self {
        Self { keys: shown.keys.clone(), name: name.map(Into::into), fit: RefCell::new(None) }
    }

    /// Whether the host is one that this connection may be used for (RFC 9110, 15.5.20): the name
    /// that was asked for, or another one that its certificate is valid for. Without a name asked
    /// for, any host that does not name another certificate.
    pub(in crate::net) fn fits(&self, host: &[u8]) -> bool {
        if self.fit.borrow().as_ref().is_some_and(|fit| **fit == *host) {
            return true;
        }
        let fits = str::from_utf8(host).is_ok_and(|host| self.judge(bare(host)));
        if fits {
            self.fit.replace(Some(host.into()));
        }
        fits
    }

    fn judge(&self, host: &str) -> bool {
        let asked = self.name.as_deref();
        if asked.is_some_and(|asked| asked.eq_ignore_ascii_case(host)) {
            return true;
        }
        let parse = |name: &str| ServerName::try_from(name.to_owned()).ok();
        let wanted = parse(host.trim_start_matches('[').trim_end_matches(']'));
        match asked {
            // Which of several was shown depends on what the client can verify.
            Some(asked) => {
                let wanted_by =
                    |key: &Arc<CertifiedKey>| wanted.as_ref().is_some_and(|name| valid_for(key, name));
                let shown = self.keys.named(parse(asked).as_ref());
                shown.iter().any(|key| wanted_by(key))
                    || shown.is_empty() && self.keys.0.first().is_some_and(wanted_by)
            }
            None => {
                let named = self.keys.named(wanted.as_ref());
                named.is_empty()
                    || named
                        .iter()
                        .any(|key| self.keys.0.first().is_some_and(|first| Arc::ptr_eq(key, first)))
            }
        }
    }
}

/// Without the port and without the dot of a name that is written out in full.
fn bare(host: &str) -> &str {
    let after_bracket = host.rfind(']').map_or(0, |at| at + 1);
    let end = host[after_bracket..].find(':').map_or(host.len(), |colon| after_bracket + colon);
    let host = &host[..end];
    host.strip_suffix('.').unwrap_or(host)
}

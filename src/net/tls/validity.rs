//! Reads from a certificate until when it is valid, and nothing else.

use std::path::{Path, PathBuf};

use jiff::civil;
use rustls_pki_types::CertificateDer;

use crate::authz::time::Timestamp;

/// When a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub cert: PathBuf,
    /// The earliest expiry in the chain, which is invalid from then on.
    pub at: Timestamp,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Expiry {
    /// Reads a PEM file. `None`: it has no certificate that can be parsed.
    pub fn read(path: &Path) -> Option<Self> {
        let chain = super::load_certificates(path, &mut blake3::Hasher::new()).ok()?;
        Self::of(path, &chain)
    }

    pub(super) fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let at = chain.iter().filter_map(|certificate| not_after(certificate)).min()?;
        Some(Self { cert: path.to_owned(), at })
    }
}

/// From when on the client's own certificate is refused; `None`: it has shown none. What it sends besides need
/// not be part of the chain that was verified.
pub(super) fn client_expiry(chain: Option<&[CertificateDer<'_>]>) -> Option<Timestamp> {
    // The second that `notAfter` names is included.
    not_after(chain?.first()?).map(|last| last.plus_seconds(1))
}

/// Returns `notAfter` (RFC 5280, 4.1): in Certificate and TBSCertificate, skips version, serial number,
/// signature and issuer, and takes the second half of validity.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, behind)) = element(rest, VERSION) {
        rest = behind;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, second) = time(validity)?;
    time(second).map(|(at, _)| at)
}

/// Returns the content of an element with this tag, and the bytes after it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Parses a UTCTime `YYMMDDHHMMSSZ` (until 2049) or a GeneralizedTime `YYYYMMDDHHMMSSZ` (from 2050 on).
fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (digits, rest) = match element(bytes, UTC_TIME) {
        Some((text, rest)) => {
            let century = if text.first()? < &b'5' { b"20" } else { b"19" };
            ([century, text].concat(), rest)
        }
        None => element(bytes, GENERALIZED_TIME).map(|(text, rest)| (text.to_vec(), rest))?,
    };
    let text = String::from_utf8(digits).ok()?;
    let at = civil::DateTime::strptime("%Y%m%d%H%M%S", text.strip_suffix('Z')?).ok()?;
    let at = jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?;
    Some((Timestamp::from_millis(at.as_millisecond()), rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn check(row: &str, year: i32, month: u8, day: u8, expected: &str) {
        let mut params = CertificateParams::new(["gate.test".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let expected: jiff::Timestamp = expected.parse().expect("a time");
        let expected = Timestamp::from_millis(expected.as_millisecond());
        assert_eq!(not_after(certificate.der()), Some(expected), "{row}");
        for end in 0..certificate.der().len().min(300) {
            // A truncated certificate must not cause a panic.
            not_after(&certificate.der()[..end]);
        }
    }

    #[test]
    fn certificate_expiry_is_parsed() {
        check("two digits of the year", 2031, 2, 28, "2031-02-28T00:00:00Z");
        check("the last of them", 2049, 12, 31, "2049-12-31T00:00:00Z");
        check("four digits", 2051, 1, 1, "2051-01-01T00:00:00Z");
        assert_eq!(not_after(b"no certificate"), None);
        assert_eq!(not_after(&[]), None);
    }
}

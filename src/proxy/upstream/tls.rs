//! The outcome of a TLS handshake with an upstream: the protocol that is agreed upon, or the error in
//! words that say what to do.

use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::settings::{HttpVersion, MADE_AS_AUTHORITY, tls::is_authority};

/// What the two sides have agreed to speak.
pub fn agreed(stream: &TlsStream<TcpStream>) -> HttpVersion {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    }
}

/// What is wrong, if TLS is: for an operator, in words that say what to do.
pub fn explain(error: &io::Error) -> Option<String> {
    use rustls::Error as E;
    let error = error.get_ref()?.downcast_ref::<E>()?;
    Some(match error {
        E::InvalidCertificate(why) => format!("its certificate {}", fault(why)),
        E::AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for a client certificate: set `tls.cert` and `tls.key`".to_owned()
        }
        E::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it speaks no HTTP that is offered".to_owned()
        }
        E::AlertReceived(alert) => format!("it ended the handshake with {alert:?}"),
        other => format!("TLS failed: {other}"),
    })
}

fn fault(why: &CertificateError) -> String {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } => "has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        C::UnknownIssuer => "is of an unknown issuer: name its authority in `tls.ca`".to_owned(),
        C::NotValidForName => "is for another name".to_owned(),
        C::NotValidForNameContext { expected, presented } => {
            let presented = presented.join(", ");
            format!("is for another name: {} is expected, it names {presented}", expected.to_str())
        }
        C::Revoked => "was revoked".to_owned(),
        why if is_authority(why) => format!("is {MADE_AS_AUTHORITY}"),
        other => format!("is refused: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: rustls::Error, expected: &str) {
        assert_eq!(explain(&io::Error::new(io::ErrorKind::InvalidData, error)).as_deref(), Some(expected));
    }

    #[test]
    fn a_refused_certificate_is_explained() {
        use rustls::Error::{AlertReceived, InvalidCertificate};
        check(InvalidCertificate(CertificateError::Expired), "its certificate has expired");
        check(
            InvalidCertificate(CertificateError::UnknownIssuer),
            "its certificate is of an unknown issuer: name its authority in `tls.ca`",
        );
        let other = CertificateError::NotValidForNameContext {
            expected: crate::settings::parse_name("a.test").expect("a name"),
            presented: vec!["b.test".to_owned()],
        };
        check(
            InvalidCertificate(other),
            "its certificate is for another name: a.test is expected, it names b.test",
        );
        check(
            AlertReceived(AlertDescription::CertificateRequired),
            "it asks for a client certificate: set `tls.cert` and `tls.key`",
        );
        assert_eq!(explain(&io::ErrorKind::ConnectionRefused.into()), None);
    }
}

//! What an HTTP/2 upstream has said by an error: the only place that reads or makes errors of `h2`.

use std::{error::Error, io};

use h2::Reason;

use crate::net::BoxError;

/// What became of a request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream was refused: the upstream has done nothing (RFC 9113, 8.7).
    Refused,
    /// The connection takes no more streams, and this one was not looked at.
    GoneAway,
    /// The upstream wants HTTP/1.1 (RFC 9113, 7: HTTP_1_1_REQUIRED); `whole`: on this connection.
    Http11Required {
        whole: bool,
    },
    /// The connection broke off.
    Broken,
    /// The upstream has broken the protocol.
    Protocol,
    Other,
}

/// Reads the error of hyper's that a request failed by.
pub fn classify(error: &hyper::Error) -> Failure {
    if socket_error(error).is_some() {
        return Failure::Broken;
    }
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return Failure::Other;
    };
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) if error.is_remote() => {
            Failure::Http11Required { whole: !error.is_reset() }
        }
        Some(Reason::REFUSED_STREAM) if error.is_remote() && error.is_reset() => Failure::Refused,
        _ if error.is_remote() && error.is_go_away() => Failure::GoneAway,
        _ if error.is_library() => Failure::Protocol,
        _ => Failure::Other,
    }
}

/// The error of the socket, if that is what hyper's is about.
pub fn socket_error(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// For a body that ends early: the stream is reset with CANCEL.
pub fn cancelled() -> BoxError {
    h2::Error::from(Reason::CANCEL).into()
}

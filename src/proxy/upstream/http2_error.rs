//! Classifies errors of HTTP/2 upstreams. Only this module reads or creates errors of `h2`.

use std::{error::Error, io};

use h2::Reason;

use crate::net::BoxError;

/// What happened to a request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream was refused: the upstream has not processed it (RFC 9113, section 8.7).
    Refused,
    /// The upstream closes the connection and has not processed this stream.
    GoneAway,
    /// HTTP_1_1_REQUIRED (RFC 9113, section 7). `whole`: for the connection, not only for this stream.
    Http11Required {
        whole: bool,
    },
    /// The connection failed.
    Broken,
    /// The upstream has violated the protocol.
    Protocol,
    Other,
}

/// Classifies the error by which hyper failed a request.
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

/// The socket's error, if that is the cause of hyper's.
pub fn socket_error(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// The error of a body that ends early: the stream is reset with CANCEL.
pub fn cancelled() -> BoxError {
    h2::Error::from(Reason::CANCEL).into()
}

//! An answer's body as it comes from the upstream, whatever it comes by.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::upstream::{h1::Fault, plain::Shared};

pub enum Download {
    Plain(Shared),
}

/// Why a download ends early.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    Plain(#[from] Fault),
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match &mut *self {
            Self::Plain(connection) => {
                connection.borrow_mut().poll_frame(cx).map(|frame| frame.map(|frame| Ok(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(connection) => connection.borrow().answered(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(connection) => {
                connection.borrow().left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

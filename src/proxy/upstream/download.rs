//! An answer's body as it comes from the upstream, whatever it comes by.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    net::Splice,
    proxy::upstream::{
        h1::Fault,
        plain::Shared,
        share::{Inflow, InflowError},
    },
};

pub enum Download {
    Plain(Shared),
    /// In a box: it is larger than what HTTP/1.1 needs, whose every answer would grow by it.
    Multiplexed(Box<Inflow>),
}

/// Why a download ends early.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    Plain(#[from] Fault),
    #[error(transparent)]
    Multiplexed(#[from] InflowError),
}

impl Download {
    /// What comes next into a splice, and how much. `None`: it cannot be had that way now.
    pub fn poll_pour(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice,
    ) -> Poll<Option<Result<usize, DownloadError>>> {
        match self {
            Self::Plain(connection) => {
                connection.borrow_mut().poll_pour(cx, splice).map(|poured| poured.map(|poured| Ok(poured?)))
            }
            Self::Multiplexed(_) => Poll::Ready(None),
        }
    }
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
            Self::Multiplexed(inflow) => inflow.poll_frame(cx).map(|frame| frame.map(|frame| Ok(frame?))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(connection) => connection.borrow().answered(),
            Self::Multiplexed(inflow) => inflow.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(connection) => {
                connection.borrow().left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Multiplexed(inflow) if inflow.is_end_stream() => SizeHint::with_exact(0),
            Self::Multiplexed(_) => SizeHint::default(),
        }
    }
}

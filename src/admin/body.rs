//! Reads a request's body into memory, within limits of size, time and the memory budget of all requests.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::{
    authz::reason::Reason,
    net::{BodyError, Budget, Holder, RequestBody, Reservation},
};

/// The limits of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    pub bytes: usize,
    /// Until the last byte.
    pub time: Duration,
}

/// Authenticated callers: the largest import.
pub(super) const AUTHENTICATED: BodyLimits = BodyLimits { bytes: 1 << 20, time: Duration::from_secs(60) };
/// Before authentication: a login, a password and a name.
pub(super) const ANONYMOUS: BodyLimits = BodyLimits { bytes: 16 << 10, time: Duration::from_secs(10) };

/// A body with its memory reservation, which lasts until the request is over.
pub(super) struct BufferedBody {
    pub bytes: Bytes,
    pub reservation: Option<Reservation>,
}

/// Reads the whole body before the handler runs, so that a change never waits for the client. `budget`
/// is the memory budget of all requests with the share of the caller's account, or of the connection of an
/// anonymous one; the operator needs none.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: RequestBody,
    limits: BodyLimits,
    budget: Option<(&Arc<Budget>, &Holder)>,
) -> Result<BufferedBody, Reason> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limits.bytes as u64) {
        return Err(Reason::BodyTooLarge);
    }
    let collecting = tokio::time::timeout(limits.time, collect(body, limits.bytes, budget)).await;
    collecting.unwrap_or(Err(Reason::RequestTimeout))
}

async fn collect(
    body: RequestBody,
    most: usize,
    budget: Option<(&Arc<Budget>, &Holder)>,
) -> Result<BufferedBody, Reason> {
    let (mut body, mut bytes) = (pin!(body), BytesMut::new());
    let mut reservation = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error {
            BodyError::Timeout => Reason::RequestTimeout,
            BodyError::Gone | BodyError::Aborted => Reason::ClientClosed,
            BodyError::Broken(_) => Reason::BadBody,
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > most - bytes.len() {
            return Err(Reason::BodyTooLarge);
        }
        if let Some((budget, holder)) = budget {
            if reservation.is_none() {
                reservation = Some(budget.take(holder, 0).ok_or(Reason::OverBudget)?);
            }
            if !reservation.as_mut().is_some_and(|reservation| reservation.grow(data.len())) {
                budget.count_refusal();
                return Err(Reason::OverBudget);
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(BufferedBody { bytes: bytes.freeze(), reservation })
}

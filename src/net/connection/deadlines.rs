//! What the ticker sees of a connection: its deadlines, how long its phase has lasted, how many bytes it
//! holds for its client, and how fast the client reads them.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{CloseReason, Connection, ConnectionCommand, HALF_CLOSED, Phase, ResponseState};
use crate::net::{Limits, Peer, RequestError};

/// How long a client may keep sending bytes that are discarded after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a drain waits for the first byte of a new connection.
const DRAIN_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long after a response a drain waits for the next request: clients that are busy have sent it already.
const DRAIN_NEXT_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a new client may take to send its first byte when others wait for the slot.
const CROWDED_FIRST_BYTE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a handshake or a head may take when others wait for the slot.
const CROWDED_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Estimated bytes held for a client that reads nothing, while its response continues: hyper's buffers on
/// both sides and the pieces between them.
const HELD_BY_OPEN_RESPONSE: usize = 256 << 10;
/// The same when hyper has the whole response.
const HELD_BY_ENDED_RESPONSE: usize = 64 << 10;

/// Keeps a connection open although others need room. An HTTP/2 stream keeps the connection that carries it.
pub struct Kept(Rc<Connection>);

impl Connection {
    /// Applies the deadlines. Called by the ticker. `crowded`: unread responses use so much memory that slow
    /// clients are closed.
    pub(in crate::net) fn check(&self, now: Instant, limits: &Limits, draining: bool, crowded: bool) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        let stalled = self.write_stalled.get();
        if stalled.is_some_and(|since| past(since, limits.write_timeout)) {
            return self.close_for(CloseReason::WriteTimeout);
        }
        if self.throughput.is_slow(now, self.bytes_out.get(), stalled.is_some()) && crowded {
            return self.close_for(CloseReason::WriteTimeout);
        }
        if let Some(streams) = self.streams() {
            streams.check(self, now, limits, crowded);
        }
        if self.half_closed.get().is_some_and(|since| past(since, HALF_CLOSED)) {
            // The task reads again and detects that the client is gone.
            self.wake();
        }
        let since = self.phase_began.get();
        match self.phase.get() {
            Phase::Handshake if past(since, limits.tls_handshake_timeout) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Fresh if draining && past(since, DRAIN_FIRST_BYTE_TIMEOUT) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Idle if draining && past(since, DRAIN_NEXT_REQUEST_TIMEOUT) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Fresh | Phase::Idle if past(since, limits.idle_timeout) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Head if past(since, limits.head_timeout) => {
                self.command(ConnectionCommand::Reject(RequestError::HeadTimeout));
            }
            Phase::Serving
                if self.exchange.waiting_since().is_some_and(|at| past(at, limits.body_timeout)) =>
            {
                self.exchange.expire_body();
            }
            Phase::Closing if past(since, LINGER_TIMEOUT) => self.command(ConnectionCommand::Close),
            _ => {}
        }
    }

    /// Since when the connection has been idle, so that closing it loses nothing. A new client is about to
    /// send, so it does not count as idle at first.
    pub(in crate::net) fn idle_since(&self) -> Option<Instant> {
        let since = match self.phase.get() {
            Phase::Idle => Duration::ZERO,
            Phase::Fresh => CROWDED_FIRST_BYTE_TIMEOUT,
            _ => return None,
        };
        self.phase_older_than(since)
    }

    /// Since when a handshake or a head has been incomplete, if that is longer than `CROWDED_HEAD_TIMEOUT`.
    pub(in crate::net) fn slow_since(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Handshake | Phase::Head => self.phase_older_than(CROWDED_HEAD_TIMEOUT),
            _ => None,
        }
    }

    /// When the current phase began, if it has lasted at least this long.
    fn phase_older_than(&self, at_least: Duration) -> Option<Instant> {
        let since = self.phase_began.get();
        (self.clock.now().saturating_duration_since(since) >= at_least).then_some(since)
    }

    /// Since when only what the client still sends is discarded.
    pub(in crate::net) fn closing_since(&self) -> Option<Instant> {
        let closes = self.phase.get() == Phase::Closing;
        if closes { self.phase_older_than(CROWDED_FIRST_BYTE_TIMEOUT) } else { None }
    }

    /// Keeps the connection for as long as the result lives.
    pub fn keep_when_full(self: &Rc<Self>) -> Kept {
        let kept = &self.carrier().kept;
        kept.set(kept.get() + 1);
        Kept(self.clone())
    }

    /// When the current phase began, for a network connection on which no request was permitted for a
    /// token or user, and that is not kept.
    pub(in crate::net) fn unpermitted_since(&self) -> Option<Instant> {
        let stays = matches!(self.peer, Peer::Unix { .. }) || self.permitted.get() || self.kept.get() > 0;
        if stays { None } else { self.phase_older_than(CROWDED_FIRST_BYTE_TIMEOUT) }
    }

    /// Restarts the write timeout of a stream, because the socket that it shares with others is blocked.
    pub(super) fn restart_write_timeout(&self, now: Instant) {
        if self.write_stalled.get().is_some() {
            self.write_stalled.set(Some(now));
        }
    }

    /// Estimates the bytes of responses that wait for the client.
    pub(in crate::net) fn held(&self) -> usize {
        match self.streams() {
            Some(streams) => streams.held(),
            None if self.write_stalled.get().is_none() => 0,
            None if self.stream.is_some() => self.held.get() as usize,
            None if self.exchange.response_state() == ResponseState::Open => HELD_BY_OPEN_RESPONSE,
            None => HELD_BY_ENDED_RESPONSE,
        }
    }

    /// Records how many bytes of its response an HTTP/2 stream holds. `ended`: the service sends no more.
    pub(in crate::net) fn set_held(&self, bytes: usize, ended: bool) {
        let held = if ended { bytes } else { bytes.max(HELD_BY_OPEN_RESPONSE) };
        self.held.set(u32::try_from(held).unwrap_or(u32::MAX));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let kept = &self.0.carrier().kept;
        kept.set(kept.get() - 1);
    }
}

/// When the current span began, and how many bytes had been sent until then.
pub struct Throughput(Cell<(Instant, u64)>);

/// A client that reads fewer than `MIN_BYTES_PER_WINDOW` during a `WINDOW` is slow.
const WINDOW: Duration = Duration::from_secs(60);
const MIN_BYTES_PER_WINDOW: u64 = 60 << 10;
/// How much earlier than the first waiting byte a span may begin.
const MAX_WINDOW_LEAD: Duration = Duration::from_secs(1);

impl Throughput {
    pub fn new(now: Instant) -> Self {
        Self(Cell::new((now, 0)))
    }

    /// Whether the client has read less than 1 KiB/s over a whole span. `waits`: bytes wait for the client. A
    /// client that has everything is never slow.
    pub fn is_slow(&self, now: Instant, sent: u64, waits: bool) -> bool {
        let (since, before) = self.0.get();
        let age = now.saturating_duration_since(since);
        if waits && sent - before < MIN_BYTES_PER_WINDOW {
            return age >= WINDOW;
        }
        // Not at every tick, because most connections are idle most of the time.
        if age >= MAX_WINDOW_LEAD {
            self.0.set((now, sent));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_stays_while_a_request_or_a_stream_keeps_it() {
        let connection = Rc::new(Connection::detached(Peer::Inet(([127, 0, 0, 1], 1).into())));
        connection.phase_began.set(Instant::now().checked_sub(CROWDED_FIRST_BYTE_TIMEOUT).unwrap());
        let stream = Rc::new(Connection::of_stream(&connection));
        let stays = || connection.unpermitted_since().is_none();
        assert!(!stays());
        let (one, two) = (connection.keep_when_full(), stream.keep_when_full());
        assert!(stays());
        drop(one);
        assert!(stays());
        drop(two);
        assert!(!stays(), "whatever else it carries");
    }

    #[test]
    fn client_below_1_kib_per_second_for_a_minute_is_slow() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let throughput = Throughput::new(now);
        assert!(!throughput.is_slow(at(59), 0, true));
        assert!(throughput.is_slow(at(60), MIN_BYTES_PER_WINDOW - 1, true));
        assert!(throughput.is_slow(at(61), MIN_BYTES_PER_WINDOW - 1, true), "it stays slow");
        assert!(
            !throughput.is_slow(at(62), MIN_BYTES_PER_WINDOW, true),
            "until it takes as much as it should"
        );
        assert!(!throughput.is_slow(at(121), MIN_BYTES_PER_WINDOW, true));
        assert!(!throughput.is_slow(at(122), MIN_BYTES_PER_WINDOW, false), "it has everything");
        assert!(!throughput.is_slow(at(181), MIN_BYTES_PER_WINDOW, true));
        assert!(throughput.is_slow(at(182), MIN_BYTES_PER_WINDOW, true));
    }
}

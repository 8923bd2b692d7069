//! An HTTP/1.1 connection to an upstream through hyper. It serves one request at a time.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::{
    authz::reason::Reason,
    net::{Clock, Stream},
    proxy::upstream::{
        HEAD_LIMIT,
        body::OutgoingBody,
        call::{Call, Ended},
        io::{ConnectionPermits, Interim, Io},
        pool::Failure,
    },
};

pub struct Http1 {
    sender: SendRequest<OutgoingBody>,
    pub call: Rc<Call>,
    pub clock: Clock,
    interim: Interim,
    /// The current request asks for a protocol switch.
    upgrading: Rc<Cell<bool>>,
    /// After a 101: the socket, and the bytes that were read after the head.
    upgraded: oneshot::Receiver<(Io, Bytes)>,
    last_used: Instant,
    /// Number of responses so far.
    served: u32,
    /// How long the upstream keeps the connection, by `Keep-Alive` in the last response.
    announced: Option<Duration>,
    /// The connection takes no other request after the current one.
    is_last: bool,
}

/// Out of reach on purpose: the head is limited by its size in bytes.
const MAX_FIELDS: usize = 1000;
/// Slightly more than the largest head, which has to fit into the buffer.
const BUFFER: usize = HEAD_LIMIT + (2 << 10);

/// A request is copied for a retry, unless the connection is almost certainly open: it was used this
/// recently, and has served enough requests ([`PROVEN_REQUESTS`]) to show that the upstream keeps connections
/// open.
const RECENTLY_USED: Duration = Duration::from_secs(1);
const PROVEN_REQUESTS: u32 = 8;

impl Http1 {
    /// Performs the handshake and spawns the task that drives the connection.
    pub async fn start(
        stream: Box<dyn Stream>,
        clock: &Clock,
        held: ConnectionPermits,
    ) -> Result<Self, hyper::Error> {
        let (call, interim) = (Call::new(clock), Interim::default());
        let io = Io::new(stream, Rc::clone(&call), held).watch_interim(interim.clone());
        let (sender, connection) = Builder::new()
            .max_headers(MAX_FIELDS)
            .max_header_size(HEAD_LIMIT)
            .max_buf_size(BUFFER)
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(io))
            .await?;
        let (upgraded_sender, upgraded) = oneshot::channel();
        let upgrading = Rc::new(Cell::new(false));
        let may_upgrade = Rc::clone(&upgrading);
        let task = tokio::task::spawn_local(async move {
            match connection.without_shutdown().await {
                Ok(parts) if may_upgrade.get() => {
                    let _ = upgraded_sender.send((parts.io.into_inner(), parts.read_buf));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "upstream connection ended"),
            }
        });
        call.add_task(task.abort_handle());
        let last_used = clock.now();
        let clock = clock.clone();
        Ok(Self {
            sender,
            call,
            clock,
            interim,
            upgrading,
            upgraded,
            last_used,
            served: 0,
            announced: None,
            is_last: false,
        })
    }

    /// Whether the connection can take the next request: none is under way, the upstream has neither closed
    /// it nor sent anything, and the request before was not the last.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.call.ended().is_none() && !self.is_last
    }

    /// How long the connection may be idle: `idle`, or a little less than the upstream announced.
    pub fn idle_limit(&self, idle: Duration) -> Duration {
        // The upstream's timer starts at another moment.
        let margin = |announced: Duration| Duration::from_secs(1).min(announced / 2);
        self.announced.map_or(idle, |announced| idle.min(announced - margin(announced)))
    }

    /// `reused`: the upstream may close the connection just as the request is sent.
    /// `repeatable`: the request is idempotent and has no body.
    pub async fn send(
        &mut self,
        mut request: Box<Request<OutgoingBody>>,
        silence: Duration,
        reused: bool,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failure> {
        let now = self.clock.now();
        let surely_open =
            self.served >= PROVEN_REQUESTS && now.saturating_duration_since(self.last_used) <= RECENTLY_USED;
        let copy = (reused && repeatable && !surely_open).then(|| request.clone());
        self.is_last |= is_last(request.headers());
        self.upgrading.set(request.headers().contains_key(header::UPGRADE));
        request.body().attach(&self.call, None);
        self.interim.reset();
        let interim = self.interim.clone();
        hyper::ext::on_informational(&mut request, move |_| interim.count());
        self.call.begin(silence);
        let sent = pin!(self.sender.try_send_request(*request));
        match self.call.response(sent).await {
            Some(Ok(_)) if self.interim.too_many() => Err(Reason::UpstreamInvalid.into()),
            Some(Ok(response)) => {
                self.call.response_began();
                self.last_used = now;
                self.is_last |= announces_odd_content(&response);
                self.served = self.served.saturating_add(1);
                self.announced = announced_timeout(response.headers());
                Ok(response)
            }
            Some(Err(mut error)) => {
                let unsent = error.take_message().filter(|_| reused).map(Box::new);
                let error = error.into_error();
                let without_response = !error.is_user() && !self.call.has_received();
                let again = unsent.or_else(|| copy.filter(|_| without_response));
                Err(Failure::new(again, self.reason(&error), &error))
            }
            None => Err(Reason::UpstreamTimeout.into()),
        }
    }

    fn reason(&self, error: &hyper::Error) -> Reason {
        match self.call.ended() {
            Some(Ended::TimedOut) => Reason::UpstreamTimeout,
            _ if error.is_parse() || self.interim.too_many() => Reason::UpstreamInvalid,
            _ => Reason::UpstreamReset,
        }
    }

    /// Returns the socket after a 101. `None`: the connection failed, or the upstream
    /// switched protocols before it had read the whole request.
    pub async fn into_upgraded(self) -> Option<(Io, Bytes)> {
        let (mut io, early) = self.upgraded.await.ok()?;
        io.begin_tunnel();
        Some((io, early))
    }
}

/// Whether no other request may follow on the connection: this one closes it, or its credential signs in the
/// connection and not only the request. NTLM does, and IIS keeps the user of a Kerberos ticket, too (RFC
/// 4559, section 6).
fn is_last(headers: &HeaderMap) -> bool {
    if headers.get(header::CONNECTION).is_some_and(|options| options == "close") {
        return true;
    }
    let values =
        headers.get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes().trim_ascii_start());
    let mut schemes = values.filter_map(|value| value.split(u8::is_ascii_whitespace).next());
    schemes.any(|scheme| [&b"ntlm"[..], b"negotiate"].iter().any(|one| scheme.eq_ignore_ascii_case(one)))
}

/// Whether a response that has no content announces some, which would become the response to the next
/// request.
fn announces_odd_content<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let has_length = || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    match response.status() {
        StatusCode::NO_CONTENT => has_length() || headers.contains_key(header::TRANSFER_ENCODING),
        // The length of a 304 is that of the response to a GET.
        StatusCode::NOT_MODIFIED => headers.contains_key(header::TRANSFER_ENCODING),
        _ => false,
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The value of the upstream's `Keep-Alive: timeout=N`, in seconds.
fn announced_timeout(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(KEEP_ALIVE).iter().filter_map(|value| value.to_str().ok());
    let mut parameters = values.flat_map(|value| value.split(','));
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_timeout_is_parsed() {
        let check = |value: &'static str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", http::HeaderValue::from_static(value));
            assert_eq!(announced_timeout(&headers), expected.map(Duration::from_secs), "{value}");
        };
        check("timeout=5", Some(5));
        check("max=100, Timeout = 7", Some(7));
        check("timeout=\"3\", max=1", Some(3));
        check("max=100", None);
        check("timeout=soon", None);
        check("", None);
        assert_eq!(announced_timeout(&HeaderMap::new()), None);
    }
}

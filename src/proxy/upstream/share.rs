//! One exchange over HTTP/2: a stream of a shared connection.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason as Code, RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header, request, uri};
use http_body::{Body as _, Frame};

use crate::{
    authz::answer::Reason,
    message::{Request, Response},
    proxy::{
        body::Upload,
        upstream::{MOST_INTERIM, lane::Lane, lease::Failure, pump::Pump, trunk::Trunk},
    },
};

pub struct Share {
    trunk: Rc<Trunk>,
    /// Taken by the request; while it is held the connection stays.
    sender: Option<SendRequest<Bytes>>,
    secure: bool,
    reused: bool,
    /// The upstream takes this request over HTTP/1.1 alone.
    unwelcome: bool,
    lane: Rc<Lane>,
}

/// The answer's body on a stream.
pub struct Inflow {
    stream: RecvStream,
    lane: Rc<Lane>,
    /// What is missing of the length that the head names.
    left: Option<u64>,
    only_trailers: bool,
}

/// Why an inflow ends early.
#[derive(Debug, thiserror::Error)]
pub enum InflowError {
    #[error("the stream broke off")]
    Broken(#[from] h2::Error),
    #[error("the upstream kept silent for too long")]
    Overdue,
}

/// Why there is no head.
enum Trouble {
    Broken(h2::Error),
    Overdue,
    /// More interim answers than a sane upstream sends, or one that HTTP/2 does not have.
    Interim,
}

impl Share {
    /// A place on the connection, if it has one.
    pub fn of(trunk: &Rc<Trunk>, secure: bool) -> Option<Self> {
        let sender = Some(trunk.enter()?);
        let lane = Lane::new(trunk.clock());
        Some(Self { trunk: Rc::clone(trunk), sender, secure, reused: trunk.used(), unwelcome: false, lane })
    }

    /// Whether the upstream has said that it wants HTTP/1.1 instead.
    pub fn is_unwelcome(&self) -> bool {
        self.unwelcome
    }

    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    /// `repeatable`: doing it twice does no harm.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
        silence: Duration,
        repeatable: bool,
    ) -> Result<Response<Inflow>, Failure> {
        self.lane.begin(silence);
        let (mut head, body) = http::Request::from(request).into_parts();
        let Some(target) = target(&head, self.secure) else {
            return Err(Failure { again: None, reason: Reason::BadRequest });
        };
        // A refused stream may go again whatever its method, so that its head is kept.
        let kept = http::Request::from_parts(head.clone(), ());
        let headless = head.method == Method::HEAD;
        head.uri = target;
        head.version = Version::HTTP_2;
        drop_connection_fields(&mut head.headers);
        let whole = body.is_end_stream();
        let sender = self.sender.take();
        let sent = sender.map(|mut sender| sender.send_request(http::Request::from_parts(head, ()), whole));
        let Some(Ok((mut answer, outflow))) = sent else {
            // The connection has ended a moment ago: nothing was sent.
            return Err(Failure { again: Some(kept.map(|()| body).into()), reason: Reason::UpstreamReset });
        };
        let outflow = Rc::new(RefCell::new(outflow));
        self.lane.reset_with(Rc::clone(&outflow));
        let mut upload = (!whole).then(|| Pump::new(body, outflow));
        let mut interim = 0;
        let headed = poll_fn(|cx| poll_head(&self.lane, &mut answer, &mut upload, &mut interim, cx)).await;
        match headed {
            Ok(response) => {
                self.lane.expect_nothing();
                if let Some(upload) = upload {
                    // The answer has begun before the request has ended.
                    self.lane.pump_with(tokio::task::spawn_local(upload).abort_handle());
                }
                let lane = Rc::clone(&self.lane);
                let left = if headless { None } else { length(&response) };
                Ok(Response::from(response).map(|stream| Inflow { stream, lane, left, only_trailers: false }))
            }
            Err(trouble) => {
                let body = if whole { Some(Upload::none()) } else { upload.and_then(Pump::untouched) };
                let (unharmed, reason) = self.judge(&trouble, repeatable);
                let again = body.filter(|_| unharmed).map(|body| kept.map(|()| body).into());
                Err(Failure { again, reason })
            }
        }
    }

    /// Whether the request may go out again, and what is to blame.
    fn judge(&mut self, trouble: &Trouble, repeatable: bool) -> (bool, Reason) {
        let error = match trouble {
            Trouble::Overdue => return (false, Reason::UpstreamTimeout),
            Trouble::Interim => return (false, Reason::UpstreamInvalid),
            Trouble::Broken(error) => error,
        };
        self.unwelcome = error.is_remote() && error.reason() == Some(Code::HTTP_1_1_REQUIRED);
        if self.unwelcome && error.is_reset() {
            // Nobody promises that nothing was done.
            return (repeatable, Reason::UpstreamReset);
        }
        let refused = error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
        if error.is_remote() && (refused || error.is_go_away()) {
            // RFC 9113, 8.7: the upstream says that it has done nothing.
            if refused {
                self.trunk.refused();
            }
            return (true, Reason::UpstreamReset);
        }
        if error.is_library() {
            return (false, Reason::UpstreamInvalid);
        }
        (repeatable && self.reused && error.is_io(), Reason::UpstreamReset)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.trunk.leave();
    }
}

fn poll_head(
    lane: &Lane,
    answer: &mut ResponseFuture,
    upload: &mut Option<Pump>,
    seen: &mut u32,
    cx: &mut Context<'_>,
) -> Poll<Result<http::Response<RecvStream>, Trouble>> {
    if let Some(pump) = upload
        && Pin::new(pump).poll(cx).is_ready()
    {
        *upload = None;
    }
    while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
        *seen += 1;
        if interim.status() == StatusCode::SWITCHING_PROTOCOLS || *seen > MOST_INTERIM {
            return Poll::Ready(Err(Trouble::Interim));
        }
    }
    if let Poll::Ready(head) = Pin::new(answer).poll(cx) {
        return Poll::Ready(head.map_err(Trouble::Broken));
    }
    lane.poll_overdue(cx).map(|()| Err(Trouble::Overdue))
}

/// The absolute form, from which scheme, authority and path are sent as fields of their own.
fn target(head: &request::Parts, secure: bool) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.authority = Some(uri::Authority::try_from(head.headers.get(header::HOST)?.as_bytes()).ok()?);
    parts.path_and_query = head.uri.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}

/// What was made for HTTP/1.1 and HTTP/2 must not carry.
fn drop_connection_fields(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
}

fn length(response: &http::Response<RecvStream>) -> Option<u64> {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return None;
    }
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Inflow {
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// The window opens by what is taken here, so that a client that does not read holds its
    /// upstream's stream back.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InflowError>>> {
        let frame = match self.poll_stream(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.lane.poll_overdue(cx));
                return Poll::Ready(Some(Err(InflowError::Overdue)));
            }
        };
        Poll::Ready(match frame {
            // After a whole answer: the rest of the request is not wanted (RFC 9113, 8.1).
            Some(Err(error)) if self.is_dismissal(&error) => None,
            frame => frame.map(|frame| Ok(frame?)),
        })
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.only_trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => {
                    let data = data?;
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    // Only fails when more is given back than was lent.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.only_trailers = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_dismissal(&self, error: &h2::Error) -> bool {
        let dismissed = error.is_reset() && error.is_remote() && error.reason() == Some(Code::NO_ERROR);
        dismissed && self.left.unwrap_or(0) == 0
    }
}

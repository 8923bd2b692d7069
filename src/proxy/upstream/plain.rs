//! HTTP/1.1 to an upstream: a connection that one exchange has to itself.

use std::{io, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use crate::{
    authz::answer::Reason,
    net::Clock,
    proxy::{
        body::Upload,
        upstream::{
            HEAD_LIMIT,
            lane::{End, Lane},
            lease::Failure,
            transport::Transport,
            wire::Wire,
        },
    },
};

pub struct Plain {
    sender: SendRequest<Upload>,
    lane: Rc<Lane>,
}

impl Plain {
    /// The driver is a task of its own that ends with the lane.
    pub async fn start(transport: Transport, clock: &Clock) -> io::Result<Self> {
        let lane = Lane::new(clock);
        let wire = TokioIo::new(Wire::new(transport, Rc::clone(&lane)));
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LIMIT)
            .max_header_size(HEAD_LIMIT)
            .handshake(wire)
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        lane.drive(driver.abort_handle());
        Ok(Self { sender, lane })
    }

    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    /// Whether the next exchange may have it: nothing is under way and it is open.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.lane.end().is_none()
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// `repeatable`: doing it twice does no harm. Only a connection that is `reused` can have been
    /// given up by the upstream at the moment of the request.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
        silence: Duration,
        reused: bool,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failure> {
        let may_repeat = reused && repeatable;
        self.lane.begin(silence, may_repeat);
        let mut error = match self.sender.try_send_request(request).await {
            Ok(response) => {
                self.lane.expect_nothing();
                return Ok(response);
            }
            Err(error) => error,
        };
        // What was never written may go out whatever its method; what was written only when doing
        // it twice does no harm.
        let again = match error.take_message() {
            Some(unsent) if reused => Some(unsent),
            _ if may_repeat && self.lane.closed_unanswered() => self.lane.said(Upload::none()),
            _ => None,
        };
        Err(Failure { again, reason: blame(&error.into_error(), &self.lane) })
    }
}

fn blame(error: &hyper::Error, lane: &Lane) -> Reason {
    if lane.end() == Some(End::TimedOut) {
        Reason::UpstreamTimeout
    } else if lane.too_many_interim() || error.is_parse() {
        Reason::UpstreamInvalid
    } else {
        Reason::UpstreamReset
    }
}

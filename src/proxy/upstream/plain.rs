//! HTTP/1.1 to an upstream: a connection that one exchange has to itself.

use std::{cell::RefCell, future::poll_fn, rc::Rc, time::Duration};

use bytes::Bytes;

use crate::{
    authz::answer::Reason,
    message::{Request, Response, ResponseHead},
    net::Clock,
    proxy::{
        body::Upload,
        upstream::{
            admission::Place,
            h1::{Connection, Fault, Outgoing},
            lane::{End, Lane},
            lease::Failure,
            transport::Transport,
            wire::Wire,
        },
    },
};

pub struct Plain {
    connection: Shared,
    lane: Rc<Lane>,
}

/// A connection on which the upstream speaks HTTP no longer.
pub struct Switched {
    pub wire: Wire,
    /// What it has said in its new protocol already.
    pub early: Bytes,
}

/// By the lease, which waits for the head, and by the download, which waits for the rest.
pub type Shared = Rc<RefCell<Connection<Wire, Upload>>>;

impl Plain {
    /// `held`: its place, where there are only so many connections.
    pub fn new(transport: Transport, clock: &Clock, held: Option<Place>) -> Self {
        let lane = Lane::new(clock);
        let connection = Connection::new(Wire::new(transport, Rc::clone(&lane), held));
        Self { connection: Rc::new(RefCell::new(connection)), lane }
    }

    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    /// Whether the present exchange leaves it fit for another one.
    pub fn is_ready(&self) -> bool {
        self.connection.borrow().reusable() && self.lane.end().is_none()
    }

    /// After an answer of 101; `None` while somebody still reads that answer, or where it came
    /// before the whole request had gone out.
    pub fn into_switched(self) -> Option<Switched> {
        let connection = Rc::into_inner(self.connection)?.into_inner();
        let (mut wire, early) = connection.into_switched()?;
        wire.begin_tunnel();
        Some(Switched { wire, early })
    }

    /// Of one that waits for an exchange: whether the upstream has kept it open, in silence.
    pub fn is_open(&self) -> bool {
        self.connection.borrow_mut().stream().is_quiet()
    }

    /// `repeatable`: doing it twice does no harm. Only a connection that is `reused` can have been
    /// given up by the upstream at the moment of the request.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
        silence: Duration,
        reused: bool,
        repeatable: bool,
    ) -> Result<Response<Shared>, Failure> {
        self.lane.begin(silence);
        self.connection.borrow_mut().begin(Outgoing::new(request));
        let answer = poll_fn(|cx| self.connection.borrow_mut().poll_answer(cx)).await;
        match answer {
            Ok(answer) => {
                self.lane.expect_nothing();
                let body = Rc::clone(&self.connection);
                Ok(Response::from_parts(ResponseHead { status: answer.status, fields: answer.fields }, body))
            }
            Err(fault) => {
                // What was never written may go out whatever its method; what was written only
                // when doing it twice does no harm.
                let written = repeatable && self.lane.closed_unanswered();
                let failed_here = matches!(fault, Fault::Upload);
                let again = self.connection.borrow_mut().take_back().filter(|_| reused && !failed_here);
                let again = again.and_then(|outgoing| outgoing.into_request(written));
                let again = again.map(|request| request.map(|body| body.unwrap_or_else(Upload::none)));
                Err(Failure { again, reason: blame(&fault, &self.lane) })
            }
        }
    }
}

fn blame(fault: &Fault, lane: &Lane) -> Reason {
    if lane.end() == Some(End::TimedOut) {
        return Reason::UpstreamTimeout;
    }
    match fault {
        Fault::Malformed | Fault::Interim => Reason::UpstreamInvalid,
        Fault::Broken(_) | Fault::Upload => Reason::UpstreamReset,
    }
}

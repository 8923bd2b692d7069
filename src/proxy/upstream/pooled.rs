//! A connection to an upstream that one request has until the answer's last byte.

use std::{rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    authz::answer::Reason,
    proxy::upstream::{
        admission::Permit,
        call::{Call, CancelHandle, Ended},
        endpoint::{Endpoint, InUse},
        http1::Http1,
        http2::Http2Stream,
        outgoing::OutgoingBody,
        upgraded::Upgraded,
    },
};

/// Goes back by [`PooledConnection::give_back`]; dropped, the request is broken off.
pub struct PooledConnection {
    endpoint: InUse,
    protocol: Option<Protocol>,
    call: Rc<Call>,
    reused: bool,
    /// Of the endpoint's addresses when the connection was taken.
    generation: u64,
    /// Among the upstream's requests, where there are only so many.
    permit: Option<Permit>,
    cancel: Option<Rc<CancelHandle>>,
}

pub enum Protocol {
    Http1(Box<Http1>),
    Http2(Http2Stream),
}

/// A request that got no answer.
pub struct Failure {
    /// The request, where sending it once more does no harm.
    pub again: Option<Request<OutgoingBody>>,
    pub reason: Reason,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { again: None, reason }
    }
}

impl PooledConnection {
    pub(super) fn new(endpoint: InUse, protocol: Protocol, reused: bool) -> Self {
        let call = Rc::clone(match &protocol {
            Protocol::Http1(http1) => http1.call(),
            Protocol::Http2(stream) => stream.call(),
        });
        let generation = endpoint.health().generation();
        Self { endpoint, protocol: Some(protocol), call, reused, generation, permit: None, cancel: None }
    }

    pub fn call(&self) -> &Rc<Call> {
        &self.call
    }

    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.protocol, Some(Protocol::Http2(_)))
    }

    /// Keeps the request's place among the upstream's requests until the end.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// From now on a cut of the request ends this connection, or stream, too.
    pub fn attach(&mut self, cancel: &Rc<CancelHandle>) {
        cancel.attach(&self.call);
        self.cancel = Some(Rc::clone(cancel));
    }

    /// Sends and waits for the head of the answer; the upstream may be silent for so long.
    /// `repeatable`: doing it twice does no harm.
    pub async fn send(
        &mut self,
        request: Request<OutgoingBody>,
        silence: Duration,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failure> {
        if self.call.ended().is_some() {
            return Err(Reason::UpstreamReset.into());
        }
        match self.protocol.as_mut().expect("a connection has its protocol until it is given back") {
            Protocol::Http1(http1) => http1.send(request, silence, self.reused, repeatable).await,
            Protocol::Http2(stream) => {
                // In a box, as all that is of HTTP/2 alone.
                let outcome = Box::pin(stream.send(request, silence, repeatable)).await;
                if stream.requires_http11() {
                    self.endpoint.disable_http2();
                }
                outcome
            }
        }
    }

    /// After an answer of 101: the connection itself, or the stream, as a tunnel.
    pub async fn upgrade(mut self, response: &mut Response<Incoming>) -> Option<Upgraded> {
        match self.protocol.take()? {
            Protocol::Http1(http1) => {
                let (io, early) = http1.into_upgraded().await?;
                Some(Upgraded::http1(io, early, self))
            }
            stream @ Protocol::Http2(_) => {
                self.protocol = Some(stream);
                let tunnel = hyper::upgrade::on(response).await.ok()?;
                Some(Upgraded::http2(tunnel, self))
            }
        }
    }

    /// After a tunnel that both sides have ended: a shared connection stays.
    pub(super) fn finish_tunnel(&mut self) {
        self.protocol.take();
    }

    /// After the last byte of an answer. A connection that is not ready at this moment (its
    /// request is still under way, or it is to be closed) is of no use to another request, and a
    /// stream whose request is still under way is reset.
    pub fn give_back(mut self) {
        self.call.disarm();
        match self.protocol.take() {
            Some(Protocol::Http1(http1)) if http1.is_ready() => {
                self.detach();
                self.endpoint.keep(http1, self.generation);
            }
            Some(Protocol::Http2(stream)) if self.call.is_done() => {
                self.detach();
                drop(stream);
                self.endpoint.notify_waiter();
            }
            unfinished => self.protocol = unfinished,
        }
    }

    fn detach(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.detach();
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(protocol) = self.protocol.take() else { return };
        self.call.end(Ended::Dropped);
        if let Protocol::Http2(stream) = protocol {
            drop(stream);
            self.endpoint.notify_waiter();
        }
    }
}

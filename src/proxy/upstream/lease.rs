//! The way to an upstream, lent to one exchange until the answer's last byte.

use std::{rc::Rc, time::Duration};

use crate::{
    authz::answer::Reason,
    message::{Request, Response},
    net::Clock,
    proxy::{
        body::Upload,
        upstream::{
            admission::Place,
            download::Download,
            endpoint::{Endpoint, Lent},
            lane::{End, Lane},
            plain::{Plain, Switched},
            share::Share,
        },
    },
};

/// Goes back by [`Lease::give_back`]; dropped, the exchange is broken off.
pub struct Lease {
    endpoint: Lent,
    way: Option<Way>,
    lane: Rc<Lane>,
    reused: bool,
    generation: u64,
    place: Option<Place>,
}

/// What a lease is on.
pub enum Way {
    Plain(Plain),
    /// In a box: it is larger than what HTTP/1.1 needs.
    Shared(Box<Share>),
}

/// A request that got no answer.
pub struct Failure {
    /// The request, where sending it once more does no harm.
    pub again: Option<Request<Upload>>,
    pub reason: Reason,
}

impl Lease {
    pub(super) fn new(endpoint: Lent, way: Way, reused: bool) -> Self {
        let lane = Rc::clone(match &way {
            Way::Plain(plain) => plain.lane(),
            Way::Shared(share) => share.lane(),
        });
        let generation = endpoint.standing().generation();
        Self { endpoint, way: Some(way), lane, reused, generation, place: None }
    }

    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// Keeps the exchange's place among the upstream's requests until the end.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Sends and waits for the head of the answer; the upstream may be silent for so long.
    /// `repeatable`: doing it twice does no harm.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
        silence: Duration,
        repeatable: bool,
    ) -> Result<Response<Download>, Failure> {
        let reused = self.reused;
        match self.way.as_mut().expect("a lease has its way until it is given back") {
            Way::Plain(plain) => {
                let response = plain.send(request, silence, reused, repeatable).await?;
                Ok(response.map(Download::Plain))
            }
            Way::Shared(share) => {
                // In a box, as all that is of HTTP/2 alone.
                let outcome = Box::pin(share.send(request, silence, repeatable)).await;
                if share.is_unwelcome() {
                    self.endpoint.leave_http2();
                }
                Ok(outcome?.map(|inflow| Download::Multiplexed(Box::new(inflow))))
            }
        }
    }

    /// After an answer of 101: the connection itself. The lease stays until the tunnel has ended.
    pub fn switch(&mut self, answer: Download) -> Option<Switched> {
        drop(answer);
        match self.way.take()? {
            Way::Plain(plain) => plain.into_switched(),
            shared @ Way::Shared(_) => {
                self.way = Some(shared);
                None
            }
        }
    }

    /// After the last byte of an answer. A connection that is not ready at this moment (its
    /// request is still under way, or it is to be closed) is of no use to another exchange, and a
    /// stream whose request is still under way is reset.
    pub fn give_back(mut self, idle_timeout: Duration, clock: &Clock) {
        self.lane.expect_nothing();
        match self.way.take() {
            Some(Way::Plain(plain)) if plain.is_ready() => {
                self.endpoint.keep(plain, self.generation, idle_timeout, clock);
            }
            Some(Way::Shared(share)) if self.lane.is_pumped() => {
                drop(share);
                self.endpoint.pass_on();
            }
            unfinished => self.way = unfinished,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            self.lane.finish(End::Dropped);
            if let Way::Shared(share) = way {
                drop(share);
                self.endpoint.pass_on();
            }
        }
    }
}

//! A request's body on its way into a stream of HTTP/2: no more is taken from the client than the
//! upstream's windows let out.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::proxy::body::Upload;

/// The writing half of a stream, which the fence can reset at any moment.
pub type Outflow = Rc<RefCell<SendStream<Bytes>>>;

/// Ends when everything is sent, when the upstream takes no more, or when the client's body
/// fails: then the stream is reset, so that half a body never passes for a whole one.
pub struct Pump {
    body: Upload,
    outflow: Outflow,
    rest: Bytes,
    touched: bool,
}

impl Pump {
    pub fn new(body: Upload, outflow: Outflow) -> Self {
        Self { body, outflow, rest: Bytes::new(), touched: false }
    }

    /// The body, if nothing was taken from it yet.
    pub fn untouched(self) -> Option<Upload> {
        (!self.touched).then_some(self.body)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let mut outflow = self.outflow.borrow_mut();
        while !self.rest.is_empty() {
            outflow.reserve_capacity(self.rest.len());
            if outflow.capacity() == 0 {
                match ready!(outflow.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(Reason::NO_ERROR.into())),
                };
                continue;
            }
            let piece = self.rest.split_to(self.rest.len().min(outflow.capacity()));
            let last = self.rest.is_empty() && self.body.is_end_stream();
            outflow.send_data(piece, last)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if !self.rest.is_empty() {
                ready!(self.poll_rest(cx))?;
                if self.body.is_end_stream() {
                    return Poll::Ready(Ok(()));
                }
            }
            if let Poll::Ready(reason) = self.outflow.borrow_mut().poll_reset(cx) {
                return Poll::Ready(Err(reason?.into()));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.touched = true;
            let mut outflow = self.outflow.borrow_mut();
            match frame {
                None => return Poll::Ready(outflow.send_data(Bytes::new(), true)),
                Some(Err(_)) => {
                    outflow.send_reset(Reason::CANCEL);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                        return Poll::Ready(outflow.send_data(data, true));
                    }
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(outflow.send_trailers(trailers));
                        }
                    }
                },
            }
        }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // What went wrong, the answer's side tells.
        self.poll_send(cx).map(drop)
    }
}

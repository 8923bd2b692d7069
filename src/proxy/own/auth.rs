//! `/.permgate/auth`: the decision as an answer, for a proxy that forwards by itself. 200 with the
//! fields that forwarding would set, 401 or 403; nothing else, since nginx takes only these.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Version};

use super::{Answer, original::FrontProxy};
use crate::{
    authz::{answer::Reason, decide::Permit},
    message::{Fields, Request, RequestHead, Response},
    net::RequestBody,
    proxy::{Gateway, exchange::Exchange, rejection::Rejection, trusts},
};

/// What the identity is told in; other fields concern a request that is not sent from here.
const IDENTITY: &[u8] = b"x-permgate-";

impl Gateway {
    /// The original request, judged by the steps that any request takes. What is told of it in log
    /// and metrics is the second of the two: the original, as far as it could be made out.
    pub(super) fn forward_auth(
        &self,
        proxy: FrontProxy,
        asking: Rc<Exchange>,
        request: &Request<RequestBody>,
    ) -> (Rc<Exchange>, Answer) {
        let (exchange, decided) = match self.original(proxy, &asking, request) {
            Ok(exchange) => {
                let decided = self.decide(&exchange.view, &exchange, exchange.at, |decided| match decided {
                    Ok(permit) => self.tell(&permit, &exchange),
                    Err(denial) => Err(self.refuse_by(denial, &exchange)),
                });
                (exchange, decided)
            }
            Err(rejection) => {
                asking.tell_as_own();
                (asking, Err(rejection))
            }
        };
        (exchange, decided.map_err(Rejection::for_proxy))
    }

    /// An exchange of the original request, by the word of a trusted proxy.
    fn original(
        &self,
        proxy: FrontProxy,
        asking: &Rc<Exchange>,
        request: &Request<RequestBody>,
    ) -> Result<Rc<Exchange>, Rejection> {
        if !trusts(&asking.view, &asking.connection) {
            return Err(Reason::ProxyNotTrusted.into());
        }
        let original = proxy.original(request)?;
        let (method, target) = (original.method, original.target);
        let head = RequestHead { method, target, version: Version::HTTP_11, fields: Fields::default() };
        let exchange = Exchange::begin(
            asking.gateway(),
            Rc::clone(&asking.view),
            &Request::from_parts(head, ()),
            Rc::clone(&asking.connection),
            asking.request_id.clone(),
        );
        exchange.host.set(original.host).expect("an exchange is new");
        self.read_fields(&exchange, &request.fields)?;
        exchange.upgrade.set(original.upgrade);
        Ok(exchange)
    }

    /// The permit as an answer, and the use of the token that it is.
    fn tell(&self, permit: &Permit<'_>, exchange: &Exchange) -> Result<(Reason, Response<Bytes>), Rejection> {
        exchange.service.set(Some(permit.owner().service.id));
        let mut response = Response::new(Bytes::new());
        let fields = &mut response.fields;
        self.identify(permit, exchange, fields)?;
        fields.retain(|name, _| is_told(name));
        fields.set("cache-control", &HeaderValue::from_static("no-store"));
        Ok((Reason::Answered, response))
    }
}

fn is_told(name: &[u8]) -> bool {
    name == b"x-request-id" || name.starts_with(IDENTITY)
}

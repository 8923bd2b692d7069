//! `/.permgate/auth`: the decision as an answer, for a proxy that forwards by itself. 200 with the
//! fields that forwarding would set, 401 or 403; nothing else, since nginx takes only these.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};

use super::{Answer, original::FrontProxy};
use crate::{
    authz::{answer::Reason, decide::Permit},
    net::RequestBody,
    proxy::{Gateway, exchange::Exchange, rejection::Rejection, trusts},
};

/// What the identity is told in; other fields concern a request that is not sent from here.
const IDENTITY: &str = "x-permgate-";

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
        let mut judged = Request::new(());
        *judged.method_mut() = original.method;
        *judged.uri_mut() = original.target;
        let exchange = Exchange::begin(
            asking.gateway(),
            Rc::clone(&asking.view),
            &judged,
            Rc::clone(&asking.connection),
            asking.request_id.clone(),
        );
        exchange.host.set(original.host).expect("an exchange is new");
        self.read_headers(&exchange, request.headers())?;
        exchange.upgrade.set(original.upgrade);
        Ok(exchange)
    }

    /// The permit as an answer, and the use of the token that it is.
    fn tell(&self, permit: &Permit<'_>, exchange: &Exchange) -> Result<(Reason, Response<Bytes>), Rejection> {
        exchange.service.set(Some(permit.owner().service.id));
        let mut response = Response::new(Bytes::new());
        let mut headers = HeaderMap::new();
        self.identify(permit, exchange, &mut headers)?;
        let answered = headers.iter().filter(|(name, _)| is_answered(name));
        response.headers_mut().extend(answered.map(|(name, value)| (name.clone(), value.clone())));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok((Reason::Answered, response))
    }
}

fn is_answered(name: &HeaderName) -> bool {
    name == "x-request-id" || name.as_str().starts_with(IDENTITY)
}

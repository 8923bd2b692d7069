//! `/.permgate/auth`: the decision as an answer, for a proxy that forwards by itself. 200 with the
//! fields that forwarding would set, 401 or 403; nothing else, since nginx takes only these.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};

use super::{Answer, forwarded_request::ForwardedRequest};
use crate::{
    authz::{answer::Reason, carriers, decide::Permit},
    net::RequestBody,
    proxy::{Gateway, context::RequestContext, facts::RequestFacts, rejection::Rejection, trusts},
    settings::FrontProxy,
};

/// What the identity is told in; other fields concern a request that is not sent from here.
const IDENTITY: &str = "x-permgate-";

impl Gateway {
    /// The original request, judged by the steps that any request takes. Metrics and log show the
    /// returned context: the original request's, as far as it could be made out.
    pub(super) fn forward_auth(
        self: &Rc<Self>,
        proxy: FrontProxy,
        asking: Rc<RequestContext>,
        request: &Request<RequestBody>,
    ) -> (Rc<RequestContext>, Answer) {
        let (context, answered) = match self.original(proxy, &asking, request) {
            Ok(context) => {
                let answered = self.decide(&context.state, &context, context.at, |decided| {
                    let permit = decided.map_err(|denial| self.deny(denial, &context))?;
                    self.permit_answer(&permit, &context, request.headers())
                });
                (context, answered)
            }
            Err(reason) => {
                self.set_builtin_service(&asking);
                (asking, Err(reason.into()))
            }
        };
        (context, answered.map_err(Rejection::for_proxy))
    }

    /// The context of the original request, as a trusted proxy reports it.
    fn original(
        self: &Rc<Self>,
        proxy: FrontProxy,
        asking: &RequestContext,
        request: &Request<RequestBody>,
    ) -> Result<Rc<RequestContext>, Reason> {
        let (state, connection) = (&asking.state, &asking.connection);
        if !trusts(state, connection) {
            return Err(Reason::ProxyNotTrusted);
        }
        let ForwardedRequest { method, target, host, asked_by, upgrade } =
            proxy.forwarded_request(request)?;
        let mut facts = RequestFacts::read(self, state, connection, request.headers(), host)?;
        facts.upgrade = upgrade;
        // A second statement of the host, unless it names this gateway alone.
        let stated = asked_by.filter(|host| state.snapshot.rules.names_host(host.as_str()));
        facts.stated_hosts.extend(stated.map(|host| host.as_str().to_owned()));
        let mut judged = Request::new(());
        *judged.method_mut() = method;
        *judged.uri_mut() = target;
        let (state, connection) = (Rc::clone(state), Rc::clone(connection));
        Ok(RequestContext::new(self, state, connection, &judged, facts, asking.request_id.clone()))
    }

    /// The permit as a response, which counts as a use of the token. `asked`: the fields that the proxy sent.
    fn permit_answer(&self, permit: &Permit<'_>, context: &RequestContext, asked: &HeaderMap) -> Answer {
        context.outcome.service.set(Some(permit.owner().service.id));
        let mut headers = HeaderMap::new();
        let limits = self.take_limits(permit, context, None)?;
        self.edit_request(permit, context, &mut headers, limits)?;
        let mut response = Response::new(Bytes::new());
        let answered = headers.iter().filter(|(name, _)| is_answered(name));
        response.headers_mut().extend(answered.map(|(name, value)| (name.clone(), value.clone())));
        // The proxy can replace a field, but not take a token out of one.
        if let Some(protocols) = carriers::other_protocols(asked) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn is_answered(name: &HeaderName) -> bool {
    name == "x-request-id" || name.as_str().starts_with(IDENTITY)
}

//! `/.permgate/auth`: forward-auth for a proxy that forwards by itself. Answers the decision with 200 and the
//! fields that forwarding would set, 401 or 403. nginx accepts no other status.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};

use super::{BuiltinResponse, forwarded_request::ForwardedRequest};
use crate::{
    authz::{carriers, decide::Permit, reason::Reason},
    net::RequestBody,
    proxy::{Gateway, context::RequestContext, facts::RequestFacts, is_peer_trusted, rejection::Rejection},
    settings::FrontProxy,
};

/// Prefix of the identity fields. Other edits matter only to a request that permgate itself sends.
const IDENTITY: &str = "x-permgate-";

impl Gateway {
    /// Decides the original request by the same steps as a forwarded one. Returns the context to log: the
    /// original request's, or the proxy's own request if the original cannot be read.
    pub(super) fn forward_auth(
        self: &Rc<Self>,
        proxy: FrontProxy,
        asking: Rc<RequestContext>,
        request: &Request<RequestBody>,
    ) -> (Rc<RequestContext>, BuiltinResponse) {
        let (context, result) = match self.original_context(proxy, &asking, request) {
            Ok(context) => {
                let (query, state) = (context.query(&context.rules), context.state());
                let result = self.decide(&query, &state, &context, context.at, |decided| {
                    let permit = decided.map_err(|denial| self.deny(denial, &context))?;
                    self.respond_permitted(&permit, &context, request.headers())
                });
                (context, result)
            }
            Err(reason) => {
                self.set_builtin_service(&asking);
                (asking, Err(reason.into()))
            }
        };
        (context, result.map_err(Rejection::for_forward_auth))
    }

    /// Returns the context of the original request as a trusted proxy reports it.
    fn original_context(
        self: &Rc<Self>,
        proxy: FrontProxy,
        asking: &RequestContext,
        request: &Request<RequestBody>,
    ) -> Result<Rc<RequestContext>, Reason> {
        let (state, connection) = (&asking.state(), &asking.connection);
        if !is_peer_trusted(state, connection) {
            return Err(Reason::ProxyNotTrusted);
        }
        let ForwardedRequest { method, target, host, proxy_host, upgrade } =
            proxy.forwarded_request(request)?;
        let mut facts = RequestFacts::read(self, state, connection, request.headers(), host)?;
        facts.upgrade = upgrade;
        // The Host of the proxy's request is a second statement of the host, unless no rule names it.
        let stated = proxy_host.filter(|host| state.snapshot.rules.lists_host(host.as_str()));
        facts.stated_hosts.extend(stated.map(|host| host.as_str().to_owned()));
        let mut judged = Request::new(());
        *judged.method_mut() = method;
        *judged.uri_mut() = target;
        let (state, connection) = (Rc::clone(state), Rc::clone(connection));
        Ok(RequestContext::new(self, state, connection, &judged, facts, asking.request_id.clone()))
    }

    /// Answers a permit and records the token's use. `asked` is the header of the proxy's request.
    fn respond_permitted(
        &self,
        permit: &Permit<'_>,
        context: &RequestContext,
        asked: &HeaderMap,
    ) -> BuiltinResponse {
        if permit.subject().is_some() {
            context.connection.set_permitted();
        }
        context.outcome.service.set(Some(permit.owner().service.id));
        let mut headers = HeaderMap::new();
        let limits = self.take_limits(permit, context, None)?;
        self.edit_request(permit, context, &mut headers, limits)?;
        let mut response = Response::new(Bytes::new());
        let identity =
            headers.iter().filter(|(name, _)| *name == "x-request-id" || name.as_str().starts_with(IDENTITY));
        response.headers_mut().extend(identity.map(|(name, value)| (name.clone(), value.clone())));
        // The proxy can replace a whole field but cannot remove one element from it.
        if let Some(protocols) = carriers::other_protocols(asked) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

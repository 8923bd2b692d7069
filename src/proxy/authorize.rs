//! Turns a request into a permitted one or a rejection. This is one synchronous block, so no change of the
//! rules can fall between the decision and the entry in the live registry.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Request};
use http_body::Body as _;

use crate::{
    assertion::RequestBinding,
    authz::{
        carriers,
        decide::{self, Denial, Facts, Permit, Query},
        forwarding::{self, Claims, Hop},
        reason::Reason,
        rules::Service,
        secret::Digest,
        subject::Token,
        time::Timestamp,
    },
    net::RequestBody,
    proxy::{
        Gateway,
        bad_tokens::is_bad_token,
        body::request_body,
        context::RequestContext,
        facts::HostName,
        forward, is_peer_trusted,
        last_used::Use,
        limits::{ConcurrencySlot, Exceeded, LimitPermit, Waiting},
        permitted::{LogGuard, Permitted},
        refusals::{self, AuditSample},
        rejection::Rejection,
        upgrade,
        upstream::Upstream,
        worker_state::WorkerState,
    },
    settings::UpstreamSettings,
};

/// Why a request is not forwarded yet.
pub(super) enum NotForwarded {
    Rejected(Rejection),
    /// It waits for a slot under a concurrency limit, then is decided again.
    Queued(Box<(Box<Request<RequestBody>>, Waiting)>),
}

impl<R: Into<Rejection>> From<R> for NotForwarded {
    fn from(rejection: R) -> Self {
        Self::Rejected(rejection.into())
    }
}

impl Gateway {
    /// Decides the request and edits its header fields for the upstream. `slot`
    /// is the concurrency slot that the request has waited for, if any.
    pub(super) fn authorize(
        &self,
        context: &Rc<RequestContext>,
        mut request: Box<Request<RequestBody>>,
        slot: Option<ConcurrencySlot>,
    ) -> Result<(Rc<Upstream>, Permitted), NotForwarded> {
        let state = context.state();
        let query = context.query(&state.snapshot.rules);
        self.decide(&query, &state, context, context.at, |decision| {
            let permit = decision.map_err(|denial| self.deny(denial, context))?;
            // Not for a public rule: otherwise anybody could hold connections that nobody may close.
            if permit.subject().is_some() {
                context.connection.set_permitted();
            }
            let service = permit.owner().service;
            context.outcome.service.set(Some(service.id));
            let body_limit = service.spec.max_body.or(state.snapshot.proxy.max_body);
            if body_limit.is_some_and(|limit| request.body().size_hint().lower() > limit) {
                return Err(Reason::BodyTooLarge.into());
            }
            let upstream = state.upstream(service.id).ok_or(Reason::UpstreamUnavailable)?;
            if !self.owns_with_upstream_host(upstream.settings(), context) {
                return Err(Reason::BadRequest.into());
            }
            let upgrade = context.facts.upgrade.then(|| upgrade::requested_protocols(&request)).flatten();
            let limits = match self.take_limits(&permit, context, slot) {
                Ok(limits) => limits,
                Err(Exceeded { waiting: Some(waiting), .. }) => {
                    return Err(NotForwarded::Queued(Box::new((request, waiting))));
                }
                Err(exceeded) => return Err(exceeded.into()),
            };
            let limits = self.edit_request(&permit, context, request.headers_mut(), limits)?;
            if let Some(protocols) = upgrade {
                upgrade::set(request.headers_mut(), protocols);
            }
            if let Some(window) = state.snapshot.proxy.announce_end {
                context.outcome.sunset.set(forward::announced_end(&permit, window, context.at));
            }
            let guard = LogGuard::enter(&permit, context, limits);
            let first_byte = upstream.settings().first_byte_timeout;
            let request = request.map(|body| request_body(body, context, body_limit, first_byte));
            Ok((Rc::clone(upstream), Permitted::new(permit, guard, Box::new(request))))
        })
    }

    /// Decides an HTTP/1.0 request without Host once more with the host of the upstream's URL, which it will
    /// be sent with: the second target (`Destination`) must belong to the same service there.
    fn owns_with_upstream_host(&self, upstream: &UpstreamSettings, context: &RequestContext) -> bool {
        if context.facts.host.is_some() || upstream.host.is_some() {
            return true;
        }
        let Some(host) = upstream.own_host().and_then(|host| HostName::parse(host.as_bytes()).ok()) else {
            return true;
        };
        let (stated, state) = ([host.as_str().to_owned()], context.state());
        let query = Query { stated_hosts: &stated, ..context.query(&state.snapshot.rules) };
        self.decide(&query, &state, context, context.at, |decision| decision.is_ok())
    }

    /// Calls the pure decision with the query of a request and this state. Denies if this node may not
    /// forward.
    pub(super) fn decide<R>(
        &self,
        query: &Query<'_>,
        state: &WorkerState,
        context: &RequestContext,
        now: Timestamp,
        then: impl FnOnce(Result<Permit<'_>, Denial<'_>>) -> R,
    ) -> R {
        if !self.parts.state.permission().is_valid() {
            return then(Err(Denial::without_owner(Reason::StoreUnavailable)));
        }
        let decide = |token: Option<&Token>| {
            if let Some(token) = token {
                context.outcome.token.set(Some(token.id));
                context.outcome.user.set(Some(token.owner));
            }
            let facts = Facts {
                rules: &state.snapshot.rules,
                directory: &state.snapshot.directory,
                token,
                imports: self.parts.state.index().imported() > 0,
                now,
            };
            then(decide::decide(query, facts))
        };
        match query.credential.digest() {
            Some(digest) => self.parts.state.index().with(digest, decide),
            None => decide(None),
        }
    }

    /// Counts a permitted request under the service's limits.
    pub(super) fn take_limits(
        &self,
        permit: &Permit<'_>,
        context: &RequestContext,
        slot: Option<ConcurrencySlot>,
    ) -> Result<Option<LimitPermit>, Exceeded> {
        let state = context.state();
        let Some(limits) = state.limits(permit.owner().service.id) else { return Ok(None) };
        limits.take(permit, context.facts.client, context.clock().now(), slot).map(Some)
    }

    /// Edits the header fields of a permitted request and records the token's use. If
    /// that fails, the request is uncounted from the limits.
    pub(super) fn edit_request(
        &self,
        permit: &Permit<'_>,
        context: &RequestContext,
        headers: &mut HeaderMap,
        limits: Option<LimitPermit>,
    ) -> Result<Option<Box<LimitPermit>>, Rejection> {
        match self.edit_headers(permit, context, headers) {
            Ok(()) => Ok(limits.map(Box::new)),
            Err(reason) => {
                limits.into_iter().for_each(|mut limits| limits.give_back());
                Err(reason.into())
            }
        }
    }

    fn edit_headers(
        &self,
        permit: &Permit<'_>,
        context: &RequestContext,
        headers: &mut HeaderMap,
    ) -> Result<(), Reason> {
        let Service { id: service, spec, .. } = permit.owner().service;
        let connection = &context.connection;
        let (index, state) = (self.parts.state.index(), context.state());
        let is_known = |digest: &Digest| index.with(digest, |token| token.is_some());
        carriers::strip_others(headers, &context.facts.carried, &spec.credentials, is_known);
        self.forwarded.with(connection.address(), connection.secure, |peer| {
            let hop = Hop {
                peer,
                peer_trusted: is_peer_trusted(&state, connection),
                host: context.facts.host_field(),
                request_id: context.request_id.value(),
                destination: context.facts.destination.as_ref(),
            };
            forwarding::edit_request(headers, permit, &state.identities, &hop)
                .map_err(|_| Reason::IdentityTooLarge)
        })?;
        if let Some(claims) =
            Claims::from_permit(permit, &state.snapshot.directory).map_err(|_| Reason::IdentityTooLarge)?
        {
            headers.insert(forwarding::ASSERTION, self.sign_assertion(&claims, context)?);
        }
        if let Some(subject) = permit.subject() {
            let one = Use { at: context.at, from: context.facts.client, service: *service };
            self.uses.record(subject.digest, one);
        }
        Ok(())
    }

    fn sign_assertion(&self, claims: &Claims<'_>, context: &RequestContext) -> Result<HeaderValue, Reason> {
        let bound = RequestBinding {
            method: context.method.as_str(),
            path: context.path(),
            request_id: context.request_id.as_str(),
            at: context.at,
        };
        self.parts.keyring.sign(claims, &bound).map_err(|_| Reason::AssertionFailed)
    }

    /// Audits and counts a denial and returns its rejection: 429 if the client has sent too many bad tokens.
    pub(super) fn deny(&self, denial: Denial<'_>, context: &RequestContext) -> Rejection {
        context.outcome.service.set(denial.owner.map(|owner| owner.service.id));
        if refusals::is_audited(denial.reason) {
            self.parts.refusals.send(AuditSample {
                at: context.at,
                reason: denial.reason,
                token: context.outcome.token.get(),
                client: context.facts.client,
                service: context.outcome.service.get(),
                request_id: context.request_id.as_str().to_owned(),
            });
        }
        let too_many = is_bad_token(denial.reason).then(|| self.count_bad_token(context)).flatten();
        too_many.unwrap_or_else(|| denial.into())
    }

    /// Counts a bad token. Returns a rejection if the client has sent too many.
    pub(super) fn count_bad_token(&self, context: &RequestContext) -> Option<Rejection> {
        let limit = context.state().snapshot.proxy.bad_tokens?;
        let wait = self.parts.bad_tokens.count(context.facts.client, limit, context.clock().now())?;
        Some(Rejection::too_many(wait))
    }
}

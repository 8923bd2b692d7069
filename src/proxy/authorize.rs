//! The inner half: from a head to a passage or a rejection, in one synchronous block, so that no
//! change can slip between the decision and the entry in the live registry.

use std::rc::Rc;

use http::HeaderValue;
use http_body::Body as _;

use crate::{
    assertion::Bound,
    authz::{
        answer::Reason,
        decide::{self, Credential, Denial, Facts, Permit},
        destination::Destination,
        forwarding::{self, Claims, Hop},
        subject::Token,
        time::Timestamp,
    },
    message::{Fields, Request},
    net::RequestBody,
    proxy::{
        Gateway,
        bad_tokens::is_bad_token,
        exchange::{Exchange, Passage},
        framing,
        refusals::{self, Refused},
        rejection::Rejection,
        trusts, upgrade,
        uses::Use,
        view::View,
    },
};

impl Gateway {
    /// Judges the request and makes its fields those that the upstream gets.
    pub(super) fn authorize(
        &self,
        exchange: &Rc<Exchange>,
        request: &mut Request<RequestBody>,
    ) -> Result<Passage, Rejection> {
        self.read(exchange, request)?;
        self.decide(&exchange.view, exchange, exchange.at, |decided| match decided {
            Ok(permit) => self.admit(permit, exchange, request),
            Err(denial) => Err(self.refuse_by(denial, exchange)),
        })
    }

    /// Takes down what the decision asks about a request.
    pub(super) fn read(&self, exchange: &Exchange, request: &Request<RequestBody>) -> Result<(), Rejection> {
        let host = framing::host(request, &self.host)?;
        exchange.host.set(host).expect("an exchange is authorized once");
        self.read_fields(exchange, &request.fields)
    }

    pub(super) fn read_fields(&self, exchange: &Exchange, fields: &Fields) -> Result<(), Rejection> {
        let settings = &exchange.view.snapshot.rules.settings;
        let (peer, trusted) = (exchange.connection.address(), trusts(&exchange.view, &exchange.connection));
        let client = forwarding::client_address(fields, peer, trusted, &settings.trusted_proxies);
        exchange.client.set(client.map_err(|_| Reason::BadRequest)?);
        exchange.upgrade.set(fields.has("upgrade"));
        exchange.method_override.set(forwarding::method_override(fields));
        if trusted {
            let hosts = forwarding::stated_hosts(fields);
            exchange.stated_hosts.set(hosts).expect("an exchange is authorized once");
        }
        let host = exchange.host.get().and_then(|host| host.field());
        if let Some(destination) = Destination::from_fields(fields, host) {
            exchange.destination.set(destination).expect("an exchange is authorized once");
        }
        let imports = self.state().index().imported() > 0;
        exchange.credential.set(Credential::from_fields(fields, settings.perm_alias, imports));
        Ok(())
    }

    /// Asks the pure core, with what the client sent and what the state knows now.
    pub(super) fn decide<R>(
        &self,
        view: &View,
        exchange: &Exchange,
        now: Timestamp,
        then: impl FnOnce(Result<Permit<'_>, Denial<'_>>) -> R,
    ) -> R {
        let query = exchange.query();
        let decide = |token: Option<&Token>| {
            if let Some(token) = token {
                exchange.token.set(Some(token.id));
                exchange.user.set(Some(token.owner));
            }
            let facts = Facts {
                rules: &view.snapshot.rules,
                directory: &view.snapshot.directory,
                token,
                imports: self.state().index().imported() > 0,
                now,
            };
            then(decide::decide(&query, facts))
        };
        match query.credential.digest() {
            Some(digest) => self.state().index().with(digest, decide),
            None => decide(None),
        }
    }

    fn admit(
        &self,
        permit: Permit<'_>,
        exchange: &Rc<Exchange>,
        request: &mut Request<RequestBody>,
    ) -> Result<Passage, Rejection> {
        let service = permit.owner().service;
        exchange.service.set(Some(service.id));
        let limit = service.spec.max_body.or(exchange.view.settings.max_body);
        if limit.is_some_and(|limit| request.body.size_hint().lower() > limit) {
            return Err(Reason::BodyTooLarge.into());
        }
        let upstream = exchange.view.upstream(service.id).ok_or(Reason::UpstreamUnavailable)?;
        let protocols = exchange.upgrade.get().then(|| upgrade::asked(request)).flatten();
        self.identify(&permit, exchange, &mut request.fields)?;
        if let Some(protocols) = protocols {
            upgrade::set(&mut request.fields, &protocols);
        }
        exchange.upload_limit.set(limit);
        Ok(Passage::enter(permit, Rc::clone(exchange), Rc::clone(upstream)))
    }

    /// Makes the fields those of a permitted request, which takes its place under the limits, and
    /// counts the use of its token.
    pub(super) fn identify(
        &self,
        permit: &Permit<'_>,
        exchange: &Exchange,
        fields: &mut Fields,
    ) -> Result<(), Rejection> {
        let service = permit.owner().service.id;
        let peer = exchange.connection.address();
        self.peers().with(peer, exchange.connection.secure, |peer| {
            let hop = Hop {
                peer,
                peer_trusted: trusts(&exchange.view, &exchange.connection),
                host: exchange.host.get().and_then(|host| host.field()),
                request_id: exchange.request_id.as_bytes(),
                destination: exchange.destination.get(),
            };
            forwarding::edit_request(fields, permit, &exchange.view.identities, &hop)
                .map_err(|_| Reason::IdentityTooLarge)
        })?;
        if let Some(limits) = exchange.view.limits(service) {
            let taken = limits.take(permit, exchange.client.get(), exchange.clock().now())?;
            exchange.taken.replace(Some(Box::new(taken)));
        }
        if let Some(claims) =
            Claims::of(permit, &exchange.view.snapshot.directory).map_err(|_| Reason::IdentityTooLarge)?
        {
            let assertion = self.vouch(&claims, exchange)?;
            fields.set(forwarding::ASSERTION, &assertion);
        }
        if let Some(subject) = permit.subject() {
            let one = Use { at: exchange.at, from: exchange.client.get(), service };
            self.uses().record(subject.digest, one);
        }
        Ok(())
    }

    fn vouch(&self, claims: &Claims<'_>, exchange: &Exchange) -> Result<HeaderValue, Reason> {
        let bound = Bound {
            method: exchange.method.as_str(),
            path: exchange.path(),
            request_id: exchange.request_id.as_str(),
            at: exchange.at,
        };
        self.keyring().sign(claims, &bound).map_err(|_| Reason::AssertionFailed)
    }

    pub(super) fn refuse_by(&self, denial: Denial<'_>, exchange: &Exchange) -> Rejection {
        exchange.service.set(denial.owner.map(|owner| owner.service.id));
        let client = exchange.client.get();
        if refusals::is_audited(denial.reason) {
            self.refusals().send(Refused {
                at: exchange.at,
                reason: denial.reason,
                token: exchange.token.get(),
                client,
                service: exchange.service.get(),
                request_id: exchange.request_id.as_str().to_owned(),
            });
        }
        if is_bad_token(denial.reason)
            && let Some(limit) = exchange.view.settings.bad_tokens
            && let Some(wait) = self.bad_tokens().count(client, limit, exchange.clock().now())
        {
            return Rejection::too_many(wait);
        }
        denial.into()
    }
}

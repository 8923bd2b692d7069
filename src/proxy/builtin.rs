//! The gateway's own routes on the proxy listener: the paths under the reserved prefix, which belong to no
//! service and are never forwarded.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use crate::{
    authz::{
        decide::{Credential, Denial, Permit, Query},
        forwarding,
        reason::Reason,
        rules::{BUILT_IN_SERVICE, BuiltinRoute},
        subject::Subject,
        time::Timestamp,
    },
    net::RequestBody,
    proxy::{
        Gateway, body::ResponseBody, context::RequestContext, permitted::LogGuard, rejection::Rejection,
        request_id::RequestId, worker_state::WorkerState,
    },
    store::{AdminError, ChangeError},
};

pub use exchange::Issuers;
pub use whoami::{Issuing, TokenLookup};

mod auth;
mod exchange;
mod form;
mod forwarded_request;
mod jwks;
mod registry;
mod rotate;
mod whoami;

/// Where clients of a container registry get a token.
pub const REGISTRY_PATH: &str = "/.permgate/registry";

type BuiltinResponse = Result<Response<Bytes>, Rejection>;

impl Gateway {
    pub(super) async fn respond_builtin(
        self: &Rc<Self>,
        route: BuiltinRoute,
        context: Rc<RequestContext>,
        readable: Result<(), Reason>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, (Rejection, LogGuard)> {
        let (guard, result) = match (route, context.state.snapshot.proxy.forward_auth) {
            (BuiltinRoute::Auth, Some(proxy)) => {
                let (context, result) = self.forward_auth(proxy, context, &request);
                (LogGuard::new(context), result)
            }
            _ => {
                // The guard comes first, so that a request whose client leaves meanwhile is logged too.
                self.set_builtin_service(&context);
                let guard = LogGuard::new(Rc::clone(&context));
                let result = match (readable, route) {
                    (Err(reason), _) => Err(reason.into()),
                    (Ok(()), BuiltinRoute::Whoami) => self.whoami(&context).await,
                    (Ok(()), BuiltinRoute::Jwks) => self.jwks(&context),
                    (Ok(()), BuiltinRoute::Registry) => self.registry(&context, request).await,
                    (Ok(()), BuiltinRoute::Rotate) => self.rotate(&context).await,
                    (Ok(()), BuiltinRoute::Token) => self.exchange(&context, request).await,
                    (Ok(()), BuiltinRoute::Auth | BuiltinRoute::Unknown) => self.not_found(&context),
                };
                // A denial has set the owner of the path.
                self.set_builtin_service(&context);
                (guard, result)
            }
        };
        match result {
            Ok(response) => {
                let outcome = &guard.context().outcome;
                outcome.reason.set(Some(Reason::Answered));
                outcome.status.set(response.status().as_u16());
                Ok(response.map(|text| ResponseBody::text(text, guard)))
            }
            Err(rejection) => Err((rejection, guard)),
        }
    }

    /// Attributes the request to the built-in service in the log.
    fn set_builtin_service(&self, context: &RequestContext) {
        let service = context.state.snapshot.rules.service_by_key(BUILT_IN_SERVICE);
        context.outcome.service.set(service.map(|service| service.id));
    }

    /// 404 for an authenticated client.
    fn not_found(&self, context: &RequestContext) -> BuiltinResponse {
        self.authenticate(&context.state, context, context.at, |_| ()).and(Err(Reason::NoService.into()))
    }

    /// Runs steps 1 to 5 of the decision. No service owns a path under the prefix, so the
    /// decision on a valid token ends at step 6 with `NoService`.
    fn authenticate<R>(
        &self,
        state: &WorkerState,
        context: &RequestContext,
        now: Timestamp,
        then: impl FnOnce(Subject<'_>) -> R,
    ) -> Result<R, Rejection> {
        self.decide(state, context, now, |decided| self.subject(decided, context, then))
    }

    /// Like [`Self::authenticate`], but with the given credential instead of the request's own.
    fn authenticate_as<R>(
        &self,
        credential: Credential,
        context: &RequestContext,
        then: impl FnOnce(Subject<'_>) -> R,
    ) -> Result<R, Rejection> {
        let state = &context.state;
        let query = Query { credential, ..context.query(&state.snapshot.rules) };
        self.decide_query(&query, state, context, context.at, |decided| self.subject(decided, context, then))
    }

    /// Runs steps 1 to 3 of the decision, for a route that takes its credential from the body.
    fn check_target(&self, context: &RequestContext) -> Result<(), Rejection> {
        match self.authenticate_as(Credential::Missing, context, |_| ()) {
            Err(rejection) if rejection.reason == Reason::MissingCredentials => Ok(()),
            other => other,
        }
    }

    fn subject<R>(
        &self,
        decided: Result<Permit<'_>, Denial<'_>>,
        context: &RequestContext,
        then: impl FnOnce(Subject<'_>) -> R,
    ) -> Result<R, Rejection> {
        match decided {
            Err(Denial { reason: Reason::NoService, subject: Some(subject), .. }) => Ok(then(subject)),
            Err(denial) => Err(self.deny(denial, context)),
            // Unreachable, because no rule can own the prefix. Responds with 404 anyway.
            Ok(_) => Err(Reason::NoService.into()),
        }
    }
}

/// The rejection of a token that could not be created. `refused` maps an error that is the client's.
fn not_issued(error: ChangeError, refused: impl FnOnce(AdminError) -> Rejection) -> Rejection {
    match error {
        ChangeError::Refused(refusal) => refused(refusal),
        error => {
            tracing::error!(%error, "failed to make a token");
            Reason::StoreUnavailable.into()
        }
    }
}

/// A JSON response with `Cache-Control: no-store`.
fn json(body: &serde_json::Value, request_id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{body}\n")));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    forwarding::set_request_id(headers, request_id.as_bytes());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_literal_prefix_is_reserved() {
        fn check(path: &str, expected: Option<BuiltinRoute>) {
            assert_eq!(BuiltinRoute::of(path), expected, "{path}");
        }
        check("/.permgate/whoami", Some(BuiltinRoute::Whoami));
        check("/.permgate/jwks.json", Some(BuiltinRoute::Jwks));
        check("/.permgate/registry", Some(BuiltinRoute::Registry));
        check("/.permgate/rotate", Some(BuiltinRoute::Rotate));
        check("/.permgate/token", Some(BuiltinRoute::Token));
        check("/.permgate/tokens", Some(BuiltinRoute::Unknown));
        check("/.permgate/registry/", Some(BuiltinRoute::Unknown));
        check("/.permgate/auth", Some(BuiltinRoute::Auth));
        check("/.permgate/auth/", Some(BuiltinRoute::Auth));
        check("/.permgate/auth/api/x", Some(BuiltinRoute::Auth));
        check("/.permgate/authx", Some(BuiltinRoute::Unknown));
        check("/.permgate", Some(BuiltinRoute::Unknown));
        check("/.permgate/", Some(BuiltinRoute::Unknown));
        check("/.permgate/whoami/", Some(BuiltinRoute::Unknown));
        check("/.permgate/whoamI", Some(BuiltinRoute::Unknown));
        check("/.permgate/who%61mi", Some(BuiltinRoute::Unknown));
        check("/.permgate//whoami", Some(BuiltinRoute::Unknown));
        check("/.permgatex", None);
        check("/.permgate;x/whoami", None);
        check("/.Permgate/whoami", None);
        check("/x/.permgate/whoami", None);
        check("//.permgate/whoami", None);
        check("", None);
    }
}

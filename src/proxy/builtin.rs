//! The gateway's own routes on the proxy listener: the paths under the reserved prefix, which belong to no
//! service and are never forwarded. Public keys and rotation are here.

use std::{collections::HashMap, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use crate::{
    authz::{
        decide::{Credential, Denial, Permit, Query},
        forwarding,
        reason::Reason,
        rules::{BUILT_IN_SERVICE, BuiltinRoute},
        subject::{Permission, Subject, TokenEnd},
        time::Timestamp,
    },
    net::{RequestBody, RequestError},
    proxy::{
        Gateway,
        body::{ResponseBody, body_error},
        context::RequestContext,
        facts::RequestId,
        permitted::LogGuard,
        rejection::Rejection,
        worker_state::WorkerState,
    },
    store::{AdminError, ChangeError},
};

pub use exchange::Issuers;
pub use whoami::{Issuing, TokenLookup};

mod auth;
mod exchange;
mod forwarded_request;
mod registry;
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
        let (guard, result) = match (route, context.state().snapshot.proxy.forward_auth) {
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
        let service = context.rules.service_by_key(BUILT_IN_SERVICE);
        context.outcome.service.set(service.map(|service| service.id));
    }

    /// 404 for an authenticated client.
    fn not_found(&self, context: &RequestContext) -> BuiltinResponse {
        self.authenticate(&context.state(), context, context.at, |_| ()).and(Err(Reason::NoService.into()))
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
        let query = context.query(&state.snapshot.rules);
        self.decide(&query, state, context, now, |decided| self.subject(decided, context, then))
    }

    /// Like [`Self::authenticate`], but with the given credential instead of the request's own.
    fn authenticate_as<R>(
        &self,
        credential: Credential,
        state: &WorkerState,
        context: &RequestContext,
        now: Timestamp,
        then: impl FnOnce(Subject<'_>) -> R,
    ) -> Result<R, Rejection> {
        let query = Query { credential, ..context.query(&state.snapshot.rules) };
        self.decide(&query, state, context, now, |decided| self.subject(decided, context, then))
    }

    /// Runs steps 1 to 3 of the decision, for a route that takes its credential from the body.
    fn check_target(&self, context: &RequestContext) -> Result<(), Rejection> {
        match self.authenticate_as(Credential::Missing, &context.state(), context, context.at, |_| ()) {
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
            Err(Denial { reason: Reason::NoService, subject: Some(subject), .. }) => {
                context.connection.set_permitted();
                Ok(then(subject))
            }
            Err(denial) => Err(self.deny(denial, context)),
            // Unreachable, because no rule can own the prefix. Responds with 404 anyway.
            Ok(_) => Err(Reason::NoService.into()),
        }
    }

    /// Needs no token and ignores one. If no assertions are signed, this is an unknown route.
    fn jwks(&self, context: &RequestContext) -> BuiltinResponse {
        let Some(jwks) = self.parts.keyring.jwks() else { return self.not_found(context) };
        if !matches!(context.method, Method::GET | Method::HEAD) {
            return Err(Rejection::method_not_allowed("GET, HEAD"));
        }
        let mut response = Response::new(jwks.body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(header::CACHE_CONTROL, jwks.caching);
        headers.insert(forwarding::REQUEST_ID, context.request_id.value().clone());
        Ok(response)
    }

    /// Accepts a bearer token only, whatever other carriers the host's services accept. The new token has the
    /// same scope and expiry; the old one stays valid for its grace period.
    async fn rotate(&self, context: &Rc<RequestContext>) -> BuiltinResponse {
        if !context.state().snapshot.proxy.self_rotation {
            return self.not_found(context);
        }
        let may_rotate = |subject: Subject<'_>| {
            let is_active = subject.token.restrictions.end == TokenEnd::None;
            let may = subject.user.permissions.contains(Permission::UpdateSelf);
            (subject.user.id.to_string(), subject.token.id, is_active, may)
        };
        let (credential, state) = (context.facts.credential, context.state());
        let (owner, id, is_active, may) =
            self.authenticate_as(credential, &state, context, context.at, may_rotate)?;
        if context.method != Method::POST {
            return Err(Rejection::method_not_allowed("POST"));
        }
        if !is_active {
            return Err(Reason::TokenRotated.into());
        }
        if !may {
            return Err(Reason::RotationDenied.into());
        }
        let request_id = context.request_id.as_str().to_owned();
        let made = self.parts.records.rotate(owner, id, context.facts.client, request_id).await;
        let made = made.map_err(|error| {
            not_issued(error, |refusal| {
                let reason = Reason::RotationDenied;
                Rejection::described(reason, refusal.status(), refusal.code.word(), refusal.message)
            })
        })?;
        let Some(text) = made.text else { return Err(Reason::StoreUnavailable.into()) };
        let record = made.record;
        let body = json!({
            "token": text.expose(),
            "id": record.id.as_str(),
            "name": record.name,
            "expires_at": record.expires_at.and_then(|at| at.rfc3339(3)),
            "replaces": id.as_str(),
        });
        let mut response: Response<_> = json_response(&body, &context.request_id);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
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
fn json_response(body: &serde_json::Value, request_id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{body}\n")));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(forwarding::REQUEST_ID, request_id.value().clone());
    response
}

/// In bytes. Identity providers' tokens that list groups have several thousand.
const MAX_FORM: usize = 64 << 10;
/// For the whole form. `server.timeouts.body` limits the pauses in it.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the fields of an `application/x-www-form-urlencoded` body. A repeated field is
/// an error (RFC 6749, section 3.2).
async fn read_form(
    request: Request<RequestBody>,
    context: &Rc<RequestContext>,
) -> Result<HashMap<String, String>, Rejection> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next()).unwrap_or_default();
    if !kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        return Err(RequestError::BadRequest("the body must be application/x-www-form-urlencoded").into());
    }
    let body = Limited::new(request.into_body(), MAX_FORM).collect();
    let body = context.clock().timeout(FORM_TIMEOUT, body).await;
    let body = body.map_err(|_| Reason::RequestTimeout)?.map_err(|error| body_error(&error))?.to_bytes();
    let received = &context.outcome.bytes_in;
    received.set(received.get() + body.len() as u64);
    let mut form = HashMap::new();
    for (name, value) in form_urlencoded::parse(&body) {
        if form.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(RequestError::BadRequest("a field of the form is repeated").into());
        }
    }
    Ok(form)
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

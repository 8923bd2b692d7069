//! `/.permgate/registry`: where clients of a container registry exchange a login's user name and password for
//! a bearer token (the distribution project's "Token Authentication"). The password is a permgate token and
//! is returned as the bearer token; each request with it is decided like any other.

use std::rc::Rc;

use http::{HeaderMap, Method, Request};
use serde_json::json;

use super::{BuiltinResponse, json_response, read_form};
use crate::{
    authz::{
        carriers::{self, Carrier},
        reason::Reason,
        secret::Bearer,
    },
    net::RequestBody,
    proxy::{Gateway, context::RequestContext, rejection::Rejection},
};

/// How many seconds a client may use the bearer token before it must ask again; the specification requires at
/// least 60. If the token expires earlier, it is denied from then on.
const EXPIRES_IN_SECONDS: i64 = 300;

impl Gateway {
    /// If no service of the host is a registry, this is an unknown route.
    pub(super) async fn registry(
        &self,
        context: &Rc<RequestContext>,
        request: Request<RequestBody>,
    ) -> BuiltinResponse {
        if !context.rules.carriers_on(context.facts.host_name()).is_some_and(|on_host| on_host.registry) {
            return self.not_found(context);
        }
        let text = match context.method {
            Method::GET | Method::HEAD => self.password(context, request.headers()),
            // The OAuth 2.0 form, which some clients try first.
            Method::POST => {
                // Steps 1 to 3 come before the body is read.
                self.check_target(context)?;
                let form = read_form(request, context).await?;
                let grant = form.get("grant_type").map_or("", String::as_str);
                let field = if grant == "refresh_token" { "refresh_token" } else { "password" };
                form.get(field).cloned()
            }
            _ => {
                self.check_target(context)?;
                return Err(Rejection::method_not_allowed("GET, HEAD, POST"));
            }
        };
        // By the current state and time: much may have changed while the body was being read.
        let (state, now) = (self.worker_state(), context.clock().wall());
        let imports = self.parts.state.index().imported() > 0;
        let perm_alias = state.snapshot.rules.settings.perm_alias;
        let credential = carriers::from_password(text.as_deref(), perm_alias, imports);
        let ends = self.authenticate_as(credential, &state, context, now, |s| s.token.expires_at)?;
        let Some(text) = text else { return Err(Reason::MissingCredentials.into()) };
        let left = ends.map_or(EXPIRES_IN_SECONDS, |end| (end.as_millis() - now.as_millis()) / 1000);
        let body = json!({
            "token": text,
            "access_token": text,
            "expires_in": left.clamp(1, EXPIRES_IN_SECONDS),
            "issued_at": now.rfc3339(0),
        });
        Ok(json_response(&body, &context.request_id))
    }

    /// The password of the request's Basic credential, as sent.
    fn password(&self, context: &RequestContext, headers: &HeaderMap) -> Option<String> {
        let counts = context.facts.carried.iter().any(|one| one.counts && one.carrier == Carrier::Basic);
        let password = if counts { carriers::password(headers) } else { None };
        // Clients accept only a bearer token without spaces; a browser's password is not a permgate token.
        password.filter(|text| Bearer::parse(text).is_some())
    }
}

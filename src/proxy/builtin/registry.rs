//! `/.permgate/registry`: where the clients of a container registry trade the user name and password of a
//! login for a bearer ("Token Authentication" of the distribution project). The password is a permgate
//! token, and so is the bearer: the same one, which is judged at each request like any other.

use std::rc::Rc;

use http::{HeaderMap, Method, Request};
use serde_json::json;

use super::{Answer, form, json};
use crate::{
    authz::{
        answer::Reason,
        carriers::{self, Carrier},
        secret::Bearer,
        time::Timestamp,
    },
    net::RequestBody,
    proxy::{Gateway, context::RequestContext, rejection::Rejection},
};

/// How long a client may keep the bearer before it asks again; at least 60 by the specification. The token
/// itself may end sooner, and is refused from then on.
const EXPIRES_IN: i64 = 300;

impl Gateway {
    /// Where no service of the host is a registry there is nothing here.
    pub(super) async fn registry(
        &self,
        context: &Rc<RequestContext>,
        request: Request<RequestBody>,
    ) -> Answer {
        let rules = &context.state.snapshot.rules;
        if !rules.carriers_on(context.facts.host_name()).is_some_and(|on_host| on_host.registry) {
            return self.unknown(context);
        }
        let text = match context.method {
            Method::GET | Method::HEAD => self.password(context, request.headers()),
            // OAuth 2.0, as some clients try first.
            Method::POST => {
                // Rows 1 to 3 before anything is read.
                self.judge_target(context)?;
                let form = form::read(request, context).await?;
                let grant = form.get("grant_type").map_or("", String::as_str);
                let field = if grant == "refresh_token" { "refresh_token" } else { "password" };
                form.get(field).cloned()
            }
            _ => {
                self.judge_target(context)?;
                return Err(Rejection::method_not_allowed("GET, HEAD, POST"));
            }
        };
        let settings = &rules.settings;
        let imports = self.parts.state.index().imported() > 0;
        let credential = carriers::typed(text.as_deref(), settings.perm_alias, imports);
        let ends = self.authenticate_as(credential, context, |subject| subject.token.expires_at)?;
        let Some(text) = text else { return Err(Reason::MissingCredentials.into()) };
        let now = context.at;
        let left = ends.map_or(EXPIRES_IN, |end| (end.as_millis() - now.as_millis()) / 1000);
        let body = json!({
            "token": text,
            "access_token": text,
            "expires_in": left.clamp(1, EXPIRES_IN),
            "issued_at": time(now),
        });
        Ok(json(&body, &context.request_id))
    }

    /// The password of a Basic credential that counts, as it was sent.
    fn password(&self, context: &RequestContext, headers: &HeaderMap) -> Option<String> {
        let counts = context.facts.carried.iter().any(|carried| carried.carrier == Carrier::Basic);
        let password = if counts { carriers::password(headers) } else { None };
        // No client takes a bearer that is no word; a browser's password is none of ours.
        password.filter(|text| Bearer::parse(text).is_some())
    }
}

fn time(at: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.as_millis()).ok().map(|at| format!("{at:.0}"))
}

//! `/.permgate/rotate`: a token replaces itself, for pipelines that cannot reach the admin listener.

use std::rc::Rc;

use http::{Method, Response, StatusCode};
use serde_json::json;

use super::{BuiltinResponse, json, not_issued};
use crate::{
    authz::{
        reason::Reason,
        subject::{Permission, Subject, TokenEnd},
    },
    proxy::{Gateway, context::RequestContext, rejection::Rejection},
};

impl Gateway {
    /// Accepts a bearer token only, whatever other carriers the host's services accept. The new token has the
    /// same scope and expiry; the old one stays valid for its grace period.
    pub(super) async fn rotate(&self, context: &Rc<RequestContext>) -> BuiltinResponse {
        if !context.state.snapshot.proxy.self_rotation {
            return self.not_found(context);
        }
        let may_rotate = |subject: Subject<'_>| {
            let is_active = subject.token.end == TokenEnd::None;
            let may = subject.user.permissions.contains(Permission::UpdateSelf);
            (subject.user.id.to_string(), subject.token.id, is_active, may)
        };
        let (owner, id, is_active, may) =
            self.authenticate_as(context.facts.credential, context, may_rotate)?;
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
        let mut response: Response<_> = json(&body, &context.request_id);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }
}

//! `/.permgate/whoami`: returns a token's account, its scope and the services that it reaches now.

use std::{net::IpAddr, pin::Pin, rc::Rc, sync::Arc};

use http::Method;
use serde_json::{Value, json};

use super::{BuiltinResponse, json_response};
use crate::{
    authz::{
        decide,
        reason::Reason,
        rules::{BUILT_IN_SERVICE, Identity, Service},
        secret::TokenId,
        subject::{Access, Directory, Subject},
    },
    proxy::{
        Gateway, context::RequestContext, last_used::Use, rejection::Rejection, worker_state::WorkerState,
    },
    store::{
        Actor, ActorKind, ChangeError, CreatedToken, ExchangedToken, ReadError, Store,
        model::{TokenRecord, UserId, UserKind},
    },
};

/// Access to the token records in the store, which the in-memory index does not have.
pub trait TokenLookup: Send + Sync {
    /// Returns the record and the kind of its owner. May block.
    fn find(&self, token: TokenId) -> Result<Option<(TokenRecord, UserKind)>, ReadError>;

    /// Replaces a token by one of the same scope and owner, for a request from this address.
    fn rotate(&self, _owner: UserId, _token: TokenId, _client: IpAddr, _request_id: String) -> Issuing<'_> {
        Box::pin(async { Err(ChangeError::Closed("there is no store".to_owned())) })
    }

    /// Creates a token with this id in exchange for an issuer's token.
    fn exchange(&self, _id: TokenId, _new: ExchangedToken) -> Issuing<'_> {
        Box::pin(async { Err(ChangeError::Closed("there is no store".to_owned())) })
    }
}

/// A token that is being created.
pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<CreatedToken, ChangeError>> + 'a>>;

impl TokenLookup for Store {
    fn find(&self, token: TokenId) -> Result<Option<(TokenRecord, UserKind)>, ReadError> {
        let Some(record) = self.token(token)? else { return Ok(None) };
        let kind = self.accounts().user_by_id(&record.owner).map(|owner| owner.record.kind);
        Ok(kind.map(|kind| (record, kind)))
    }

    fn rotate(&self, owner: UserId, token: TokenId, client: IpAddr, request_id: String) -> Issuing<'_> {
        let (client, request_id) = (Some(client), Some(request_id));
        let actor = Actor { client, request_id, ..Actor::new(ActorKind::User(owner)) };
        Box::pin(self.rotate_itself(actor, token))
    }

    fn exchange(&self, id: TokenId, new: ExchangedToken) -> Issuing<'_> {
        Box::pin(self.exchange_token(id, new))
    }
}

impl Gateway {
    pub(super) async fn whoami(&self, context: &Rc<RequestContext>) -> BuiltinResponse {
        let token = self.authenticate(&context.state(), context, context.at, |s| s.token.id)?;
        if !matches!(context.method, Method::GET | Method::HEAD) {
            return Err(Rejection::method_not_allowed("GET, HEAD"));
        }
        let records = Arc::clone(&self.parts.records);
        let found = tokio::task::spawn_blocking(move || records.find(token)).await;
        let found =
            found.map_err(|error| error.to_string()).and_then(|found| found.map_err(|e| e.to_string()));
        let found = found.inspect_err(|error| tracing::error!(%error, "failed to read a token's record"));
        // There is always one, because a record is written before its token enters the index.
        let Ok(Some((record, kind))) = found else { return Err(Reason::StoreUnavailable.into()) };
        // Decide again by the current state, because a revocation may have completed during the read.
        let (state, now) = (self.worker_state(), context.clock().wall());
        let body = self.authenticate(&state, context, now, |subject| {
            if let Some(service) = state.snapshot.rules.service_by_key(BUILT_IN_SERVICE) {
                let one = Use { at: now, from: context.facts.client, service: service.id };
                self.uses.record(subject.digest, one);
            }
            render(subject, &record, kind, &state)
        })?;
        Ok(json_response(&body, &context.request_id))
    }
}

fn render(subject: Subject<'_>, record: &TokenRecord, kind: UserKind, state: &WorkerState) -> Value {
    let (rules, directory) = (&state.snapshot.rules, &state.snapshot.directory);
    let Subject { token, user, .. } = subject;
    // Access comes from the index, as in the decision. The record has the keys, also of removed services.
    let scope: Vec<(&str, Option<&Service>, Access)> = record
        .scope
        .iter()
        .filter_map(|(key, access)| match rules.service_by_key(key) {
            Some(service) => Some((key.as_str(), Some(service), token.scope.access(service.id)?)),
            None => Some((key.as_str(), None, *access)),
        })
        .collect();
    let entries = scope.iter().map(|(key, _, access)| json!({"service": key, "access": access.word()}));
    let services = scope.iter().map(|(key, service, access)| match service {
        Some(service) => of_service(subject, service, *access, directory),
        None => describe_unreachable(key, *access, Reason::NoService, "There is no service of this name"),
    });
    json!({
        "user": {
            "login": &*user.login,
            "id": &*user.id,
            "kind": kind.word(),
        },
        "token": {
            "id": token.id.as_str(),
            "name": record.name,
            "expires_at": token.expires_at.and_then(|at| at.rfc3339(3)),
            "grace_until": token.restrictions.end.grace_until().and_then(|at| at.rfc3339(3)),
            "scope": entries.collect::<Vec<_>>(),
        },
        "services": services.collect::<Vec<_>>(),
    })
}

/// Title, paths and groups are shown only for a service that the account may read.
fn of_service(subject: Subject<'_>, service: &Service, access: Access, directory: &Directory) -> Value {
    let spec = &service.spec;
    match decide::authorize(&subject, service, access == Access::Read) {
        Err(reason) => {
            describe_unreachable(spec.key.as_str(), access, reason, &reason.details(None).description)
        }
        Ok(()) => {
            let shown = service.identity_groups().iter().filter(|_| spec.identity != Identity::None);
            let groups: Vec<&String> = shown.filter(|group| subject.user.is_in(group, directory)).collect();
            json!({
                "service": spec.key.as_str(),
                "title": spec.title,
                "access": access.word(),
                "reachable": true,
                "hosts": spec.hosts,
                "paths": spec.paths,
                "groups": groups,
            })
        }
    }
}

fn describe_unreachable(key: &str, access: Access, reason: Reason, why: &str) -> Value {
    json!({
        "service": key,
        "access": access.word(),
        "reachable": false,
        "reason": reason.code(),
        "description": why,
    })
}

//! `/v1/live`: lists the requests in flight, and cuts one of them. A request on the admin listener is in the
//! same registry: every change but its own reauthorizes it.

use std::{cell::Cell, rc::Rc, time::Instant};

use axum::extract::Path;
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    authenticate::RequestCredentials,
    caller::Identity,
    offload::READS,
    shares::RequestShare,
    wire::{Page, ok},
};
use crate::{
    authz::{
        reason::Reason,
        rules::BUILT_IN_SERVICE,
        secret,
        subject::{Directory, Permission},
        time::Timestamp,
    },
    fence::{self, Affected, LiveRow},
    net::Connection,
};

/// A permitted request, stream or tunnel in flight.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Live)]
pub struct LiveView {
    pub id: String,
    pub request_id: String,
    pub token: Option<String>,
    /// Login.
    pub user: Option<String>,
    pub service: String,
    pub method: String,
    pub path: String,
    pub client: String,
    pub age_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

pub async fn list(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    let mut rows = context.fence.list().await;
    let directory = context.state.snapshot().directory.clone();
    let read = move || {
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        let items = rows.into_iter().map(|row| LiveView::new(&directory, row)).collect();
        ok(&Page { items, next: None })
    };
    READS.run(read).await
}

pub async fn cut(context: Context, caller: Caller, Path(id): Path<String>) -> ApiResult {
    caller.require(Permission::AdminWrite)?;
    let gone = || Problem::not_found("request in flight");
    // The audit event needs the row, which is gone after the cut.
    let row = context.fence.list().await.into_iter().find(|row| row.id == id).ok_or_else(gone)?;
    let actor = caller.actor();
    // The list took a moment, and from here on no fence stops this request.
    caller.require(Permission::AdminWrite)?;
    if !context.fence.cut(&id).await? {
        return Err(gone());
    }
    tracing::info!(live = id, by = caller.name(), "a request was cut");
    context.store.record_cut(actor, row).await?;
    Ok(ok(&json!({"cut": 1})))
}

impl LiveView {
    pub(super) fn new(directory: &Directory, row: LiveRow) -> Self {
        let user = row.user.and_then(|ix| directory.user(ix));
        Self {
            id: row.id,
            request_id: row.request_id,
            token: row.token.map(|token| token.to_string()),
            user: user.map(|user| user.login.to_string()),
            service: row.service,
            method: row.method,
            path: row.path,
            client: row.client.to_string(),
            age_ms: u64::try_from(row.age.as_millis()).unwrap_or(u64::MAX),
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
        }
    }
}

pub(super) struct LiveRequest {
    pub context: Context,
    pub credentials: RequestCredentials,
    pub caller: Caller,
    /// Of the caller's account.
    pub share: Option<RequestShare>,
    /// When the credentials expire by time alone; a change may bring it forward.
    pub deadline: Cell<Option<Timestamp>>,
    pub connection: Rc<Connection>,
    pub method: Method,
    pub uri: Uri,
    pub began: Instant,
    /// The connection's bytes in and out when the request began.
    pub bytes: (u64, u64),
}

impl LiveRequest {
    /// Keeps the request's connection although others need room and the account has its share.
    pub fn keep_when_full(&self) {
        if let Some(share) = &self.share {
            share.keep_when_full(&self.connection);
        }
    }
}

impl fence::Revocable for LiveRequest {
    fn affected_by(&self, affected: &Affected) -> bool {
        let Some(user) = self.caller.account() else { return false };
        match (affected, &self.caller.identity) {
            (Affected::Token(other), Identity::Bearer { digest, .. }) => other == digest,
            (Affected::Token(_), _) => false,
            (Affected::User(ix), _) => *ix == user.ix,
            (Affected::All, _) => true,
        }
    }

    fn reauthorize(&self) -> Result<(), Reason> {
        if self.caller.revalidation.is_changing() {
            return Ok(());
        }
        if self.connection.is_withdrawn() {
            return Err(Reason::Misdirected);
        }
        let authenticated = self
            .credentials
            .verify(&self.context, &self.connection.peer)
            .map_err(|refused| refused.reason)?;
        if self.caller.revalidation.is_covered(&authenticated.identity) {
            self.deadline.set(authenticated.deadline);
            Ok(())
        } else {
            Err(Reason::ReadServiceDenied)
        }
    }

    fn cut(&self, reason: Reason) {
        let request_id = &*self.caller.request_id;
        tracing::info!(request_id, reason = reason.code(), "an admin request was cut");
        self.connection.abort();
    }

    fn row(&self) -> LiveRow {
        let (token, user) = match &self.caller.identity {
            Identity::Operator => (None, None),
            Identity::Bearer { token, user, .. } => (Some(*token), Some(user.ix)),
            Identity::Browser { user, .. } => (None, Some(user.ix)),
        };
        LiveRow {
            id: String::new(),
            request_id: self.caller.request_id.to_string(),
            token,
            user,
            service: BUILT_IN_SERVICE.to_owned(),
            method: self.method.to_string(),
            path: secret::redact(self.uri.path()).into_owned(),
            client: self.caller.client,
            age: self.began.elapsed(),
            bytes_in: self.connection.bytes_in().saturating_sub(self.bytes.0),
            bytes_out: self.connection.bytes_out().saturating_sub(self.bytes.1),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.deadline.get().into_iter().chain(self.connection.client_expires_at()).min()
    }
}

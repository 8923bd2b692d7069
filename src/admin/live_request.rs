//! A request on the admin listener in the live registry: every change but its own reauthorizes it.

use std::{rc::Rc, time::Instant};

use http::{Method, Uri};

use super::{Caller, Context, authenticate::RequestCredentials, caller::Identity};
use crate::{
    authz::{reason::Reason, rules::BUILT_IN_SERVICE, secret, time::Timestamp},
    fence::{self, Affected, LiveRow},
    net::Connection,
};

pub(super) struct LiveRequest {
    pub context: Context,
    pub credentials: RequestCredentials,
    pub caller: Caller,
    pub deadline: Option<Timestamp>,
    pub connection: Rc<Connection>,
    pub method: Method,
    pub uri: Uri,
    pub began: Instant,
    /// The connection's bytes in and out when the request began.
    pub bytes: (u64, u64),
}

impl fence::Revocable for LiveRequest {
    fn affected_by(&self, affected: &Affected) -> bool {
        let Some(user) = self.caller.user() else { return false };
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
        match authenticated.identity {
            Identity::Bearer { user, .. } | Identity::Browser { user, .. }
                if !self.caller.revalidation.is_covered(user.permissions) =>
            {
                Err(Reason::ReadServiceDenied)
            }
            Identity::Bearer { .. } | Identity::Browser { .. } | Identity::Operator => Ok(()),
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
        self.deadline
    }
}

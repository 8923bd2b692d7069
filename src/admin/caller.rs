//! Who asks: the bearer of a token scoped to the admin listener, or the operator on the unix socket.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::Problem;
use crate::{
    authz::{
        answer::Reason,
        secret::{Digest, TokenId},
        subject::{Access, Permission, Permissions, User},
    },
    store::{Actor, Who},
};

/// Authenticated; what it may do is asked of it by every handler.
#[derive(Clone)]
pub struct Caller {
    pub identity: Identity,
    pub client: IpAddr,
    pub request_id: Arc<str>,
    /// Shared with the request's live entry.
    pub stake: Arc<Stake>,
}

#[derive(Clone)]
pub enum Identity {
    /// The peer of the unix socket: `admin-write`.
    Operator,
    Bearer {
        token: TokenId,
        digest: Digest,
        user: Arc<User>,
        /// What the token's scope grants on the admin listener.
        access: Access,
    },
}

/// What a request in flight stands on, judged again by every fence.
#[derive(Debug, Default)]
pub struct Stake {
    /// It asked for a change: it is exempt from the fence, its body has been read.
    changing: AtomicBool,
    /// Permissions that its answer needs, as bits.
    needed: AtomicU32,
}

impl Caller {
    /// For a verb that changes something. From here on the request is exempt from the fence, so
    /// that who revokes the token in hand gets an answer.
    pub fn actor(&self) -> Actor {
        self.stake.changing.store(true, Ordering::Release);
        let (who, parent) = match &self.identity {
            Identity::Operator => (Who::Operator, None),
            Identity::Bearer { token, user, .. } => (Who::User(user.id.to_string()), Some(*token)),
        };
        Actor { who, parent, request_id: Some(self.request_id.to_string()) }
    }

    pub fn may(&self, permission: Permission) -> bool {
        self.permissions().contains(permission)
    }

    pub fn permissions(&self) -> Permissions {
        match &self.identity {
            Identity::Operator => Permission::ALL.into_iter().collect(),
            Identity::Bearer { user, .. } => user.permissions,
        }
    }

    /// Holds the permission now, and as long as the answer flows.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        self.require_any(&[permission])
    }

    /// Holds one of them; the first one held is what the answer stands on.
    pub fn require_any(&self, permissions: &[Permission]) -> Result<(), Problem> {
        let Some(held) = permissions.iter().find(|permission| self.may(**permission)) else {
            let words: Vec<&str> = permissions.iter().map(|permission| permission.word()).collect();
            return Err(Problem::denied(format!("This needs the permission {}", words.join(" or "))));
        };
        self.stake.needed.fetch_or(1 << *held as u8, Ordering::AcqRel);
        Ok(())
    }

    /// `None`: the operator, who is no user.
    pub fn user(&self) -> Option<&Arc<User>> {
        match &self.identity {
            Identity::Operator => None,
            Identity::Bearer { user, .. } => Some(user),
        }
    }

    pub fn is(&self, user_id: &str) -> bool {
        self.user().is_some_and(|user| &*user.id == user_id)
    }

    /// The login that a path means: `me` is the caller.
    pub fn login(&self, written: &str) -> Result<String, Problem> {
        match (written, self.user()) {
            ("me", Some(user)) => Ok(user.login.to_string()),
            ("me", None) => Err(Problem::not_found("user: the operator is none")),
            _ => Ok(written.to_owned()),
        }
    }

    /// Whose name an idempotency key belongs to.
    pub fn name(&self) -> String {
        self.user().map_or_else(|| "operator".to_owned(), |user| format!("user:{}", user.id))
    }
}

impl Stake {
    pub fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Acquire)
    }

    /// Whether an account with these permissions may still be answered.
    pub fn is_covered(&self, permissions: Permissions) -> bool {
        let needed = self.needed.load(Ordering::Acquire);
        Permission::ALL.into_iter().filter(|p| needed >> (*p as u8) & 1 == 1).all(|p| permissions.contains(p))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Reason::MissingCredentials.answer(None).into())
    }
}

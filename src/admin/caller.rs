//! The caller of a request: a token's owner, a signed-in user, or the operator on the unix socket.
//! `/v1/whoami` shows who it is and what it may do.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering, fence},
    },
};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use serde_json::json;

use super::{ApiResult, Context, Problem, session::Csrf, tokens::TokenView, wire::ok};
use crate::{
    authz::{
        accounts::Account,
        reason::Reason,
        rules::BUILT_IN_SERVICE,
        secret::{Digest, TokenId},
        subject::{Access, Permission, Permissions, User},
    },
    state::State,
    store::{Actor, ActorKind},
};

/// An authenticated caller. Each handler checks the caller's permissions itself, by the state of that moment:
/// between the request's head and its handler, its body or its turn may have taken a while.
#[derive(Clone)]
pub struct Caller {
    /// As it was when the head had arrived: for who it is, not for what it may do.
    pub identity: Identity,
    pub state: Arc<State>,
    pub client: IpAddr,
    pub request_id: Arc<str>,
    /// Shared with the request's entry in the live registry.
    pub revalidation: Arc<Revalidation>,
}

/// Facts about every request, authenticated or not.
#[derive(Clone)]
pub struct RequestMeta {
    pub client: IpAddr,
    /// The browser uses TLS, to this listener or to a proxy in front of it.
    pub secure: bool,
    pub request_id: Arc<str>,
}

#[derive(Clone)]
pub enum Identity {
    /// The peer of the unix socket, with every permission.
    Operator,
    /// A browser: signed in here, or named by a trusted proxy.
    Browser {
        user: Arc<User>,
        /// `None`: named by a proxy.
        session: Option<Digest>,
        /// The token that every change repeats, because a browser sends its cookie for pages of any origin.
        csrf: Csrf,
    },
    Bearer {
        token: TokenId,
        digest: Digest,
        user: Arc<User>,
        /// What the token's scope grants on the admin listener.
        access: Access,
    },
}

/// What a response in flight depends on; every fence checks it again.
#[derive(Debug, Default)]
pub struct Revalidation {
    /// The request has begun a change: it is exempt from the fence, and its body has been read.
    changing: AtomicBool,
    /// Bit set of the permissions that the response depends on, and [`FULL_ACCESS`].
    needed: AtomicU32,
}

/// The response depends on a credential that may do more than list.
const FULL_ACCESS: u32 = 1 << 31;

impl Identity {
    fn permissions(&self) -> Permissions {
        match self {
            Self::Operator => Permission::ALL.iter().copied().collect(),
            Self::Bearer { user, .. } | Self::Browser { user, .. } => user.permissions,
        }
    }

    fn has_full_access(&self) -> bool {
        !matches!(self, Self::Bearer { access: Access::Read, .. })
    }
}

impl Caller {
    /// The actor of a change. From here on the request is exempt from the fence, so that a caller who revokes
    /// the token of this very request still gets a response.
    pub fn actor(&self) -> Actor {
        self.revalidation.changing.store(true, Ordering::SeqCst);
        self.as_actor()
    }

    /// As [`Caller::actor`], for an event beside a response that the fence may still cut.
    pub fn as_actor(&self) -> Actor {
        let kind = self.account().map_or(ActorKind::Operator, |user| ActorKind::User(user.id.to_string()));
        let client = self.account().map(|_| self.client);
        let parent = match &self.identity {
            Identity::Bearer { token, .. } => Some(*token),
            Identity::Operator | Identity::Browser { .. } => None,
        };
        let request_id = Some(self.request_id.to_string());
        Actor { kind, parent, session: self.session(), client, request_id }
    }

    pub fn may(&self, permission: Permission) -> bool {
        self.permissions().contains(permission)
    }

    /// Whether the caller holds any of the permissions.
    pub fn may_any(&self, permissions: &[Permission]) -> bool {
        permissions.iter().any(|permission| self.may(*permission))
    }

    /// What the caller may do now.
    pub fn permissions(&self) -> Permissions {
        match self.user() {
            None => self.identity.permissions(),
            Some(user) if user.banned || user.deleted => Permissions::default(),
            Some(user) => user.permissions,
        }
    }

    /// Requires the permission now, and while the response is being sent.
    pub fn require(&self, permission: Permission) -> ApiResult<()> {
        self.require_any(&[permission])
    }

    /// Requires any one of the permissions; the response then depends on the first one that the caller has.
    pub fn require_any(&self, permissions: &[Permission]) -> ApiResult<()> {
        let depends = |held: &&Permission| {
            // First the note, then the judgement: a change is seen by the one, or its fence sees the other.
            self.may(**held) && {
                self.revalidation.depend_on(1 << **held as u8);
                self.may(**held)
            }
        };
        if permissions.iter().any(|permission| depends(&permission)) {
            return Ok(());
        }
        let words: Vec<&str> = permissions.iter().map(|permission| permission.word()).collect();
        Err(Problem::denied(format!("This needs the permission {}", words.join(" or "))))
    }

    /// Requires a credential that may do more than list, now and while the response is being sent.
    pub fn require_full_access(&self) -> ApiResult<()> {
        self.revalidation.depend_on(FULL_ACCESS);
        if self.access() == Access::Read {
            return Err(Reason::ReadOnlyScope.details(Some(BUILT_IN_SERVICE)).into());
        }
        Ok(())
    }

    /// What the credential grants on the admin listener now.
    fn access(&self) -> Access {
        let Identity::Bearer { digest, .. } = &self.identity else { return Access::Full };
        // The snapshot before the index: a token must never be newer than the services.
        let snapshot = self.state.snapshot();
        let service = snapshot.rules.service_by_key(BUILT_IN_SERVICE).map(|service| service.id);
        self.state
            .index()
            .with(digest, |token| token.zip(service).and_then(|(token, service)| token.scope.access(service)))
            .unwrap_or(Access::Read)
    }

    /// The account as it is now; `None`: the operator, who has none.
    pub fn user(&self) -> Option<Arc<User>> {
        let began = self.account()?;
        // An account keeps its place.
        Some(self.state.snapshot().directory.user(began.ix).unwrap_or(began).clone())
    }

    /// The account as it was when the head had arrived.
    pub fn account(&self) -> Option<&Arc<User>> {
        match &self.identity {
            Identity::Operator => None,
            Identity::Bearer { user, .. } | Identity::Browser { user, .. } => Some(user),
        }
    }

    /// The session that authenticates the request.
    pub fn session(&self) -> Option<Digest> {
        match &self.identity {
            Identity::Browser { session, .. } => *session,
            Identity::Operator | Identity::Bearer { .. } => None,
        }
    }

    /// The CSRF token that the page repeats in each change.
    pub fn csrf(&self) -> Option<&Csrf> {
        match &self.identity {
            Identity::Browser { csrf, .. } => Some(csrf),
            Identity::Operator | Identity::Bearer { .. } => None,
        }
    }

    pub fn is(&self, user_id: &str) -> bool {
        self.account().is_some_and(|user| &*user.id == user_id)
    }

    /// Returns the account if it is the caller's own, or if the caller holds one of the permissions.
    pub fn visible<'a>(
        &self,
        account: Option<&'a Account>,
        permissions: &[Permission],
    ) -> ApiResult<&'a Account> {
        if !account.is_some_and(|account| self.is(&account.record.id)) {
            self.require_any(permissions)?;
        }
        account.ok_or_else(|| Problem::not_found("user"))
    }

    /// Resolves a login in a path; `me` is the caller.
    pub fn login(&self, written: &str) -> ApiResult<String> {
        match (written, self.user()) {
            ("me", Some(user)) => Ok(user.login.to_string()),
            ("me", None) => Err(Problem::new(
                http::StatusCode::NOT_FOUND,
                "not_found",
                "The operator socket has no account of its own: name a user by login",
            )),
            _ => Ok(written.to_owned()),
        }
    }

    /// The namespace of the caller's idempotency keys.
    pub fn name(&self) -> String {
        self.account().map_or_else(|| "operator".to_owned(), |user| format!("user:{}", user.id))
    }
}

/// For endpoints open to everybody; `None` is an anonymous request.
impl<S: Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Option<Self>> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

impl Revalidation {
    pub fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst)
    }

    /// What is judged after this sees each change whose fence does not see the bits.
    fn depend_on(&self, bits: u32) {
        self.needed.fetch_or(bits, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the caller may still receive the response.
    pub fn is_covered(&self, identity: &Identity) -> bool {
        fence(Ordering::SeqCst);
        let (needed, permissions) = (self.needed.load(Ordering::SeqCst), identity.permissions());
        let has_access = needed & FULL_ACCESS == 0 || identity.has_full_access();
        has_access
            && Permission::ALL
                .iter()
                .filter(|p| needed >> (**p as u8) & 1 == 1)
                .all(|p| permissions.contains(*p))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Reason::MissingCredentials.details(None).into())
    }
}

pub async fn whoami(context: Context, caller: Caller) -> ApiResult {
    let permissions: Vec<&str> = caller.permissions().iter().map(Permission::word).collect();
    let Some(user) = caller.user() else {
        return Ok(ok(&json!({"operator": true, "user": null, "permissions": permissions, "token": null})));
    };
    let rules = context.rules();
    let readable = rules.services().iter().filter(|service| user.readable.contains(service.id));
    let services: Vec<&str> = readable.map(|service| service.spec.key.as_str()).collect();
    let record = match &caller.identity {
        Identity::Bearer { token, .. } => context.store.token(*token)?,
        Identity::Browser { .. } | Identity::Operator => None,
    };
    Ok(ok(&json!({
        "operator": false,
        "user": &*user.login,
        "user_id": &*user.id,
        "permissions": permissions,
        "services": services,
        "access": caller.access().word(),
        "token": record.map(|record| TokenView::new(&context, record)),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::subject::{ServiceSet, UserIx};

    fn identity(access: Access, permission: Permission) -> Identity {
        let user = User {
            ix: UserIx(0),
            id: "u".into(),
            login: "ann".into(),
            banned: false,
            deleted: false,
            groups: Box::default(),
            permissions: [permission].into_iter().collect(),
            readable: ServiceSet::default(),
        };
        let token = TokenId::parse("000000000000").unwrap();
        Identity::Bearer { token, digest: Digest::from_bytes([0; 32]), user: Arc::new(user), access }
    }

    #[test]
    fn a_response_ends_with_what_it_depends_on() {
        let check = |name: &str, full: bool, now: &Identity, expected: bool| {
            let revalidation = Revalidation::default();
            revalidation.depend_on(1 << Permission::AdminWrite as u8);
            if full {
                revalidation.depend_on(FULL_ACCESS);
            }
            assert_eq!(revalidation.is_covered(now), expected, "{name}");
        };
        let unchanged = identity(Access::Full, Permission::AdminWrite);
        let listing = identity(Access::Read, Permission::AdminWrite);
        let demoted = identity(Access::Full, Permission::AdminRead);
        check("unchanged", true, &unchanged, true);
        check("the token was narrowed to lists", true, &listing, false);
        check("... which are enough", false, &listing, true);
        check("the permission is gone", false, &demoted, false);
    }
}

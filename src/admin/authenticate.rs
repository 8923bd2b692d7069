//! Authenticates requests to the admin listener: rows 1 to 9 of docs/decision.md for the built-in service.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, header, request::Parts};

use super::{
    Caller, Context, Problem,
    caller::Identity,
    client::ClientOrigin,
    session::{Csrf, cookie},
    sign_in::TrustedHeader,
    wire::Time,
};
use crate::{
    authz::{
        decide::{Credential, Facts, authenticate, authorize, deadline, is_never_forwarded},
        forwarding,
        path::RequestPath,
        reason::Reason,
        rules::BUILT_IN_SERVICE,
        secret::{Digest, TokenId, contains_token},
        subject::{Access, Subject, User},
        time::Timestamp,
    },
    net::{Connection, Peer},
    store::model::LastUsed,
};

/// The credentials and origin of a request, kept while it is in flight so that it can be verified again.
#[derive(Clone, Debug)]
pub(super) struct RequestCredentials {
    proof: Proof,
    /// The token's text may carry the alias prefix, which is accepted only while `perm_alias` is on.
    by_alias: bool,
    pub client: IpAddr,
    /// A proxy forwarded the request, so its peer is never taken for the operator.
    forwarded: bool,
    pub reading: bool,
}

/// The credential of a request. A bearer takes precedence over the cookie and a proxy's user header.
#[derive(Clone, Debug)]
enum Proof {
    Bearer(Credential),
    Cookie {
        digest: Digest,
        csrf: Csrf,
    },
    /// A login that a trusted proxy sent in its user header.
    TrustedHeader(String),
    /// The proxy sent the user header twice, or with a value that is not text.
    AmbiguousTrustedHeader,
}

/// Verified credentials, and when they expire by time alone.
pub(super) struct Authenticated {
    pub identity: Identity,
    pub deadline: Option<Timestamp>,
}

/// The reason for the failure, and the token if it is known.
pub(super) struct Unauthenticated {
    pub reason: Reason,
    pub token: Option<TokenId>,
}

/// Rows 1 to 3 of docs/decision.md: refusals that do not depend on the caller.
pub(super) fn check_target(parts: &Parts) -> Result<(), Reason> {
    if is_never_forwarded(&parts.method) {
        return Err(Reason::MethodNotSupported);
    }
    RequestPath::parse(parts.uri.path()).map_err(|_| Reason::BadPath)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if contains_token(target) { Err(Reason::TokenInUrl) } else { Ok(()) }
}

impl RequestCredentials {
    /// Removes the header in which a proxy names the user.
    pub fn from_request(
        parts: &mut Parts,
        connection: &Connection,
        origin: ClientOrigin,
        context: &Context,
        secure: bool,
    ) -> Self {
        let perm_alias = context.state.snapshot().rules.settings.perm_alias;
        let imports = context.state.index().imported() > 0;
        let peer = match connection.peer {
            Peer::Inet(address) => Some(address.ip()),
            Peer::Unix { .. } | Peer::Unnamed(_) => None,
        };
        let vouched = context.sign_in.take_user_header(&mut parts.headers, peer);
        let cookie = || cookie::read(&parts.headers, secure);
        let proof = match (Credential::from_headers(&parts.headers, perm_alias, imports), vouched) {
            (Credential::Missing, TrustedHeader::Login(login)) => Proof::TrustedHeader(login),
            (Credential::Missing, TrustedHeader::Ambiguous) => Proof::AmbiguousTrustedHeader,
            (Credential::Missing, TrustedHeader::Absent) => match cookie() {
                Some(secret) => Proof::Cookie { digest: secret.digest(), csrf: secret.csrf() },
                None => Proof::Bearer(Credential::Missing),
            },
            (credential, _) => Proof::Bearer(credential),
        };
        let upgrade = parts.headers.contains_key(header::UPGRADE);
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        Self {
            proof,
            by_alias: perm_alias && Credential::may_have_alias(&parts.headers),
            client: origin.address,
            forwarded: origin.forwarded,
            reading: safe && !upgrade && !forwarding::method_override(&parts.headers),
        }
    }

    /// Rows 4 to 9 by the current state. An eligible peer is the operator unless it sends a credential:
    /// a bad credential is never upgraded. On a node that may not serve, only the operator is accepted.
    pub fn verify(&self, context: &Context, peer: &Peer) -> Result<Authenticated, Unauthenticated> {
        let authenticated = self.identify(context, peer)?;
        let is_operator = matches!(authenticated.identity, Identity::Operator);
        if !is_operator && !context.state.permission().is_valid() {
            return Err(Unauthenticated { reason: Reason::StoreUnavailable, token: None });
        }
        Ok(authenticated)
    }

    fn identify(&self, context: &Context, peer: &Peer) -> Result<Authenticated, Unauthenticated> {
        let ended = || Unauthenticated { reason: Reason::MissingCredentials, token: None };
        let browser = |user: Option<&Arc<User>>, session, csrf, deadline| {
            let user = user.filter(|user| !user.banned && !user.deleted).ok_or_else(ended)?.clone();
            Ok(Authenticated { identity: Identity::Browser { user, session, csrf }, deadline })
        };
        match &self.proof {
            Proof::Bearer(_) if self.by_alias && !context.state.snapshot().rules.settings.perm_alias => {
                Err(Unauthenticated { reason: Reason::UnknownToken, token: None })
            }
            Proof::Bearer(credential) => self.verify_bearer(credential, context, peer),
            Proof::Cookie { digest, csrf } => {
                let snapshot = context.state.snapshot();
                let session = context.store.session(digest).ok_or_else(ended)?;
                let accounts = context.store.accounts();
                let account = accounts.user_by_id(&session.user).ok_or_else(ended)?;
                let user = snapshot.directory.user(account.ix);
                browser(user, Some(*digest), *csrf, Some(session.ends_at()))
            }
            Proof::TrustedHeader(login) => {
                let snapshot = context.state.snapshot();
                let accounts = context.store.accounts();
                let account = accounts.user_by_login(login).filter(|account| account.record.may_sign_in());
                let user = account.and_then(|account| snapshot.directory.user(account.ix));
                let csrf = context.csrf_of(user.map_or("", |user| &user.id));
                browser(user, None, csrf, None)
            }
            Proof::AmbiguousTrustedHeader => Err(ended()),
        }
    }

    /// Whether the browser added the credential by itself. On open pages an invalid one is then ignored.
    pub fn is_ambient(&self) -> bool {
        !matches!(&self.proof, Proof::Bearer(credential) if !matches!(credential, Credential::Missing))
    }

    /// The response for a request whose credential is invalid, or no longer valid.
    pub fn refused(&self, reason: Reason) -> Problem {
        match &self.proof {
            _ if reason == Reason::StoreUnavailable => reason.details(None).into(),
            Proof::Bearer(_) => reason.details(Some(BUILT_IN_SERVICE)).into(),
            Proof::Cookie { .. } => {
                Problem::unauthorized("unauthorized", "The session has ended: sign in again")
            }
            Proof::TrustedHeader(_) | Proof::AmbiguousTrustedHeader => {
                let text = "The user that the proxy names has no account here that may sign in. A service account uses \
                            its tokens";
                Problem::unauthorized("unauthorized", text)
            }
        }
    }

    fn verify_bearer(
        &self,
        credential: &Credential,
        context: &Context,
        peer: &Peer,
    ) -> Result<Authenticated, Unauthenticated> {
        let plain = |reason| Unauthenticated { reason, token: None };
        let digest = match credential {
            Credential::Missing if !self.forwarded && is_operator(peer, context.own_uid) => {
                return Ok(Authenticated { identity: Identity::Operator, deadline: None });
            }
            Credential::Missing => return Err(plain(Reason::MissingCredentials)),
            Credential::UnsupportedScheme => return Err(plain(Reason::UnsupportedScheme)),
            Credential::Ambiguous => return Err(plain(Reason::AmbiguousAuthorization)),
            Credential::Malformed => return Err(plain(Reason::MalformedAuthorization)),
            Credential::AmbiguousCarrier => return Err(plain(Reason::AmbiguousCredential)),
            Credential::MalformedCarrier => return Err(plain(Reason::MalformedCredential)),
            Credential::Bearer { digest, .. }
            | Credential::Carried { digest, .. }
            | Credential::Elsewhere { digest, .. } => *digest,
        };
        // The snapshot before the index: a token must never be newer than its owner.
        let snapshot = context.state.snapshot();
        let index = context.state.index();
        let facts = Facts {
            rules: &snapshot.rules,
            directory: &snapshot.directory,
            token: None,
            imports: index.imported() > 0,
            now: Time::now(),
        };
        let Some(digest) = digest else {
            let reason = authenticate(credential, self.client, facts).err();
            return Err(plain(reason.unwrap_or(Reason::UnknownToken)));
        };
        let service = snapshot.rules.service_by_key(BUILT_IN_SERVICE);
        index.with(&digest, |token| {
            let refused = |reason| Unauthenticated { reason, token: token.map(|token| token.id) };
            let subject = authenticate(credential, self.client, Facts { token, ..facts }).map_err(refused)?;
            let service = service.ok_or_else(|| refused(Reason::NoService))?;
            authorize(&subject, service, self.reading).map_err(refused)?;
            let access = subject.token.scope.access(service.id).unwrap_or(Access::Read);
            let owner = snapshot.directory.user(subject.token.owner);
            let user = owner.map(Arc::clone).ok_or_else(|| refused(Reason::OwnerDeleted))?;
            let Subject { token, .. } = subject;
            let identity = Identity::Bearer { token: token.id, digest, user, access };
            Ok(Authenticated { identity, deadline: deadline(token) })
        })
    }
}

impl Caller {
    /// Records the use of the token, as the proxy does, or of the session. Requests that a page makes by
    /// itself, with nobody in front of it, do not keep a session from becoming idle.
    pub(super) fn record_use(&self, context: &Context, fields: &HeaderMap) {
        if let Identity::Bearer { digest, .. } = &self.identity {
            let service = BUILT_IN_SERVICE.to_owned();
            context.uses.note(digest, LastUsed { at: Time::now(), from: self.client, service });
        }
        if let Some(digest) = self.session()
            && !fields.contains_key("x-permgate-unattended")
            && let Some(at) = context.store.touch_session(&digest)
        {
            let store = context.store.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = store.record_session(digest, at).await {
                    tracing::debug!(%error, "the use of a session was not written");
                }
            });
        }
    }
}

/// Whether the kernel reports the peer as root or as the user that the server runs as.
fn is_operator(peer: &Peer, own_uid: u32) -> bool {
    match peer {
        Peer::Unix { uid, .. } => *uid == 0 || *uid == own_uid,
        Peer::Inet(_) | Peer::Unnamed(_) => false,
    }
}

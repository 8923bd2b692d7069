//! Rows 1 to 9 of the decision for the listener itself, whose service is the built-in one.

use std::{net::IpAddr, sync::Arc};

use http::{Method, request::Parts};

use super::{
    Context,
    caller::{Caller, Identity},
    wire::Time,
};
use crate::{
    authz::{
        answer::Reason,
        decide::{Credential, Facts, authenticate, authorize},
        forwarding,
        path::RequestPath,
        rules::BUILT_IN_SERVICE,
        secret::{TokenId, contains_token},
        subject::{Access, Ending, Subject, Token},
        time::Timestamp,
    },
    net::{Connection, Peer},
    state::State,
    store::model::LastUsed,
};

/// What a request says about itself, kept for as long as it is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub credential: Credential,
    pub client: IpAddr,
    pub reading: bool,
}

/// A claim that holds, and until when by itself.
pub(super) struct Recognised {
    pub identity: Identity,
    pub deadline: Option<Timestamp>,
}

/// Why not, and whose token it was where that much is known.
pub(super) struct Unrecognised {
    pub reason: Reason,
    pub token: Option<TokenId>,
}

/// Rows 1 to 3: what is refused whoever asks.
pub(super) fn check_target(parts: &Parts) -> Result<(), Reason> {
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        return Err(Reason::MethodNotSupported);
    }
    RequestPath::parse(parts.uri.path()).map_err(|_| Reason::BadPath)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if contains_token(target) { Err(Reason::TokenInUrl) } else { Ok(()) }
}

impl Claim {
    pub fn of(parts: &Parts, connection: &Connection, state: &State) -> Self {
        let perm_alias = state.snapshot().rules.settings.perm_alias;
        let imports = state.index().imported() > 0;
        let upgrade = parts.headers.contains_key(http::header::UPGRADE);
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        Self {
            credential: Credential::from_headers(&parts.headers, perm_alias, imports),
            client: connection.address(),
            reading: safe && !upgrade && !forwarding::method_override(&parts.headers),
        }
    }

    /// Rows 4 to 9 by the present state. A peer who may be the operator is, unless it sends a
    /// credential: a bad one is never upgraded.
    pub fn judge(&self, context: &Context, peer: &Peer) -> Result<Recognised, Unrecognised> {
        let plain = |reason| Unrecognised { reason, token: None };
        let digest = match &self.credential {
            Credential::Missing if is_operator(peer, context.own_uid) => {
                return Ok(Recognised { identity: Identity::Operator, deadline: None });
            }
            Credential::Missing => return Err(plain(Reason::MissingCredentials)),
            Credential::UnsupportedScheme => return Err(plain(Reason::UnsupportedScheme)),
            Credential::Ambiguous => return Err(plain(Reason::AmbiguousAuthorization)),
            Credential::Malformed => return Err(plain(Reason::MalformedAuthorization)),
            Credential::Bearer { digest, .. } => *digest,
        };
        // The snapshot first, then the index: a token is never newer than its owner.
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
            let reason = authenticate(&self.credential, self.client, facts).err();
            return Err(plain(reason.unwrap_or(Reason::UnknownToken)));
        };
        let service = snapshot.rules.service_by_key(BUILT_IN_SERVICE);
        index.with(&digest, |token| {
            let refused = |reason| Unrecognised { reason, token: token.map(|token| token.id) };
            let subject =
                authenticate(&self.credential, self.client, Facts { token, ..facts }).map_err(refused)?;
            let service = service.ok_or_else(|| refused(Reason::NoService))?;
            authorize(&subject, service, self.reading).map_err(refused)?;
            let access = subject.token.scope.access(service.id).unwrap_or(Access::Read);
            let owner = snapshot.directory.user(subject.token.owner);
            let user = owner.map(Arc::clone).ok_or_else(|| refused(Reason::OwnerDeleted))?;
            let Subject { token, .. } = subject;
            let identity = Identity::Bearer { token: token.id, digest, user, access };
            Ok(Recognised { identity, deadline: deadline(token) })
        })
    }
}

impl Caller {
    /// A use of the token, as on the proxy.
    pub(super) fn note_use(&self, context: &Context) {
        if let Identity::Bearer { digest, .. } = &self.identity {
            let service = BUILT_IN_SERVICE.to_owned();
            context.uses.note(digest, LastUsed { at: Time::now(), from: self.client, service });
        }
    }
}

/// By the kernel's word: root, or the user that the server runs as.
fn is_operator(peer: &Peer, own_uid: u32) -> bool {
    match peer {
        Peer::Unix { uid, .. } => *uid == 0 || *uid == own_uid,
        Peer::Inet(_) | Peer::Unnamed(_) => false,
    }
}

/// When the token ends by time alone.
fn deadline(token: &Token) -> Option<Timestamp> {
    let grace = match token.end {
        Ending::Rotated { grace_until } => Some(grace_until),
        Ending::None | Ending::Revoked => None,
    };
    token.expires_at.into_iter().chain(grace).min()
}

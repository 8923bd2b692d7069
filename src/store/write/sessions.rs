//! Changes that concern signing in: sessions, invitations and identities.

use std::net::IpAddr;

use super::{Counted, OnlyRemoves, new_id};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    store::{
        Actor, ChangeError, FederatedSession, NewSession, Store, Updated,
        model::{IdentityRecord, InvitationRecord, SessionRecord, UserRecord},
        writer::{NewIds, Transaction},
    },
};

changes! {
    /// Signs a user in by password. `None`: the account may not sign in, or its password has changed
    /// meanwhile.
    begin_session(new: NewSession) -> Option<SessionRecord>, Counted, |tx| tx.begin_session(&new);

    /// Signs in a user whom a provider has identified, and creates an account if there is none.
    begin_federated_session(new: FederatedSession)
        generating ids = NewIds { user: new_id(), groups: new.groups.iter().map(|_| new_id()).collect() },
        -> SessionRecord, Counted, |tx| tx.begin_federated_session(&new, &ids);

    /// Links an identity at a provider to the user. Idempotent.
    link_identity(actor: Actor, login: String, issuer: String, subject: String) -> IdentityRecord,
        Counted, |tx| tx.link_identity(&actor, &login, &issuer, &subject);

    /// Unlinks all of the user's identities; returns how many there were.
    unlink_identities(actor: Actor, login: String) -> usize,
        OnlyRemoves, |tx| tx.unlink_identities(&actor, &login);

    /// Ends all sessions of the user; returns how many there were.
    end_sessions(actor: Actor, login: String) -> usize, OnlyRemoves, |tx| tx.end_sessions(&actor, &login);

    /// Creates an invitation, in place of one that the user had.
    invite(actor: Actor, login: String, digest: Digest) -> (UserRecord, InvitationRecord),
        Counted, |tx| tx.invite(&actor, &login, digest);

    /// Sets the password of the user whom the invitation is for. An invitation works once.
    redeem(digest: Digest, phc: String, client: IpAddr) -> UserRecord,
        Counted, |tx| tx.redeem(&digest, &phc, client);

    /// Records a session's use that [`Store::touch_session`] has reported as due.
    record_session(digest: Digest, seen: Timestamp) -> (),
        Counted, |tx| { tx.record_session(&digest, seen); Ok(()) };

    /// Idempotent.
    end_session(actor: Actor, digest: Digest) -> (),
        OnlyRemoves, |tx| { tx.end_session(&actor, &digest, None); Ok(()) };
}

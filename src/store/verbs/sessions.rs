//! The verbs of signing in: sessions, invitations and identities.

use super::{OnlyRemoves, Usual, new_id};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    fence::Cut,
    store::{
        Actor, ChangeError, NewSession, ProvidedSession, Store, Updated,
        model::{IdentityRecord, InvitationRecord, SessionRecord, UserRecord},
        writer::{Ids, Transaction},
    },
};

verbs! {
    /// Signs a user in by password. `None`: the account may not sign in, or its password has changed
    /// meanwhile.
    begin_session(new: NewSession) -> Option<SessionRecord>, Usual, |tx| tx.begin_session(&new);

    /// Signs in a user whom a provider has identified, and creates an account if there is none.
    begin_provided_session(new: ProvidedSession)
        drawing ids = Ids { user: new_id(), groups: new.groups.iter().map(|_| new_id()).collect() },
        -> SessionRecord, Usual, |tx| tx.begin_provided_session(&new, &ids);

    /// Links an identity at a provider to the user. Idempotent.
    link_identity(actor: Actor, login: String, issuer: String, subject: String) -> IdentityRecord,
        Usual, |tx| tx.link_identity(&actor, &login, &issuer, &subject);

    /// Unlinks all of the user's identities; returns how many there were.
    unlink_identities(actor: Actor, login: String) -> usize,
        OnlyRemoves, |tx| tx.unlink_identities(&actor, &login);

    /// Ends all sessions of the user; returns how many there were.
    end_sessions(actor: Actor, login: String) -> usize, OnlyRemoves, |tx| tx.end_sessions(&actor, &login);

    /// Creates an invitation, in place of one that the user had.
    invite(actor: Actor, login: String, digest: Digest) -> (UserRecord, InvitationRecord),
        Usual, |tx| tx.invite(&actor, &login, digest);

    /// Sets the password of the user whom the invitation is for. An invitation works once.
    redeem(digest: Digest, phc: String) -> UserRecord, Usual, |tx| tx.redeem(&digest, &phc);
}

impl Store {
    /// Records a session's use that [`Store::see_session`] has reported as due.
    pub async fn record_session(&self, digest: Digest, seen: Timestamp) -> Result<(), ChangeError> {
        let plan = move |tx: &mut Transaction| {
            tx.record_session(&digest, seen);
            Ok(())
        };
        self.change(Usual, plan).await.map(drop)
    }

    /// Idempotent.
    pub async fn end_session(&self, actor: Actor, digest: Digest) -> Result<Cut, ChangeError> {
        let plan = move |tx: &mut Transaction| {
            tx.end_session(&actor, &digest);
            Ok(())
        };
        Ok(self.change(OnlyRemoves, plan).await?.1.cut)
    }
}

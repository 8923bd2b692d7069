//! The verbs of signing in: sessions and invitations.

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
    /// `None`: the account may not sign in, or its password has changed meanwhile.
    begin_session(new: NewSession) -> Option<SessionRecord>, Usual, |tx| tx.begin_session(&new);

    /// Somebody whom a provider has named; an account is made for whoever has none.
    begin_provided_session(new: ProvidedSession)
        drawing ids = Ids { user: new_id(), groups: new.groups.iter().map(|_| new_id()).collect() },
        -> SessionRecord, Usual, |tx| tx.begin_provided_session(&new, &ids);

    /// Whoever the provider names so is this user. Idempotent.
    link_identity(actor: Actor, login: String, issuer: String, subject: String) -> IdentityRecord,
        Usual, |tx| tx.link_identity(&actor, &login, &issuer, &subject);

    /// No provider's word signs the user in any more; answers how many did.
    unlink_identities(actor: Actor, login: String) -> usize,
        OnlyRemoves, |tx| tx.unlink_identities(&actor, &login);

    /// Everywhere; answers how many.
    end_sessions(actor: Actor, login: String) -> usize, OnlyRemoves, |tx| tx.end_sessions(&actor, &login);

    /// In place of an invitation that the user had.
    invite(actor: Actor, login: String, digest: Digest) -> (UserRecord, InvitationRecord),
        Usual, |tx| tx.invite(&actor, &login, digest);

    /// The password of whoever holds the invitation's text, once.
    redeem(digest: Digest, phc: String) -> UserRecord, Usual, |tx| tx.redeem(&digest, &phc);
}

impl Store {
    /// That a session was used, when [`Store::see_session`] says that it is due.
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

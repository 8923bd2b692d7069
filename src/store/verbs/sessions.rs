//! The verbs of signing in: sessions and invitations.

use super::{
    Kind::{OnlyRemoves, Usual},
    new_id,
};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    fence::Cut,
    store::{
        Actor, ChangeError, Changed, NewSession, ProvidedSession, Store,
        model::{IdentityRecord, InvitationRecord, SessionRecord, UserRecord},
        writer::{Desk, Ids},
    },
};

impl Store {
    /// `None`: the account may not sign in, or its password has changed meanwhile.
    pub async fn begin_session(&self, new: NewSession) -> Result<Option<SessionRecord>, ChangeError> {
        Ok(self.change(Usual, move |desk| desk.begin_session(&new)).await?.0)
    }

    /// Somebody whom a provider has named; an account is made for whoever has none.
    pub async fn begin_provided_session(
        &self,
        new: ProvidedSession,
    ) -> Result<Changed<SessionRecord>, ChangeError> {
        let ids = Ids { user: new_id(), groups: new.groups.iter().map(|_| new_id()).collect() };
        self.changed(Usual, move |desk| desk.begin_provided_session(&new, &ids)).await
    }

    /// Whoever the provider names so is this user. Idempotent.
    pub async fn link_identity(
        &self,
        actor: Actor,
        login: String,
        issuer: String,
        subject: String,
    ) -> Result<IdentityRecord, ChangeError> {
        let plan = move |desk: &mut Desk| desk.link_identity(&actor, &login, &issuer, &subject);
        Ok(self.change(Usual, plan).await?.0)
    }

    /// No provider's word signs the user in any more; answers how many did.
    pub async fn unlink_identities(
        &self,
        actor: Actor,
        login: String,
    ) -> Result<Changed<usize>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.unlink_identities(&actor, &login)).await
    }

    /// That a session was used, when [`Store::see_session`] says that it is due.
    pub async fn record_session(&self, digest: Digest, seen: Timestamp) -> Result<(), ChangeError> {
        let plan = move |desk: &mut Desk| {
            desk.record_session(&digest, seen);
            Ok(())
        };
        self.change(Usual, plan).await.map(drop)
    }

    /// Idempotent.
    pub async fn end_session(&self, actor: Actor, digest: Digest) -> Result<Cut, ChangeError> {
        let plan = move |desk: &mut Desk| {
            desk.end_session(&actor, &digest);
            Ok(())
        };
        Ok(self.change(OnlyRemoves, plan).await?.1)
    }

    /// Everywhere; answers how many.
    pub async fn end_sessions(&self, actor: Actor, login: String) -> Result<Changed<usize>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.end_sessions(&actor, &login)).await
    }

    /// In place of an invitation that the user had.
    pub async fn invite(
        &self,
        actor: Actor,
        login: String,
        digest: Digest,
    ) -> Result<(UserRecord, InvitationRecord), ChangeError> {
        Ok(self.change(Usual, move |desk| desk.invite(&actor, &login, digest)).await?.0)
    }

    /// The password of whoever holds the invitation's text, once.
    pub async fn redeem(&self, digest: Digest, phc: String) -> Result<Changed<UserRecord>, ChangeError> {
        self.changed(Usual, move |desk| desk.redeem(&digest, &phc)).await
    }
}

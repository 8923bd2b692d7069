//! The verbs: each hands a plan to the writer and waits until it is in force. A plan can be run
//! again, so what is drawn at random is drawn here.

mod sessions;

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{
    Actor, ChangeError, Changed, Configuration, Exchanged, GrantTarget, GroupEdit, Idempotency,
    ImportedToken, Made, NewToken, NewUser, Refusal, Store, TokenEdit, UserEdit,
    model::{
        AuditEvent, GrantRecord, GroupRecord, LastUsed, RevokeReason, RoleRecord, TokenRecord, UserRecord,
    },
    writer::{Command, Desk, Done, Job, Line, Text},
};
use crate::{
    authz::{
        secret::{Digest, TokenId, TokenText},
        subject::Permission,
    },
    fence::{Completion, Cut, LiveRow},
};

/// Last uses and refusals are handed over in parts of this many.
const PART: usize = 5_000;

/// Whether a change holds even when it cannot be made to last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usual,
    OnlyRemoves,
}
use Kind::{OnlyRemoves, Usual};

impl Store {
    pub async fn create_token(
        &self,
        actor: Actor,
        new: NewToken,
        once: Option<Idempotency>,
    ) -> Result<Made, ChangeError> {
        let (text, drawn) = self.draw()?;
        let plan = move |desk: &mut Desk| desk.create_token(&actor, &new, once.as_ref(), drawn);
        self.made(text, plan).await
    }

    pub async fn edit_token(
        &self,
        actor: Actor,
        id: TokenId,
        if_revision: Option<u64>,
        edit: TokenEdit,
    ) -> Result<Changed<TokenRecord>, ChangeError> {
        let narrows = edit.scope.is_some() || edit.expires_at.is_some() || edit.allow_ips.is_some();
        let kind = if narrows { OnlyRemoves } else { Usual };
        self.changed(kind, move |desk| desk.edit_token(&actor, id, if_revision, &edit)).await
    }

    pub async fn rotate_token(
        &self,
        actor: Actor,
        id: TokenId,
        grace: Option<Duration>,
        once: Option<Idempotency>,
    ) -> Result<Made, ChangeError> {
        let (text, drawn) = self.draw()?;
        let plan = move |desk: &mut Desk| {
            desk.rotate_token(&actor, id, grace, once.as_ref(), drawn, Desk::author(&actor))
        };
        self.made(text, plan).await
    }

    /// By the token itself, which its owner is the actor of. Revoking the old one revokes the new one, too.
    pub async fn rotate_itself(&self, actor: Actor, id: TokenId) -> Result<Made, ChangeError> {
        let (text, drawn) = self.draw()?;
        self.made(text, move |desk: &mut Desk| desk.rotate_itself(&actor, id, drawn)).await
    }

    /// `id` follows from the other issuer's token, so that each is exchanged once.
    pub async fn exchange_token(&self, id: TokenId, new: Exchanged) -> Result<Made, ChangeError> {
        let text = draw_text_of(Some(id))?.1;
        let drawn = Text { id, digest: text.digest() };
        self.made(text, move |desk: &mut Desk| desk.exchange_token(&new, drawn)).await
    }

    /// Idempotent: a revoked token stays as it was revoked, and the answer is the same.
    pub async fn revoke_token(
        &self,
        actor: Actor,
        id: TokenId,
        reason: RevokeReason,
    ) -> Result<Changed<TokenRecord>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.revoke_token(&actor, id, reason)).await
    }

    /// By the digests of texts that somebody has, in their order; `None`: no such token. Never a use.
    pub async fn revoke_by_value(
        &self,
        actor: Actor,
        digests: Vec<Digest>,
        reason: RevokeReason,
    ) -> Result<Changed<Vec<Option<(TokenRecord, bool)>>>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.revoke_by_value(&actor, &digests, reason)).await
    }

    /// Each line by itself: one refusal does not stop the others. Needs `admin-write`. A line that
    /// was taken before is taken again.
    pub async fn import_tokens(
        &self,
        actor: Actor,
        tokens: Vec<ImportedToken>,
        make_owners: bool,
    ) -> Result<Vec<Result<TokenId, Refusal>>, ChangeError> {
        let mut lines = Vec::with_capacity(tokens.len());
        for token in tokens {
            let (id, owner_id) = (draw_text()?.0, new_id());
            lines.push(Line { token, id, owner_id });
        }
        let plan = move |desk: &mut Desk| desk.import_tokens(&actor, &lines, make_owners);
        Ok(self.change(Usual, plan).await?.0)
    }

    pub async fn create_user(&self, actor: Actor, new: NewUser) -> Result<Changed<UserRecord>, ChangeError> {
        let id = new_id();
        self.changed(Usual, move |desk| desk.create_user(&actor, &new, &id)).await
    }

    pub async fn edit_user(
        &self,
        actor: Actor,
        login: String,
        if_revision: Option<u64>,
        edit: UserEdit,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        self.changed(Usual, move |desk| desk.edit_user(&actor, &login, if_revision, &edit)).await
    }

    /// `Some(reason)` bans, `None` lifts a ban. Idempotent.
    pub async fn ban_user(
        &self,
        actor: Actor,
        login: String,
        reason: Option<String>,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        let kind = if reason.is_some() { OnlyRemoves } else { Usual };
        self.changed(kind, move |desk| desk.ban_user(&actor, &login, reason.as_deref())).await
    }

    /// Leaves a tombstone and revokes every token of the user.
    pub async fn delete_user(&self, actor: Actor, login: String) -> Result<Changed<UserRecord>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.delete_user(&actor, &login)).await
    }

    /// A PHC string that the caller has derived.
    pub async fn set_password(
        &self,
        actor: Actor,
        login: String,
        phc: Option<String>,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        self.changed(Usual, move |desk| desk.set_password(&actor, &login, phc.as_deref())).await
    }

    pub async fn create_group(
        &self,
        actor: Actor,
        name: String,
        parent: Option<String>,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        let id = new_id();
        self.changed(Usual, move |desk| desk.create_group(&actor, &name, parent.as_deref(), &id)).await
    }

    pub async fn edit_group(
        &self,
        actor: Actor,
        name: String,
        if_revision: Option<u64>,
        edit: GroupEdit,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        self.changed(Usual, move |desk| desk.edit_group(&actor, &name, if_revision, &edit)).await
    }

    pub async fn delete_group(
        &self,
        actor: Actor,
        name: String,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.delete_group(&actor, &name)).await
    }

    /// Idempotent both ways.
    pub async fn set_member(
        &self,
        actor: Actor,
        group: String,
        login: String,
        member: bool,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        let kind = if member { Usual } else { OnlyRemoves };
        self.changed(kind, move |desk| desk.set_member(&actor, &group, &login, member)).await
    }

    pub async fn create_role(
        &self,
        actor: Actor,
        key: String,
        name: String,
        permissions: Vec<Permission>,
    ) -> Result<Changed<RoleRecord>, ChangeError> {
        self.changed(Usual, move |desk| desk.create_role(&actor, &key, &name, &permissions)).await
    }

    /// With its grants.
    pub async fn delete_role(&self, actor: Actor, key: String) -> Result<Changed<RoleRecord>, ChangeError> {
        self.changed(OnlyRemoves, move |desk| desk.delete_role(&actor, &key)).await
    }

    /// Role key to a user's login or a group's name; `granted = false` takes it away. Idempotent.
    pub async fn set_grant(
        &self,
        actor: Actor,
        role: String,
        to: GrantTarget,
        granted: bool,
    ) -> Result<Changed<GrantRecord>, ChangeError> {
        let kind = if granted { Usual } else { OnlyRemoves };
        self.changed(kind, move |desk| desk.set_grant(&actor, &role, &to, granted)).await
    }

    /// The reload: compiles, publishes, fences. All or nothing.
    pub async fn replace_configuration(
        &self,
        actor: Actor,
        configuration: Configuration,
    ) -> Result<Cut, ChangeError> {
        let plan = move |desk: &mut Desk| desk.replace_configuration(&actor, &configuration);
        Ok(self.change(Usual, plan).await?.1)
    }

    /// An administrator has cut one request in flight: only the event is left to be kept, so that
    /// nothing is refused here any more.
    pub async fn record_cut(&self, actor: Actor, row: LiveRow) -> Result<(), ChangeError> {
        let outcome = self.change(OnlyRemoves, move |desk| {
            desk.record_cut(&actor, &row);
            Ok(())
        });
        match outcome.await {
            Ok(_) => Ok(()),
            Err(ChangeError::NotDurable { reason, .. }) => {
                Err(ChangeError::NotDurable { reason, cut: Cut(1) })
            }
            Err(other) => Err(other),
        }
    }

    /// Merged forward only; not audited.
    pub async fn record_use(&self, uses: Vec<(Digest, LastUsed)>) -> Result<(), ChangeError> {
        for part in uses.chunks(PART) {
            let part = part.to_vec();
            self.change(Usual, move |desk| {
                desk.record_use(&part);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Audited refusals, already counted and bounded by the caller.
    pub async fn record_refusals(&self, refusals: Vec<AuditEvent>) -> Result<(), ChangeError> {
        for part in refusals.chunks(PART) {
            let part = part.to_vec();
            self.change(Usual, move |desk| {
                desk.record_refusals(&part);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Takes the queue's end: everything accepted so far is answered, then the engine is closed.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Command::Close(done)).await.is_ok() {
            // The writer may have ended by itself.
            let _ = closed.await;
        }
    }

    async fn changed<T: Send + 'static>(
        &self,
        kind: Kind,
        plan: impl FnMut(&mut Desk) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<Changed<T>, ChangeError> {
        let (record, cut) = self.change(kind, plan).await?;
        Ok(Changed { record, cut })
    }

    async fn made(
        &self,
        text: TokenText,
        plan: impl FnMut(&mut Desk) -> Result<(TokenRecord, bool), ChangeError> + Send + 'static,
    ) -> Result<Made, ChangeError> {
        let ((record, fresh), cut) = self.change(Usual, plan).await?;
        Ok(Made { record, text: fresh.then_some(text), cut })
    }

    /// Hands a plan in and waits until it is in force everywhere.
    async fn change<T: Send + 'static>(
        &self,
        kind: Kind,
        plan: impl FnMut(&mut Desk) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<(T, Cut), ChangeError> {
        let (reply, answer) = oneshot::channel();
        let only_removes = kind == OnlyRemoves;
        let job = Job { plan, planned: None, affected: None, only_removes, reply };
        let closed = || ChangeError::Closed(self.writable().err().unwrap_or_default());
        self.queue.send(Command::Change(Box::new(job))).await.map_err(|_| closed())?;
        let Done { result, ticket, not_durable } = answer.await.map_err(|_| closed())??;
        let cut = match ticket {
            Some(ticket) => self.stands(ticket).await?,
            None => Cut(0),
        };
        match not_durable {
            Some(reason) => Err(ChangeError::NotDurable { reason, cut }),
            None => Ok((result, cut)),
        }
    }

    /// Waits for the fence.
    async fn stands(&self, ticket: Completion) -> Result<Cut, ChangeError> {
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        metrics.fences_raised.add(1);
        let Ok(cut) = ticket.wait().await else {
            metrics.fences_incomplete.add(1);
            return Err(ChangeError::FenceIncomplete);
        };
        metrics.fence_duration.observe(began.elapsed());
        metrics.cut.add(cut.0);
        Ok(cut)
    }

    /// A text whose id is free.
    fn draw(&self) -> Result<(TokenText, Text), ChangeError> {
        loop {
            let (id, text) = draw_text()?;
            if self.token(id)?.is_none() {
                let drawn = Text { id, digest: text.digest() };
                return Ok((text, drawn));
            }
        }
    }
}

fn draw_text() -> Result<(TokenId, TokenText), ChangeError> {
    draw_text_of(None)
}

/// A text with this id, else with one that is drawn as well.
fn draw_text_of(id: Option<TokenId>) -> Result<(TokenId, TokenText), ChangeError> {
    let mut failed = None;
    // Where the generator fails, what was made is thrown away; distinct bytes only end the search.
    let mut last = 0u8;
    let drawn = TokenText::generate_with(id, &mut |bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            failed = Some(error);
            for byte in bytes {
                last = last.wrapping_add(1) % 62;
                *byte = last;
            }
        }
    });
    match failed {
        Some(error) => Err(ChangeError::Closed(format!("the system has no random numbers: {error}"))),
        None => Ok(drawn),
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

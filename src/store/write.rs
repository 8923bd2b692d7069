//! The methods of the store that change something: each passes a plan to the writer and waits until it is in
//! force. A plan may be run again, so random values are generated here.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    AcceptedImport, Actor, AdminError, ChangeError, Configuration, CreatedToken, ExchangedToken, GrantTarget,
    GroupEdit, Idempotency, ImportedToken, NewToken, NewUser, Nodes, RoleEdit, Store, TokenEdit, Updated,
    UserEdit,
    cluster::Completed,
    model::{
        AuditEvent, GrantRecord, GroupRecord, LastUsed, RevokeReason, RoleRecord, TokenRecord, UserRecord,
    },
    writer::{
        Command, NewSecret, PlannedImport, Published, Task,
        TaskKind::{self, Counted, Exempt, OnlyRemoves, Unfenced},
        Transaction,
    },
};
use crate::{
    authz::{
        administration::roles::only_removes,
        secret::{Digest, TokenId, TokenText},
        subject::Permission,
    },
    fence::{Completion, Cut, LiveRow},
};

/// Maximum last uses or refusals in one plan, so that a removal behind it hardly waits.
const CHUNK: usize = 1_000;

/// A change: its arguments, its result, its kind and its plan.
macro_rules! changes {
    ($(
        $(#[$doc:meta])*
        $method:ident($($arg:ident: $type:ty),*) $(generating $value:ident = $generate:expr,)? -> $record:ty,
        $kind:expr, |$tx:ident| $plan:expr;
    )*) => {
        impl Store {$(
            $(#[$doc])*
            pub async fn $method(&self, $($arg: $type),*) -> Result<Updated<$record>, ChangeError> {
                let kind = $kind;
                $(let $value = $generate;)?
                self.change(kind, move |$tx: &mut Transaction| $plan).await
            }
        )*}
    };
}

/// A change that issues a token: its arguments, its kind, the token's id or `None`, and its plan.
macro_rules! issues {
    ($(
        $(#[$doc:meta])*
        $method:ident($($arg:ident: $type:ty),*), $kind:expr, $id:expr, |$tx:ident, $secret:ident| $plan:expr;
    )*) => {
        impl Store {$(
            $(#[$doc])*
            pub async fn $method(&self, $($arg: $type),*) -> Result<CreatedToken, ChangeError> {
                self.issue($kind, $id, move |$tx, $secret| $plan).await
            }
        )*}
    };
}

mod cluster;
mod sessions;

changes! {
    edit_token(actor: Actor, id: TokenId, if_revision: Option<u64>, edit: TokenEdit) -> TokenRecord,
        task_kind(edit.scope.is_some() || edit.expires_at.is_some() || edit.allow_ips.is_some()),
        |tx| tx.edit_token(&actor, id, if_revision, &edit);

    /// Idempotent: a revoked token stays as it was revoked, and the result is the same.
    revoke_token(actor: Actor, id: TokenId, reason: RevokeReason) -> TokenRecord,
        OnlyRemoves, |tx| tx.revoke_token(&actor, id, reason);

    /// Revokes by the digests of token texts. The results are in their order; `None`: no such token. Does
    /// not count as a use.
    revoke_by_value(actor: Actor, digests: Vec<Digest>, leaked: bool)
        -> Vec<Option<(TokenRecord, bool)>>,
        OnlyRemoves, |tx| tx.revoke_by_value(&actor, &digests, leaked);

    create_user(actor: Actor, new: NewUser) generating id = new_id(), -> UserRecord,
        Counted, |tx| tx.create_user(&actor, &new, &id);

    edit_user(actor: Actor, login: String, if_revision: Option<u64>, edit: UserEdit) -> UserRecord,
        Counted, |tx| tx.edit_user(&actor, &login, if_revision, &edit);

    /// `Some(reason)` bans, `None` lifts a ban. Idempotent.
    ban_user(actor: Actor, login: String, reason: Option<String>) -> UserRecord,
        task_kind(reason.is_some()), |tx| tx.ban_user(&actor, &login, reason.as_deref());

    /// `phc`: a PHC string that the caller has derived. `verified`: the actor's own password until now, or
    /// that there was none; `None` if the password is another user's.
    set_password(actor: Actor, login: String, verified: Option<Option<String>>, phc: Option<String>)
        -> UserRecord,
        Counted, |tx| tx.set_password(&actor, &login, verified.as_ref(), phc.as_deref());

    /// Fails if the actor may not set the user's password. Changes nothing: a password is derived only for
    /// who may set it.
    may_set_password(actor: Actor, login: String) -> (), Counted, |tx| tx.may_set_password(&actor, &login);

    create_group(actor: Actor, name: String, parent: Option<String>) generating id = new_id(), -> GroupRecord,
        Counted, |tx| tx.create_group(&actor, &name, parent.as_deref(), &id);

    edit_group(actor: Actor, name: String, if_revision: Option<u64>, edit: GroupEdit) -> GroupRecord,
        Counted, |tx| tx.edit_group(&actor, &name, if_revision, &edit);

    delete_group(actor: Actor, name: String) -> GroupRecord,
        OnlyRemoves, |tx| tx.delete_group(&actor, &name);

    /// Adds or removes a member. Idempotent.
    set_member(actor: Actor, group: String, login: String, member: bool) -> GroupRecord,
        task_kind(!member), |tx| tx.set_member(&actor, &group, &login, member);

    create_role(actor: Actor, key: String, name: String, permissions: Vec<Permission>) -> RoleRecord,
        Counted, |tx| tx.create_role(&actor, &key, &name, &permissions);

    /// Deletes the role and its grants.
    delete_role(actor: Actor, key: String) -> RoleRecord,
        OnlyRemoves, |tx| tx.delete_role(&actor, &key);

    /// Imports each token by itself: one refusal does not stop the others. Needs `admin-write`. A token
    /// that was imported before succeeds again.
    import_tokens(actor: Actor, tokens: Vec<ImportedToken>, make_owners: bool)
        generating lines = plan_import(tokens)?, -> Vec<Result<AcceptedImport, AdminError>>,
        Exempt, |tx| tx.import_tokens(&actor, &lines, make_owners);

    /// Grants a role, by its key, to a user or a group; `granted = false` takes it away. Idempotent.
    set_grant(actor: Actor, role: String, to: GrantTarget, granted: bool) -> GrantRecord,
        task_kind(!granted), |tx| tx.set_grant(&actor, &role, &to, granted);
}

issues! {
    create_token(actor: Actor, new: NewToken, idempotency: Option<Idempotency>),
        Counted, None, |tx, secret| tx.create_token(&actor, &new, idempotency.as_ref(), secret);

    rotate_token(actor: Actor, id: TokenId, grace: Option<Duration>, idempotency: Option<Idempotency>),
        Counted, None, |tx, secret| tx.rotate_token(&actor, id, grace, idempotency.as_ref(), secret, false);

    /// Rotates a token by itself; its owner is the actor. Revoking the old token revokes the new one, too.
    /// The actor has no parent, since the new token reaches exactly as far.
    rotate_itself(actor: Actor, id: TokenId),
        Exempt, None, |tx, secret| tx.rotate_token(&actor, id, None, None, secret, true);

    /// Issues a token for one of another issuer. `id` is derived from that token, so that each is exchanged
    /// once.
    exchange_token(id: TokenId, new: ExchangedToken),
        Exempt, Some(id), |tx, secret| tx.exchange_token(&new, secret);
}

impl Store {
    /// An edit that only removes permissions from the current role takes effect like any removal. If the
    /// role changes before the edit's turn, so that the edit would add one, it is refused as stale.
    pub async fn edit_role(
        &self,
        actor: Actor,
        key: String,
        if_revision: Option<u64>,
        edit: RoleEdit,
    ) -> Result<Updated<RoleRecord>, ChangeError> {
        let accounts = self.accounts();
        let removes = accounts.role(&key).zip(edit.permissions.as_ref());
        let removes = removes.is_some_and(|(role, after)| only_removes(&role.permissions, after));
        let plan = move |tx: &mut Transaction| tx.edit_role(&actor, &key, if_revision, &edit, removes);
        self.change(task_kind(removes), plan).await
    }

    /// Leaves a tombstone, from which on the user's tokens are refused, and revokes every one of them: many a
    /// page at a time, so that no other revocation waits for all.
    pub async fn delete_user(&self, actor: Actor, login: String) -> Result<Updated<UserRecord>, ChangeError> {
        let by = actor.clone();
        let Updated { record: (user, mut has_more), cut, nodes } =
            self.change(OnlyRemoves, move |tx| tx.delete_user(&by, &login)).await?;
        let mut after = None;
        while has_more {
            let (by, owner) = (actor.clone(), user.id.clone());
            let page = self.change(OnlyRemoves, move |tx| tx.revoke_of_deleted(&by, &owner, after)).await;
            after = page.map_or_else(
                |error| {
                    tracing::warn!(
                        user = user.id, %error, "a deleted user's tokens are refused, but not yet revoked"
                    );
                    None
                },
                |page| page.record,
            );
            has_more = after.is_some();
        }
        Ok(Updated { record: user, cut, nodes })
    }

    /// Reloads the configuration: compiles, publishes, fences. All or nothing.
    pub async fn replace_configuration(
        &self,
        actor: Actor,
        configuration: Configuration,
    ) -> Result<Cut, ChangeError> {
        let digest = configuration.digest();
        let plan = move |tx: &mut Transaction| tx.replace_configuration(&actor, &configuration);
        let cut = self.change(Exempt, plan).await?.cut;
        if let Some(node) = self.node() {
            node.update(|protocol| protocol.set_rules(digest));
        }
        Ok(cut)
    }

    /// Records that an administrator has cut a request in flight. The cut has happened, so nothing is
    /// refused here.
    pub async fn record_cut(&self, actor: Actor, row: LiveRow) -> Result<(), ChangeError> {
        let outcome = self.change(OnlyRemoves, move |tx| {
            tx.record_cut(&actor, &row);
            Ok(())
        });
        match outcome.await {
            Err(ChangeError::NotDurable { reason, .. }) => {
                Err(ChangeError::NotDurable { reason, cut: Cut(1) })
            }
            outcome => outcome.map(drop),
        }
    }

    /// Records that somebody gets a backup, which has every digest and password hash. No other node is waited
    /// for, since a backup may be needed most while one is down.
    pub async fn record_backup(&self, actor: Actor) -> Result<(), ChangeError> {
        let event = move |tx: &mut Transaction| {
            tx.audit_as(&actor, "store.backup", "store".into(), None);
            Ok(())
        };
        self.change(Unfenced, event).await.map(drop)
    }

    /// Records last uses; one that is not newer than the stored one is ignored. Not audited.
    pub async fn record_use(&self, uses: Vec<(Digest, LastUsed)>) -> Result<(), ChangeError> {
        self.record(&uses, Transaction::record_use).await
    }

    /// Records audited refusals, which the caller has counted and bounded.
    pub async fn record_refusals(&self, refusals: Vec<AuditEvent>) -> Result<(), ChangeError> {
        self.record(&refusals, Transaction::record_refusals).await
    }

    /// Records what requests leave behind. No other node is waited for.
    async fn record<T: Clone + Send + 'static>(
        &self,
        items: &[T],
        plan: fn(&mut Transaction, &[T]),
    ) -> Result<(), ChangeError> {
        for part in items.chunks(CHUNK) {
            let part = part.to_vec();
            let plan = move |tx: &mut Transaction| {
                plan(tx, &part);
                Ok(())
            };
            self.change(Unfenced, plan).await?;
        }
        Ok(())
    }

    /// Ends the queue: everything accepted so far is answered, then the engine is closed.
    pub async fn close(&self) {
        // The writer may have ended by itself.
        let _ = self.ask(Command::Close).await;
    }

    /// Issues a token with this id, or with one that is free.
    async fn issue(
        &self,
        kind: TaskKind,
        id: Option<TokenId>,
        mut plan: impl FnMut(&mut Transaction, NewSecret) -> Result<(TokenRecord, bool), ChangeError>
        + Send
        + 'static,
    ) -> Result<CreatedToken, ChangeError> {
        let (id, text) = loop {
            let (drawn, text) = generate_text(id)?;
            if id.is_some() || self.token(drawn)?.is_none() {
                break (drawn, text);
            }
        };
        let secret = NewSecret { id, digest: text.digest() };
        let plan = move |tx: &mut Transaction| plan(tx, secret);
        let Updated { record: (record, fresh), cut, .. } = self.change(kind, plan).await?;
        Ok(CreatedToken { record, text: fresh.then_some(text), cut })
    }

    /// Passes a plan to the writer and waits until it is in force everywhere.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        kind: TaskKind,
        mut plan: impl FnMut(&mut Transaction) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<Updated<T>, ChangeError> {
        // The result of the plan's last run.
        let result = Arc::new(Mutex::new(None));
        let planned = result.clone();
        let plan = Box::new(move |tx: &mut Transaction| {
            let planned_now = plan(tx)?;
            *planned.lock() = Some(planned_now);
            Ok(())
        });
        let change = |reply| Command::Change(Task::new(kind, plan, reply));
        let Published { completion, on_all_nodes, not_durable } = self.ask(change).await??;
        let mut done = Updated { record: (), cut: Cut(0), nodes: None };
        if let Some(completion) = completion {
            done = self.await_fence(local_fence(completion)).await?;
        }
        if let Some(on_all_nodes) = on_all_nodes {
            done = self.await_fence(cluster_fence(on_all_nodes)).await?;
        }
        if let Some(reason) = not_durable {
            return Err(ChangeError::NotDurable { reason, cut: done.cut });
        }
        let result = result.lock().take();
        Ok(Updated { record: result.ok_or_else(|| self.closed())?, cut: done.cut, nodes: done.nodes })
    }

    /// Passes a command to the writer and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply)).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())
    }

    fn closed(&self) -> ChangeError {
        ChangeError::Closed(self.writable().err().unwrap_or_default())
    }

    /// Waits for a fence, and counts it.
    async fn await_fence(
        &self,
        fence: impl Future<Output = Result<Updated<()>, ChangeError>>,
    ) -> Result<Updated<()>, ChangeError> {
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        metrics.fences_raised.add(1);
        let done = fence.await.inspect_err(|_| metrics.fences_incomplete.add(1))?;
        metrics.fence_duration.observe(began.elapsed());
        metrics.cut.add(done.cut.0);
        if let Some(nodes) = &done.nodes {
            metrics.lapsed.add(nodes.lapsed.len() as u64);
        }
        Ok(done)
    }
}

async fn local_fence(completion: Completion) -> Result<Updated<()>, ChangeError> {
    let cut = completion.wait().await.map_err(|_| ChangeError::FenceIncomplete)?;
    Ok(Updated { record: (), cut, nodes: None })
}

async fn cluster_fence(on_all_nodes: oneshot::Receiver<Completed>) -> Result<Updated<()>, ChangeError> {
    // The sender is dropped only when the process ends.
    let Completed { confirmed, lapsed, cut, .. } =
        on_all_nodes.await.map_err(|_| ChangeError::FenceIncomplete)?;
    let nodes = Some(Nodes { confirmed: confirmed.len(), lapsed });
    Ok(Updated { record: (), cut: Cut(cut), nodes })
}

/// Draws a text with this id, or with a random one.
fn generate_text(id: Option<TokenId>) -> Result<(TokenId, TokenText), ChangeError> {
    let mut failed = None;
    // If the system's generator fails, the text is discarded. Distinct bytes only end the generation.
    let mut last = 0u8;
    let secret = TokenText::generate(id, &mut |bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            failed = Some(error);
            for byte in bytes {
                last = last.wrapping_add(1) % 62;
                *byte = last;
            }
        }
    });
    match failed {
        Some(error) => Err(ChangeError::Closed(format!("the system has no random bytes: {error}"))),
        None => Ok(secret),
    }
}

/// The ids follow each other: where they are stored, as many random ones would be as many places to write.
fn plan_import(tokens: Vec<ImportedToken>) -> Result<Vec<PlannedImport>, ChangeError> {
    let first = generate_text(None)?.0;
    let ids = iter::successors(Some(first), |id| Some(id.successor()));
    let plan = |(token, id)| PlannedImport { token, id, owner_id: new_id() };
    Ok(tokens.into_iter().zip(ids).map(plan).collect())
}

/// The kind of a change that only removes power, or of any other one.
const fn task_kind(removes: bool) -> TaskKind {
    if removes { OnlyRemoves } else { Counted }
}

pub(super) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

//! Deletions of as much as callers choose: they go a page at a time, so that no revocation waits for all of it.

use super::OnlyRemoves;
use crate::store::{
    Actor, ChangeError, Store, Updated,
    model::{GroupRecord, RoleRecord, UserRecord},
    writer::Transaction,
};

impl Store {
    /// Leaves a tombstone, from which on the user's tokens are refused, and revokes every one of them.
    pub async fn delete_user(&self, actor: Actor, login: String) -> Result<Updated<UserRecord>, ChangeError> {
        let by = actor.clone();
        let first = self.change(OnlyRemoves, move |tx| tx.delete_user(&by, &login)).await?;
        self.finish(first, move |tx, user, after| tx.revoke_of_deleted(&actor, &user.id, Some(after))).await
    }

    /// Removes the group's members and grants, then the group.
    pub async fn delete_group(
        &self,
        actor: Actor,
        name: String,
    ) -> Result<Updated<GroupRecord>, ChangeError> {
        let by = actor.clone();
        let first = self.change(OnlyRemoves, move |tx| tx.delete_group(&by, &name)).await?;
        self.finish(first, move |tx, group, ()| Ok(tx.drop_group(&actor, group))).await
    }

    /// Removes the role's grants, then the role.
    pub async fn delete_role(&self, actor: Actor, key: String) -> Result<Updated<RoleRecord>, ChangeError> {
        let by = actor.clone();
        let first = self.change(OnlyRemoves, move |tx| tx.delete_role(&by, &key)).await?;
        self.finish(first, move |tx, role, ()| Ok(tx.drop_role(&actor, role))).await
    }

    /// Makes the rest of a deletion, whose first page was authorized. Each page returns where the next one goes
    /// on.
    async fn finish<T: Clone + Send + 'static, C: Copy + Send + 'static>(
        &self,
        first: Updated<(T, Option<C>)>,
        page: impl Fn(&mut Transaction, &T, C) -> Result<Option<C>, ChangeError> + Clone + Send + 'static,
    ) -> Result<Updated<T>, ChangeError> {
        let Updated { record: (record, mut rest), mut cut, mut nodes } = first;
        while let Some(from) = rest {
            let (page, deleted) = (page.clone(), record.clone());
            let done = self.change(OnlyRemoves, move |tx| page(tx, &deleted, from)).await?;
            (rest, nodes) = (done.record, done.nodes);
            cut.0 += done.cut.0;
        }
        Ok(Updated { record, cut, nodes })
    }
}

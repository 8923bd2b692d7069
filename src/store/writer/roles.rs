//! Roles and grants.

use serde_json::json;

use super::Transaction;
use crate::{
    authz::{
        accounts::{GrantRecord, Grantee, RoleRecord},
        administration::{groups, roles, users},
        subject::Permission,
    },
    fence::Affected,
    store::{
        ChangeError, audit,
        change::{Actor, GrantTarget, RoleEdit},
        op::Op,
    },
};

impl Transaction {
    pub(crate) fn create_role(
        &mut self,
        actor: &Actor,
        key: &str,
        name: &str,
        permissions: &[Permission],
    ) -> Result<RoleRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let role = RoleRecord {
            key: key.to_owned(),
            name: name.to_owned(),
            permissions: permissions.to_vec(),
            revision: 1,
        };
        let role = roles::create(&self.admin_facts(&principal), role)?;
        self.audit_as(actor, "role.create", target(key), Some(json!({"permissions": words(&role)})));
        self.apply(Op::PutRole(role.clone()));
        Ok(role)
    }

    /// With `removing`, an edit that would add a permission is refused: the role has changed meanwhile.
    pub(crate) fn edit_role(
        &mut self,
        actor: &Actor,
        key: &str,
        if_revision: Option<u64>,
        edit: &RoleEdit,
        removing: bool,
    ) -> Result<RoleRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let admin_facts = self.admin_facts(&principal);
        principal.require(Permission::ManageRole)?;
        let before = roles::find(&self.state.accounts, key)?.clone();
        let mut after = before.clone();
        after.name = edit.name.clone().unwrap_or(after.name);
        after.permissions = edit.permissions.clone().unwrap_or(after.permissions);
        let after = roles::edit(&admin_facts, &before, after)?;
        let gives = !roles::only_removes(&before.permissions, &after.permissions);
        if if_revision.is_some_and(|revision| revision != before.revision) || removing && gives {
            return Err(ChangeError::Stale);
        }
        let takes = !roles::only_removes(&after.permissions, &before.permissions);
        if takes || removing {
            self.affected = Some(Affected::All);
        }
        if after == before {
            return Ok(before);
        }
        if !takes {
            self.count_removal(actor)?;
        }
        let after = RoleRecord { revision: before.revision + 1, ..after };
        let change = json!({
            "name": audit::changed(&before.name, &after.name),
            "permissions": audit::changed(&words(&before), &words(&after)),
        });
        self.audit_as(actor, "role.edit", target(key), Some(change));
        self.apply(Op::PutRole(after.clone()));
        Ok(after)
    }

    /// Deletes a role and its grants.
    pub(crate) fn delete_role(&mut self, actor: &Actor, key: &str) -> Result<RoleRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let role = roles::delete(&self.admin_facts(&principal), key)?.clone();
        let grants = self.state.accounts.grants().filter(|grant| grant.role == key);
        let grants: Vec<GrantRecord> = grants.collect();
        self.audit_as(actor, "role.delete", target(key), Some(json!({"grants": grants.len()})));
        grants.into_iter().for_each(|grant| self.apply(Op::DropGrant(grant)));
        self.apply(Op::DropRole { key: key.to_owned() });
        self.affected = Some(Affected::All);
        Ok(role)
    }

    pub(crate) fn set_grant(
        &mut self,
        actor: &Actor,
        role: &str,
        to: &GrantTarget,
        granted: bool,
    ) -> Result<GrantRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let admin_facts = self.admin_facts(&principal);
        principal.require(Permission::ManageRole)?;
        let (to, user, target, has) = match to {
            GrantTarget::User(login) => {
                let user = users::find(&self.state.accounts, login)?;
                let target = format!("user:{}", user.record.login);
                (Grantee::User(user.record.id.clone()), Some(user.ix), target, &user.roles)
            }
            GrantTarget::Group(name) => {
                let group = groups::find(&self.state.accounts, name)?;
                let target = format!("group:{}", group.record.name);
                (Grantee::Group(group.record.id.clone()), None, target, &group.roles)
            }
        };
        let was = has.iter().any(|key| key == role);
        let grant = GrantRecord { role: role.to_owned(), to };
        roles::grant(&admin_facts, &grant, granted)?;
        if !granted {
            self.affected = Some(user.map_or(Affected::All, Affected::User));
        }
        if was == granted {
            return Ok(grant);
        }
        let event = if granted { "grant.add" } else { "grant.remove" };
        self.audit_as(actor, event, target, Some(json!({"role": role})));
        self.apply(if granted { Op::PutGrant(grant.clone()) } else { Op::DropGrant(grant.clone()) });
        Ok(grant)
    }
}

fn target(key: &str) -> String {
    format!("role:{key}")
}

fn words(role: &RoleRecord) -> Vec<&'static str> {
    role.permissions.iter().map(|permission| permission.word()).collect()
}

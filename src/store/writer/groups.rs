//! Groups and their members.

use serde_json::json;

use super::Transaction;
use crate::{
    authz::{
        accounts::{Accounts, GrantRecord, Grantee, GroupRecord},
        administration::groups,
        subject::Permission,
    },
    fence::Affected,
    store::{
        AdminError, ChangeError, audit,
        change::{Actor, GroupEdit},
        op::Op,
    },
};

impl Transaction {
    pub(crate) fn create_group(
        &mut self,
        actor: &Actor,
        name: &str,
        parent_name: Option<&str>,
        id: &str,
    ) -> Result<GroupRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let admin_facts = self.admin_facts(&principal);
        principal.require(Permission::CreateGroup)?;
        let parent = parent_id(&self.state.accounts, parent_name)?;
        let record = GroupRecord { id: id.to_owned(), name: name.to_owned(), parent, revision: 1 };
        let record = groups::create(&admin_facts, record)?;
        let change = json!({"id": record.id, "parent": parent_name});
        self.audit_as(actor, "group.create", target(&record.name), Some(change));
        self.apply(Op::PutGroup(record.clone()));
        Ok(record)
    }

    pub(crate) fn edit_group(
        &mut self,
        actor: &Actor,
        name: &str,
        if_revision: Option<u64>,
        edit: &GroupEdit,
    ) -> Result<GroupRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let admin_facts = self.admin_facts(&principal);
        principal.require(Permission::UpdateGroup)?;
        let group = groups::find(&self.state.accounts, name)?;
        let before = group.record.clone();
        let mut after = before.clone();
        after.name = edit.name.clone().unwrap_or(after.name);
        if let Some(parent) = &edit.parent {
            after.parent = parent_id(&self.state.accounts, parent.as_deref())?;
        }
        let after = groups::edit(&admin_facts, group, after)?;
        if if_revision.is_some_and(|revision| revision != before.revision) {
            return Err(ChangeError::Stale);
        }
        if after == before {
            return Ok(before);
        }
        let after = GroupRecord { revision: before.revision + 1, ..after };
        let change = json!({
            "name": audit::changed(&before.name, &after.name),
            "parent": audit::changed(&before.parent, &after.parent),
        });
        self.audit_as(actor, "group.edit", target(&before.name), Some(change));
        self.affected = Some(Affected::All);
        self.apply(Op::PutGroup(after.clone()));
        Ok(after)
    }

    /// Deletes a group, its memberships and its grants.
    pub(crate) fn delete_group(&mut self, actor: &Actor, name: &str) -> Result<GroupRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let group = groups::delete(&self.admin_facts(&principal), name)?;
        let (record, roles) = (group.record.clone(), group.roles.clone());
        let members = self.state.accounts.members(group.ix).map(|user| user.record.id.clone());
        let members: Vec<String> = members.collect();
        let change = json!({"id": record.id, "members": members.len()});
        self.audit_as(actor, "group.delete", target(&record.name), Some(change));
        for user in members {
            self.put_member(record.id.clone(), user, false);
        }
        for role in roles {
            let to = Grantee::Group(record.id.clone());
            self.apply(Op::DropGrant(GrantRecord { role, to }));
        }
        self.apply(Op::DropGroup { id: record.id.clone() });
        self.affected = Some(Affected::All);
        Ok(record)
    }

    pub(crate) fn set_member(
        &mut self,
        actor: &Actor,
        group: &str,
        login: &str,
        member: bool,
    ) -> Result<GroupRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let (group, user) = groups::set_member(&self.admin_facts(&principal), group, login, member)?;
        let was = user.groups.binary_search(&group.ix).is_ok();
        let (record, user, ix) = (group.record.clone(), user.record.clone(), user.ix);
        if !member {
            self.affected = Some(Affected::User(ix));
        }
        if was == member {
            return Ok(record);
        }
        let event = if member { "group.member.add" } else { "group.member.remove" };
        self.audit_as(actor, event, target(&record.name), Some(json!({"user": user.login})));
        self.put_member(record.id.clone(), user.id, member);
        Ok(record)
    }

    pub(super) fn put_member(&mut self, group: String, user: String, member: bool) {
        self.apply(if member { Op::PutMember { group, user } } else { Op::DropMember { group, user } });
    }
}

fn parent_id(accounts: &Accounts, name: Option<&str>) -> Result<Option<String>, AdminError> {
    name.map(|name| groups::find(accounts, name).map(|group| group.record.id.clone())).transpose()
}

fn target(name: &str) -> String {
    format!("group:{name}")
}

//! Groups: the tree, and the page of one group with its members.

use std::collections::HashMap;

use askama::Template;
use axum::{extract::Path, response::Response};

use super::{ApiResult, Reader, Shell, joinable, render};
use crate::{
    admin::{
        Context, GroupView, Problem, RoleView, groups::READ_GROUPS, offload::READS, users::READ_OTHERS,
        web::words,
    },
    authz::{
        accounts::{Accounts, Group, fold, of_membership},
        rules::{Rules, Service},
        subject::{GroupIx, Permission},
    },
};

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    shell: Shell,
    tree: Vec<Node>,
    /// Nested lists that are still open at the end.
    close: usize,
    parents: Vec<String>,
}

/// A group in the tree, in the order of display.
struct Node {
    group: GroupView,
    /// Services that its members may read through it.
    reads: Vec<String>,
    direct: usize,
    effective: usize,
    /// Whether it is the first child of the previous node.
    deeper: bool,
    /// Nested lists to close before it.
    up: usize,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    shell: Shell,
    group: GroupView,
    members: Vec<String>,
    /// Members through a child group: login, and the child's name.
    inherited: Vec<(String, String)>,
    effective: usize,
    children: Vec<String>,
    reads: Vec<String>,
    parents: Vec<String>,
    /// Logins that are not members yet.
    addable: Vec<String>,
    grantable: Vec<RoleView>,
}

/// The most logins offered in a list; others are typed.
const MAX_OFFERED: usize = 500;

pub async fn list(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require_any(&READ_GROUPS)?;
    READS.run(move || Ok(list_page(&context, &reader))).await?
}

fn list_page(context: &Context, reader: &Reader) -> Response {
    let accounts = context.store.accounts();
    let rules = context.rules();
    let (mut direct, mut effective) = (HashMap::new(), HashMap::new());
    for user in accounts.present_users() {
        for ix in accounts.groups_of(user) {
            *effective.entry(ix).or_insert(0) += 1;
        }
        for ix in &user.groups {
            *direct.entry(*ix).or_insert(0) += 1;
        }
    }
    let node = |group: &Group, deeper: bool, up: usize| {
        let view = GroupView::new(&accounts, &group.record);
        let count = |of: &HashMap<GroupIx, usize>| of.get(&group.ix).copied().unwrap_or_default();
        Node {
            reads: read_through(&accounts, &rules, group, reader),
            direct: count(if view.built_in { &effective } else { &direct }),
            effective: count(&effective),
            group: view,
            deeper,
            up,
        }
    };
    // By the parent's id.
    let mut below: HashMap<Option<&str>, Vec<&Group>> = HashMap::new();
    for group in accounts.groups() {
        below.entry(group.record.parent.as_deref()).or_default().push(group);
    }
    below.values_mut().for_each(|groups| groups.sort_by_cached_key(|group| fold(&group.record.name)));
    let mut tree = Vec::new();
    let mut depth = 0;
    let roots = below.remove(&None).unwrap_or_default();
    let mut open: Vec<(usize, &Group)> = roots.into_iter().map(|group| (0, group)).rev().collect();
    while let Some((level, group)) = open.pop() {
        tree.push(node(group, level > depth, depth.saturating_sub(level)));
        depth = level;
        let children = below.remove(&Some(&*group.record.id)).unwrap_or_default();
        open.extend(children.into_iter().rev().map(|child| (level + 1, child)));
    }
    let page = GroupsPage {
        shell: reader.shell("Groups", "/groups"),
        tree,
        close: depth,
        parents: joinable(&accounts),
    };
    render(&page)
}

pub async fn show(context: Context, reader: Reader, Path(name): Path<String>) -> ApiResult {
    reader.caller.require_any(&READ_GROUPS)?;
    READS.run(move || group_page(&context, &reader, &name)).await?
}

fn group_page(context: &Context, reader: &Reader, name: &str) -> ApiResult {
    let accounts = context.store.accounts();
    let group = accounts.group_by_name(name).ok_or_else(|| Problem::not_found("group"))?;
    let view = GroupView::new(&accounts, &group.record);
    let mut direct: Vec<&str> = Vec::new();
    if !view.built_in {
        direct.extend(accounts.members(group.ix).map(|user| user.record.login.as_str()));
    }
    direct.sort_unstable();
    let mut inherited = Vec::new();
    let mut addable = Vec::new();
    for user in accounts.present_users() {
        let login = user.record.login.as_str();
        if view.built_in || direct.binary_search(&login).is_ok() {
            continue;
        }
        addable.push(login.to_owned());
        if let Some(child) = member_through(&accounts, &user.groups, group.ix) {
            inherited.push((login.to_owned(), child));
        }
    }
    // Who may not list users types a login.
    if reader.caller.require_any(&READ_OTHERS).is_err() {
        addable.clear();
    }
    addable.sort_unstable();
    addable.truncate(MAX_OFFERED);
    inherited.sort();
    let rules = context.rules();
    let effective = match view.built_in {
        true => accounts.present_users().count(),
        false => direct.len() + inherited.len(),
    };
    let page = GroupPage {
        shell: reader.shell("Group", "/groups"),
        members: direct.into_iter().map(str::to_owned).collect(),
        inherited,
        effective,
        children: accounts.children(&group.record.id).map(|child| child.record.name.clone()).collect(),
        reads: read_through(&accounts, &rules, group, reader),
        parents: joinable(&accounts).into_iter().filter(|other| *other != view.name).collect(),
        addable,
        grantable: accounts
            .roles()
            .map(RoleView::new)
            .filter(|role| !view.roles.contains(&role.key))
            .collect(),
        group: view,
    };
    Ok(render(&page))
}

/// The services that members of the group may read through it: by its name, an ancestor's name, or a role.
/// Leaves out those that the reader may not know.
fn read_through(accounts: &Accounts, rules: &Rules, group: &Group, reader: &Reader) -> Vec<String> {
    let power = of_membership(accounts, rules, accounts.with_ancestors(group.ix), &[]);
    let readable = |service: &&Service| power.readable.contains(service.id) && reader.knows(service);
    let services = rules.services().iter().filter(readable);
    services.map(|service| service.spec.key.as_str().to_owned()).collect()
}

/// The group through which a user with these memberships belongs to `to`.
fn member_through(accounts: &Accounts, groups: &[GroupIx], to: GroupIx) -> Option<String> {
    let leads = |from: &&GroupIx| accounts.with_ancestors(**from).any(|ancestor| ancestor.ix == to);
    groups.iter().find(leads).and_then(|ix| Some(accounts.group(*ix)?.record.name.clone()))
}

//! Every row of the table of administration: the actor, the action and the outcome.

use super::*;
use crate::authz::{
    accounts::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserKind, UserRecord, initial_grant},
    fixture,
    rules::{ServiceIds, ServiceKey},
    secret::TokenId,
    subject::{Access, Scope, TokenEnd, TokenRestrictions},
};

mod accounts;
mod power;
mod tokens;

const NOW: Timestamp = fixture::NOW;

struct Town {
    accounts: Accounts,
    rules: Rules,
    ids: ServiceIds,
    reserved_logins: Vec<String>,
}

fn user(login: &str) -> UserRecord {
    UserRecord {
        id: format!("id-{login}"),
        login: login.into(),
        name: login.into(),
        email: None,
        kind: UserKind::Human,
        password: None,
        banned: None,
        created_at: NOW,
        deleted_at: None,
        revision: 1,
    }
}

fn group(name: &str, parent: Option<&str>) -> GroupRecord {
    GroupRecord {
        id: format!("g-{name}"),
        name: name.into(),
        parent: parent.map(|p| format!("g-{p}")),
        revision: 1,
    }
}

fn role(key: &str, permissions: &[Permission]) -> RoleRecord {
    RoleRecord { key: key.into(), name: key.into(), permissions: permissions.to_vec(), revision: 1 }
}

impl Town {
    /// carol is an administrator; grace manages users, mia groups, rita roles; alice is a developer, dave is
    /// banned; erin audits, so she can read every service; zoe may see but not change; the mail server
    /// trusts what permgate tells it about otto and postmasters.
    fn new() -> Self {
        use Permission as P;
        let mut accounts = Accounts::new();
        for login in ["alice", "bob", "carol", "dave", "erin", "grace", "mia", "otto", "rita", "zoe"] {
            accounts.put_user(user(login));
        }
        accounts.put_user(UserRecord { kind: UserKind::Service, ..user("ci-bot") });
        accounts.put_user(UserRecord { banned: Some("left".into()), ..user("dave") });
        for (name, parent) in [
            ("developers", None),
            ("support", None),
            ("l2", Some("support")),
            ("auditors", None),
            ("hikers", None),
            ("postmasters", None),
        ] {
            accounts.put_group(group(name, parent));
        }
        for (name, member) in [
            ("developers", "alice"),
            ("developers", "dave"),
            ("l2", "bob"),
            ("auditors", "erin"),
            ("postmasters", "otto"),
        ] {
            accounts.set_member(&format!("g-{name}"), &format!("id-{member}"), true);
        }
        accounts.put_role(role("auditor", &[P::ReadService, P::ReadAudit]));
        accounts.put_role(role("user-manager", &[P::CreateUser, P::UpdateUser]));
        accounts.put_role(role("group-manager", &[P::CreateGroup, P::UpdateGroup, P::DeleteGroup]));
        accounts.put_role(role("role-manager", &[P::ManageRole, P::ReadUser]));
        accounts.put_role(role("viewer", &[P::AdminRead]));
        accounts.set_grant(&initial_grant(), true);
        for (role, to) in [
            ("system-admin", "carol"),
            ("user-manager", "grace"),
            ("group-manager", "mia"),
            ("role-manager", "rita"),
            ("viewer", "zoe"),
        ] {
            accounts
                .set_grant(&GrantRecord { role: role.into(), to: Grantee::User(format!("id-{to}")) }, true);
        }
        accounts.set_grant(
            &GrantRecord { role: "auditor".into(), to: Grantee::Group("g-auditors".into()) },
            true,
        );
        let mut ids = ServiceIds::default();
        let services = [
            ("youtrack", "/api", &["Developers", "support"][..]),
            ("hub", "/hub", &["developers"]),
            ("wiki", "/wiki", &["all-users"]),
            ("vault", "/vault", &[]),
            ("ghost", "/ghost", &["ghosts"]),
        ];
        let services = services.map(|(key, path, readers)| {
            let mut service = fixture::service(key, &[path]);
            service.readers = readers.iter().map(|reader| (*reader).to_owned()).collect();
            service
        });
        let mut services = services.to_vec();
        let mut mail = fixture::service("mail", &["/mail"]);
        mail.readers = vec!["all-users".into()];
        mail.identity_groups = Some(vec!["Postmasters".into(), "wardens".into()]);
        services.push(mail);
        let settings =
            crate::authz::rules::Settings { perm_alias: true, trusted_proxies: Default::default() };
        let rules = Rules::compile(services, Vec::new(), settings, &mut ids).unwrap();
        Self { accounts, rules, ids, reserved_logins: vec!["root".into()] }
    }

    fn facts<'a>(&'a self, principal: &'a Principal<'_>) -> AdminFacts<'a> {
        AdminFacts {
            principal,
            accounts: &self.accounts,
            rules: &self.rules,
            now: NOW,
            max_lifetime: None,
            reserved_logins: &self.reserved_logins,
        }
    }

    fn principal(&self, login: &str) -> Principal<'static> {
        match login {
            "operator" => Principal::operator(&self.rules),
            login => Principal::user(&self.accounts, &self.rules, &format!("id-{login}"), None).unwrap(),
        }
    }

    fn readable(&self, login: &str) -> Vec<&str> {
        let account = self.accounts.user_by_login(login).unwrap();
        let power = Power::of_user(&self.accounts, &self.rules, account);
        let services = self.rules.services().iter().filter(|s| power.readable.contains(s.id));
        services.map(|service| service.spec.key.as_str()).collect()
    }

    fn token(&mut self, scope: &[(&str, Access)], expires_at: Option<Timestamp>, networks: &[&str]) -> Token {
        let entries = scope
            .iter()
            .map(|(key, access)| (self.ids.intern(&ServiceKey::parse(key).unwrap()).unwrap(), *access));
        Token {
            id: TokenId::parse("000000000001").unwrap(),
            owner: self.accounts.user_by_login("alice").unwrap().ix,
            scope: Scope::new(entries.collect::<Vec<_>>()).unwrap(),
            expires_at,
            restrictions: TokenRestrictions {
                not_before: None,
                end: TokenEnd::None,
                allow_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
            }
            .into(),
        }
    }
}

fn bounds(
    scope: &[(&str, Access)],
    expires_at: Option<Timestamp>,
    networks: &[&str],
) -> super::tokens::TokenBounds {
    super::tokens::TokenBounds {
        scope: scope.iter().map(|(key, access)| ((*key).to_owned(), *access)).collect(),
        expires_at,
        allow_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

fn code<T>(result: Result<T, AdminError>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.word(), |_| "ok")
}

const FULL: Access = Access::Full;

#[test]
fn services_are_read_in_two_ways_only() {
    let town = Town::new();
    let check = |login: &str, expected: &[&str]| assert_eq!(town.readable(login), expected, "{login}");
    check("alice", &["youtrack", "hub", "wiki", "mail", "permgate"]);
    check("bob", &["youtrack", "wiki", "mail", "permgate"]);
    check("grace", &["wiki", "mail", "permgate"]);
    check("erin", &["youtrack", "hub", "wiki", "vault", "ghost", "mail", "permgate"]);
    check("carol", &["youtrack", "hub", "wiki", "vault", "ghost", "mail", "permgate"]);
}

#[test]
fn who_is_disabled_does_nothing() {
    let mut town = Town::new();
    let acts = |town: &Town, id: &str| code(Principal::user(&town.accounts, &town.rules, id, None));
    assert_eq!(acts(&town, "id-dave"), "permission_denied");
    assert_eq!(acts(&town, "id-nobody"), "permission_denied");
    assert_eq!(acts(&town, "id-bob"), "ok");
    town.accounts.put_user(UserRecord { deleted_at: Some(NOW), ..user("bob") });
    assert_eq!(acts(&town, "id-bob"), "permission_denied");
}

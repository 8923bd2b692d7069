//! The administration vectors, through the methods of the store. What the listener answers itself (not signed
//! in, banned account, token without `permgate`, lists) is recognised by its name.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::authz::{secret::Bearer, subject::Permission};

const LISTENER: [&str; 5] = ["M02", "M20", "M28", "M29", "M40"];

#[tokio::test]
async fn administration_vectors() {
    let data: Value = serde_json::from_str(include_str!("../../../tests/data/decisions.json")).unwrap();
    let vectors = data["admin_vectors"].as_array().unwrap();
    let mut left_out = Vec::new();
    for vector in vectors {
        let id = vector["id"].as_str().unwrap();
        if LISTENER.contains(&id) {
            left_out.push(id);
            continue;
        }
        let bench = set_up(&data["fixture"], &vector["override"]);
        let answer = run(&bench, &data["fixture"], vector).await;
        let expected = vector["expect"]["error"].as_str().unwrap_or("ok");
        assert_eq!(answer.0, expected, "{id}: {}", vector["why"]);
        assert_eq!(u64::from(answer.1), vector["expect"]["status"].as_u64().unwrap(), "{id}");
        bench.store.close().await;
    }
    assert_eq!(left_out, LISTENER);
    assert_eq!(vectors.len(), 28);
}

async fn run(bench: &Bench, fixture: &Value, vector: &Value) -> (String, u16) {
    let params = &vector["params"];
    let actor = vector["actor"].as_str().unwrap();
    let parent = vector["auth"].as_str().unwrap().strip_prefix("token:").map(|reference| {
        let tokens = fixture["tokens"].as_array().unwrap();
        let token = tokens.iter().find(|token| token["ref"] == reference).unwrap();
        TokenId::parse(token["id"].as_str().unwrap()).unwrap()
    });
    let by = Actor { parent, ..bench.by(actor) };
    let id = params["token_id"].as_str().map(|id| TokenId::parse(id).unwrap());
    match vector["action"].as_str().unwrap() {
        "create_token" => {
            let new = NewToken {
                owner: params["user"].as_str().unwrap_or(actor).into(),
                name: params["name"].as_str().unwrap().into(),
                note: String::new(),
                scope: scope(&params["scope"]),
                not_before: None,
                expires_at: time(&params["expires_at"]),
                allow_ips: Vec::new(),
            };
            answer(bench.store.create_token(by, new, None).await, 201)
        }
        "rotate_token" => answer(bench.store.rotate_token(by, id.unwrap(), None, None).await, 201),
        "revoke_token" => answer(bench.store.revoke_token(by, id.unwrap(), RevokeReason::User).await, 200),
        "update_token" => {
            let edit = TokenEdit { scope: Some(scope(&params["scope"])), ..TokenEdit::default() };
            answer(bench.store.edit_token(by, id.unwrap(), None, edit).await, 200)
        }
        action => panic!("no such action: {action}"),
    }
}

fn answer<T>(result: Result<T, ChangeError>, good: u16) -> (String, u16) {
    let status = match &result {
        Ok(_) => good,
        Err(ChangeError::Refused(refusal)) => refusal.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    (code(result), status)
}

fn set_up(fixture: &Value, over: &Value) -> Bench {
    let services = fixture["services"].as_array().unwrap().iter().filter(|s| s["builtin"] != true);
    let services = services.map(|given| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<String>>();
        let mut spec = service(given["key"].as_str().unwrap(), "/", &[]);
        (spec.paths, spec.readers) = (list(&given["paths"]), list(&given["access_groups"]));
        spec
    });
    let mut configuration = configuration(services.collect());
    let days = over["settings"]["max_lifetime_days"].as_u64();
    configuration.policy.max_lifetime = days.map(|days| Duration::from_secs(days * 86400));
    Bench::seeded(configuration, &rows(fixture))
}

fn rows(fixture: &Value) -> Vec<Op> {
    let list = |name: &str| fixture[name].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let at = Timestamp::from_millis(NOW - 1_000_000);
    let mut ops = Vec::new();
    for user in list("users") {
        ops.push(Op::PutUser(UserRecord {
            id: format!("id-{}", text(&user["login"])),
            login: text(&user["login"]),
            name: text(&user["login"]),
            email: None,
            kind: if user["type"] == "service" { UserKind::Service } else { UserKind::Human },
            password: None,
            banned: (user["banned"] == true).then(String::new),
            created_at: at,
            deleted_at: (user["deleted"] == true).then_some(at),
            revision: 1,
        }));
    }
    for group in list("groups").filter(|group| group["builtin"] != true) {
        let id = format!("g-{}", text(&group["name"]));
        let parent = group["parent"].as_str().map(|parent| format!("g-{parent}"));
        ops.push(Op::PutGroup(GroupRecord {
            id: id.clone(),
            name: text(&group["name"]),
            parent,
            revision: 1,
        }));
        for member in group["members"].as_array().unwrap() {
            ops.push(Op::PutMember { group: id.clone(), user: format!("id-{}", text(member)) });
        }
    }
    for role in list("roles").filter(|role| role["key"] == "auditor" || role["key"] == "user-manager") {
        let permissions = role["permissions"].as_array().unwrap().iter();
        let permissions = permissions.map(|word| Permission::from_word(word.as_str().unwrap()).unwrap());
        let (key, name) = (text(&role["key"]), text(&role["key"]));
        ops.push(Op::PutRole(RoleRecord { key, name, permissions: permissions.collect(), revision: 1 }));
    }
    for grant in list("assignments").filter(|grant| grant["group"] != "all-users") {
        let to = match grant["user"].as_str() {
            Some(user) => Grantee::User(format!("id-{user}")),
            None => Grantee::Group(format!("g-{}", text(&grant["group"]))),
        };
        ops.push(Op::PutGrant(GrantRecord { role: text(&grant["role"]), to }));
    }
    for given in list("tokens") {
        ops.push(Op::PutToken(token(given)));
    }
    ops
}

fn token(given: &Value) -> TokenRecord {
    let id = TokenId::parse(given["id"].as_str().unwrap()).unwrap();
    let bearer = Bearer::parse(given["text"].as_str().unwrap()).unwrap();
    let grace = time(&given["grace_until"]);
    TokenRecord {
        id,
        digest: bearer.digest(),
        imported: false,
        owner: format!("id-{}", given["owner"].as_str().unwrap()),
        author: None,
        name: given["name"].as_str().unwrap().into(),
        note: String::new(),
        scope: scope(&given["scope"]),
        allow_ips: Vec::new(),
        created_at: time(&given["created_at"]).unwrap(),
        not_before: time(&given["not_before"]),
        expires_at: time(&given["expires_at"]),
        last_used: None,
        revoked: time(&given["revoked_at"]).map(|at| Revocation { at, by: None, reason: RevokeReason::User }),
        rotation: grace.map(|grace_until| Rotation { to: id, grace_until }),
        family: id,
        revision: 1,
    }
}

fn scope(given: &Value) -> Vec<(String, Access)> {
    let entries = given.as_array().unwrap().iter().map(|entry| {
        let access = if entry["access"] == "read" { Access::Read } else { Access::Full };
        (entry["service"].as_str().unwrap().to_owned(), access)
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

fn time(given: &Value) -> Option<Timestamp> {
    let at: jiff::Timestamp = given.as_str()?.parse().unwrap();
    Some(Timestamp::from_millis(at.as_millisecond()))
}

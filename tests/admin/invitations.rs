//! Invitations are checked again when they are used, and end when their author loses the power to invite.

use permgate::admin::{SignIn, UserHeader};
use serde_json::json;

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture, PASSWORD},
};

/// Creates an invitation by `author`. Returns its text.
fn invite(fixture: &Fixture, author: &Credentials) -> String {
    let answer = fixture.call(author, "POST", "/v1/users/guest/invitation", None);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["invitation"].as_str().unwrap().to_owned()
}

fn redeem(fixture: &Fixture, invitation: &str) -> u16 {
    let body = json!({"invitation": invitation, "password": PASSWORD});
    fixture.call(&Credentials::Anonymous, "POST", "/v1/invitation", Some(&body)).status
}

#[test]
fn invitation_ends_when_its_author_loses_power() {
    type Change = fn(&Fixture);
    fn member(fixture: &Fixture, method: &str) {
        fixture.must(method, "/v1/groups/inviters/members/author", None);
    }
    fn by_role(fixture: &Fixture, method: &str) {
        fixture.must(method, "/v1/grants", Some(json!({"role": "role-author", "user": "author"})));
    }
    fn by_group(fixture: &Fixture) {
        by_role(fixture, "DELETE");
        fixture.must("POST", "/v1/groups", Some(json!({"name": "inviters"})));
        fixture.must("POST", "/v1/grants", Some(json!({"role": "role-author", "group": "inviters"})));
        member(fixture, "PUT");
    }
    fn nothing(_: &Fixture) {}
    let rows: [(&str, Change, Change, u16); 8] = [
        ("nothing", nothing, nothing, 200),
        (
            "banned and back",
            nothing,
            |f| {
                f.must("POST", "/v1/users/author/ban", None);
                f.must("POST", "/v1/users/author/unban", None);
            },
            403,
        ),
        ("deleted", nothing, |f| drop(f.must("DELETE", "/v1/users/author", None)), 403),
        (
            "the grant taken and given again",
            nothing,
            |f| {
                by_role(f, "DELETE");
                by_role(f, "POST");
            },
            403,
        ),
        ("the role deleted", nothing, |f| drop(f.must("DELETE", "/v1/roles/role-author", None)), 403),
        (
            "out of the group and in again",
            by_group,
            |f| {
                member(f, "DELETE");
                member(f, "PUT");
            },
            403,
        ),
        (
            "the guest became an administrator",
            nothing,
            |f| {
                f.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "guest"})));
            },
            403,
        ),
        (
            "another grant taken",
            |f| {
                f.must(
                    "POST",
                    "/v1/roles",
                    Some(json!({"key": "extra", "name": "E", "permissions": ["read-audit"]})),
                );
                f.must("POST", "/v1/grants", Some(json!({"role": "extra", "user": "author"})));
            },
            |f| drop(f.must("DELETE", "/v1/grants", Some(json!({"role": "extra", "user": "author"})))),
            200,
        ),
    ];
    for (name, before, after, expected) in rows {
        let fixture = Fixture::start();
        fixture.user("author", &[]);
        fixture.user("guest", &[]);
        fixture.allow("author", &["update-user"]);
        before(&fixture);
        let invitation = invite(&fixture, &fixture.cached_credentials("author"));
        after(&fixture);
        assert_eq!(redeem(&fixture, &invitation), expected, "{name}");
        assert_eq!(redeem(&fixture, &invitation), 403, "{name}, a second time");
    }
}

#[test]
fn invitation_ends_once_its_recipient_has_gained_power() {
    type Change = fn(&Fixture);
    fn grant(fixture: &Fixture, method: &str, to: &str) {
        fixture.must(
            method,
            "/v1/grants",
            Some(json!({"role": "strong", to: if to == "user" { "guest" } else { "club" }})),
        );
    }
    fn member(fixture: &Fixture, method: &str, group: &str) {
        fixture.must(method, &format!("/v1/groups/{group}/members/guest"), None);
    }
    fn permissions(fixture: &Fixture, permissions: &[&str]) {
        fixture.must("PATCH", "/v1/roles/weak", Some(json!({"permissions": permissions})));
    }
    fn club(fixture: &Fixture, change: serde_json::Value) {
        fixture.must("PATCH", "/v1/groups/club", Some(change));
    }
    let rows: [(&str, Change, Change, u16); 7] = [
        ("a role", |f| grant(f, "POST", "user"), |f| grant(f, "DELETE", "user"), 403),
        ("a role of the group", |f| grant(f, "POST", "group"), |f| grant(f, "DELETE", "group"), 403),
        ("a group with power", |f| member(f, "PUT", "auditors"), |f| member(f, "DELETE", "auditors"), 403),
        ("a stronger role", |f| permissions(f, &["read-audit"]), |f| permissions(f, &[]), 403),
        (
            "a group below power",
            |f| club(f, json!({"parent": "auditors"})),
            |f| club(f, json!({"parent": null})),
            403,
        ),
        ("a group", |f| member(f, "PUT", "walkers"), |f| member(f, "DELETE", "walkers"), 200),
        ("a name", |f| drop(f.must("PATCH", "/v1/users/guest", Some(json!({"name": "G"})))), |_| (), 200),
    ];
    for (name, gain, lose, expected) in rows {
        let fixture = Fixture::start();
        fixture.user("author", &[]);
        fixture.user("other", &["auditors", "walkers"]);
        fixture.user("guest", &["club"]);
        for (key, permissions) in [("strong", &["read-audit"][..]), ("weak", &[])] {
            let role = json!({"key": key, "name": key, "permissions": permissions});
            fixture.must("POST", "/v1/roles", Some(role));
        }
        fixture.must("POST", "/v1/grants", Some(json!({"role": "weak", "user": "guest"})));
        fixture.allow("author", &["update-user"]);
        let invitation = invite(&fixture, &fixture.cached_credentials("author"));
        gain(&fixture);
        lose(&fixture);
        assert_eq!(redeem(&fixture, &invitation), expected, "{name}");
    }
}

#[test]
fn operator_invitation_survives_changes_of_groups() {
    let fixture = Fixture::start();
    fixture.user("guest", &[]);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "guest"})));
    let invitation = invite(&fixture, &Credentials::Operator);
    fixture.must("POST", "/v1/groups", Some(json!({"name": "club"})));
    fixture.must("PATCH", "/v1/groups/club", Some(json!({"name": "walkers"})));
    assert_eq!(redeem(&fixture, &invitation), 200);
}

#[test]
fn invitation_of_who_was_banned_does_not_come_back() {
    let fixture = Fixture::start();
    fixture.user("guest", &[]);
    let invitation = invite(&fixture, &Credentials::Operator);
    fixture.must("POST", "/v1/users/guest/ban", None);
    fixture.must("POST", "/v1/users/guest/unban", None);
    assert_eq!(redeem(&fixture, &invitation), 403);
}

/// Otherwise an unlocked screen would be enough to come back at any time.
#[test]
fn first_password_takes_an_invitation() {
    let header =
        UserHeader { name: "x-remote-user".parse().unwrap(), from: vec!["127.0.0.0/8".parse().unwrap()] };
    let fixture = Fixture::signed_in_by(None, SignIn { header: Some(header), ..SignIn::default() });
    fixture.user("guest", &[]);
    fixture.allow("guest", &["update-self"]);
    let send = |request: Request| request.field("X-Remote-User", "guest").over_tcp(fixture.address);
    let session = send(Request::new("GET", "/v1/session"));
    let set = Request::new("PUT", "/v1/users/me/password").json(&json!({"password": PASSWORD}));
    let set = send(set.field("X-CSRF-Token", session.json()["csrf"].as_str().unwrap()));
    assert_eq!(set.outcome(), (403, "permission_denied".into()), "{}", set.text());
    assert_eq!(fixture.sign_in("guest", PASSWORD).status, 401);
}

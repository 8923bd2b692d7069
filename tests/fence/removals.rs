//! Every way in which an account or a token loses a service cuts what runs because of it.

use serde_json::{Value, json};

use super::{check_cut, streaming};
use crate::support::{gateway::Gateway, http::Client, upstream::Upstream};

/// A call: method, target and body. `{login}`, `{id}` and `{text}` are the row's user and token.
type Call<'a> = (&'a str, &'a str, Value);

/// `/api` for developers, `/reports` for staff and its team, `/vault` for nobody but by a role.
fn sections(upstream: &Upstream) -> String {
    let service = |key: &str, readers: &str| {
        format!("[service.{key}]\nupstream = \"one\"\npaths = [\"/{key}\"]\nreaders = [{readers}]\n")
    };
    let services = Gateway::services(upstream.address);
    services + &service("reports", "\"staff\"") + &service("vault", "")
}

#[test]
fn every_removal_cuts_before_it_answers() {
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::with(&sections(&upstream));
    let call = |(method, target, body): &Call<'_>, [login, id, text]: [&str; 3]| {
        let fill = |part: &str| part.replace("{login}", login).replace("{id}", id).replace("{text}", text);
        let body = (!body.is_null()).then(|| fill(&body.to_string()));
        gateway.must(method, &fill(target), body.as_deref())
    };
    let operator = |one: Call<'_>| call(&one, ["", "", ""]);
    for group in
        [json!({"name": "staff"}), json!({"name": "team", "parent": "staff"}), json!({"name": "crew"})]
    {
        operator(("POST", "/v1/groups", group));
    }
    let role = json!({"key": "reader", "name": "Reader", "permissions": ["read-service"]});
    operator(("POST", "/v1/roles", role.clone()));
    let crew = json!({"role": "reader", "group": "crew"});
    operator(("POST", "/v1/grants", crew.clone()));
    let user = json!({"role": "reader", "user": "{login}"});

    let in_team: Call<'_> = ("PUT", "/v1/groups/team/members/{login}", Value::Null);
    let in_crew: Call<'_> = ("PUT", "/v1/groups/crew/members/{login}", Value::Null);
    let granted: Call<'_> = ("POST", "/v1/grants", user.clone());
    // (row, service, what gives it, what takes it away, how others get it back)
    let rows: [(&str, &str, Option<&Call<'_>>, Call<'_>, Option<Call<'_>>); 13] = [
        (
            "by value",
            "tracker",
            None,
            ("POST", "/v1/tokens/revoke-by-value", json!({"token": "{text}"})),
            None,
        ),
        ("a leak", "tracker", None, ("POST", "/v1/leaks", json!({"texts": ["in {text}"]})), None),
        (
            "bound",
            "tracker",
            None,
            ("PATCH", "/v1/tokens/{id}", json!({"allow_ips": ["192.0.2.0/24"]})),
            None,
        ),
        ("leave below", "reports", Some(&in_team), ("DELETE", in_team.1, Value::Null), None),
        (
            "move the group",
            "reports",
            Some(&in_team),
            ("PATCH", "/v1/groups/team", json!({"parent": null})),
            Some(("PATCH", "/v1/groups/team", json!({"parent": "staff"}))),
        ),
        (
            "rename the reader",
            "reports",
            Some(&in_team),
            ("PATCH", "/v1/groups/staff", json!({"name": "others"})),
            Some(("PATCH", "/v1/groups/others", json!({"name": "staff"}))),
        ),
        ("delete the group", "reports", Some(&in_team), ("DELETE", "/v1/groups/team", Value::Null), None),
        ("withdraw", "vault", Some(&granted), ("DELETE", "/v1/grants", user.clone()), None),
        ("leave the role's group", "vault", Some(&in_crew), ("DELETE", in_crew.1, Value::Null), None),
        (
            "withdraw from the group",
            "vault",
            Some(&in_crew),
            ("DELETE", "/v1/grants", crew.clone()),
            Some(("POST", "/v1/grants", crew)),
        ),
        (
            "the role loses it",
            "vault",
            Some(&granted),
            ("PATCH", "/v1/roles/reader", json!({"permissions": ["read-user"]})),
            Some(("PATCH", "/v1/roles/reader", json!({"permissions": ["read-service"]}))),
        ),
        ("delete the role", "vault", Some(&granted), ("DELETE", "/v1/roles/reader", Value::Null), None),
        ("no grace", "tracker", None, ("POST", "/v1/tokens/{id}/rotate", json!({"grace": "0s"})), None),
    ];
    for (at, (row, service, gives, takes, back)) in rows.into_iter().enumerate() {
        let login = format!("user{at}");
        gateway.developer(&login);
        gives.map(|gives| call(gives, [&login, "", ""]));
        let (id, text) = gateway.token(&login, "ci", &[service]);
        let target = if service == "tracker" { "/api/events" } else { &format!("/{service}/events") };
        let stream = streaming(&gateway, target, &text);
        assert_eq!(call(&takes, [&login, &id, &text])["cut"], 1, "{row}");
        check_cut(row, stream);
        let refused = if service == "tracker" { 401 } else { 403 };
        assert_eq!(gateway.get(target, Some(&text)).status, refused, "{row}");
        back.map(operator);
    }
}

/// A thief of the token may have rotated it by itself.
#[test]
fn successor_that_a_token_made_is_cut_with_it() {
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::with(&sections(&upstream));
    gateway.developer("alice");
    let (id, text) = gateway.token("alice", "ci", &["permgate", "tracker"]);
    let bearer = format!("Bearer {text}");
    let target = format!("/v1/tokens/{id}/rotate");
    let made = Client::tcp(gateway.admin).request("POST", &target, &[("Authorization", &bearer)], Some("{}"));
    let next = made.json()["token"].as_str().unwrap().to_owned();
    let stream = streaming(&gateway, "/api/events", &next);
    assert_eq!(gateway.must("DELETE", &format!("/v1/tokens/{id}"), None)["cut"], 1);
    check_cut("the successor's", stream);
}

#[test]
fn time_that_a_change_has_shortened_cuts_when_it_is_over() {
    let (upstream, _over) = Upstream::endless();
    let gateway = Gateway::with(&sections(&upstream));
    gateway.developer("alice");
    for (row, method, call, body) in [
        ("expiry", "PATCH", "", r#"{"expires_in": "1s"}"#),
        ("grace", "POST", "/rotate", r#"{"grace": "1s"}"#),
    ] {
        let (id, text) = gateway.token("alice", row, &["tracker"]);
        let stream = streaming(&gateway, "/api/events", &text);
        assert_eq!(gateway.must(method, &format!("/v1/tokens/{id}{call}"), Some(body))["cut"], 0, "{row}");
        check_cut(row, stream);
        assert_eq!(gateway.get("/api/events", Some(&text)).status, 401, "{row}");
    }
}

/// Its upstream was told of an account that may not read it any more.
#[test]
fn what_anybody_may_read_is_cut_with_the_permit_of_its_account() {
    let (upstream, _over) = Upstream::endless();
    let public = "[[public]]\nservice = \"tracker\"\nprefix = \"/api/public\"\n";
    let gateway = Gateway::with(&(sections(&upstream) + public));
    gateway.developer("alice");
    let (_, text) = gateway.token("alice", "ci", &["tracker"]);
    let stream = streaming(&gateway, "/api/public/events", &text);
    assert_eq!(gateway.must("DELETE", "/v1/groups/developers/members/alice", None)["cut"], 1);
    check_cut("the account's", stream);
    streaming(&gateway, "/api/public/events", &text);
}

#[test]
fn every_reload_cuts_what_it_forbids() {
    let (upstream, _over) = Upstream::endless();
    let paths = "paths = [\"/api\", \"/rest\"]";
    let usual =
        sections(&upstream).replace(paths, &format!("{paths}\ncredentials = [\"bearer\", \"basic\"]"));
    let public = "[[public]]\nservice = \"tracker\"\nprefix = \"/api/public\"\n";
    let gateway = Gateway::with(&format!("{usual}{public}"));
    gateway.developer("alice");
    let (_, text) = gateway.token("alice", "ci", &["tracker", "hub"]);
    let replaced = |from: &str, to: &str| usual.replacen(from, to, 1);
    let other = format!("{paths}\nhosts = [\"other.example\"]");
    let moved = replaced(paths, "paths = [\"/rest\"]")
        + "[service.new]\nupstream = \"one\"\npaths = [\"/api\"]\nreaders = [\"developers\"]\n";
    for (row, after) in [
        ("readers", replaced("readers = [\"developers\"]", "readers = [\"staff\"]")),
        ("methods", replaced(paths, &format!("{paths}\nmethods = [\"POST\"]"))),
        ("hosts", replaced(paths, &other)),
        ("the path's owner", moved),
        ("to one that the token may use", replaced("\"/api\", ", "").replace("\"/hub/api\"", "\"/api\"")),
        ("carriers", replaced("[\"bearer\", \"basic\"]", "[\"basic\"]")),
    ] {
        let stream = streaming(&gateway, "/api/events", &text);
        gateway.write(&after);
        assert_eq!(gateway.must("POST", "/v1/reload", None)["cut"], 1, "{row}");
        check_cut(row, stream);
        gateway.write(&format!("{usual}{public}"));
        gateway.must("POST", "/v1/reload", None);
    }
    let mut stream = gateway.open("/api/public/events", None);
    assert_eq!(stream.head().status, 200);
    gateway.write(&usual);
    assert_eq!(gateway.must("POST", "/v1/reload", None)["cut"], 1);
    check_cut("the public rule", stream);
}

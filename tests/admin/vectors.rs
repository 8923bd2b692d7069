//! The administration cases of `data/decisions.json` over the API, once with a signed-in browser and once
//! with a token that reaches everything its owner reads.

use std::time::{Duration, SystemTime};

use permgate::authz::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Browser, Credentials, Fixture, id, new_token, text};

/// Cases without an equivalent for tokens: a dead session is 401 `unauthorized`, a dead token 401
/// `invalid_token`.
const NOT_BY_TOKEN: [&str; 1] = ["M40"];

#[test]
fn administration_vectors_hold_over_the_api() {
    let data: Value = serde_json::from_str(include_str!("../data/decisions.json")).unwrap();
    let cases = data["admin_vectors"].as_array().unwrap();
    let mut held = 0;
    for case in cases {
        check(&data, case, Credential::Browser);
        if !NOT_BY_TOKEN.contains(&case["id"].as_str().unwrap()) {
            check(&data, case, Credential::Token);
        }
        held += 1;
    }
    assert_eq!(held, 28);
}

/// What is used in place of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential {
    Browser,
    Token,
}

fn check(data: &Value, case: &Value, credential: Credential) {
    let days = case["override"]["settings"]["max_lifetime_days"].as_u64();
    let actor =
        case["actor"].as_str().filter(|_| case["auth"] == "session" && credential == Credential::Browser);
    let world = World::new(data, days.map(|days| Duration::from_secs(days * 86_400)), actor);
    let name = format!("{}, {}, {credential:?}", case["id"], case["why"]);
    let sender = match case["auth"].as_str().unwrap() {
        "none" => Credentials::Anonymous,
        "session" if credential == Credential::Browser => {
            Credentials::Browser(world.browser.clone().unwrap())
        }
        "session" => world.fixture.credentials(case["actor"].as_str().unwrap()),
        token => Credentials::Bearer(text(world.token(token.strip_prefix("token:").unwrap()))),
    };
    let params = &case["params"];
    let user = params["user"].as_str().unwrap_or("me");
    let path = || {
        let known = data["fixture"]["tokens"].as_array().unwrap();
        let known = known.iter().find(|token| token["id"] == params["token_id"]).unwrap();
        format!("/v1/tokens/{}", id(world.token(known["ref"].as_str().unwrap())))
    };
    let mut body = params.clone();
    for field in ["user", "token_id"] {
        body.as_object_mut().unwrap().remove(field);
    }
    if let Some(at) = body.get("expires_at").and_then(Value::as_str) {
        body["expires_at"] = world.shift(at).into();
    }
    let answer = match case["action"].as_str().unwrap() {
        "create_token" => {
            // With limited lifetimes, the token that replaces the session would expire
            // before the token it creates.
            let limited = days.is_some() && credential == Credential::Token;
            let within = if limited { Credentials::Operator } else { sender };
            let user = if limited { case["actor"].as_str().unwrap() } else { user };
            world.fixture.call(&within, "POST", &format!("/v1/users/{user}/tokens"), Some(&body))
        }
        "list_tokens" => world.fixture.call(&sender, "GET", &format!("/v1/users/{user}/tokens"), None),
        "revoke_token" => world.fixture.call(&sender, "DELETE", &path(), None),
        "rotate_token" => world.fixture.call(&sender, "POST", &format!("{}/rotate", path()), None),
        "update_token" => world.fixture.call(&sender, "PATCH", &path(), Some(&body)),
        other => panic!("{name}: {other}"),
    };
    let expected = &case["expect"];
    let error = expected["error"].as_str().unwrap_or_default().to_owned();
    let status = u16::try_from(expected["status"].as_u64().unwrap()).unwrap();
    assert_eq!(answer.outcome(), (status, error), "{name}: {}", answer.text());
}

/// The accounts of the vectors and the tokens that the cases name, on the real clock.
struct World {
    fixture: Fixture,
    /// The browser of the case's actor, signed in before anybody was banned.
    browser: Option<Browser>,
    tokens: Vec<(String, Value)>,
    /// Offset from the vectors' clock to the real one, in milliseconds.
    later: i64,
}

impl World {
    fn new(data: &Value, max_lifetime: Option<Duration>, actor: Option<&str>) -> Self {
        let fixture = Fixture::with(max_lifetime);
        let of = |key: &str| data["fixture"][key].as_array().unwrap().iter();
        let named = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        for user in of("users") {
            let kind = named(user, "type");
            fixture.must("POST", "/v1/users", Some(json!({"login": user["login"], "kind": kind})));
        }
        for group in of("groups").filter(|group| group["builtin"] != true) {
            let body = json!({"name": group["name"], "parent": group["parent"]});
            fixture.must("POST", "/v1/groups", Some(body));
            for member in group["members"].as_array().unwrap() {
                let path =
                    format!("/v1/groups/{}/members/{}", named(group, "name"), member.as_str().unwrap());
                fixture.must("PUT", &path, None);
            }
        }
        for role in
            of("roles").filter(|role| !matches!(role["key"].as_str(), Some("system-admin" | "contributor")))
        {
            let body = json!({"key": role["key"], "name": role["key"], "permissions": role["permissions"]});
            fixture.must("POST", "/v1/roles", Some(body));
        }
        for grant in of("assignments") {
            fixture.must("POST", "/v1/grants", Some(grant.clone()));
        }
        let now = Timestamp::from(SystemTime::now()).as_millis();
        let then: jiff::Timestamp = data["now"].as_str().unwrap().parse().unwrap();
        let browser = actor.map(|login| fixture.browser(login));
        let mut world = Self { fixture, browser, tokens: Vec::new(), later: now - then.as_millisecond() };
        let named_ones =
            ["alice-yt", "alice-both", "alice-ro", "alice-revoked", "alice-admin", "bob-yt", "carol-vault"];
        for token in of("tokens").filter(|token| named_ones.iter().any(|name| token["ref"] == *name)) {
            let mut body = new_token(token["name"].as_str().unwrap(), &[]);
            body["scope"] = token["scope"].clone();
            body["expires_at"] = token["expires_at"].as_str().map(|at| world.shift(at)).into();
            if max_lifetime.is_some() && body["expires_at"].is_null() {
                body["expires_in"] = "1d".into();
            }
            let path = format!("/v1/users/{}/tokens", named(token, "owner"));
            let made = world.fixture.must("POST", &path, Some(body));
            if !token["revoked_at"].is_null() {
                world.fixture.must("DELETE", &format!("/v1/tokens/{}", id(&made)), None);
            }
            world.tokens.push((named(token, "ref"), made));
        }
        for user in of("users").filter(|user| user["deleted"] == true) {
            world.fixture.must("DELETE", &format!("/v1/users/{}", named(user, "login")), None);
        }
        for user in of("users").filter(|user| user["banned"] == true) {
            world.fixture.must("POST", &format!("/v1/users/{}/ban", named(user, "login")), None);
        }
        world
    }

    fn token(&self, named: &str) -> &Value {
        &self.tokens.iter().find(|(name, _)| name == named).unwrap_or_else(|| panic!("{named}")).1
    }

    fn shift(&self, at: &str) -> String {
        let at: jiff::Timestamp = at.parse().unwrap();
        jiff::Timestamp::from_millisecond(at.as_millisecond() + self.later).unwrap().to_string()
    }
}

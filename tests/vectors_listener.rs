//! The cases of `data/decisions.json` over a real listener, if they can be set up over the admin API with
//! digests of their texts. [`LEFT_OUT`] lists the others and why.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "hostile/recorder.rs"]
#[allow(dead_code, reason = "shared with the hostile tests")]
mod recorder;
#[path = "hostile/stage.rs"]
#[allow(dead_code, reason = "shared with the hostile tests")]
mod stage;
mod support;

use recorder::Recorder;
use serde_json::{Value, json};
use stage::exchange_bytes;
use support::gateway::Gateway;

/// Cases that need another time or a state that an import cannot create.
const LEFT_OUT: [(&str, &str); 10] = [
    ("T01", "nothing may be imported for it"),
    ("T02", "nothing may be imported for it"),
    ("T09", "needs perm_alias = false, and nothing imported"),
    ("T10", "nothing may be imported for it"),
    ("S02", "an expired token cannot be imported"),
    ("S04", "about a moment that has passed"),
    ("S05", "an import has no not_before"),
    ("S06", "an import has no not_before"),
    ("A02", "an expired token cannot be imported"),
    ("S12", "the owner is banned in all other cases"),
];

#[test]
fn decisions_over_a_listener() {
    let data: Value = serde_json::from_str(include_str!("data/decisions.json")).unwrap();
    let recorder = Recorder::start();
    let gateway = set_up(&data["fixture"], &recorder);
    let mut ran = 0;
    for vector in data["vectors"].as_array().unwrap() {
        let name = vector["id"].as_str().unwrap();
        if LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
            continue;
        }
        check(&gateway, &recorder, name, vector);
        ran += 1;
    }
    assert_eq!(ran + LEFT_OUT.len(), data["vectors"].as_array().unwrap().len());
}

fn check(gateway: &Gateway, recorder: &Recorder, name: &str, vector: &Value) {
    let (request, expect) = (&vector["request"], &vector["expect"]);
    let (method, target) = (request["method"].as_str().unwrap(), request["target"].as_str().unwrap());
    // On the wire, a CONNECT's target is an authority.
    let sent = if method == "CONNECT" { "g:80" } else { target };
    let mut head = format!("{method} {sent} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n");
    for field in request["headers"].as_array().unwrap() {
        head += &format!("{}: {}\r\n", field[0].as_str().unwrap(), field[1].as_str().unwrap());
    }
    // The test acts as the trusted proxy and states the peer's address.
    head += &format!("X-Forwarded-For: {}\r\n\r\n", request["peer_ip"].as_str().unwrap());
    let heard = exchange_bytes(gateway.proxy, head.as_bytes(), false);
    let received = recorder.take();
    let text = String::from_utf8_lossy(&heard.bytes).into_owned();
    let status: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(expect["status"], status, "{name}: {text}");
    if status == 200 {
        let [one] = &received[..] else { panic!("{name}: {received:?}") };
        assert_eq!((one.target.as_str(), &one.fault), (target, &None), "{name}");
        for field in expect["upstream_headers_absent"].as_array().into_iter().flatten() {
            assert!(one.all(field.as_str().unwrap()).is_empty(), "{name}: {field} in {one:?}");
        }
        for (field, value) in expect["upstream_headers"].as_object().into_iter().flatten() {
            // An imported token and its owner get new ids.
            match field.as_str() {
                "x-permgate-token-id" | "x-permgate-user-id" => {
                    assert_eq!(one.all(field).len(), 1, "{name}: {field}");
                }
                _ => assert_eq!(one.all(field), [value.as_str().unwrap()], "{name}: {field}"),
            }
        }
        return;
    }
    assert!(received.is_empty(), "{name}: {received:?}");
    let answers = heard.answers();
    if method != "HEAD" {
        assert_eq!(answers[0].json()["error"], expect["error"], "{name}: {text}");
    }
    assert_eq!(answers[0].field("www-authenticate"), expect["www_authenticate"].as_str(), "{name}");
}

fn set_up(fixture: &Value, recorder: &Recorder) -> Gateway {
    let mut sections = format!("[upstream.one]\nurls = [\"http://{}\"]\n", recorder.address);
    for service in rows(fixture, "services").filter(|service| service["builtin"] != true) {
        let key = service["key"].as_str().unwrap();
        sections += &format!(
            "[service.{key}]\ntitle = {}\nupstream = \"one\"\npaths = {}\nreaders = {}\n",
            service["name"], service["paths"], service["access_groups"]
        );
        for path in service["paths"].as_array().unwrap().iter().filter(|_| service["public"] == true) {
            sections += &format!("[[public]]\nservice = \"{key}\"\nprefix = {path}\n");
        }
    }
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1/32\", \"192.0.2.10/32\"]\n\
         [admin]\nlisten = [\"unix:permgate.sock\", \"127.0.0.1:0\"]\n[store]\npath = \"data\"\nballast = \"64k\"\n\
         [log]\naccess = \"off\"\n{sections}"
    );
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
    for user in rows(fixture, "users") {
        gateway.must(
            "POST",
            "/v1/users",
            Some(&json!({"login": user["login"], "kind": user["type"]}).to_string()),
        );
    }
    for group in rows(fixture, "groups").filter(|group| group["builtin"] != true) {
        let mut body = json!({"name": group["name"]});
        if let Some(parent) = group["parent"].as_str() {
            body["parent"] = json!(parent);
        }
        gateway.must("POST", "/v1/groups", Some(&body.to_string()));
        for member in group["members"].as_array().unwrap() {
            let target = format!("/v1/groups/{}/members/{}", text_of(&group["name"]), text_of(member));
            gateway.must("PUT", &target, None);
        }
    }
    for role in
        rows(fixture, "roles").filter(|r| !["system-admin", "contributor"].contains(&text_of(&r["key"])))
    {
        let body = json!({"key": role["key"], "name": role["key"], "permissions": role["permissions"]});
        gateway.must("POST", "/v1/roles", Some(&body.to_string()));
    }
    for grant in rows(fixture, "assignments").filter(|grant| grant["group"] != "all-users") {
        gateway.must("POST", "/v1/grants", Some(&grant.to_string()));
    }
    let tokens: Vec<Value> = rows(fixture, "tokens")
        .map(|token| {
            let digest = blake3::hash(text_of(&token["text"]).as_bytes()).to_hex();
            json!({"digest": digest.as_str(), "owner": token["owner"], "name": token["name"], "scope": token["scope"]})
        })
        .collect();
    let imported = gateway.must("POST", "/v1/tokens/import", Some(&json!({"tokens": tokens}).to_string()));
    for (token, outcome) in rows(fixture, "tokens").zip(imported["tokens"].as_array().unwrap()) {
        let id = outcome["id"].as_str().unwrap_or_else(|| panic!("{token}: {outcome}"));
        if token["allow_ips"].as_array().is_some_and(|ips| !ips.is_empty()) {
            let body = json!({"allow_ips": token["allow_ips"]}).to_string();
            gateway.must("PATCH", &format!("/v1/tokens/{id}"), Some(&body));
        }
        if token["revoked_at"].is_string() {
            gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        }
        if let Some(until) = token["grace_until"].as_str() {
            let grace = if until > "2026-06-01T12" { "1h" } else { "0s" };
            gateway.must(
                "POST",
                &format!("/v1/tokens/{id}/rotate"),
                Some(&json!({"grace": grace}).to_string()),
            );
        }
    }
    for user in rows(fixture, "users") {
        if user["banned"] == true {
            gateway.must("POST", &format!("/v1/users/{}/ban", text_of(&user["login"])), Some("{}"));
        }
        if user["deleted"] == true {
            gateway.must("DELETE", &format!("/v1/users/{}", text_of(&user["login"])), None);
        }
    }
    gateway
}

fn rows<'a>(fixture: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    fixture[list].as_array().unwrap().iter()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

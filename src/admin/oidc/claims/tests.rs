use serde_json::json;

use super::*;
use crate::admin::sign_in::GroupMapping;

const NOW: i64 = 1_800_000_000;

fn provider() -> Provider {
    let group = |claim: &str, group: &str| GroupMapping { claim: claim.into(), group: group.into() };
    Provider {
        issuer: "https://id.example".into(),
        client_id: "gate".into(),
        client_secret: None,
        title: "Example".into(),
        scopes: vec!["openid".into()],
        login_claim: "preferred_username".into(),
        groups_claim: "groups".into(),
        groups: vec![group("dev", "developers"), group("qa", "developers"), group("ops", "ops")],
        link_logins: false,
        tls: None,
    }
}

fn claims(value: Value) -> Claims {
    let Value::Object(claims) = value else { panic!("claims are an object") };
    claims
}

#[test]
fn a_token_is_for_us_now_and_for_this_flow() {
    let check = |name: &str, changes: Value, fits: bool| {
        let mut token = json!({
            "iss": "https://id.example", "aud": "gate", "sub": "1", "nonce": "n", "iat": NOW, "exp": NOW + 300,
        });
        for (field, value) in claims(changes) {
            match value {
                Value::Null => drop(token.as_object_mut().unwrap().remove(&field)),
                value => token[field] = value,
            }
        }
        let now = Timestamp::from_millis(NOW * 1000);
        assert_eq!(super::check(&claims(token), &provider(), "n", now).is_ok(), fits, "{name}");
    };
    check("sound", json!({}), true);
    check("another issuer", json!({"iss": "https://id.example/"}), false);
    check("no issuer", json!({"iss": null}), false);
    check("another audience", json!({"aud": "other"}), false);
    check("no audience", json!({"aud": null}), false);
    check("a list with us alone", json!({"aud": ["gate"]}), true);
    check("several, given to us", json!({"aud": ["other", "gate"], "azp": "gate"}), true);
    check("several, given to nobody", json!({"aud": ["other", "gate"]}), false);
    check("given to somebody else", json!({"azp": "other"}), false);
    check("given to a number", json!({"azp": 1}), false);
    check("expired", json!({"exp": NOW - 60}), false);
    check("expired within the leeway", json!({"exp": NOW - 59}), true);
    check("no end", json!({"exp": null}), false);
    check("an end in words", json!({"exp": "2099"}), false);
    check("from the future", json!({"iat": NOW + 61}), false);
    check("no beginning", json!({"iat": null}), false);
    check("not yet", json!({"nbf": NOW + 61}), false);
    check("not yet, in words", json!({"nbf": "now"}), false);
    check("fractions", json!({"iat": NOW as f64 + 0.5, "exp": NOW as f64 + 9.5}), true);
    check("another nonce", json!({"nonce": "m"}), false);
    check("no nonce", json!({"nonce": null}), false);
    check("no subject", json!({"sub": null}), false);
    check("an empty subject", json!({"sub": ""}), false);
    check("a number", json!({"sub": 7}), false);
    check("a long subject", json!({"sub": "x".repeat(255)}), true);
    check("a longer one", json!({"sub": "x".repeat(256)}), false);
}

#[test]
fn groups_are_those_that_the_provider_decides_about() {
    let check = |name: &str, groups: Value, expected: Option<(bool, bool)>| {
        let mut given = json!({"preferred_username": "ann"});
        if !groups.is_null() {
            given["groups"] = groups;
        }
        let person = UserInfo::from_claims("1".into(), &claims(given), None, &provider()).ok();
        let expected = expected
            .map(|(developers, ops)| vec![("developers".to_owned(), developers), ("ops".to_owned(), ops)]);
        assert_eq!(person.map(|person| person.groups), expected, "{name}");
    };
    check("two", json!(["ops", "dev"]), Some((true, true)));
    check("another name of one", json!(["qa"]), Some((true, false)));
    check("one, not as a list", json!("ops"), Some((false, true)));
    check("ours, not theirs", json!(["developers"]), Some((false, false)));
    check("others", json!(["admins", "OPS"]), Some((false, false)));
    check("none", json!([]), Some((false, false)));
    check("nothing said", json!(null), Some((false, false)));
    check("numbers", json!([1]), None);
    check("an object", json!({"ops": true}), None);
}

#[test]
fn what_is_signed_comes_first() {
    let token = claims(json!({"preferred_username": "ann", "name": "Ann"}));
    let more = claims(json!({"preferred_username": "eve", "email": "ann@example.org", "groups": ["ops"]}));
    assert!(
        !has_every_claim(&token, &provider())
            && !has_every_claim(&more, &Provider { login_claim: "x".into(), ..provider() })
    );
    assert!(has_every_claim(&token, &Provider { groups: Vec::new(), ..provider() }));
    let person = UserInfo::from_claims("1".into(), &token, Some(&more), &provider()).unwrap();
    assert_eq!((person.login.as_str(), person.name.as_str()), ("ann", "Ann"));
    assert_eq!(person.email.as_deref(), Some("ann@example.org"));
    assert_eq!(person.groups[1], ("ops".to_owned(), true));
    let nameless = UserInfo::from_claims("1".into(), &claims(json!({"sub": "1"})), None, &provider());
    assert!(matches!(nameless, Err(ProviderError::NoLogin(_))));
}

#[test]
fn an_address_is_a_login_once_it_is_verified() {
    let provider = Provider { login_claim: "email".into(), ..provider() };
    let check = |name: &str, verified: Value, fits: bool| {
        let given = json!({"email": "ann@example.org", "email_verified": verified});
        assert_eq!(
            UserInfo::from_claims("1".into(), &claims(given), None, &provider).is_ok(),
            fits,
            "{name}"
        );
    };
    check("verified", json!(true), true);
    check("not", json!(false), false);
    check("in words", json!("true"), false);
    check("nothing said", json!(null), false);
}

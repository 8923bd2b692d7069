//! Sign-in through an OpenID Connect provider that follows the specification until a test breaks it.

use serde_json::{Value, json};

use self::world::{ClientAuthMethod, Provider, SECRET, World, key, merge, now};
use crate::{
    exchange::{Answer, Request},
    harness::{Browser, Credentials, Fixture},
};

mod world;

/// Begins a sign-in. Returns the cookie, and the address that the browser is redirected to.
fn begin_sign_in(fixture: &Fixture, next: &str) -> (String, String) {
    let target = format!("/sign-in/oidc?next={next}");
    let answer = fixture.call(&Credentials::Anonymous, "GET", &target, None);
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    (cookie, answer.field("location").unwrap().to_owned())
}

fn return_from_provider(fixture: &Fixture, cookie: &str, target: &str) -> Answer {
    let request = Request::new("GET", target)
        .field("Cookie", cookie)
        .field("Sec-Fetch-Site", "cross-site")
        .field("Accept", "text/html");
    fixture.send(&Credentials::Anonymous, request)
}

/// A complete sign-in.
fn sign_in(provider: &Provider, fixture: &Fixture) -> Answer {
    let (cookie, location) = begin_sign_in(fixture, "/tokens");
    return_from_provider(fixture, &cookie, &provider.consent(&location))
}

/// The session's cookie, if one was set.
fn session(answer: &Answer) -> Option<String> {
    let set = answer.all("set-cookie");
    let cookie = set.iter().find(|set| set.starts_with("permgate="))?;
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

fn whoami(fixture: &Fixture, cookie: &str) -> Value {
    let request = Request::new("GET", "/v1/session").field("Cookie", cookie);
    let answer = fixture.send(&Credentials::Anonymous, request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn user_signs_in_through_the_provider() {
    let provider = Provider::start();
    let fixture = provider.gateway();
    let page = fixture.call(&Credentials::Anonymous, "GET", "/sign-in?next=/tokens?user=me", None);
    let link = "href=\"http://localhost/sign-in/oidc?next=%2Ftokens%3Fuser%3Dme\"";
    assert!(
        page.text().contains(link) && page.text().contains("Sign in with Example &#60;ID&#62;"),
        "{}",
        page.text()
    );
    let (cookie, location) = begin_sign_in(&fixture, "/tokens?user=me");
    assert!(cookie.starts_with("permgate-flow="), "{cookie}");
    let back = provider.consent(&location);
    let head = Request::new("HEAD", &back).field("Cookie", &cookie);
    assert_eq!(fixture.send(&Credentials::Anonymous, head).status, 405, "the code is still there after it");
    let answer = return_from_provider(&fixture, &cookie, &back);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("content=\"0;url=/tokens?user=me\""), "{}", answer.text());
    assert!(answer.all("set-cookie").iter().any(|set| set.starts_with("permgate-flow=; Path=/; Max-Age=0")));
    let first = session(&answer).unwrap();
    let told = whoami(&fixture, &first);
    assert_eq!(
        (told["user"].as_str(), told["by"].as_str(), told["name"].as_str()),
        (Some("zoe"), Some("provider"), Some("Zoe"))
    );
    let user = fixture.must("GET", "/v1/users/zoe", None);
    assert_eq!(user["groups"], json!(["developers"]), "{user}");

    assert_eq!(return_from_provider(&fixture, &cookie, &back).status, 403, "a code is redeemed once");
    let (cookie, location) = begin_sign_in(&fixture, "//evil.example");
    let request =
        Request::new("GET", &provider.consent(&location)).field("Cookie", &format!("{cookie}; {first}"));
    let again = fixture.send(&Credentials::Anonymous, request);
    assert!(again.text().contains("content=\"0;url=/profile/authentication\""), "{}", again.text());
    let second = session(&again).unwrap();
    assert_eq!(whoami(&fixture, &second)["user_id"], told["user_id"], "the same account");
    let request = Request::new("GET", "/v1/whoami").field("Cookie", &first);
    assert_eq!(fixture.send(&Credentials::Anonymous, request).status, 401, "the session that was replaced");

    let audit = fixture.must("GET", "/v1/audit?limit=50", None).to_string();
    for secret in [&cookie[14..], &first[9..], &second[9..], SECRET, "code-0", "opaque"] {
        assert!(!audit.contains(secret), "{audit}");
    }
    assert!(audit.contains("\"subject\\\":\\\"1\\\"") || audit.contains("\"subject\":\"1\""), "{audit}");
}

#[test]
fn mismatched_provider_response_signs_nobody_in() {
    let refused = |name: &str,
                   change: &dyn Fn(&mut World),
                   bend: &dyn Fn(&str, &str) -> (String, String),
                   status: u16| {
        let provider = Provider::start();
        let fixture = provider.gateway();
        provider.change(change);
        let (cookie, location) = begin_sign_in(&fixture, "/");
        let (cookie, target) = bend(&cookie, &provider.consent(&location));
        let answer = return_from_provider(&fixture, &cookie, &target);
        assert_eq!((answer.status, session(&answer)), (status, None), "{name}: {}", answer.text());
        assert!(fixture.store.accounts().user_by_login("zoe").is_none(), "{name}: no account is made");
        assert!(answer.text().contains("<h1>"), "{name}: a page says so");
    };
    let straight = |cookie: &str, target: &str| (cookie.to_owned(), target.to_owned());
    let bent = |name: &str, bend: &dyn Fn(&str, &str) -> (String, String), status: u16| {
        refused(name, &|_| {}, bend, status);
    };
    bent("another browser", &|_, target| (String::new(), target.into()), 400);
    let other = format!("permgate-flow={}.", "0".repeat(64));
    bent("another flow", &|_, target| (other.clone(), target.into()), 400);
    bent("two flows", &|cookie, target| (format!("{cookie}; {other}"), target.into()), 400);
    bent("no state", &|cookie, target| (cookie.into(), target.replace("state=", "stat=")), 400);
    bent("two states", &|cookie, target| (cookie.into(), format!("{target}&state=x")), 400);
    bent("two codes", &|cookie, target| (cookie.into(), format!("{target}&code=x")), 400);
    bent(
        "another provider's answer",
        &|cookie, target| (cookie.into(), target.replace("realm", "other")),
        403,
    );
    bent("nobody's answer", &|cookie, target| (cookie.into(), target.replace("&iss=", "&is=")), 403);
    bent("no code", &|cookie, target| (cookie.into(), target.replace("code=", "cod=")), 403);
    bent("another code", &|cookie, target| (cookie.into(), target.replace("code-", "cod-")), 403);
    let denied = |cookie: &str, target: &str| (cookie.into(), format!("{target}&error=access_denied"));
    bent("the person does not agree", &denied, 403);

    let claims = |name: &str, claims: Value| {
        refused(name, &|world| merge(&mut world.claims, &claims), &straight, 403);
    };
    claims("another nonce", json!({"nonce": "n"}));
    claims("for somebody else", json!({"aud": "other"}));
    claims("of somebody else", json!({"iss": "http://id.example"}));
    claims("expired", json!({"exp": now() - 100}));
    claims("no subject", json!({"sub": null}));
    claims("groups that are none", json!({"groups": {"ops": true}}));
    claims("no login", json!({"preferred_username": null}));
    claims("a login that is none", json!({"preferred_username": "../zoe"}));
    claims("a login with a meaning", json!({"preferred_username": "me"}));
    refused("not signed", &|world| world.header = json!({"alg": "none"}), &straight, 403);
    refused("a shared secret", &|world| world.header = json!({"alg": "HS256"}), &straight, 403);
    refused("a key of nobody's", &|world| world.header = json!({"kid": "other"}), &straight, 403);
    refused("another key of the same name", &|world| world.key = key("first").0, &straight, 403);
    let userinfo = |world: &mut World| {
        merge(&mut world.claims, &json!({"groups": null}));
        world.userinfo = json!({"sub": "2", "groups": ["ops"]});
    };
    refused("what is said of somebody else", &userinfo, &straight, 403);
}

#[test]
fn unreachable_or_insecure_provider_is_reported() {
    let check = |name: &str, change: &dyn Fn(&mut World)| {
        let provider = Provider::start();
        let fixture = provider.gateway();
        provider.change(change);
        let answer = fixture.call(&Credentials::Anonymous, "GET", "/sign-in/oidc", None);
        assert_eq!((answer.status, answer.field("location")), (502, None), "{name}: {}", answer.text());
        assert_eq!(answer.field("set-cookie"), None, "{name}");
    };
    check("down", &|world| world.down = true);
    check("another issuer", &|world| world.metadata = json!({"issuer": "http://127.0.0.1:1/realm"}));
    check("elsewhere in plain text", &|world| {
        world.metadata = json!({"token_endpoint": "http://id.example/t"});
    });
    check("no PKCE", &|world| world.metadata = json!({"code_challenge_methods_supported": ["plain"]}));

    let provider = Provider::start();
    let fixture = provider.gateway();
    provider.change(|world| world.metadata = json!({"issuer": "http://127.0.0.1:1/realm"}));
    for _ in 0..5 {
        assert_eq!(fixture.call(&Credentials::Anonymous, "GET", "/sign-in/oidc", None).status, 502);
    }
    assert_eq!(provider.request_count("/realm/.well-known"), 1, "not again and again");
    let plain = Fixture::start();
    assert_eq!(
        plain.call(&Credentials::Anonymous, "GET", "/sign-in/oidc", None).status,
        404,
        "none is configured"
    );
}

#[test]
fn new_keys_are_fetched_and_unknown_ones_not_repeatedly() {
    let provider = Provider::start();
    let fixture = provider.gateway();
    assert_eq!(sign_in(&provider, &fixture).status, 200);
    assert_eq!(sign_in(&provider, &fixture).status, 200);
    assert_eq!((provider.request_count("/realm/jwks"), provider.request_count("/realm/.well-known")), (1, 1));
    provider.change(|world| {
        let (pair, jwk) = key("second");
        world.key = pair;
        world.published = vec![jwk];
    });
    assert_eq!(sign_in(&provider, &fixture).status, 200, "a rotated key");
    assert_eq!(provider.request_count("/realm/jwks"), 2);
    let provider = Provider::start();
    let fixture = provider.gateway();
    provider.change(|world| world.header = json!({"kid": null}));
    assert_eq!(sign_in(&provider, &fixture).status, 200, "a token that names no key");
    provider.change(|world| {
        let (pair, jwk) = key("first");
        world.key = pair;
        world.published = vec![jwk];
    });
    assert_eq!(sign_in(&provider, &fixture).status, 200, "another key, and nothing says so");
    provider.change(|world| world.header = json!({"kid": "made up"}));
    for _ in 0..3 {
        assert_eq!(sign_in(&provider, &fixture).status, 403);
    }
    assert_eq!(provider.request_count("/realm/jwks"), 2, "a stranger's key makes nobody ask again at once");
}

#[test]
fn provider_controls_only_its_own_groups() {
    let provider = Provider::start();
    let fixture = provider.gateway();
    provider.change(|world| merge(&mut world.claims, &json!({"groups": ["ops", "auditors", "all-users"]})));
    let first = session(&sign_in(&provider, &fixture)).unwrap();
    let groups = || {
        let user = fixture.must("GET", "/v1/users/zoe", None);
        user["groups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(groups(), ["ops"], "what is not listed is not followed");
    fixture.must("POST", "/v1/groups", Some(json!({"name": "auditors"})));
    fixture.must("PUT", "/v1/groups/auditors/members/zoe", None);
    fixture.must("PUT", "/v1/groups/ops/members/zoe", None);
    provider.change(|world| merge(&mut world.claims, &json!({"groups": null})));
    provider.change(|world| world.userinfo = json!({"sub": "1", "groups": ["staff"]}));
    assert_eq!(sign_in(&provider, &fixture).status, 200);
    assert_eq!(groups(), ["auditors", "developers"], "and what it says elsewhere");
    assert_eq!(provider.request_count("/realm/userinfo"), 1);
    assert_eq!(whoami(&fixture, &first)["user"], "zoe", "another browser stays signed in");
    provider.change(|world| world.userinfo = json!({"sub": "1"}));
    assert_eq!(sign_in(&provider, &fixture).status, 200);
    assert_eq!(groups(), ["auditors"], "nothing said is nothing given");
}

#[test]
fn provider_login_does_not_take_over_an_account() {
    let provider = Provider::start();
    let fixture = provider.gateway();
    fixture.user("zoe", &[]);
    let answer = sign_in(&provider, &fixture);
    assert_eq!((answer.status, session(&answer)), (403, None));
    assert!(answer.text().contains("belongs to an account"), "{}", answer.text());
    let linked = fixture.must("POST", "/v1/users/zoe/identities", Some(json!({"subject": "1"})));
    assert_eq!(linked["issuer"], provider.settings().issuer.as_str(), "of the configured provider");
    let cookie = session(&sign_in(&provider, &fixture)).unwrap();
    assert_eq!(whoami(&fixture, &cookie)["user"], "zoe", "once somebody has said so");
    assert_eq!(fixture.must("DELETE", "/v1/users/zoe/identities", None)["identities"], 1);
    assert_eq!(sign_in(&provider, &fixture).status, 403);
    provider.change(|world| merge(&mut world.claims, &json!({"preferred_username": "zed"})));
    let cookie = session(&sign_in(&provider, &fixture)).unwrap();
    assert_eq!(whoami(&fixture, &cookie)["user"], "zed");
    let csrf = whoami(&fixture, &cookie)["csrf"].as_str().unwrap().to_owned();
    let browser = Credentials::Browser(Browser { cookie: cookie.clone(), csrf });
    let body = json!({"password": "an unlocked screen is no account"});
    let set = fixture.call(&browser, "PUT", "/v1/users/me/password", Some(&body));
    assert_eq!(set.outcome(), (403, "permission_denied".into()), "no password beside the provider");
    fixture.must("POST", "/v1/users/zed/ban", None);
    assert_eq!(sign_in(&provider, &fixture).status, 403, "banned");
    let request = Request::new("GET", "/v1/whoami").field("Cookie", &cookie);
    assert_eq!(fixture.send(&Credentials::Anonymous, request).status, 401, "a ban ends the session");
    fixture.must("POST", "/v1/users/zed/unban", None);
    assert_eq!(sign_in(&provider, &fixture).status, 200);
    fixture.must("DELETE", "/v1/users/zed", None);
    assert_eq!(sign_in(&provider, &fixture).status, 403, "deleted, and not made again");
}

#[test]
fn client_secret_is_sent_in_the_method_of_the_provider() {
    let check = |name: &str, shows: ClientAuthMethod, methods: Value, public: bool| {
        let provider = Provider::start();
        let mut settings = provider.settings();
        if public {
            settings.client_secret = None;
        }
        let fixture = provider.gateway_with(settings);
        provider.change(|world| {
            world.shows = shows;
            world.metadata = json!({"token_endpoint_auth_methods_supported": methods});
        });
        assert_eq!(sign_in(&provider, &fixture).status, 200, "{name}");
    };
    check("nothing said", ClientAuthMethod::Basic, Value::Null, false);
    check("both", ClientAuthMethod::Basic, json!(["client_secret_post", "client_secret_basic"]), false);
    check("the form alone", ClientAuthMethod::Form, json!(["client_secret_post"]), false);
    check("a public client", ClientAuthMethod::Nothing, json!(["none"]), true);
}

#[test]
fn guessing_codes_is_rate_limited() {
    let provider = Provider::start();
    let fixture = provider.gateway();
    let (cookie, location) = begin_sign_in(&fixture, "/");
    let target = provider.consent(&location).replace("code-", "cod-");
    let late = (0..20)
        .map(|_| return_from_provider(&fixture, &cookie, &target).status)
        .find(|status| *status == 429);
    assert_eq!(late, Some(429));
    assert!(provider.request_count("/realm/token") <= 10);
}

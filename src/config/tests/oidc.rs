//! `[admin.oidc]`: how it is read, and its errors.

use super::*;

const SOUND: &str = "issuer = \"https://id.example/realm\"\nclient_id = \"gate\"\n";
const ADMIN: &str = "[admin]\nurl = \"https://gate.example\"\n[admin.oidc]\n";

fn provider(more: &str) -> crate::admin::Provider {
    let config = read(&format!("{SMALL}{ADMIN}{SOUND}{more}")).unwrap_or_else(|errors| panic!("{errors}"));
    config.admin.sign_in.provider.unwrap()
}

#[test]
fn a_provider_has_sound_defaults() {
    let plain = provider("");
    assert_eq!((plain.issuer.as_str(), plain.client_id.as_str()), ("https://id.example/realm", "gate"));
    assert_eq!((plain.title.as_str(), plain.login_claim.as_str()), ("single sign-on", "preferred_username"));
    assert_eq!(plain.scopes, ["openid", "profile", "email"]);
    assert!(plain.client_secret.is_none() && plain.groups.is_empty() && !plain.link_logins);
    assert!(plain.tls.is_some(), "the issuer is asked over TLS");
    let groups = provider("groups = [\"ops\", { claim = \"7c3f\", group = \"developers\" }]\n").groups;
    let pairs: Vec<_> = groups.iter().map(|one| (one.claim.as_str(), one.group.as_str())).collect();
    assert_eq!(pairs, [("ops", "ops"), ("7c3f", "developers")]);
}

#[test]
fn a_provider_that_is_not_safe_is_refused() {
    let check = |name: &str, text: &str, expected: &str| {
        let errors = errors_of(&format!("{SMALL}{text}"));
        assert!(errors.len() == 1 && errors[0].contains(expected), "{name}: {errors:?}");
    };
    let with = |line: &str| format!("{ADMIN}{SOUND}{line}\n");
    let issuer = |issuer: &str| format!("{ADMIN}issuer = {issuer:?}\nclient_id = \"gate\"\n");
    check("no page", &format!("[admin.oidc]\n{SOUND}"), "needs `admin.url`");
    let plain = format!("[admin]\nurl = \"http://gate.example\"\n[admin.oidc]\n{SOUND}");
    check("a page in plain text", &plain, "in plain text");
    check("no issuer", &format!("{ADMIN}client_id = \"gate\"\n"), "lacks `issuer`");
    check("no client", &format!("{ADMIN}issuer = \"https://id.example\"\n"), "lacks `client_id`");
    check("a provider in plain text", &issuer("http://id.example"), "in plain text");
    check("no URL", &issuer("id.example"), "is not a provider's URL");
    check("capitals", &issuer("HTTPS://id.example"), "is not a provider's URL");
    check("a query", &issuer("https://id.example/?a=b"), "has a query");
    check("a fragment", &issuer("https://id.example/#a"), "");
    check("no openid", &with("scopes = [\"profile\"]"), "lacks \"openid\"");
    check("two scopes in one", &with("scopes = [\"openid\", \"openid profile\"]"), "is not a scope");
    check("a secret in the file", &with("client_secret = \"hunter2\""), "must not be written into this file");
    check("a secret that is not there", &with("client_secret = \"env:NOT_SET_ANYWHERE\""), "is not set");
    check("the group of everybody", &with("groups = [\"all-users\"]"), "is built in");
    check("a group without a name", &with("groups = [\"\"]"), "must not be empty");
    check(
        "an unknown key of a group",
        &with("groups = [{ claim = \"a\", group = \"b\", to = 1 }]"),
        "unknown key",
    );
    check("authorities that are not there", &with("ca = \"nowhere.pem\""), "nowhere.pem");
    let here = "[admin]\nurl = \"http://localhost:8081\"\n\
                [admin.oidc]\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"gate\"\n";
    let config = read(&format!("{SMALL}{here}")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.admin.sign_in.provider.unwrap().tls, None, "on this machine");
    let shown = read(&format!("{SMALL}{}", with("client_secret = \"hunter2\""))).unwrap_err().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

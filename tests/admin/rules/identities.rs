//! Who may link an OpenID Connect identity to an account: those who could set its password.

use serde_json::{Value, json};

use super::{Accounts, DENIED, ESCALATES, OK};

#[test]
fn identities_are_linked_by_users_who_could_set_the_password() {
    Accounts::each(|cast| {
        let link = |login: &str| {
            ("POST", format!("/v1/users/{login}/identities"), json!({"subject": "1", "issuer": "i"}))
        };
        let sees = [("plain", DENIED), ("viewer", OK), ("manager", OK)];
        for (login, expected) in sees {
            cast.check(
                "see identities",
                login,
                ("GET", "/v1/users/victim/identities", Value::Null),
                expected,
            );
        }
        for (login, whose, expected) in [
            ("plain", "victim", DENIED),
            ("viewer", "victim", DENIED),
            ("manager", "admin", ESCALATES),
            ("manager", "me", DENIED),
            ("manager", "victim", OK),
        ] {
            let (method, target, body) = link(whose);
            cast.check(&format!("link {whose}"), login, (method, &target, body), expected);
        }
        let unlink = ("DELETE", "/v1/users/victim/identities", Value::Null);
        cast.check("unlink", "plain", unlink.clone(), DENIED);
        cast.check("unlink", "manager", unlink, OK);
        cast.check("own identities", "plain", ("GET", "/v1/users/me/identities", Value::Null), OK);
        let nowhere = ("POST", "/v1/users/victim/identities", json!({"subject": "1"}));
        cast.check("of no provider", "manager", nowhere, (422, "invalid_value"));
    });
}

//! The page as a browser receives it: who sees what, which headers protect it, and that
//! text by users is escaped.

use serde_json::json;

use crate::{
    exchange::{Answer, Request},
    harness::{Credentials, Fixture, SERVICES, id, new_token},
};

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

pub fn page(fixture: &Fixture, sender: &Credentials, target: &str) -> Answer {
    fixture.send(sender, Request::new("GET", target).field("Accept", "text/html"))
}

pub fn alice(fixture: &Fixture) -> Credentials {
    fixture.user("alice", &["developers"]);
    Credentials::Browser(fixture.browser("alice"))
}

#[test]
fn unauthenticated_visitor_signs_in_and_returns_to_the_page() {
    let fixture = Fixture::start();
    let check = |target: &str, location: &str| {
        let answer = page(&fixture, &Credentials::Anonymous, target);
        assert_eq!((answer.status, answer.field("location")), (303, Some(location)), "{target}");
    };
    check("/", "/profile/authentication");
    check("/profile", "/sign-in?next=%2Fprofile");
    check("/tokens/abc?x=1", "/sign-in?next=%2Ftokens%2Fabc%3Fx%3D1");
    let goes_on = |next: &str, then: &str| {
        let answer = page(&fixture, &Credentials::Anonymous, &format!("/sign-in?next={next}"));
        assert!(answer.text().contains(&format!("data-then=\"{then}\"")), "{next}: {}", answer.text());
    };
    goes_on("%2Fprofile", "/profile");
    goes_on("%2F%2Fevil.example", "/profile/authentication");
    goes_on("https%3A%2F%2Fevil.example", "/profile/authentication");
    goes_on("%2F%5Cevil.example", "/profile/authentication");
    let alice = alice(&fixture);
    let answer = page(&fixture, &alice, "/sign-in?next=%2Fprofile");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/profile")));
}

#[test]
fn pages_forbid_framing_inline_scripts_and_caching() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    for (sender, target) in
        [(&Credentials::Anonymous, "/sign-in"), (&alice, "/profile"), (&alice, "/profile/authentication")]
    {
        let answer = page(&fixture, sender, target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let policy = answer.field("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(rule), "{target}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{target}: {policy}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{target}");
        let text = answer.text();
        assert!(
            !text.contains("<script>") && !text.contains(" onclick") && !text.contains(" style="),
            "{target}"
        );
        for asset in text.split('"').filter(|part| part.starts_with("/assets/")) {
            let answer = page(&fixture, &Credentials::Anonymous, asset);
            assert_eq!(answer.status, 200, "{asset}");
            assert!(answer.field("cache-control").unwrap().contains("immutable"), "{asset}");
        }
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "{target}: something from elsewhere"
        );
    }
    assert_eq!(page(&fixture, &Credentials::Anonymous, "/assets/page-0.js").status, 404);
}

#[test]
fn user_text_is_escaped() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.must("PATCH", "/v1/users/alice", Some(json!({"name": HOSTILE})));
    fixture.must("POST", "/v1/groups", Some(json!({"name": HOSTILE})));
    let mut body = new_token(HOSTILE, &["wiki"]);
    body["note"] = HOSTILE.into();
    let made = fixture.must("POST", "/v1/users/alice/tokens", Some(body));
    for target in ["/profile", "/profile/authentication", &format!("/tokens/{}", id(&made))] {
        let text = page(&fixture, &alice, target).text().to_owned();
        assert!(text.contains("&#60;script&#62;alert(1)"), "{target}: {text}");
        assert!(!text.contains("<script>") && !text.contains("<img src=x"), "{target}: {text}");
    }
}

#[test]
fn token_text_is_on_no_page() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    let made = fixture.token("alice", "ci", &["wiki"]);
    let secret = made["token"].as_str().unwrap();
    for target in ["/profile", "/profile/authentication", &format!("/tokens/{}", id(&made))] {
        assert!(!page(&fixture, &alice, target).text().contains(secret), "{target}");
    }
}

#[test]
fn user_without_permission_is_told_whom_to_contact() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let alice = Credentials::Browser(fixture.browser("alice"));
    let text = page(&fixture, &alice, "/profile/authentication").text().to_owned();
    assert!(text.contains("New token") && text.contains("id=\"create\""), "{text}");
    fixture.must("DELETE", "/v1/grants", Some(json!({"role": "contributor", "group": "all-users"})));
    let text = page(&fixture, &alice, "/profile/authentication").text().to_owned();
    assert!(!text.contains("id=\"create\"") && text.contains("Update Self"), "{text}");
}

#[test]
fn user_who_reads_no_service_is_advised_instead_of_offered_a_token() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let alice = Credentials::Browser(fixture.browser("alice"));
    let offered = || {
        let text = page(&fixture, &alice, "/profile/authentication").text().to_owned();
        (text.contains("New token"), text.contains("Read Service"))
    };
    assert_eq!(offered(), (true, false), "all users read two services");
    let rows = SERVICES.map(|(key, paths, _)| (key, paths, &["developers"][..]));
    *fixture.around.file.lock().unwrap() = Some(Ok(rows.to_vec()));
    fixture.must("POST", "/v1/reload", None);
    assert_eq!(offered(), (false, true), "everybody reads the admin API, which is of no use to alice");
    let contributor = || Some(json!({"role": "contributor", "group": "all-users"}));
    fixture.must("DELETE", "/v1/grants", contributor());
    let text = page(&fixture, &alice, "/profile/authentication").text().to_owned();
    assert!(
        text.contains("Read Service") && text.contains("Update Self"),
        "everything that is missing: {text}"
    );
    fixture.must("POST", "/v1/grants", contributor());
    fixture.allow("alice", &["read-audit"]);
    assert_eq!(offered(), (true, false), "a token could read the audit log");
}

#[test]
fn services_of_groups_and_users_are_shown_to_their_readers() {
    let fixture = Fixture::start();
    // The configuration writes the names in lower case. Members of Juniors are members of DEVELOPERS, too.
    fixture.must("POST", "/v1/groups", Some(json!({"name": "DEVELOPERS"})));
    fixture.must("POST", "/v1/groups", Some(json!({"name": "Juniors", "parent": "DEVELOPERS"})));
    fixture.user("bob", &["Juniors"]);
    fixture.user("mia", &[]);
    fixture.allow("mia", &["read-group", "read-user"]);
    let mia = Credentials::Browser(fixture.browser("mia"));
    let check = |target: &str, expected: bool| {
        let answer = page(&fixture, &mia, target);
        assert_eq!(answer.status, 200, "{target}");
        let text = answer.text();
        assert_eq!(text.contains("#service-youtrack"), expected, "{target}: {text}");
    };
    let pages = ["/groups", "/groups/Juniors", "/groups/DEVELOPERS", "/users/bob"];
    pages.iter().for_each(|target| check(target, false));
    fixture.must("PUT", "/v1/groups/Juniors/members/mia", None);
    pages.iter().for_each(|target| check(target, true));
    assert!(page(&fixture, &mia, "/profile").text().contains("as a member of DEVELOPERS"));
}

#[test]
fn other_users_tokens_require_permission() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.user("bob", &["developers"]);
    let id = id(&fixture.token("bob", "his", &["wiki"]));
    let target = format!("/tokens/{id}");
    let answer = page(&fixture, &alice, &target);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("admin-read") && answer.text().contains("<h1>"), "{}", answer.text());
    fixture.allow("alice", &["admin-read"]);
    let text = page(&fixture, &alice, &target).text().to_owned();
    assert!(text.contains("his") && !text.contains("data-call=\"PATCH"), "{text}");
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "alice"})));
    assert!(page(&fixture, &alice, &target).text().contains("data-call=\"PATCH"));
    let missing = page(&fixture, &alice, "/tokens/nothing");
    assert!(missing.status == 404 && missing.text().contains("<h1>"), "{}", missing.text());
}

#[test]
fn not_found_is_html_for_browsers_and_json_for_scripts() {
    let fixture = Fixture::start();
    let answer = page(&fixture, &Credentials::Anonymous, "/nowhere");
    assert_eq!(answer.status, 404);
    assert!(answer.field("content-type").unwrap().starts_with("text/html"), "{}", answer.text());
    let answer = fixture.call(&Credentials::Operator, "GET", "/nowhere", None);
    assert_eq!(answer.outcome(), (404, "not_found".into()));
}

#[test]
fn administration_pages_require_permission() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    let all: [(&str, &str); 12] = [
        ("/overview", "admin-read"),
        ("/users", "read-user"),
        ("/users/alice", "read-user"),
        ("/groups", "read-group"),
        ("/groups/developers", "read-group"),
        ("/roles", "read-role"),
        ("/services", "admin-read"),
        ("/tokens", "admin-read"),
        ("/live", "admin-read"),
        ("/audit", "read-audit"),
        ("/explain?method=GET&url=%2Fwiki&user=alice", "admin-read"),
        ("/configuration", "admin-read"),
    ];
    for (target, permission) in all {
        let answer = page(&fixture, &alice, target);
        assert_eq!(answer.status, 403, "{target}");
        assert!(answer.text().contains(permission), "{target}: {}", answer.text());
        let answer = page(&fixture, &Credentials::Anonymous, target);
        assert!(
            answer.status == 303 && answer.field("location").unwrap().starts_with("/sign-in?"),
            "{target}"
        );
    }
    assert!(!page(&fixture, &alice, "/profile").text().contains("href=\"/users\""));
    fixture.allow("alice", &["admin-read"]);
    for (target, _) in all {
        let answer = page(&fixture, &alice, target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let changes = answer.text().matches("data-call=").count();
        // Signing out, verifying the log and checking a configuration change nothing.
        let harmless = 1 + usize::from(target == "/audit" || target == "/configuration");
        assert!(changes <= harmless, "{target}: {}", answer.text());
    }
    assert!(page(&fixture, &alice, "/profile").text().contains("href=\"/users\""));
}

#[test]
fn user_text_is_escaped_on_admin_pages() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "alice"})));
    fixture.must("PATCH", "/v1/users/alice", Some(json!({"name": HOSTILE})));
    fixture.must("POST", "/v1/groups", Some(json!({"name": HOSTILE})));
    fixture.must("POST", "/v1/roles", Some(json!({"key": "odd", "name": HOSTILE, "permissions": []})));
    fixture.must("POST", "/v1/users/alice/tokens", Some(new_token(HOSTILE, &["wiki"])));
    let identity = json!({"subject": HOSTILE, "issuer": HOSTILE});
    fixture.user("bob", &[]);
    fixture.must("POST", "/v1/users/bob/identities", Some(identity));
    let hostile_url = "/explain?method=GET&url=%2F%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for target in
        ["/users", "/users/alice", "/users/bob", "/groups", "/roles", "/tokens", "/audit", hostile_url]
    {
        let text = page(&fixture, &alice, target).text().to_owned();
        assert!(text.contains("&#60;script&#62;alert(1)"), "{target}: {text}");
        assert!(!text.contains("<script>") && !text.contains("<img src=x"), "{target}: {text}");
    }
}

#[test]
fn explain_page_shows_the_deciding_rule() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.allow("alice", &["admin-read"]);
    let check = |query: &str, told: &[&str]| {
        let text = page(&fixture, &alice, &format!("/explain?method=GET&{query}")).text().to_owned();
        for word in told {
            assert!(text.contains(word), "{query}: {word}: {text}");
        }
    };
    check("url=%2Fhub%2Fapi%2Fx&user=alice", &["forwarded", "gateway.toml:11"]);
    fixture.user("bob", &[]);
    check("url=%2Fhub%2Fapi%2Fx&user=bob", &["403", "read_service_denied", "gateway.toml:11"]);
    check("url=%2Fnowhere&user=bob", &["404"]);
    check("url=nonsense", &["The URL is"]);
    check("url=%2Fwiki&client=nowhere", &["The client is an address"]);
}

#[test]
fn api_is_documented_for_people() {
    let fixture = Fixture::start();
    let answer = page(&fixture, &Credentials::Anonymous, "/docs");
    assert_eq!(answer.status, 200);
    for call in ["POST /v1/users/{login}/tokens", "DELETE /v1/tokens/{id}", "POST /oauth2/introspect"] {
        assert!(answer.text().contains(call), "{call}");
    }
}

/// Every form of a page: its opening tag and its content.
fn forms(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("<form").skip(1);
    parts
        .map(|part| part.split_once('>').unwrap())
        .map(|(tag, rest)| (tag, rest.split("</form>").next().unwrap()))
        .collect()
}

#[test]
fn no_form_puts_a_secret_into_a_url() {
    let fixture = Fixture::start();
    let root = alice(&fixture);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "alice"})));
    fixture.user("bob", &["developers"]);
    fixture.must("POST", "/v1/roles", Some(json!({"key": "odd", "name": "Odd", "permissions": []})));
    let token = id(&fixture.token("bob", "ci", &["wiki"]));
    let token = format!("/tokens/{token}");
    let check = |sender: &Credentials, target: &str| {
        let text = page(&fixture, sender, target).text().to_owned();
        for (tag, inner) in forms(&text) {
            if tag.contains("method=\"get\"") {
                assert!(!inner.contains("password") && !tag.contains("data-call"), "{target}: {tag}");
                continue;
            }
            assert!(tag.contains("method=\"post\"") || tag.contains("method=\"dialog\""), "{target}: {tag}");
            // Without the script nothing can be submitted.
            let submits = inner.split("<button").skip(1).filter(|button| !button.contains("type=\"button\""));
            for button in submits.filter(|_| !tag.contains("dialog")) {
                assert!(button.split('>').next().unwrap().contains(" disabled"), "{target}: {button}");
            }
        }
        assert!(text.contains("<noscript>"), "{target}");
    };
    for target in ["/sign-in", "/invitation"] {
        check(&Credentials::Anonymous, target);
    }
    for target in [
        "/profile",
        "/profile/authentication",
        &token,
        "/users",
        "/users/bob",
        "/groups",
        "/groups/developers",
        "/roles",
        "/services",
        "/tokens",
        "/live",
        "/audit",
        "/explain",
        "/configuration",
        "/overview",
        "/docs",
    ] {
        check(&root, target);
    }
}

#[test]
fn error_page_keeps_the_navigation() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    let check = |target: &str, status: u16| {
        let answer = page(&fixture, &alice, target);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(answer.text().contains("href=\"/profile/authentication\""), "{target}: {}", answer.text());
        assert!(answer.text().contains("Account of alice"), "{target}: {}", answer.text());
    };
    check("/users", 403);
    check("/nowhere", 404);
    check("/design", 404);
    check("/tokens/nothing", 404);
    check("/profile/authentication?sort=colour", 400);
    check("/profile/authentication?unknown=1", 400);
    fixture.allow("alice", &["admin-read"]);
    check("/tokens?user=nobody", 404);
    check("/tokens?state=odd", 400);
    check("/tokens?unused_for=yesterday", 400);
    check("/users?limit=0", 400);
    check("/audit?cursor=x", 400);
    check("/audit?from=yesterday", 400);
    check("/users/nobody", 404);
}

#[test]
fn pages_tell_no_more_than_the_api() {
    let fixture = Fixture::start();
    fixture.user("bob", &["developers"]);
    fixture.token("bob", "his", &["wiki"]);
    fixture.user("zed", &[]);
    let check = |reader: &str, target: &str, part: &str, without: &[&str], with: &str| {
        fixture.user(reader, &[]);
        fixture.allow(reader, without);
        let browser = Credentials::Browser(fixture.browser(reader));
        let shown = || page(&fixture, &browser, target).text().contains(part);
        assert!(!shown(), "{target}, {part}");
        let permissions = [without, &[with]].concat();
        let more = json!({"permissions": permissions});
        fixture.must("PATCH", &format!("/v1/roles/role-{reader}"), Some(more));
        assert!(shown(), "{target}, {part}");
    };
    check("ann", "/users/bob", "1 working", &["read-user"], "update-user");
    check("eve", "/users/bob", "0 signed in", &["read-user"], "admin-read");
    check("joe", "/users/bob", "1 working token, 0 requests", &["read-user", "delete-user"], "admin-read");
    check("gus", "/groups/developers", "<option value=\"zed\">", &["update-group"], "read-user");
    fixture.user("kim", &[]);
    fixture.allow("kim", &["read-user"]);
    let kim = Credentials::Browser(fixture.browser("kim"));
    let own = page(&fixture, &kim, "/users/kim");
    assert!(!own.text().contains("/tokens?user="), "that page is not for her");
    assert!(own.text().contains("<a href=\"/profile/authentication\">0 working"), "{}", own.text());
}

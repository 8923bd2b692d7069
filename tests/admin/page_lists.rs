//! The page's lists (filtered by their address), the audit log in sentences, and remedies for a refusal.

use serde_json::json;

use crate::{
    harness::{Credentials, Fixture, id, new_token},
    pages::{alice, page},
};

#[test]
fn token_list_is_searched_sorted_and_paged_by_its_url() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    let make = |name: &str, expires: &str| {
        let mut body = new_token(name, &["wiki"]);
        body["expires_in"] = expires.into();
        fixture.must("POST", "/v1/users/alice/tokens", Some(body))
    };
    let dead = make("dead one", "90d");
    fixture.must("DELETE", &format!("/v1/tokens/{}", id(&dead)), None);
    for number in 0..103 {
        make(&format!("job {number:03}"), if number == 7 { "3d" } else { "90d" });
    }
    let check = |query: &str, shown: &[&str], hidden: &[&str]| {
        let text = page(&fixture, &alice, &format!("/profile/authentication{query}")).text().to_owned();
        let at: Vec<_> = shown
            .iter()
            .map(|word| text.find(word).unwrap_or_else(|| panic!("{query}: {word}: {text}")))
            .collect();
        assert!(at.is_sorted(), "{query}: {at:?}");
        for word in hidden {
            assert!(!text.contains(word), "{query}: {word}");
        }
        assert!(text.len() < 100_000, "{query}: {}", text.len());
    };
    check("", &["Active <span class=\"count\">103</span>", "1–50 of 103"], &[">dead one</a>", ">Previous<"]);
    check("?page=3", &["101–103 of 103", ">Previous<"], &[">Next<"]);
    check("?sort=name", &[">job 000</a>", ">job 001</a>", ">job 049</a>"], &[">job 050</a>"]);
    check("?sort=-name", &[">job 102</a>", ">job 101</a>"], &[">job 000</a>"]);
    check(
        "?tab=expiring",
        &["Expiring <span class=\"count warn\">1</span>", ">job 007</a>", "in 2 days"],
        &[">job 008</a>"],
    );
    check("?tab=inactive", &[">dead one</a>", "revoked", ">View<"], &[">job 007</a>"]);
    check("?q=JOB+042", &[">job 042</a>", "1–1 of 1"], &[">job 043</a>"]);
    check("?q=nothing", &["No token matches"], &[">job 042</a>"]);
    check("?state=revoked", &[">dead one</a>"], &[">job 007</a>"]);
}

#[test]
fn audit_page_shows_sentences_and_exports_a_file() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.allow("alice", &["admin-read", "read-audit"]);
    fixture.user("bob", &[]);
    fixture.token("bob", "=cmd", &["permgate"]);
    fixture.must("POST", "/v1/users/bob/ban", Some(json!({"reason": "left"})));
    let text = page(&fixture, &alice, "/audit").text().to_owned();
    for part in ["banned <a href=\"/users/bob\">bob</a>: left", "The operator created token "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let found =
        |query: &str| page(&fixture, &alice, &format!("/audit?{query}")).text().matches("<li><p>").count();
    assert_eq!(found("event=user.ban"), 1);
    assert_eq!(found("event=user.ban&target=bob&actor=operator"), 1);
    assert_eq!(found("event=user.ban&actor=alice"), 0);
    assert_eq!(found("event=user.ban&to=2001-01-01"), 0);
    assert_eq!(found("event=user.ban&from=2001-01-01"), 1);
    assert_eq!(found("limit=2"), 2);
    for limit in [0, 1_001] {
        assert_eq!(page(&fixture, &alice, &format!("/audit?limit={limit}")).status, 400, "{limit}");
    }
    let csv = page(&fixture, &alice, "/audit/export?format=csv&event=user.ban");
    assert_eq!(csv.field("content-disposition"), Some("attachment; filename=\"audit.csv\""));
    // The body comes in chunks, whose lengths are lines without a comma.
    let rows: Vec<&str> = csv.text().lines().filter(|line| line.contains(',')).collect();
    assert!(rows.len() == 2 && rows[1].contains(",user.ban,operator,user:bob,"), "{}", csv.text());
    let jsonl = page(&fixture, &alice, "/audit/export?format=jsonl&event=user.ban");
    let event: serde_json::Value =
        serde_json::from_str(jsonl.text().lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(event["target"], "user:bob");
}

/// The admin listener's own service has no path.
#[test]
fn token_is_explained_for_the_first_service_with_a_path() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.allow("alice", &["admin-read"]);
    let check = |scope: &[&str], url: Option<&str>| {
        let token = id(&fixture.token("alice", &scope.join(" "), scope));
        let text = page(&fixture, &alice, &format!("/tokens/{token}")).text().to_owned();
        let url = url.map_or(String::new(), |url| format!("&#38;url={url}"));
        let link = format!("href=\"/explain?method=GET{url}&#38;token_id={token}\"");
        assert!(text.contains(&link), "{scope:?}: {text}");
    };
    check(&["permgate", "wiki"], Some("%2Fwiki"));
    check(&["youtrack"], Some("%2Fapi"));
    check(&["permgate"], None);
}

#[test]
fn refusal_page_suggests_a_remedy() {
    let fixture = Fixture::start();
    let alice = alice(&fixture);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "alice"})));
    fixture.user("bob", &[]);
    let text = page(&fixture, &alice, "/explain?method=GET&url=%2Fhub%2Fapi%2Fx&user=bob").text().to_owned();
    assert!(text.contains("data-call=\"PUT /v1/groups/") && text.contains("/members/bob\""), "{text}");
    // The question names a user, so the page shows no token id.
    assert!(!text.contains("000000000000"), "{text}");
    let text = page(&fixture, &alice, "/explain?method=GET&url=%2Fnowhere&user=bob").text().to_owned();
    assert!(text.contains("class=\"failed\"") && text.contains("href=\"/services\""), "{text}");
}

#[test]
fn invitation_page_names_its_recipient() {
    let fixture = Fixture::start();
    fixture.user("bob", &[]);
    let made = fixture.must("POST", "/v1/users/bob/invitation", None);
    let check = |text: &str| {
        fixture.call(
            &Credentials::Anonymous,
            "POST",
            "/v1/invitation/check",
            Some(&json!({"invitation": text})),
        )
    };
    let answer = check(made["invitation"].as_str().unwrap());
    assert_eq!((answer.status, answer.json()["user"].as_str()), (200, Some("bob")), "{}", answer.text());
    assert_eq!(check("nothing").outcome(), (403, "permission_denied".into()));
    // The look-up above has not used the invitation.
    let body = json!({"invitation": made["invitation"], "password": "correct horse battery staple"});
    assert_eq!(fixture.call(&Credentials::Anonymous, "POST", "/v1/invitation", Some(&body)).status, 200);
    assert_eq!(check(made["invitation"].as_str().unwrap()).status, 403);
}

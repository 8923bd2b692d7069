//! The page in headless Chromium: what people do there, by pointer and by keyboard, and axe-core on
//! every page, light and dark, wide and narrow.
//!
//! Needs Debian's `chromium` and `chromium-driver`, and installs selenium from PyPI and axe-core from
//! npm, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{path::Path, process::Command};

use support::{gateway::Gateway, stage, upstream::Upstream};

const PASSWORD: &str = "correct horse battery staple";

#[test]
#[ignore = "needs Chromium, PyPI and npm; .ci/run runs it"]
fn users_manage_tokens_in_the_page() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    std::fs::create_dir_all(&place).unwrap();
    stage::run(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "axe-core@4.10.3"])
            .current_dir(&place),
    );
    let python = stage::python("browser", &["selenium==4.35.0"]);

    let upstream = Upstream::plain();
    let gateway = Gateway::with(&sections(&Gateway::services(upstream.address)));
    // One person without tokens for each window.
    let people = ["alice", "alice-1280", "alice-768", "alice-390"];
    people.iter().for_each(|login| gateway.developer(login));
    import(&gateway, "collector", 2_000);
    // A long name that needs room.
    let long = "firstname.lastname.of.somewhere";
    gateway.developer(long);
    gateway.token(long, "a rather long name of a token", &["tracker"]);
    // As long as the names that a directory sends, and more groups than fit on one line.
    let group = "CN=Developers of the platform,OU=Groups,OU=Engineering,DC=corp,DC=example,DC=com";
    gateway.must("POST", "/v1/groups", Some(&format!(r#"{{"name": "{group}"}}"#)));
    gateway.must("PUT", &format!("/v1/groups/{}/members/{long}", group.replace(' ', "%20")), None);
    gateway.must("POST", "/v1/grants", Some(&format!(r#"{{"role": "observer", "group": "{group}"}}"#)));
    for number in 0..9 {
        gateway.must("POST", "/v1/groups", Some(&format!(r#"{{"name": "team-number-{number}"}}"#)));
        gateway.must("PUT", &format!("/v1/groups/team-number-{number}/members/{long}"), None);
    }
    for login in ["nobody", "root", "viewer"] {
        gateway.must("POST", "/v1/users", Some(&format!(r#"{{"login": "{login}"}}"#)));
    }
    for login in people.iter().chain(&["nobody", "root", "viewer"]) {
        let password = format!(r#"{{"password": "{PASSWORD}"}}"#);
        gateway.must("PUT", &format!("/v1/users/{login}/password"), Some(&password));
    }
    gateway.must("DELETE", "/v1/grants", Some(r#"{"role": "contributor", "group": "all-users"}"#));
    for login in people {
        let grant = format!(r#"{{"role": "contributor", "user": "{login}"}}"#);
        gateway.must("POST", "/v1/grants", Some(&grant));
    }
    for login in ["root", "viewer"] {
        let grant = format!(r#"{{"role": "system-admin", "user": "{login}"}}"#);
        gateway.must("POST", "/v1/grants", Some(&grant));
    }
    gateway.must("PUT", "/v1/groups/developers/members/viewer", None);

    let told = stage::run(
        Command::new(python)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/flow.py"))
            .args([format!("http://{}", gateway.proxy), format!("http://{}", gateway.admin)])
            .arg(PASSWORD)
            .arg(place.join("node_modules/axe-core/axe.min.js"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots"))
            .arg(gateway.dir.path().join("gateway.toml")),
    );
    println!("{told}");
    assert!(told.contains(r#"{"done": true}"#), "{told}");
}

/// Adds services, so that the dialog has a search field, and raises the limit of tokens per user.
fn sections(services: &str) -> String {
    let others = ["wiki", "builds", "packages", "mail", "charts", "vault"].map(|key| {
        format!("[service.{key}]\nupstream = \"one\"\npaths = [\"/{key}\"]\nreaders = [\"developers\"]\n")
    });
    format!("[tokens]\nmax_per_user = 5000\n{services}{}", others.concat())
}

fn import(gateway: &Gateway, owner: &str, count: usize) {
    gateway.developer(owner);
    let line = |number| {
        serde_json::json!({
            "owner": owner, "name": format!("imported {number}"), "digest": format!("{number:064x}"),
            "scope": [{"service": "tracker"}],
        })
    };
    for first in (0..count).step_by(500) {
        let tokens: Vec<_> = (first..count.min(first + 500)).map(line).collect();
        let body = serde_json::json!({ "tokens": tokens }).to_string();
        gateway.must("POST", "/v1/tokens/import", Some(&body));
    }
}

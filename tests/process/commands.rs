//! Commands against a running gateway: stdout has data only, and the exit code.

use crate::{
    harness::{TestDirectory, services},
    support::upstream::Upstream,
};

#[test]
fn exit_codes_match_the_outcome() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let own = directory.token("alice", "permgate");
    let tracker = directory.token("alice", "tracker");
    let admin = format!("--admin http://{}", process.admin);
    let check = |token: Option<&str>, line: &str, code: i32| directory.check_as(token, line, code);
    check(None, "user show alice", 0);
    check(None, "user create alice", 1);
    check(None, "user create !", 2);
    check(None, "user", 2);
    check(None, "token create --user alice --name x --scope nope", 3);
    check(None, "token create --user alice --name x --scope tracker:write", 2);
    check(None, &format!("{admin} user list"), 3);
    check(Some("nonsense"), &format!("{admin} user list"), 3);
    check(Some(&tracker), &format!("{admin} token whoami"), 3);
    check(Some(&own), &format!("{admin} token whoami"), 0);
    check(Some(&own), &format!("{admin} user create bob"), 3);
    check(None, "user show bob", 4);
    check(None, "token show 000000000000", 4);
    check(None, "token revoke 000000000000", 4);
    check(None, "group add nobody-is-here alice", 4);
    check(None, "--admin http://127.0.0.1:1 user list", 5);
    check(None, "--offline user list", 1);
    check(None, "--offline token create --user alice --name x --scope tracker", 1);
}

/// A saved token is sent only to the server that created it.
#[test]
fn saved_token_is_sent_only_to_its_gateway() {
    use std::os::unix::fs::PermissionsExt as _;

    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let admin = directory.token("alice", "permgate");
    let line =
        format!("token create --name more --scope permgate --save saved --admin http://{}", process.admin);
    let (data, _) = directory.check_as(Some(&admin), &line, 0);
    assert!(!data.contains("pgt_"), "{data}");
    let file = directory.path().join("saved");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(
        saved.starts_with("pgt_") && saved.ends_with(&format!("\nfor http://{}\n", process.admin)),
        "{saved}"
    );
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Whatever the configuration in this directory says.
    let other = TestDirectory::new("");
    let (data, _) = other.check(&format!("token whoami -o json --token-file {}", file.display()), 0);
    assert!(data.contains("alice"), "{data}");
    // An existing file is kept, and no token is created for it.
    let again = "token create --user alice --name again --scope tracker --save saved";
    directory.check(again, 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), saved);
    directory.check("token create --user nobody --name again --scope tracker --save unsaved", 4);
    assert!(!directory.path().join("unsaved").exists());
    assert!(!directory.check("token list -o jsonl", 0).0.contains("again"));
    directory.check("token create --user alice --name again --scope tracker --save again", 0);
    assert!(std::fs::read_to_string(directory.path().join("again")).unwrap().contains("\nfor unix:/"));
}

#[test]
fn stdout_contains_only_data() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    directory.token("alice", "hub");
    let create = |name: &str, format: &str| {
        directory.check(&format!("token create --user alice --name {name} --scope tracker{format}"), 0)
    };
    let (data, words) = create("plain", "");
    let text = data.strip_suffix('\n').unwrap();
    assert_eq!((text.len(), text.starts_with("pgt_")), (66, true), "the text and nothing else: {data}");
    assert!(words.contains(&text[4..16]) && !words.contains(text), "{words}");
    assert_eq!(process.status("/api/x", text), 200, "usable on the next request");

    let (data, words) = create("json", " -o json");
    let made: serde_json::Value = serde_json::from_str(&data).unwrap();
    let text = made["token"].as_str().unwrap();
    assert_eq!(process.status("/api/x", text), 200);
    assert_eq!((made["id"].as_str(), words.as_str()), (Some(&text[4..16]), ""));

    let (ids, words) = directory.check("token list -o id", 0);
    assert_eq!((ids.lines().count(), words.as_str()), (3, ""));
    assert!(ids.lines().all(|id| id.len() == 12), "{ids}");
    let (table, _) = directory.check("token list", 0);
    assert!(table.trim_start().starts_with("ID") && table.lines().count() == 4, "{table}");
    assert!(table.lines().all(|line| line == line.trim_end()), "{table:?}");
    let (lines, _) = directory.check("token list -o jsonl", 0);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");

    let (data, words) = directory.check(&format!("token revoke {}", ids.lines().next().unwrap()), 0);
    assert_eq!(data, "", "{words}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, words) = directory.check(&format!("completion {shell}"), 0);
        assert!(script.contains("PERMGATE_COMPLETE") && words.is_empty(), "{shell}: {words}");
    }
    let (_, words) = directory.check("completion tcsh", 2);
    assert!(words.contains("bash"), "{words}");
    directory.check("man --all old", 0);
    directory.check("man pages", 0);
    for page in ["permgate.1", "permgate-token-create.1", "permgate-audit.1"] {
        let page = std::fs::read_to_string(directory.path().join("pages").join(page)).unwrap();
        assert!(page.contains(".TH") && page.contains("permgate"), "{page}");
    }
    let (schema, _) = directory.check("schema", 0);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for section in ["server", "admin", "store", "upstream", "service"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

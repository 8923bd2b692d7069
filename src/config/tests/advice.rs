//! Advice that an operator can follow: it leads to no second error.

use super::*;

fn check(name: &str, replace: &str, by: &str, expected: &[&str]) {
    assert_eq!(errors_of(&SMALL.replace(replace, by)), expected, "{name}");
}

#[test]
fn a_path_that_needs_escapes_is_none_for_a_rule() {
    let advice = "rules have no escapes either: name a path above it";
    let space = "6:10 \"/my app\" can never match: the path has a space, which has to be written as %20";
    check("a space", "/app", "/my app", &[&format!("{space} | {advice}")]);
    let beyond = "6:10 \"/k\u{e4}se\" can never match: the path has a character beyond ASCII, which has to be percent-encoded";
    check("an umlaut", "/app", "/k\u{e4}se", &[&format!("{beyond} | {advice}")]);
}

#[test]
fn a_url_is_no_path_and_no_upstream() {
    check(
        "as a path",
        "/app",
        "https://a.example/app",
        &[
            "6:10 \"https://a.example/app\" is a URL | write its path, such as \"/api\"; a host goes into `hosts`",
        ],
    );
    check(
        "as an upstream",
        "\"up\"",
        "\"http://127.0.0.1:8090\"",
        &["5:12 there is no upstream \"http://127.0.0.1:8090\" | \
           add a table `[upstream.NAME]` and write its NAME here, or name one of: up"],
    );
    check(
        "below a path",
        "version = 1",
        "version = 1\nadmin.url = \"https://a.example/gate\"",
        &["2:13 \"https://a.example/gate\" has more than a scheme, a host and a port | \
           write it as \"https://gate.example.com\""],
    );
}

#[test]
fn a_port_beyond_the_last_is_told() {
    for address in ["127.0.0.1:65536", "localhost:99999", "http://[::1]:70000"] {
        check(
            address,
            "version = 1",
            &format!("version = 1\nserver.listen = [{address:?}]"),
            &[&format!("2:18 {address:?} is not an address to listen on | write a port of at most 65535")],
        );
    }
}

#[test]
fn a_table_without_its_name_is_told() {
    check(
        "the service's",
        "[service.app]",
        "[service]",
        &[
            "5:1 `service.upstream` must be a table | write `[service.NAME]` above it: each service has a name",
            "6:1 `service.paths` must be a table | write `[service.NAME]` above it: each service has a name",
            "7:1 `service.readers` must be a table | write `[service.NAME]` above it: each service has a name",
        ],
    );
    let other = errors_of(&format!("{SMALL}[service]\nother = 1\n"));
    assert!(other.iter().any(|error| error.ends_with("write `[service.other]`, then its keys")), "{other:?}");
}

#[test]
fn a_quote_or_bracket_that_is_not_closed_is_one_error() {
    let opened = "version = 1\n[server]\nlisten = [\"127.0.0.1:0]\n\n# the page\n[admin]\nlisten = [\"127.0.0.1:0\"]\n";
    let errors = errors_of(opened);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("3:24 this is not TOML"), "{errors:?}");
    let errors = errors_of(&opened.replace("0.1:0]\n", "0.1:0\"\n"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    // A sound line between two errors separates them.
    let errors = errors_of("version = @\n[tokens]\nperm_alias = @\n");
    assert_eq!(errors.iter().filter(|e| e.contains("this is not TOML")).count(), 2, "{errors:?}");
}

#[test]
fn a_file_that_is_not_utf_8_is_told_by_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    fs::write(&file, b"version = 1\n# K\xfcche\n").unwrap();
    let message = Config::load(&file).unwrap_err().to_string();
    assert!(message.contains("cannot be read: line 2 is not UTF-8\n      = save it in UTF-8"), "{message}");
}

//! The files and directories that a configuration names, before the start.

use std::{fs::Permissions, os::unix::net::UnixListener};

use super::*;

#[test]
fn check_reports_an_access_log_that_cannot_be_opened() {
    let place = directory_with(&format!(
        "{CONFIG}[log]\naccess = \"logs/access.log\"\n[metrics]\nold_names = false\n"
    ));
    let at = place.path();
    for line in ["check", "run"] {
        let (_, words) = check(at, line, 2);
        let told = "gateway.toml:13:1: cannot open the access log logs/access.log: No such file or directory";
        assert!(words.contains(told) && words.contains("create the directory"), "{line}: {words}");
    }
    fs::create_dir(at.join("logs")).unwrap();
    check(at, "check --strict", 0);
    assert!(!at.join("logs/access.log").exists(), "`check` makes nothing");
    fs::create_dir(at.join("logs/access.log")).unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("name a file in it"), "{words}");
}

#[test]
fn check_reports_an_access_log_that_its_user_cannot_create() {
    if rustix::process::geteuid().is_root() {
        return; // may create files everywhere
    }
    let place = directory_with(&format!("{CONFIG}[log]\naccess = \"logs/access.log\"\n"));
    let at = place.path();
    fs::create_dir(at.join("logs")).unwrap();
    fs::set_permissions(at.join("logs"), Permissions::from_mode(0o555)).unwrap();
    for line in ["check", "run"] {
        let (_, words) = check(at, line, 2);
        assert!(words.contains("logs/access.log: Permission denied"), "{line}: {words}");
    }
}

#[test]
fn check_and_start_refuse_the_same_places() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::write(at.join("file"), "").unwrap();
    let _socket = UnixListener::bind(at.join("socket")).unwrap();
    assert!(Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
    let write = |sections: &str| {
        let text = format!("{CONFIG}[metrics]\nold_names = false\n{sections}");
        fs::write(at.join("gateway.toml"), text).unwrap();
    };
    let long = "x".repeat(300);
    for (sections, code, expected) in [
        ("[store]\npath = \"file/store\"\n", 1, "cannot look at file/store: Not a directory"),
        (&*format!("[store]\npath = \"{long}\"\n"), 1, "File name too long"),
        ("[store]\npath = \"a\\u0000b\"\n", 1, "unexpected NUL byte"),
        ("[log]\naccess = \"socket\"\n", 2, "a socket cannot be written like a file"),
    ] {
        write(sections);
        for (line, code) in [("check", 2), ("run", code)] {
            let (_, words) = check(at, line, code);
            assert!(words.contains(expected), "{line}, {sections}: {words}");
        }
    }
    // `check` cannot know whether somebody will read. A start that waited for it would hang.
    write("[log]\naccess = \"pipe\"\n");
    check(at, "check", 0);
    let (_, words) = check(at, "run", 2);
    assert!(words.contains("a pipe needs a reader"), "{words}");
    write("[log]\naccess = \"permgate-data/access.log\"\n");
    check(at, "check --strict", 0);
}

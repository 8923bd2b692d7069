//! Commands in a script, with `-o json`.

use super::*;

/// A script that keeps what was printed learns that nothing was.
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let code = |line: &str, stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_permgate"));
        command.args(line.split(' ')).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.status().unwrap().code()
    };
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for line in ["--help", "-h", "-V", "--version", "help token", "token create --help"] {
        assert_eq!(code(line, full(), Stdio::null()), Some(1), "{line}");
        assert_eq!(code(line, Stdio::null(), full()), Some(0), "{line}");
    }
    assert_eq!(code("--hlep", Stdio::null(), full()), Some(1));
    assert_eq!(code("--hlep", Stdio::null(), Stdio::null()), Some(2));
}

/// What a program learns of a change is the response of the API.
#[test]
fn every_change_is_data_for_programs() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let json = |line: &str| -> serde_json::Value {
        let (data, _) = check(at, &format!("--offline {line} -o json"), 0);
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{line}: {error}: {data:?}"))
    };
    let field = |line: &str, name: &str, expected: serde_json::Value| {
        assert_eq!(json(line)[name], expected, "{line}");
    };
    field("user create ann", "login", "ann".into());
    field("group create staff", "name", "staff".into());
    field("group add staff ann", "member", true.into());
    field("group remove staff ann", "member", false.into());
    field("role create auditor --permission read-audit", "key", "auditor".into());
    field("grant add auditor --user ann", "granted", true.into());
    field("grant remove auditor --user ann", "granted", false.into());
    field("role delete auditor --yes", "deleted", true.into());
    field("group delete staff --yes", "deleted", true.into());
    let id = json("token create --user ann --name laptop --scope app")["id"].clone();
    field("token revoke laptop --user ann", "revoked", true.into());
    field("token revoke laptop --user ann", "id", id);
    field("user sign-out ann", "sessions", 0.into());
    field("user delete ann --yes", "deleted", true.into());
    field("audit verify", "valid", true.into());
    field("version", "version", env!("CARGO_PKG_VERSION").into());

    let (_, words) = check(at, "--offline cluster status", 4);
    assert!(words.contains("not part of a cluster"), "{words}");
    let (data, words) = check(at, "--offline user create bob", 0);
    assert_eq!((data.as_str(), words.as_str()), ("", "created bob\n"), "people read a sentence");
    let (data, words) = check(at, "--offline user delete bob --yes -o id", 0);
    assert_eq!((data.as_str(), words.as_str()), ("", "deleted bob\n"));
}

//! What environment variables mean to the command line.

use super::*;

/// Runs a command with these variables; returns its exit code, stdout and stderr.
fn run(at: &Path, line: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = permgate_command(at, line);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn only_a_bare_switch_makes_an_administrator() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let check = |line: &str, variable: Option<&str>, expected: i32| {
        let variables: Vec<_> = variable.map(|value| ("PERMGATE_ADMIN", value)).into_iter().collect();
        let (code, data, words) = run(at, line, &variables);
        assert_eq!(code, expected, "{line} {variable:?}: {data}{words}");
    };
    check("--offline user create plain", Some(""), 0);
    check("--offline user create eve", Some("gate.sock"), 2);
    check("--offline --admin gate.sock user create eve", None, 2);
    check("--offline --admin= user create eve", None, 2);
    check("--admin gate.sock user create eve", None, 2);
    check("--admin= user create eve", None, 2);
    check("--admin  user create eve", None, 2);
    check("--admin gate.sock user create eve --admin", None, 2);
    check("user create eve", Some("gate.sock"), 2);
    check("user create eve", Some(""), 5);
    check("--offline user add --admin ann", Some("gate.sock"), 0);
    check("--offline user add --admin bob", None, 0);
    check("--offline user add carl --admin", Some(""), 0);
    let (_, grants, _) = run(at, "--offline grant list -o json", &[]);
    for (login, is_administrator) in [("ann", true), ("bob", true), ("carl", true), ("plain", false)] {
        assert_eq!(grants.contains(&format!("\"{login}\"")), is_administrator, "{login}: {grants}");
    }
    let (_, users, _) = run(at, "--offline user list -o id", &[]);
    assert_eq!(users, "ann\nbob\ncarl\nplain\n");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let place = directory_with(CONFIG);
    let quiet = format!("{CONFIG}[metrics]\nold_names = false\n");
    fs::write(place.path().join("gateway.toml"), quiet).unwrap();
    let (code, _, words) = run(place.path(), "check --strict", &[("PERMGATE_ADMIN", "unix:nosuch.sock")]);
    assert_eq!(code, 0, "the variable is meant for other commands: {words}");
    for variable in ["PERMGATE_ADMIN", "PERMGATE_CONFIG", "PERMGATE_TOKEN", "PERMGATE_LOG"] {
        let (code, _, words) = run(place.path(), "check", &[(variable, "")]);
        assert_eq!(code, 0, "{variable}: {words}");
        let (code, _, words) = run(place.path(), "user list", &[(variable, "")]);
        assert_eq!(code, 5, "{variable}: {words}");
    }
}

//! What is done, and said, after something has failed.

use super::*;

/// Runs a shell's line with `permgate` in its path; returns its exit code and what it said.
fn shell(at: &Path, line: &str) -> (i32, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_permgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    for variable in ["PERMGATE_CONFIG", "PERMGATE_ADMIN", "PERMGATE_TOKEN", "PERMGATE_LOG"] {
        command.env_remove(variable);
    }
    let output = command.args(["-c", line]).current_dir(at).env("PATH", path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_pipe_that_is_named_is_scanned() {
    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::write(at.join("file"), TOKEN).unwrap();
    for line in ["cat file | permgate scan /dev/stdin", "permgate scan <(cat file)", "permgate scan - <file"]
    {
        let (code, said) = shell(at, line);
        assert!(code == 1 && said.contains("A1iceYt00001"), "{line}: {code} {said}");
    }
    fs::create_dir(at.join("src")).unwrap();
    let (code, said) =
        shell(at, "mkfifo src/pipe && permgate scan src </dev/null && permgate scan /dev/null");
    assert_eq!(code, 0, "a pipe in a directory would not end: {said}");
    let _socket = std::os::unix::net::UnixListener::bind(at.join("src/socket")).unwrap();
    check(at, "scan src", 0);
    let (_, words) = check(at, "scan src/socket", 2);
    assert!(words.contains("cannot read src/socket"), "{words}");
}

#[test]
fn check_says_what_it_could_not_check() {
    let quiet = format!("{CONFIG}[metrics]\nold_names = false\n");
    let place = directory_with(&quiet);
    let at = place.path();
    check(at, "check --strict", 0);
    check(at, "check --admin nonsense", 2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    for options in ["--admin unix:nosuch.sock".to_owned(), format!("--admin http://{closed}")] {
        let (_, words) = check(at, &format!("check {options}"), 0);
        assert!(words.contains("were not checked: cannot reach the admin listener"), "{options}: {words}");
        check(at, &format!("check --strict {options}"), 2);
    }
    check(at, "--offline user create ann", 0);
    check(at, "--offline check --strict", 0);
    let _gateway = serve(at);
    check(at, "check --strict", 0);
    let (_, words) = check(at, "--offline check --strict", 2);
    assert!(words.contains("were not checked: "), "{words}");
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs");
    let (cert, key) = (certs.join("one.crt"), at.join("one.key"));
    fs::copy(certs.join("one.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let tls = format!("[server]\ntls = {{ cert = {cert:?}, key = {key:?} }}\n");
    fs::write(at.join("gateway.toml"), quiet.replace("[server]\n", &tls)).unwrap();
    check(at, "reload", 2);
    let (_, words) = check(at, "check", 0);
    assert!(words.contains("`server.tls` differs from the running gateway's"), "{words}");
}

#[test]
fn both_tokens_of_a_rotation_are_revoked_though_nothing_can_be_printed() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline user create ann", 0);
    check(at, "--offline token create --user ann --name ci --scope app", 0);
    check(at, "--offline token rotate ci --grace 1h", 0);
    let (code, said) = shell(at, "permgate --offline token revoke ci -o json >/dev/full");
    assert!(code == 1 && said.contains("stdout cannot be written"), "{said}");
    let (states, _) = check(at, "--offline token list -o json", 0);
    let states: serde_json::Value = serde_json::from_str(&states).unwrap();
    let live = states.as_array().unwrap().iter().filter(|token| token["state"] != "revoked");
    assert_eq!(live.count(), 0, "{states}");
}

#[test]
fn a_failed_init_can_be_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let init = "permgate init --upstream http://127.0.0.1:1 --administrator ann";
    let (code, said) = shell(at, &format!("PERMGATE__TOKENS__MAX_LIFETIME=30d {init}"));
    assert!(code != 0 && said.contains("removed gateway.toml again"), "{said}");
    // It may be the store of another process by now, so that only the user can tell.
    assert!(said.contains("remove the store in permgate-data, unless it is in use"), "{said}");
    fs::remove_dir_all(at.join("permgate-data")).unwrap();
    let (code, said) = shell(at, init);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn init_blames_the_variable_with_a_mistake() {
    let place = tempfile::tempdir().unwrap();
    let line = "PERMGATE__SERVER__LISTEN=bogus permgate init --upstream http://127.0.0.1:1";
    let (code, said) = shell(place.path(), line);
    assert!(code == 2 && said.starts_with("error: PERMGATE__SERVER__LISTEN: "), "{code} {said}");
}

#[test]
fn a_demo_whose_output_is_not_read_ends_without_a_panic() {
    let place = tempfile::tempdir().unwrap();
    for output in ["/dev/full", ">(true)"] {
        let (code, said) = shell(place.path(), &format!("permgate demo --script >{output}"));
        assert!(!said.contains("panic") && code < 100, "{output}: {code} {said}");
    }
    let (code, said) = shell(place.path(), "PERMGATE_COMPLETE=bash permgate -- permgate $'\\xff' user show");
    assert!(!said.contains("panic") && code < 100, "{code} {said}");
}

#[test]
fn an_online_import_of_wide_scopes_is_sent_in_parts_that_are_accepted() {
    let services: String =
        (0..40).map(|n| format!("[service.s{n}]\nupstream = \"up\"\npaths = [\"/s{n}\"]\n")).collect();
    let place = directory_with(&format!("{CONFIG}{services}"));
    let at = place.path();
    let _gateway = serve(at);
    check(at, "user create ann", 0);
    let scope: Vec<String> = (0..40).map(|n| format!("\"s{n}\"")).collect();
    let line = |n: u32| {
        format!(
            "{{\"digest\":\"{n:064x}\",\"owner\":\"ann\",\"name\":\"{n}\",\"scope\":[{}]}}\n",
            scope.join(",")
        )
    };
    fs::write(at.join("tokens.ndjson"), (0..1000).map(line).collect::<String>()).unwrap();
    let (_, words) = check(at, "token import tokens.ndjson", 0);
    assert!(words.contains("1000 tokens"), "{words}");
}

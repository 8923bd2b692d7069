//! The names and words that people type, and the messages that they get.

use super::*;

#[test]
fn names_are_accepted_in_place_of_ids() {
    let place = directory_with(CONFIG);
    let at = place.path();
    for line in ["user create ann", "user create bob", "group create staff"] {
        check(at, &format!("--offline {line}"), 0);
    }
    for user in ["ann", "bob"] {
        check(at, &format!("--offline token create --user {user} --name laptop --scope app"), 0);
    }
    let (_, words) = check(at, "--offline token show laptop", 2);
    assert!(words.contains("2 tokens are called \"laptop\"") && words.contains("ann"), "{words}");
    let (record, _) = check(at, "--offline token show LAPTOP --user bob -o json", 0);
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let id = record["id"].as_str().unwrap();
    check(at, &format!("--offline token show {id}"), 0);
    check(at, &format!("--offline token show pgt_{id}_..."), 0);
    check(at, "--offline explain GET /app --token laptop", 2);
    let (_, words) = check(at, "--offline token rm laptop --user bob", 0);
    assert!(words.contains(id), "{words}");
    check(at, "--offline explain GET /app --token laptop", 0);
    let (_, words) = check(at, "--offline token edit laptob --note x", 4);
    assert!(words.contains("did you mean \"laptop\""), "{words}");
    let (_, words) = check(at, "--offline token rotate laptop --user ann", 0);
    assert!(words.contains("created token"), "{words}");
    let old = words.lines().find_map(|line| line.strip_prefix("the old token ")).expect("it is named");
    let (old, until) = old.split_once(" (laptop) works until ").expect("its end is told");
    let (list, _) = check(at, "--offline token list --user ann", 0);
    let row = |state: &str| list.lines().find(|line| line.contains(state)).unwrap_or_default();
    assert!(row("rotating").contains(old) && row("rotating").contains(until), "{list}");
    assert!(row("active").contains("never"), "{list}");
    let (record, _) = check(at, "--offline token show laptop --user ann", 0);
    assert!(record.contains("expires_at  never"), "{record}");
    check(at, "--offline explain GET /app --user ann --carrier basic", 2);
    let (_, words) = check(at, "--offline token rotate laptop --user ann --grace 0s", 0);
    assert!(words.contains("(laptop) no longer works"), "{words}");
}

#[test]
fn refusal_names_the_wrong_argument_and_a_remedy() {
    let place = directory_with(&CONFIG.replace("all-users", "developers"));
    let at = place.path();
    for line in ["user create alice", "group create developers"] {
        check(at, &format!("--offline {line}"), 0);
    }
    let told = |line: &str, code: i32, part: &str| {
        let (_, words) = check(at, &format!("--offline {line}"), code);
        assert!(words.contains(part), "{line}: {words}");
    };
    told("token create --name x --scope app", 2, "--user LOGIN");
    told("token create --user alcie --name x --scope app", 4, "no user \"alcie\": did you mean \"alice\"?");
    told("token create --user alice --name x --scope ap", 3, "no service \"ap\": did you mean \"app\"?");
    told("token create --user alice --name x --scope app", 3, "permgate group add developers alice");
    told("explain GET /app --user alice", 3, "permgate group add developers alice");
    told("token create --user alice --name x --scope app --expires-in 90", 2, "90d");
    told("token create --user alice --name x --scope app --expires-at soon", 2, "2027-01-31");
    told("user show alcie", 4, "did you mean \"alice\"?");
    told("group add developerz alice", 4, "no group \"developerz\": did you mean \"developers\"?");
    told("group add developers alcie", 4, "no user \"alcie\": did you mean \"alice\"?");
    told("grant add system-admn --user alice", 4, "no role \"system-admn\": did you mean \"system-admin\"?");
    told("grant add observer --group developerz", 4, "did you mean \"developers\"?");
    told("explain GET /app --user alcie", 4, "did you mean \"alice\"?");
    told("token list --user alcie", 4, "did you mean \"alice\"?");
    check(at, "--offline group add developers alice", 0);
    check(at, "--offline token create --user alice --name x --scope app --expires-at 2037-01-01", 0);
    let (listed, _) = check(at, "--offline token list", 0);
    assert!(listed.contains("2037-01-01T00:00:00Z"), "{listed}");
    check(at, "--offline group remove developers alice", 0);
    told("explain GET /app --token x", 3, "permgate group add developers alice");
}

#[test]
fn irreversible_commands_require_confirmation() {
    let place = directory_with(CONFIG);
    let at = place.path();
    for line in ["user create ann", "group create staff", "role create auditor --permission read-audit"] {
        check(at, &format!("--offline {line}"), 0);
    }
    for line in ["user delete ann", "group rm staff", "role delete auditor"] {
        let (_, words) = check(at, &format!("--offline {line}"), 2);
        assert!(words.contains("--yes"), "{words}");
    }
    check(at, "--offline user delete nobody", 4);
    // On a terminal it asks; every answer but yes is a no.
    let terminal = |answer: &str, line: &str| {
        let line = format!(
            "printf '{answer}\\n' | script -qec '{} --offline {line}' /dev/null",
            env!("CARGO_BIN_EXE_permgate")
        );
        let output = Command::new("sh").args(["-c", &line]).current_dir(at).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = terminal("n", "user delete ann");
    assert!(said.contains("Delete ann and revoke 0 tokens, for good? [y/N]"), "{said}");
    check(at, "--offline user show ann", 0);
    terminal("y", "user delete ann");
    check(at, "--offline user show ann", 4);
    check(at, "--offline group delete staff --yes", 0);
    check(at, "--offline role rm auditor -y", 0);
}

#[test]
fn a_role_is_edited() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline role create auditor --permission read-audit", 0);
    let (_, words) = check(at, "--offline role edit auditor", 2);
    assert!(words.contains("--name or --permission"), "{words}");
    let (_, words) = check(at, "--offline role edit auditr --name x", 4);
    assert!(words.contains("did you mean \"auditor\"?"), "{words}");
    check(at, "--offline role edit auditor --permission read-everything", 2);
    // Properties that are not named stay.
    let shown = |line: &str| {
        check(at, line, 0);
        let (data, _) = check(at, "--offline role show auditor -o json", 0);
        let record = serde_json::from_str::<serde_json::Value>(&data).unwrap();
        format!("{} {}", record["name"].as_str().unwrap(), record["permissions"])
    };
    assert_eq!(shown("--offline role edit auditor --name Reader"), r#"Reader ["read-audit"]"#);
    let line = "--offline role edit auditor --permission read-user --permission read-group";
    assert_eq!(shown(line), r#"Reader ["read-user","read-group"]"#);
    // Built-in roles stay as they are.
    check(at, "--offline role edit system-admin --name Root", 2);
    check(at, "--offline role show nobody", 4);
}

#[test]
fn lists_are_sorted_and_empty_lists_are_reported() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline group create staff", 0);
    let (data, words) = check(at, "--offline token list", 0);
    assert_eq!((data.as_str(), words.as_str()), ("", "no tokens\n"));
    let (data, words) = check(at, "--offline token list -o json", 0);
    assert_eq!((data.as_str(), words.as_str()), ("[]\n", ""));
    let said = stderr_of(
        at,
        &["--offline user create zoe", "--offline user create Bob", "--offline user create ann"],
    );
    assert_eq!(said, ["created zoe\n", "created Bob\n", "created ann\n"]);
    for (user, name) in [("zoe", "b"), ("ann", "z"), ("zoe", "a")] {
        check(at, &format!("--offline token create --user {user} --name {name} --scope app"), 0);
    }
    let column = |line: &str, field: &str| -> Vec<String> {
        let (data, _) = check(at, line, 0);
        let rows = data.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        rows.map(|row| row[field].as_str().unwrap().to_owned()).collect()
    };
    check(at, "--offline token list --limit 0", 2);
    assert_eq!(column("--offline token list --limit 2 -o jsonl", "name").len(), 2);
    let (table, _) = check(at, "--offline group list", 0);
    assert!(!table.contains("MEMBERS"), "lists have none: {table}");
    assert_eq!(column("--offline user ls -o jsonl", "login"), ["ann", "Bob", "zoe"]);
    assert_eq!(column("--offline token ls -o jsonl", "name"), ["z", "a", "b"]);
    assert_eq!(column("--offline service list -o jsonl", "key"), ["app", "permgate"]);
    let (table, _) = check(at, "--offline audit tail -n 1", 0);
    assert!(
        table.contains("name a") && !table.contains(".000Z"),
        "who and what was changed is told: {table}"
    );
}

#[test]
fn unknown_reader_groups_are_reported() {
    let place = directory_with(&format!(
        "{}[metrics]\nold_names = false\n",
        CONFIG.replace("\"all-users\"", "\"developerz\"")
    ));
    let at = place.path();
    check(at, "check --strict", 0);
    check(at, "--offline group create developers", 0);
    let (_, words) = check(at, "--offline check --strict", 2);
    assert!(
        words.contains("gateway.toml:11:12") && words.contains("did you mean \"developers\"?"),
        "{words}"
    );
    let _gateway = serve(at);
    let (_, words) = check(at, "check --strict", 2);
    assert!(words.contains("developerz"), "{words}");
    let (_, words) = check(at, "check", 0);
    assert!(words.contains("1 warning"), "{words}");
}

#[test]
fn completions_come_from_the_store() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let _gateway = serve(at);
    check(at, "user create ann", 0);
    check(at, "user create anton", 0);
    let complete = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_permgate"))
            .args(["--", "permgate"])
            .args(words)
            .current_dir(at)
            .env("PERMGATE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .env("_CLAP_IFS", "\n")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let found = complete(&["user", "show", "an"]);
    assert_eq!(found.lines().collect::<Vec<_>>(), ["ann", "anton"], "{found}");
    assert!(complete(&["user", "cre"]).contains("create"));
    assert!(complete(&["token", "create", "--scope", "a"]).contains("app"));
    assert_eq!(complete(&["-c", "missing.toml", "user", "show", "an"]), "");
}

#[test]
fn missing_file_is_reported_in_one_form() {
    let place = directory_with(CONFIG);
    let at = place.path();
    for line in ["user list --token-file missing", "token import missing", "store restore missing"] {
        let (_, words) = check(at, line, 2);
        assert!(words.contains("cannot read missing: No such file or directory\n"), "{line}: {words}");
    }
    let (_, words) = check(at, "user list -c missing", 2);
    assert!(words.contains("missing: cannot be read: No such file or directory"), "{words}");
    let (_, words) = check(at, "scan missing", 2);
    assert!(words.contains("cannot read missing: No such file or directory\n"), "{words}");
    let (_, words) = check(at, "user list --admin unix:missing.sock", 5);
    assert!(words.contains("unix:missing.sock: No such file or directory\n"), "{words}");
}

#[test]
fn tokens_are_created_rotated_and_revoked_by_name() {
    let place = directory_with(&CONFIG.replace("[server]", "[tokens]\nmax_lifetime = \"30d\"\n[server]"));
    let at = place.path();
    check(at, "--offline user create ann", 0);
    let create = |name: &str| {
        let line =
            format!("--offline token create --user ann --name {name} --scope app --expires-in 1d -o id");
        check(at, &line, 0).0.trim_end().to_owned()
    };
    let (first, second) = (create("first"), create("second"));
    assert!(first.starts_with("pgt_") && first.len() == 66, "it is shown only once, so by -o id, too");
    // A whole token that was pasted must not appear in the terminal's log.
    let (_, words) = check(at, &format!("--offline token revoke {second}"), 0);
    assert!(
        words.contains(&format!("pgt_{}_...", &second[4..16])) && !words.contains(&second[20..]),
        "{words}"
    );
    let (_, words) = check(at, "--offline token revoke nope first", 4);
    assert!(words.contains("no token \"nope\"") && words.contains("revoked first"), "{words}");

    let old = create("nightly");
    let ids = || {
        let (rows, _) = check(at, "--offline token list -o jsonl", 0);
        let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
        let live = rows.filter(|row| row["name"] == "nightly" && row["state"] != "revoked");
        live.map(|row| (row["id"].as_str().unwrap().to_owned(), row["state"].to_string())).collect::<Vec<_>>()
    };
    check(at, "--offline token rotate nightly", 0);
    // Two tokens have the name during the grace period; the new one is meant.
    check(at, "--offline token rotate nightly", 0);
    assert_eq!(ids().len(), 3, "{:?}", ids());
    assert!(ids().iter().any(|(id, _)| *id == old[4..16]), "{:?}", ids());
    let (_, words) = check(at, "--offline token revoke nightly", 0);
    assert_eq!(words.matches("revoked nightly").count(), 3, "{words}");
    assert_eq!(ids(), []);

    let line = "--offline token create --user ann --name long --scope app --expires-in 5w";
    let (_, words) = check(at, line, 2);
    assert!(words.contains("a token can live at most 30d here"), "{words}");
    let (_, words) = check(at, "--offline token list --service apb", 4);
    assert!(words.contains("no service \"apb\": did you mean \"app\"?"), "{words}");
    check(at, "--offline user create bot --administrator --kind service", 2);
    check(at, "--offline user create bot --kind service --invite", 2);
}

#[test]
fn reading_creates_no_store_and_deleting_reports_what_is_left() {
    let place = directory_with(&CONFIG.replace("all-users", "developers"));
    let at = place.path();
    let (_, words) = check(at, "--offline user list", 2);
    assert!(words.contains("there is no store in permgate-data"), "{words}");
    assert!(!at.join("permgate-data").exists());
    check(at, "--offline group create developers", 0);
    check(at, "--offline group edit developers --rename Developers", 0);
    let (told, _) = check(at, "--offline audit tail", 0);
    assert!(told.contains("name developers -> Developers"), "{told}");
    let (_, words) = check(at, "--offline group delete developers --yes", 0);
    assert!(words.contains("The readers of app name it"), "{words}");
    fs::write(at.join("gateway.toml"), "version = 1\n[server\n").unwrap();
    let (_, words) = check(at, "user list", 2);
    assert!(words.contains("--admin unix:PATH"), "{words}");
}

#[test]
fn unreadable_variable_is_reported_by_its_name() {
    let place = directory_with(&format!("{CONFIG}[metrics]\nold_names = false\n"));
    let at = place.path();
    check(at, "--offline group create developers", 0);
    let output = Command::new(env!("CARGO_BIN_EXE_permgate"))
        .args(["--offline", "check"])
        .current_dir(at)
        .env("PERMGATE__SERVICE__APP__READERS", "developerz")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("warning: PERMGATE__SERVICE__APP__READERS:1:1: there is no group"), "{words}");
}

#[test]
fn status_counts_failures_and_whoami_names_the_token() {
    let place =
        directory_with(&CONFIG.replace("[\"unix:admin.sock\"]", "[\"127.0.0.1:0\", \"unix:admin.sock\"]"));
    let at = place.path();
    let _gateway = serve(at);
    let (told, _) = check(at, "status", 0);
    assert!(told.contains("in flight         0\n") && told.contains("refused"), "{told}");
    let (told, _) = check(at, "status -o json", 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["failed"], &told["down"]), (&0.into(), &serde_json::json!({})));
    check(at, "user create ann", 0);
    check(at, "grant add system-admin --user ann", 0);
    check(at, "token create --user ann --name mine --scope permgate --save token", 0);
    check(at, "token create --user ann --name narrow --scope app --save narrow", 0);
    let (told, words) = check(at, "status --admin unix:admin.sock --token-file narrow", 0);
    assert_eq!(told, "ready\n");
    assert!(words.starts_with("no more can be shown: ") && words.contains("permgate"), "{words}");
    let (told, _) = check(at, "whoami --admin unix:admin.sock --token-file token", 0);
    assert!(told.contains("mine (") && told.contains("permgate"), "{told}");
    let (told, _) = check(at, "status -o json", 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["requests"].as_u64() > Some(0), "requests count before a step of the hour is over: {told}");
    let (told, _) = check(at, "explain GET /.permgate/jwks.json", 0);
    assert!(told.contains("answered by the gateway itself"), "{told}");
    let (told, _) = check(at, "explain GET /app --user ann", 0);
    assert!(told.ends_with(" fields, if a client sends them: `-o json` lists them\n"), "{told}");
    std::fs::rename(at.join("gateway.toml"), at.join("away.toml")).unwrap();
    let (_, words) = check(at, "reload --admin unix:admin.sock", 2);
    assert!(words.contains("gateway.toml: cannot be read: No such file"), "{words}");
}

#[test]
fn a_log_is_followed_from_its_end() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let (_, words) = check(at, "--offline audit tail -f", 2);
    assert!(words.contains("--follow needs a running gateway"), "{words}");
    let _gateway = serve(at);
    let (data, words) = check(at, "audit tail -n 0", 0);
    assert_eq!((data.as_str(), words.as_str()), ("", ""));
    let tail = Command::new(env!("CARGO_BIN_EXE_permgate"))
        .args(["audit", "tail", "-n", "0", "-f", "-o", "id"])
        .current_dir(at)
        .env_remove("PERMGATE_CONFIG")
        .env_remove("PERMGATE_ADMIN")
        .env_remove("PERMGATE_TOKEN")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tail = Gateway(tail);
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let (first, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || first.send(lines.next().unwrap().unwrap()));
    // It may take a while until the command has seen where the log ends.
    let line = (0..).find_map(|number| {
        check(at, &format!("group create g{number}"), 0);
        received.recv_timeout(std::time::Duration::from_millis(100)).ok()
    });
    assert_ne!(line.as_deref(), Some("1"), "the events before are not printed");
}

#[test]
fn names_are_compared_as_the_store_does() {
    let place = directory_with(&CONFIG.replace("all-users", "\u{c4}rzte"));
    let at = place.path();
    // The same name in other letters, and decomposed.
    for line in ["group create \u{e4}rzte", "user create ann"] {
        check(at, &format!("--offline {line}"), 0);
    }
    let (_, words) = check(at, "--offline group add A\u{308}RZTE nobody", 4);
    assert!(words.contains("no user \"nobody\""), "the group exists: {words}");
    let (_, words) = check(at, "--offline check", 0);
    assert!(words.contains("is valid") && !words.contains("no group"), "{words}");
}

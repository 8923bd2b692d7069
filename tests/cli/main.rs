//! The binary as scripts see it: stdout, stderr and exit codes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod failures;
mod first_minutes;
mod formats;
mod places;
mod secrets;
mod variables;
mod words;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// A configuration with its own store, which shares nothing with other tests.
const CONFIG: &str = r#"version = 1
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = ["unix:admin.sock"]
[upstream.up]
urls = ["http://127.0.0.1:1"]
[service.app]
upstream = "up"
paths = ["/app"]
readers = ["all-users"]
"#;

/// One mistake of every kind, except for a syntax error, which would hide others on its line.
const INVALID_CONFIG: &str = r#"version = 1
[server]
lisen = ["127.0.0.1:0"]
drain = "soon"
[upstream.youtrack]
urls = ["wss://127.0.0.1:1"]
[service.youtrack]
upstream = "youtrak"
paths = ["/api/"]
readers = "all-users"
authorization = "Bearer hunter2"
[[public]]
service = "youtrac"
path = "/api"
"#;

const INVALID_CONFIG_ERRORS: &str = r#"error: gateway.toml:3:1: unknown key `lisen` in [server]
    3 | lisen = ["127.0.0.1:0"]
      | ^^^^^
      = did you mean "listen"?

error: gateway.toml:4:9: `server.drain` is not a duration
    4 | drain = "soon"
      |         ^^^^^^
      = write a number and one of ms, s, m, h, d, w, such as "10s"

error: gateway.toml:6:9: wss:// upstreams are not supported
    6 | urls = ["wss://127.0.0.1:1"]
      |         ^^^^^^^^^^^^^^^^^^^
      = write "http://HOST:PORT", "https://HOST", "h2c://HOST:PORT" or "unix:PATH"

error: gateway.toml:8:12: there is no upstream "youtrak"
    8 | upstream = "youtrak"
      |            ^^^^^^^^^
      = did you mean "youtrack"?

error: gateway.toml:9:10: "/api/" ends with "/"
    9 | paths = ["/api/"]
      |          ^^^^^^^
      = write "/api": prefixes match whole segments

error: gateway.toml:10:11: `service.youtrack.readers` must be a list of texts, this is a string
   10 | readers = "all-users"
      |           ^^^^^^^^^^^
      = write `readers = ["..."]`

error: gateway.toml:11:17: a credential must not be written into this file
   11 | authorization = ...
      |                 ^^^
      = write "strip", "keep", "file:PATH" or "env:NAME"; if a secret was written here, replace it

error: gateway.toml:13:11: there is no service "youtrac"
   13 | service = "youtrac"
      |           ^^^^^^^^^
      = did you mean "youtrack"?

error: gateway.toml has 8 errors
"#;

fn permgate(directory: &Path, line: &str) -> Output {
    permgate_command(directory, line).output().unwrap()
}

fn permgate_command(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_permgate"));
    command
        .args(line.split(' '))
        .current_dir(directory)
        .env_remove("PERMGATE_CONFIG")
        .env_remove("PERMGATE_ADMIN")
        .env_remove("PERMGATE_TOKEN");
    command
}

fn directory_with(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("gateway.toml"), config).unwrap();
    directory
}

/// Runs a line and checks its exit code. Returns stdout and stderr.
fn check(directory: &Path, line: &str, code: i32) -> (String, String) {
    let output = permgate(directory, line);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (data, words) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{line}\nstdout: {data}\nstderr: {words}");
    (data, words)
}

/// Runs lines that must succeed. Returns the stderr of each.
fn stderr_of(directory: &Path, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| check(directory, line, 0).1).collect()
}

#[test]
fn every_mistake_is_reported_at_once() {
    let place = directory_with(INVALID_CONFIG);
    let (data, words) = check(place.path(), "check", 2);
    assert_eq!((data.as_str(), words.as_str()), ("", INVALID_CONFIG_ERRORS));

    let (data, _) = check(place.path(), "check -o json", 2);
    let told: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(told["valid"], false);
    assert_eq!(told["errors"].as_array().unwrap().len(), 8);
    assert_eq!(told["errors"][0]["line"], 3);
    assert!(!data.contains("hunter2"));
}

#[test]
fn exit_codes() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "check", 0);
    check(at, "check -c missing.toml", 2);
    check(at, "--version", 0);
    check(at, "no-such-command", 2);
    check(at, "user list", 5);
    check(at, "user list --admin unix:elsewhere.sock", 5);
    check(at, "user list --admin ftp://x", 2);
    let (_, words) = check(at, "--admin unix:elsewhere.sock user add ann --admin", 5);
    assert!(words.contains("elsewhere.sock"), "the listener is named, and the switch set: {words}");
    check(at, "user list --token-file missing", 2);
    check(at, "user list -c missing.toml", 2);
    check(at, "token import missing.ndjson", 2);
    let (schema, words) = check(at, "schema", 0);
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok() && words.is_empty());
    let (script, _) = check(at, "completion bash", 0);
    assert!(script.contains("permgate"));
    let (page, _) = check(at, "man", 0);
    assert!(page.contains(".TH"));
}

#[test]
fn an_account_is_set_up_offline() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline user create ann", 0);
    check(at, "--offline user create ann", 1);
    check(at, "--offline user show nobody", 4);
    let (ids, _) = check(at, "--offline user list -o id", 0);
    assert_eq!(ids, "ann\n");

    let (text, words) = check(at, "--offline token create --user ann --name ci --scope app", 0);
    assert!(text.starts_with("pgt_") && text.trim_end().len() == 66, "{text}");
    assert!(!words.contains(text.trim_end()), "the text is data, not words");
    let id = &text[4..16];
    let (listed, _) = check(at, "--offline token list -o jsonl", 0);
    assert!(listed.contains(id) && !listed.contains(text.trim_end()));

    let (told, _) = check(at, &format!("--offline explain GET /app --token-id {id} -o json"), 0);
    assert!(told.contains("\"app\""), "{told}");
    check(at, &format!("--offline token revoke {id}"), 0);
    let (record, _) = check(at, &format!("--offline token show {id} -o json"), 0);
    assert!(record.contains("\"revoked\""), "{record}");

    check(at, "--offline group create staff", 0);
    check(at, "--offline group add staff ann", 0);
    check(at, "--offline grant add system-admin --group staff", 0);
    check(at, "--offline grant add no-such-role --user ann", 4);
    let (events, _) = check(at, "--offline audit tail -o jsonl", 0);
    assert!(events.contains("token.revoke"), "{events}");
    let (_, words) = check(at, "--offline audit verify", 0);
    assert!(words.contains("unchanged"), "{words}");
}

#[test]
fn tokens_are_imported_offline_and_again() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let token = |digit: char, scope: &str| {
        let digest = digit.to_string().repeat(64);
        format!(r#"{{"digest":"{digest}","owner":"ann","name":"ci {digit}","scope":["{scope}"]}}"#)
    };
    let lines = [r#"{"user":"ann"}"#, &token('a', "app"), "{", &token('b', "app:read"), &token('c', "nope")];
    fs::write(at.join("tokens.ndjson"), lines.join("\n")).unwrap();
    let (_, words) = check(at, "--offline token import tokens.ndjson", 1);
    assert!(words.contains("line 3: ") && words.contains("line 5: "), "{words}");
    assert!(words.contains("2 tokens, 1 user, 0 groups, 0 memberships imported"), "{words}");
    let (ids, _) = check(at, "--offline token list -o id", 0);
    assert_eq!(ids.lines().count(), 2);
    let (_, words) = check(at, "--offline token import tokens.ndjson", 1);
    assert!(words.contains("0 tokens, 0 users") && words.contains("3 lines were there already"), "{words}");
}

/// A running gateway, killed when dropped.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a gateway. Returns once its admin listener accepts.
fn serve(directory: &Path) -> Gateway {
    let mut child = Command::new(env!("CARGO_BIN_EXE_permgate"))
        .arg("run")
        .current_dir(directory)
        .env_remove("PERMGATE_CONFIG")
        .env_remove("PERMGATE_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let words = BufReader::new(child.stderr.take().unwrap());
    let gateway = Gateway(child);
    let mut lines = words.lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("admin listener"));
    assert!(ready, "the gateway ended before it served");
    // Keep reading stderr, so that the process never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    gateway
}

#[test]
fn a_running_gateway_is_administered() {
    let place =
        directory_with(&CONFIG.replace("[\"unix:admin.sock\"]", "[\"127.0.0.1:0\", \"unix:admin.sock\"]"));
    let at = place.path();
    let _gateway = serve(at);
    let (data, _) = check(at, "health", 0);
    assert_eq!(data, "ready\n");
    check(at, "--offline user list", 1);
    check(at, "run", 1);
    check(at, "user create ann", 0);
    let token = |digit: char| {
        let digest = digit.to_string().repeat(64);
        format!(r#"{{"digest":"{digest}","owner":"ann","name":"ci {digit}","scope":["app"]}}"#)
    };
    let lines =
        [&token('a'), r#"{"user":"bob"}"#, r#"{"group":"staff","members":["bob"]}"#, "[]", &token('b')];
    fs::write(at.join("tokens.ndjson"), lines.join("\n")).unwrap();
    let (_, words) = check(at, "token import tokens.ndjson", 1);
    let counts =
        "2 tokens, 1 user, 1 group, 1 membership imported; 0 lines were there already, 1 refused, 5 read";
    assert!(words.contains("line 4: ") && words.contains(counts), "{words}");
    assert!(words.contains("error: 1 line was refused"), "{words}");
    let (counted, words) = check(at, "token import tokens.ndjson -o json", 1);
    assert!(words.contains("0 tokens, 0 users") && words.contains("; 4 lines were there already"), "{words}");
    let counted: serde_json::Value = serde_json::from_str(&counted).unwrap();
    assert_eq!(
        (&counted["known"], &counted["refused"], &counted["lines"]),
        (&4.into(), &1.into(), &5.into())
    );
    fs::write(at.join("group.ndjson"), r#"{"group":"guests","members":["bob","nobody"]}"#).unwrap();
    let (_, words) = check(at, "token import group.ndjson", 1);
    let counts = "1 group, 1 membership imported; 0 lines were there already, 1 refused, 1 read";
    assert!(words.contains("line 1: ") && words.contains(counts), "what was made before counts: {words}");
    let (members, _) = check(at, "group show staff -o json", 0);
    assert!(members.contains("\"bob\""), "{members}");
    check(at, "audit verify", 0);
    let (report, words) = check(at, "-o json store verify", 0);
    assert!(report.contains("\"sound\": true") && words.contains("the store is sound"), "{report}{words}");
    check(at, "--offline store verify", 1);
    check(at, "store backup running.backup", 0);
    check(at, "store backup running.backup", 2);

    check(at, "reload", 0);
    let config = fs::read_to_string(at.join("gateway.toml")).unwrap();
    fs::write(at.join("gateway.toml"), config.replace("\"up\"\npaths", "\"uq\"\npaths")).unwrap();
    let (_, words) = check(at, "reload --admin unix:admin.sock", 2);
    assert!(words.contains("there is no upstream \"uq\""), "{words}");
    fs::write(at.join("gateway.toml"), config.replace("[server]", "[server]\nworkers = 7")).unwrap();
    let (_, words) = check(at, "reload", 2);
    assert!(words.contains("gateway.toml:3:1: server.workers cannot be changed by a reload"), "{words}");
    let (_, words) = check(at, "check", 0);
    assert!(
        words.contains("gateway.toml:3:1: `server.workers` differs from the running gateway's"),
        "{words}"
    );
    let (data, _) = check(at, "health --admin unix:admin.sock", 0);
    assert_eq!(data, "ready\n");
}

#[test]
fn restore_does_not_bring_back_revoked_tokens() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline user create ann", 0);
    let (text, _) = check(at, "--offline token create --user ann --name ci --scope app", 0);
    let id = &text[4..16];
    let partial = at.join("monday.backup.partial");
    check(at, "store backup monday.backup", 5);
    assert!(!partial.exists(), "a backup that failed leaves nothing");
    // Left over from an interrupted backup, or created by somebody who wants to read the new one.
    fs::write(&partial, "half").unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o666)).unwrap();
    check(at, "--offline store backup monday.backup", 0);
    let mode = fs::metadata(at.join("monday.backup")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds password hashes");
    check(at, "--offline store backup monday.backup", 2);
    let (report, words) = check(at, "--offline store verify", 0);
    assert!(report.is_empty() && words.contains("the store is sound"), "{report}{words}");
    check(at, &format!("--offline token revoke {id}"), 0);
    check(at, "store restore monday.backup", 0);
    let (record, _) = check(at, &format!("--offline token show {id} -o json"), 0);
    assert!(record.contains("\"revoked\""), "{record}");
}

#[test]
fn token_in_a_file_is_detected_before_it_leaks() {
    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    check(at, "scan", 0);
    fs::create_dir_all(at.join("src/.git")).unwrap();
    fs::write(at.join("src/.git/config"), TOKEN).unwrap();
    check(at, "scan src", 0);
    fs::write(at.join("src/deploy.sh"), format!("#!/bin/sh\ncurl -H \"Authorization: Bearer {TOKEN}\"\n"))
        .unwrap();
    let (data, words) = check(at, "scan src", 1);
    assert_eq!(data, "src/deploy.sh:2:32: pgt_A1iceYt00001_...\n");
    assert!(words.contains("1 token found"), "{words}");
    let (data, _) = check(at, "scan src -o json", 1);
    assert!(data.contains("\"line\": 2") && !data.contains(TOKEN), "{data}");
    let (_, words) = check(at, "scan nowhere", 2);
    assert!(words.contains("nowhere"), "{words}");
}

//! The first minutes of a new user: from nothing to the first request.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn the_first_administrator_is_invited_before_anything_runs() {
    let place = directory_with(CONFIG);
    let at = place.path();
    let (data, _) = check(at, "--offline user add ann --admin -o json", 0);
    let made: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert!(made["link"].as_str().unwrap().contains("/invitation#"), "{data}");
    check(at, "--offline user add --admin bob", 0);
    let (data, _) = check(at, "--offline grant list", 0);
    assert!(data.contains("system-admin") && data.contains("ann") && data.contains("bob"), "{data}");
    check(at, "--offline user invite ann", 0);
    check(at, "--offline --admin unix:x user list", 2);
    check(at, "--offline --admin unix:x user add eve --admin", 2);
}

#[test]
fn init_page_leads_to_a_first_request() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let (_, words) = check(at, "init", 2);
    assert!(words.contains("--upstream"), "nobody can be asked: {words}");
    let wrong = [
        ("--upstream 127.0.0.1:1 --path /api", "error: --upstream: an upstream url is http://HOST"),
        ("--upstream http://127.0.0.1:1 --path api/", "error: --path: "),
        ("--upstream http://127.0.0.1:1 --listen nowhere", "error: --listen: "),
        ("--upstream http://127.0.0.1:1 --page nowhere", "error: --page: "),
        (
            "--upstream http://127.0.0.1:1 --service My.App",
            "error: --service \"My.App\": a service's name has",
        ),
        ("--upstream http://127.0.0.1:1 --service permgate", "error: --service: "),
        ("--upstream http://127.0.0.1:1 --administrator a,b", "error: --administrator \"a,b\": a login has"),
        ("--upstream http://127.0.0.1:1 --administrator me", "error: --administrator \"me\": the login"),
    ];
    for (options, expected) in wrong {
        let (_, words) = check(at, &format!("init {options}"), 2);
        assert!(words.starts_with(expected) && !words.contains("gateway.toml:"), "{options}: {words}");
    }
    assert!(
        !at.join("gateway.toml").exists() && !at.join("permgate-data").exists(),
        "a mistake leaves nothing"
    );
    let line = "init --upstream http://127.0.0.1:1 --path /api --path /rest --service tracker --administrator ann \
                --listen 127.0.0.1:0 --page 127.0.0.1:0";
    let (data, words) = check(at, line, 0);
    let token = data.split("Bearer ").nth(1).unwrap().split('"').next().unwrap();
    assert!(token.starts_with("pgt_") && token.len() == 66 && !words.contains(token), "{data}\n{words}");
    assert!(data.contains("permgate run") && data.contains("/invitation#"), "{data}");
    check(at, "init --upstream http://127.0.0.1:1", 2);
    check(at, "check --strict", 0);
    let id = &token[4..16];
    let (told, _) = check(at, &format!("--offline explain get /api/x --token-id {id}"), 0);
    assert!(told.contains("permitted") || told.contains("ok"), "{told}");
    let (roles, _) = check(at, "--offline grant list", 0);
    assert!(roles.contains("system-admin") && roles.contains("ann"), "{roles}");
    let (_, words) = check(at, "-c other.toml init --upstream unix:app.sock --administrator bob", 2);
    assert!(words.contains("there is a store in permgate-data already: move it away"), "{words}");
    assert!(!at.join("other.toml").exists());
    let other = tempfile::tempdir().unwrap();
    let line = "init --upstream unix:app.sock --administrator bob -o json";
    fs::write(other.path().join("permgate-data"), "").unwrap();
    let (_, words) = check(other.path(), line, 1);
    assert!(words.contains("removed gateway.toml again"), "{words}");
    assert!(!other.path().join("gateway.toml").exists(), "what failed can be tried again");
    fs::remove_file(other.path().join("permgate-data")).unwrap();
    let (data, _) = check(other.path(), line, 0);
    let made: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(made["administrator"], "bob", "{data}");
}

/// `permgate init` on a terminal with these lines typed; an empty text ends the input.
#[test]
fn init_asks_again_and_ends_with_the_input() {
    let ask = |typed: &str| {
        let place = tempfile::tempdir().unwrap();
        let line = format!(
            "printf '{typed}' | script -qec '{} init --listen 127.0.0.1:0 --page 127.0.0.1:0' /dev/null",
            env!("CARGO_BIN_EXE_permgate")
        );
        let output = Command::new("sh").args(["-c", &line]).current_dir(place.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said, place.path().join("gateway.toml").exists())
    };
    let (said, written) = ask("127.0.0.1:1\\nhttp://127.0.0.1:1\\n\\nme\\nann\\n");
    assert!(said.contains("an upstream url is http://") && said.contains("\"me\" is reserved"), "{said}");
    assert!(written && said.contains("choose a password"), "{said}");
    let (said, written) = ask("http://127.0.0.1:1\\n\\004");
    assert!(!written && said.contains("nothing was changed"), "{said}");
}

/// The output of `permgate run` until it is ready, on a terminal and elsewhere.
#[test]
fn start_reports_readiness_and_missing_setup() {
    let place =
        directory_with(&CONFIG.replace("[\"unix:admin.sock\"]", "[\"unix:admin.sock\", \"127.0.0.1:0\"]"));
    let at = place.path();
    let line = format!("exec script -qefc '{} run' /dev/null", env!("CARGO_BIN_EXE_permgate"));
    let mut child = Command::new("sh")
        .args(["-c", &line])
        .current_dir(at)
        .env_remove("PERMGATE_CONFIG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        if said.last().unwrap().contains("user create NAME") {
            break;
        }
    }
    // Closing the terminal would send SIGHUP, which reloads, so Ctrl-C stops the process.
    child.stdin.take().unwrap().write_all(b"\x03").unwrap();
    assert!(lines.any(|line| line.trim_end() == "stopped"));
    child.wait().unwrap();
    let text = said.join("\n");
    assert!(text.contains("ready; press Ctrl-C") && text.contains("http://127.0.0.1:"), "{text}");
    assert!(!text.contains('{'), "no JSON on a terminal: {text}");
}

/// An upstream that answers every request with 200 until the test ends.
fn stub() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while lines.by_ref().any(|line| line.is_empty()) {
                let mut stream = &stream;
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// Runs the lines of a document's console blocks in order, as they are written. Only addresses are replaced,
/// and clients connect through a unix socket. A comment that begins with a status is the expected output.
fn follow(page: &str) -> usize {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let binary = Path::new(env!("CARGO_BIN_EXE_permgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let upstream = stub();
    let mut gateway = None;
    let mut token = String::new();
    let (mut statuses, mut code) = (0, false);
    for line in page.lines() {
        if line.starts_with("```") {
            code = line == "```console";
        }
        let Some(line) = line.strip_prefix("$ ").filter(|_| code) else { continue };
        if line.starts_with("cargo ") {
            continue;
        }
        if line.starts_with("permgate run") {
            gateway = Some(serve(at));
            continue;
        }
        if line.contains("permgate reload") {
            let file = at.join("gateway.toml");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("\"all-users\"", "\"developers\"")).unwrap();
        }
        let line = line.replace("http://127.0.0.1:8090", &format!("http://{upstream}"));
        let line = line.replace("permgate init", "permgate init --listen unix:http.sock --page 127.0.0.1:0");
        let script = format!(
            "curl() {{ command curl -s --unix-socket http.sock \"$@\"; }}\n{line}\ncode=$?\nprintf '\\nTOKEN=%s\\n' \"$TOKEN\"; exit $code"
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(at)
            .env("PATH", &path)
            .env("TOKEN", &token)
            .env_remove("PERMGATE_CONFIG")
            .env_remove("PERMGATE_ADMIN")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = text.lines().find_map(|line| line.strip_prefix("TOKEN="));
        token = told.unwrap_or_else(|| panic!("{line}\n{text}\n{words}")).to_owned();
        let expected: Option<u16> =
            line.split_once(" # ").and_then(|(_, comment)| comment.trim().get(..3)?.parse().ok());
        if let Some(status) = expected {
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line}\n{text}\n{words}");
            statuses += 1;
        }
        let denied = line.contains("explain") && output.status.code() == Some(3);
        assert!(output.status.success() || denied, "{line}\n{text}\n{words}");
    }
    assert!(gateway.is_some());
    statuses
}

#[test]
fn documented_quick_starts_work_as_written() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## Sixty seconds").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(follow(section), 5, "401, 200 and 403; then 200 and 403 by groups");
    follow(include_str!("../../docs/getting-started.md"));
}

#[test]
fn check_reports_what_is_in_the_place_of_a_socket_or_the_store() {
    let place = directory_with(&format!("{CONFIG}[metrics]\nold_names = false\n"));
    let at = place.path();
    check(at, "check --strict", 0);
    fs::write(at.join("admin.sock"), "precious").unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("admin.sock exists and is not a socket"), "{words}");
    fs::remove_file(at.join("admin.sock")).unwrap();
    check(at, "--offline user create ann", 0);
    check(at, "check --strict", 0);
    let store = at.join("permgate-data");
    fs::rename(&store, at.join("store")).unwrap();
    fs::write(&store, "precious").unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("permgate-data is not a permgate store (it is a file)"), "{words}");
    fs::remove_file(&store).unwrap();
    fs::create_dir(&store).unwrap();
    check(at, "check --strict", 0);
    fs::write(store.join("mine"), "precious").unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("permgate-data is not a permgate store: it has mine"), "{words}");
    fs::remove_dir_all(&store).unwrap();
    symlink(at.join("nowhere"), &store).unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("cannot follow the symlink permgate-data"), "{words}");
    fs::remove_file(&store).unwrap();
    symlink(at.join("store"), &store).unwrap();
    check(at, "check --strict", 0);
    let current = fs::read(store.join("CURRENT")).unwrap();
    fs::write(store.join("CURRENT"), "garbage").unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("permgate-data/CURRENT is damaged"), "{words}");
    fs::write(store.join("CURRENT"), current).unwrap();
    fs::rename(store.join("gen-1"), store.join("gen-2")).unwrap();
    let (_, words) = check(at, "check", 2);
    assert!(words.contains("permgate-data/gen-1 is missing, but CURRENT names it"), "{words}");
}

#[test]
fn check_reports_an_exchange_for_an_account_that_cannot_own_its_tokens() {
    let rule = "[exchange.ci]\nissuer = \"https://ci.example\"\naudience = \"gate\"\naccount = \"ci-app\"\n\
                scope = [\"app\"]\nclaims = { name = \"sub\", value = \"job\" }\n";
    let place = directory_with(&format!("{CONFIG}[metrics]\nold_names = false\n{rule}"));
    let at = place.path();
    check(at, "--offline user create ann", 0);
    let (_, words) = check(at, "--offline check", 0);
    assert!(words.contains("there is no user \"ci-app\""), "{words}");
    assert!(words.contains("permgate user create ci-app --kind service"), "{words}");
    check(at, "--offline user create ci-app", 0);
    let (_, words) = check(at, "--offline check --strict", 2);
    assert!(words.contains("\"ci-app\" is not a service account"), "{words}");
    check(at, "--offline user delete ci-app --yes", 0);
    check(at, "--offline user create ci-app --kind service", 0);
    check(at, "--offline check --strict", 0);
}

#[test]
fn restore_without_a_store_to_replace_names_the_time_to_which_everything_goes_back() {
    let place = directory_with(CONFIG);
    let at = place.path();
    check(at, "--offline user create ann", 0);
    check(at, "--offline store backup backup", 0);
    let (_, words) = check(at, "store restore backup", 0);
    assert!(words.contains("ended since the backup, and so again: 0 tokens"), "{words}");
    std::fs::remove_dir_all(at.join("permgate-data")).unwrap();
    check(at, "store restore backup", 1);
    let (_, words) = check(at, "store restore backup --accept-lost-revocations", 0);
    assert!(words.contains("everything is as it was at 20") && !words.contains("ended since"), "{words}");
}

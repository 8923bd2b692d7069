//! What Chromium sends by itself: a page's WebSocket, whose script can name protocols but
//! not set fields, and a stored password.

use std::{collections::BTreeSet, process::Command};

use crate::{
    support::{
        stage::{self, run},
        upstream::Upstream,
        wait::eventually,
    },
    tools::{BASIC, Tools, upstream},
};

#[test]
#[ignore = "needs Chromium, and selenium from PyPI; .ci/run runs it"]
fn page_opens_a_websocket() {
    let python = stage::python("browser", &["selenium==4.35.0"]);
    let place = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("websocket", place.path());
    let keys =
        "credentials = [\"bearer\", \"websocket\"]\n[[public]]\nservice = \"tools\"\nprefix = \"/page\"";
    let tools = Tools::in_front_of(address, "\"/live\", \"/page\"", keys);
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/page.py"));
    command.args([format!("http://{}/page", tools.at()), format!("ws://{}/live", tools.at())]);
    // A read-only token is refused, because an Upgrade is more than reading.
    command.arg(&tools.full).args(tools.bad.iter().map(|(_, token, _)| token)).arg(&tools.read);
    let told = run(command.env("HOME", place.path()).env("PYTHONDONTWRITEBYTECODE", "1"));
    let lines: Vec<(String, String, u16, String)> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {told}")))
        .collect();
    assert_eq!(lines[0], ("alice: chat".to_owned(), "chat".to_owned(), 0, String::new()));
    // A page learns only that its socket did not open; the browser's console describes
    // the status in its own words.
    let (unauthorized, forbidden) = ("HTTP Authentication failed", "Unexpected response code: 403");
    for (line, words) in lines[1..].iter().zip([unauthorized, forbidden, unauthorized, forbidden]) {
        assert_eq!((line.0.as_str(), line.2), ("", 1006));
        assert!(line.3.contains(words), "{line:?}");
    }
    assert_eq!(lines.len(), 5);
}

#[test]
#[ignore = "needs Chromium, and selenium from PyPI; .ci/run runs it"]
fn cross_site_page_cannot_use_a_stored_password() {
    let python = stage::python("browser", &["selenium==4.35.0"]);
    let page = Upstream::start(|_, socket| {
        use std::io::Write as _;
        let page = "<title>page</title>";
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
        socket.write_all((head + page).as_bytes())
    });
    let tools = Tools::in_front_of(page.address, "\"/api\"", BASIC);
    // Another port of the same site, and another site.
    let others = [page.address.to_string(), format!("localhost:{}", page.address.port())];
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/stored.py"));
    command.args([&tools.at().to_string(), "alice", &tools.full]).args(&others);
    let place = tempfile::tempdir().unwrap();
    let tries = run(command.env("HOME", place.path()).env("PYTHONDONTWRITEBYTECODE", "1"));
    let tries: usize = tries.trim().parse().unwrap();

    let mut told = Vec::new();
    eventually("every attempt is logged", || {
        told = tools.logged();
        let tried = told.iter().filter_map(|line| line["path"].as_str()?.strip_prefix("/api/try-"));
        tried.collect::<BTreeSet<_>>().len() == tries
    });
    let mut sent = 0;
    for line in &told {
        let (path, reason) = (line["path"].as_str().unwrap(), line["reason"].as_str().unwrap());
        if path.starts_with("/api/own-") {
            assert_eq!(
                (reason, line["user"].as_str()),
                ("ok", Some("alice")),
                "the gateway's own page: {line}"
            );
        } else if path.starts_with("/api/try-") {
            assert!(["missing_credentials", "unsupported_scheme"].contains(&reason), "{line}");
            sent += usize::from(reason == "unsupported_scheme");
        }
    }
    // Chromium has sent the password with most of them, so it is the gateway that ignores it.
    assert!(sent >= tries / 2, "{sent} of {tries}: {told:#?}");
    let seen = page.seen.lock().unwrap();
    assert!(!seen.iter().any(|seen| seen.head.contains(" /api/try-")), "nothing was forwarded");
}

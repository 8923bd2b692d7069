//! A page's WebSocket: a script can name protocols, but cannot set fields.

use std::process::Command;

use crate::{
    support::stage::{self, run},
    tools::{Tools, upstream},
};

#[test]
#[ignore = "needs Chromium, and selenium from PyPI; .ci/run runs it"]
fn a_page_opens_a_websocket() {
    let python = stage::python("browser", &["selenium==4.35.0"]);
    let place = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("websocket", place.path());
    let keys =
        "credentials = [\"bearer\", \"websocket\"]\n[[public]]\nservice = \"tools\"\nprefix = \"/page\"";
    let tools = Tools::before(address, "\"/live\", \"/page\"", keys);
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/page.py"));
    command.args([format!("http://{}/page", tools.at()), format!("ws://{}/live", tools.at())]);
    // To whom a read-only token belongs, an Upgrade is more than reading.
    command.arg(&tools.full).args(tools.bad.iter().map(|(_, token, _)| token)).arg(&tools.read);
    let told = run(command.env("HOME", place.path()).env("PYTHONDONTWRITEBYTECODE", "1"));
    let lines: Vec<(String, String, u16, String)> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {told}")))
        .collect();
    assert_eq!(lines[0], ("alice: chat".to_owned(), "chat".to_owned(), 0, String::new()));
    // A page learns that its socket did not open; the status alone is on the browser's console.
    for (line, status) in lines[1..].iter().zip([401, 403, 401, 403]) {
        assert_eq!((line.0.as_str(), line.2), ("", 1006));
        assert!(line.3.contains(&format!("Unexpected response code: {status}")), "{line:?}");
    }
    assert_eq!(lines.len(), 5);
}

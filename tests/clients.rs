//! Real YouTrack clients through the gateway. They work with a good token. With a bad scope they print the
//! gateway's `error_description`, as far as they print any.
//!
//! Installs the clients from npm and PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{
    gateway::Gateway,
    upstream::{Upstream, json},
};

const DENIED: &str = "The access token is not granted for this service";

/// The clients from npm and PyPI, in a directory that later runs reuse.
struct InstalledClients(PathBuf);

#[test]
#[ignore = "installs clients from npm and PyPI; .ci/run runs it"]
fn youtrack_clients_work_through_the_gateway() {
    let clients = match InstalledClients::install() {
        Ok(clients) => clients,
        Err(why) => {
            assert!(std::env::var_os("PERMGATE_CLIENTS").is_none(), "the clients are required: {why}");
            println!("SKIPPED: the clients cannot be installed here: {why}");
            return;
        }
    };
    let upstream = Upstream::start(|seen, socket| {
        let target = seen.head.split(' ').nth(1).unwrap();
        json(
            socket,
            match target {
                t if t.starts_with("/api/users/me") => r#"{"id": "1-1", "login": "alice", "name": "Alice"}"#,
                t if t.starts_with("/api/admin/workflows") => r#"[{"id": "1", "name": "workflow-one"}]"#,
                _ => r#"[{"id": "0-1", "name": "Demo", "shortName": "DEMO", "archived": false}]"#,
            },
        )
    });
    let gateway = Gateway::start(upstream.address);
    gateway.developer("alice");
    let (_, good) = gateway.token("alice", "good", &["tracker"]);
    let (_, bad) = gateway.token("alice", "bad", &["hub"]);
    let url = format!("http://{}", gateway.proxy);
    let alias = format!("perm-{good}");

    // (row, output, whether it succeeds, what it prints)
    let rows: [(&str, Output, bool, &str); 9] = [
        ("youtrack-workflow, good", clients.workflow(&url, &good), true, "workflow-one"),
        ("youtrack-workflow, bad scope", clients.workflow(&url, &bad), false, DENIED),
        ("youtrack-rest-client, good", clients.rest(&url, &good), true, "alice"),
        ("youtrack-rest-client, bad scope", clients.rest(&url, &bad), false, DENIED),
        ("yt, good", clients.yt(&url, &good), true, "DEMO"),
        ("yt, with the perm- alias", clients.yt(&url, &alias), true, "DEMO"),
        // yt prints its own text for every 403 and never reads the body.
        ("yt, bad scope", clients.yt(&url, &bad), false, "Permission denied"),
        ("curl, good", curl(&url, &good), true, "DEMO"),
        ("curl, bad scope", curl(&url, &bad), true, DENIED),
    ];
    for (row, output, succeeds, prints) in rows {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.success(), succeeds, "{row}: {text}");
        assert!(text.contains(prints), "{row} prints {prints:?}: {text}");
        println!("ok: {row}");
    }
    for seen in upstream.seen.lock().unwrap().iter() {
        assert!(!seen.head.contains("pgt_"), "a bearer reached the upstream: {}", seen.head);
    }
}

impl InstalledClients {
    fn install() -> Result<Self, String> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        std::fs::create_dir_all(&dir).unwrap();
        let node = ["@jetbrains/youtrack-scripting@0.2.1", "youtrack-rest-client@1.6.0"];
        if !dir.join("node_modules/youtrack-rest-client").exists() {
            let prefix = ["install", "--no-audit", "--no-fund", "--prefix", "."];
            run(Command::new("npm").current_dir(&dir).args(prefix).args(node))?;
        }
        if !dir.join("python/bin/yt").exists() {
            run(Command::new("python3").current_dir(&dir).args(["-m", "venv", "python"]))?;
            let pip = dir.join("python/bin/pip");
            run(Command::new(pip).current_dir(&dir).args(["install", "-q", "youtrack-cli==0.27.0"]))?;
        }
        std::fs::write(dir.join("rest.js"), REST).unwrap();
        Ok(Self(dir))
    }

    fn workflow(&self, url: &str, token: &str) -> Output {
        let bin = self.0.join("node_modules/.bin/youtrack-workflow");
        Command::new(bin).args(["list", "--host", url, "--token", token]).output().unwrap()
    }

    fn rest(&self, url: &str, token: &str) -> Output {
        Command::new("node").current_dir(&self.0).args(["rest.js", url, token]).output().unwrap()
    }

    fn yt(&self, url: &str, token: &str) -> Output {
        Command::new(self.0.join("python/bin/yt"))
            .args(["projects", "list"])
            .envs([("YOUTRACK_BASE_URL", url), ("YOUTRACK_TOKEN", token), ("COLUMNS", "200")])
            // Keep yt's own configuration and key ring out of the test.
            .env("HOME", self.0.join("home"))
            .output()
            .unwrap()
    }
}

/// Calls the client as its documentation does. axios carries the answer of a refusal.
const REST: &str = r#"
const { Youtrack } = require("youtrack-rest-client");
const [baseUrl, token] = process.argv.slice(2);
new Youtrack({ baseUrl, token }).users.current().then(
  (user) => console.log(user.login),
  (error) => {
    console.error(error.message, JSON.stringify(error.response && error.response.data));
    process.exit(1);
  });
"#;

fn curl(url: &str, token: &str) -> Output {
    let bearer = format!("Authorization: Bearer {token}");
    Command::new("curl").args(["-s", "-H", &bearer, &format!("{url}/api/admin/projects")]).output().unwrap()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

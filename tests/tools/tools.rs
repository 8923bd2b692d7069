//! The gateway that the tools of a test use, with good and bad tokens, and checks of what the tools print.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{
    gateway::Gateway,
    stage::{self, Ended},
};

pub const BASIC: &str = "credentials = [\"bearer\", \"basic\"]";

/// A gateway in front of one upstream, and alice's tokens for its service `tools`.
pub struct Tools {
    pub gateway: Gateway,
    pub dir: tempfile::TempDir,
    pub full: String,
    pub read: String,
    /// (what is wrong with it, the text, what a tool prints if it prints anything)
    pub bad: Vec<(&'static str, String, &'static str)>,
}

impl Tools {
    /// `keys` are more keys of the service, which has these paths.
    pub fn in_front_of(upstream: SocketAddr, paths: &str, keys: &str) -> Self {
        Self::with(|_| "", upstream, paths, keys)
    }

    /// Like [`Tools::in_front_of`], with a certificate for `localhost` in `tls.crt`.
    pub fn secured(upstream: SocketAddr, paths: &str, keys: &str) -> Self {
        Self::with(stage::certify, upstream, paths, keys)
    }

    /// `server` writes the files of, and returns, more lines for `[server]`.
    fn with(server: fn(&Path) -> &'static str, upstream: SocketAddr, paths: &str, keys: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        let service = |name: &str, paths: &str, keys: &str| {
            format!(
                "[service.{name}]\nupstream = \"one\"\npaths = [{paths}]\nreaders = [\"developers\"]\n{keys}\n"
            )
        };
        let upstreams = format!("[upstream.one]\nurls = [\"http://{upstream}\"]\n");
        let sections =
            [upstreams, service("tools", paths, keys), service("other", "\"/other\"", "")].concat();
        let text = Gateway::text_with(server, "", &sections);
        let gateway = Gateway::on(dir, &text.replace("access = \"off\"", "access = \"access.log\""));
        gateway.developer("alice");
        let token = |name: &str, scope: &str| gateway.token("alice", name, &[scope]);
        let (id, revoked) = token("revoked", "tools");
        gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        let mut mistyped = token("mistyped", "tools").1;
        let last = mistyped.pop().unwrap();
        mistyped.push(if last == '0' { '1' } else { '0' });
        let bad = vec![
            ("mistyped", mistyped, "The access token is malformed"),
            ("wrong", token("wrong", "other").1, "The access token is not granted for this service"),
            ("revoked", revoked, "The access token was revoked"),
        ];
        let (full, read) = (token("full", "tools").1, token("read", "tools:read").1);
        Self { gateway, dir: tempfile::tempdir().unwrap(), full, read, bad }
    }

    pub fn at(&self) -> SocketAddr {
        self.gateway.proxy
    }

    /// The access log so far.
    pub fn logged(&self) -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(self.gateway.dir.path().join("access.log")).unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// This test's own upstream in one of its modes.
pub fn upstream(mode: &str, directory: &Path) -> (Ended, SocketAddr) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/upstream.py");
    let command = Command::new("python3").arg(script).arg(mode).arg(directory).stdout(Stdio::piped()).spawn();
    let mut server = Ended(command.unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (server, ([127, 0, 0, 1], port.trim().parse::<u16>().unwrap()).into())
}

/// Runs a command that must fail. Returns its output.
pub fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{command:?} succeeds: {text}");
    text
}

/// Checks the output of a tool; lines that the tool has wrapped are joined.
pub fn assert_prints(row: &str, tool: &str, said: &str, expected: &str) {
    let plain = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain.contains(expected), "{tool}, {row}: {expected:?} is not in {said}");
}

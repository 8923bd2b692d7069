//! No token is written anywhere: not to a stream, the log or the store.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    harness::{TestDirectory, services},
    support::{http::Client, upstream::Upstream},
};

/// Path and content of all files below a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn no_secret_is_written() {
    let upstream = Upstream::plain();
    let directory =
        TestDirectory::new(&format!("[log]\naccess = \"access.log\"\n{}", services(upstream.address)));
    let mut command = directory.command();
    command.arg("run").env("PERMGATE_LOG", "trace");
    let mut process = directory.start(command);
    let own = directory.token("alice", "tracker");
    let hub = directory.token("alice", "hub");
    let admin = directory.token("alice", "permgate");
    let rotated = directory.token("bob", "tracker");
    let revoked = directory.token("carol", "tracker");
    let (next, _) = directory.check(&format!("token rotate {}", &rotated[4..16]), 0);
    directory.check(&format!("token revoke {}", &revoked[4..16]), 0);
    let tokens = [own, hub, admin, rotated, revoked, next.trim_end().to_owned()];

    let mut answers = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let escaped = token.replacen('p', "%70", 1);
        let heads = [
            format!("GET /api/x HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: bearer   perm-{token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: Bearer {token} {token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer x\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: Basic {token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: {token}\r\n"),
            format!("GET /api/x?access_token={token} HTTP/1.1\r\n"),
            format!("GET /api/{token}/x HTTP/1.1\r\n"),
            format!("GET /api/{escaped}?q={escaped} HTTP/1.1\r\n"),
            format!("GET /elsewhere/{token} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: x\r\n"),
            format!("GET /api/x HTTP/1.1\r\n{token}: {token}\r\nX-Forwarded-For: {token}\r\n"),
            format!("GET /api/x HTTP/1.1\r\nX-Request-Id: {token}\r\n"),
            format!("{token} /api/x HTTP/1.1\r\n"),
            format!("GET {token} HTTP/1.1\r\n"),
        ];
        for head in heads {
            for target in [process.proxy, process.admin] {
                let mut client = Client::tcp(target);
                client.send(format!("{head}Host: {target}\r\nConnection: close\r\n\r\n"));
                // Some of these end the connection without a response that has a length.
                answers.push((head.clone(), client.read_to_end().unwrap_or_default()));
            }
        }
        for target in ["/v1/whoami", "/v1/tokens", "/v1/users/alice/tokens", "/v1/audit"] {
            let bearer = format!("Bearer {token}");
            let fields = [("Authorization", bearer.as_str())];
            answers.push((
                target.to_owned(),
                Client::tcp(process.admin).request("GET", target, &fields, None).body,
            ));
        }
        let _ = directory
            .command()
            .args(["explain", "GET", &format!("/api/x?t={token}"), "--user", "alice"])
            .output()
            .map(|output| answers.push((format!("explain {at}"), [output.stdout, output.stderr].concat())));
    }
    directory.check("audit verify", 0);
    process.stop();

    let mut written = files(directory.path());
    assert!(written.iter().any(|(name, _)| name.contains("/data/")), "the store is looked into");
    written.push(("stdout".to_owned(), process.data.bytes()));
    written.push(("stderr".to_owned(), process.words.bytes()));
    written.extend(answers);
    // What may be shown is found, so the search would also find a secret.
    let log = written.iter().find(|(name, _)| name.ends_with("access.log")).unwrap();
    assert!(contains(&log.1, &tokens[0][4..16]), "the access log names the token by its id");
    let stored = written.iter().filter(|(name, _)| name.contains("/data/"));
    assert!(
        stored.into_iter().any(|(_, bytes)| contains(bytes, &tokens[0][4..16])),
        "the store holds the id"
    );
    for token in &tokens {
        let secret = &token[17..60];
        for (name, bytes) in &written {
            let text = String::from_utf8_lossy(bytes);
            let line = text.lines().find(|line| line.contains(secret)).unwrap_or_default();
            assert!(!contains(bytes, secret), "{name} holds a secret: {line}");
        }
    }
    for seen in upstream.seen.lock().unwrap().iter() {
        let credentials = ["\r\nauthorization:", "\r\nproxy-authorization:"];
        let head = seen.head.to_ascii_lowercase();
        assert!(credentials.iter().all(|name| !head.contains(name)), "a bearer went upstream: {}", seen.head);
    }
}

/// `check` refuses such files, but a running deployment only warns; and the access log is
/// readable only by its owner and group.
#[test]
fn secret_files_are_readable_only_by_their_owner() {
    let upstream = Upstream::plain();
    let services = services(upstream.address);
    let directory = TestDirectory::new(&format!(
        "[log]\naccess = \"access.log\"\n{services}authorization = \"file:cred\"\n"
    ));
    let cred = directory.path().join("cred");
    std::fs::write(&cred, "Bearer abc\n").unwrap();
    std::fs::set_permissions(&cred, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, words) = directory.check("check", 2);
    assert!(words.contains("(mode 0644)"), "{words}");
    let mut process = directory.run();
    process.words.wait_for("(mode 0644)");
    let mode = |name: &str| directory.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("access.log") & 0o137, 0, "{:o}", mode("access.log"));
    process.stop();
}

/// A caller who may read the configuration must not learn which files and variables exist.
#[test]
fn checking_a_text_reads_files_only_for_administrators() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let token = |login: &str, permission: &str| {
        directory.check(&format!("user create {login}"), 0);
        directory.check(&format!("role create {login} --permission {permission}"), 0);
        directory.check(&format!("grant add {login} --user {login}"), 0);
        directory.token(login, "permgate")
    };
    let (viewer, admin) = (token("viewer", "admin-read"), token("boss", "admin-write"));
    std::fs::write(directory.path().join("cred"), "Bearer abc").unwrap();
    std::fs::write(directory.path().join("two-lines"), "a\nb\n").unwrap();
    std::fs::set_permissions(directory.path().join("cred"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let base = directory.read();
    let check = |token: &str, reference: &str| {
        let text = format!("{base}authorization = \"{reference}\"\n");
        let body = serde_json::json!({"text": text}).to_string();
        let bearer = format!("Bearer {token}");
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let answer = Client::tcp(process.admin).request("POST", "/v1/config/check", &fields, Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let references = [
        "file:cred",
        "file:two-lines",
        "file:missing",
        "file:/etc/shadow",
        "env:PATH",
        "env:NO_SUCH_VARIABLE",
    ];
    for reference in references {
        let told = check(&viewer, reference);
        assert_eq!(
            told,
            serde_json::json!({"valid": true, "errors": [], "files_read": false}),
            "{reference}"
        );
    }
    assert_eq!(check(&viewer, "Bearer abc")["valid"], false, "the text itself is judged");
    for (reference, valid) in references.into_iter().zip([true, false, false, false, true, false]) {
        assert_eq!(check(&admin, reference)["valid"], valid, "{reference}");
    }
}

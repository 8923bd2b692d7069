//! Secrets that the command line must not reveal.

use super::*;

/// A token goes only to a server that is named explicitly, not to that of a `gateway.toml` in the directory.
#[test]
fn new_token_is_written_to_the_named_file() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let place = directory_with(&CONFIG.replace("unix:admin.sock", &address.to_string()));
    fs::write(place.path().join("token"), "pgt_secret").unwrap();
    // The listener closes each connection without an answer.
    let run = |line: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_permgate"));
        for name in ["PERMGATE_CONFIG", "PERMGATE_ADMIN", "PERMGATE_TOKEN"] {
            command.env_remove(name);
        }
        command.args(line.split(' ')).current_dir(place.path()).envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut sent = None;
        let code = loop {
            if let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 4096];
                stream.set_nonblocking(false).unwrap();
                let length = std::io::Read::read(&mut stream, &mut bytes).unwrap();
                sent = Some(String::from_utf8_lossy(&bytes[..length]).contains("pgt_secret"));
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let mut words = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut words).unwrap();
        (code, sent, words)
    };
    let token = ("PERMGATE_TOKEN", "pgt_secret");
    for line in ["user list", "user ban ann --reason x", "token revoke abcdefghijkl"] {
        let (code, sent, words) = run(line, &[token]);
        assert_eq!((code, sent), (2, None), "{line}: {words}");
        assert!(words.contains("-c gateway.toml"), "{words}");
    }
    let (code, sent, words) = run("user list --token-file token", &[]);
    assert_eq!((code, sent), (2, None), "{words}");
    let admin = address.to_string();
    for (line, variables) in [
        ("user list -c gateway.toml", &[token][..]),
        ("user list -c gateway.toml --token-file token", &[]),
        ("user list", &[token, ("PERMGATE_CONFIG", "gateway.toml")]),
        ("user list", &[token, ("PERMGATE_ADMIN", &admin)]),
        (&format!("user list --admin {admin}"), &[token]),
    ] {
        assert_eq!(run(line, variables).1, Some(true), "{line}");
    }
    assert_eq!(run("user list", &[]).1, Some(false), "without a token there is nothing to keep back");
    assert_eq!(run("health", &[token]).1, Some(false), "health needs none and sends none");
    // A token file that names its server needs no confirmation, and its token goes nowhere else.
    fs::write(place.path().join("token"), format!("pgt_secret\nfor http://{address}\n")).unwrap();
    assert_eq!(run("user list --token-file token", &[]).1, Some(true));
    fs::write(place.path().join("token"), "pgt_secret\nfor unix:elsewhere\n").unwrap();
    assert_eq!(run("user list --token-file token", &[]).1, None);
}

/// `check` refuses a secret file that other users can read.
#[test]
fn check_reports_a_secret_that_others_can_read() {
    let text = format!("{CONFIG}authorization = \"file:cred\"\n[metrics]\nold_names = false\n");
    let place = directory_with(&text);
    let cred = place.path().join("cred");
    fs::write(&cred, "Bearer abc\n").unwrap();
    for (mode, code) in
        [(0o600, 0), (0o640, 0), (0o400, 0), (0o644, 2), (0o604, 2), (0o602, 2), (0o666, 2), (0o444, 2)]
    {
        fs::set_permissions(&cred, fs::Permissions::from_mode(mode)).unwrap();
        let (_, words) = check(place.path(), "check", code);
        assert_eq!(words.contains("every user of this machine"), code == 2, "{mode:o}: {words}");
        check(place.path(), "check --strict", code);
    }
}

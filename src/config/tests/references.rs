//! What a text names outside itself: secrets that others can read, files that are too large, and callers that
//! must not learn what exists.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::config::check_text;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/net/certs");

/// A listener with TLS, an upstream with a client certificate, a credential, and keys for assertions.
const EVERY_SECRET: &str = r#"version = 1
[server]
tls = { cert = "one.crt", key = "one.key" }
[upstream.up]
urls = ["https://127.0.0.1:8090"]
tls = { ca = "one.crt", cert = "two.crt", key = "two.key" }
[assertion]
keys = "file:keys.pem"
[service.app]
upstream = "up"
paths = ["/app"]
readers = ["all-users"]
identity = "both"
authorization = "file:cred"
"#;

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["one.crt", "one.key", "two.crt", "two.key"] {
        fs::copy(Path::new(CERTS).join(name), at(name)).unwrap();
    }
    fs::copy(Path::new(CERTS).join("one.key"), at("keys.pem")).unwrap();
    fs::write(at("cred"), "Bearer abc").unwrap();
    for name in ["one.key", "two.key", "keys.pem", "cred"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

#[test]
fn secrets_that_others_can_read_are_found_one_by_one() {
    let directory = directory();
    let file = directory.path().join("gateway.toml");
    let exposed_secrets =
        || parse(EVERY_SECRET, &file).unwrap_or_else(|errors| panic!("{errors}")).exposed_secrets;
    assert_eq!(exposed_secrets(), []);
    for (name, line) in [("one.key", 3), ("two.key", 6), ("keys.pem", 8), ("cred", 14)] {
        let path = directory.path().join(name);
        let set = |mode: u32| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o604, 0o602, 0o666, 0o444] {
            set(mode);
            let found: Vec<_> =
                exposed_secrets().into_iter().map(|problem| (problem.line, problem.message)).collect();
            let [(at, message)] = &found[..] else { panic!("{name}, {mode:o}: {found:?}") };
            assert_eq!(*at, line, "{name}");
            assert!(message.contains(name) && message.contains(&format!("{mode:04o}")), "{message}");
        }
        for mode in [0o600, 0o640, 0o440, 0o400] {
            set(mode);
            assert_eq!(exposed_secrets(), [], "{name}, {mode:o}");
        }
    }
}

#[test]
fn a_file_is_read_only_as_far_as_it_can_be_what_it_should_be() {
    let directory = directory();
    let file = directory.path().join("gateway.toml");
    let large = fs::File::create(directory.path().join("large")).unwrap();
    large.set_len(64 << 30).unwrap();
    symlink("/dev/zero", directory.path().join("device")).unwrap();
    for name in ["one.crt", "one.key", "two.crt", "two.key", "keys.pem", "cred"] {
        for (other, message) in [("large", "longer than"), ("device", "not a")] {
            let text = EVERY_SECRET.replace(name, other);
            let errors = parse(&text, &file).map(drop).unwrap_err().to_string();
            assert!(errors.contains(message), "{name} as {other}: {errors}");
        }
    }
}

/// The result is the same for what exists and what does not.
#[test]
fn a_text_that_is_checked_blindly_tells_nothing_of_files_and_variables() {
    let directory = directory();
    let file = directory.path().join("gateway.toml");
    let checked = |text: &str| check_text(text, &file).map_err(|errors| errors.to_string());
    assert_eq!(checked(EVERY_SECRET), Ok(()));
    for name in ["one.crt", "one.key", "two.crt", "two.key", "keys.pem", "cred"] {
        for other in ["missing", "/etc/passwd", "/etc", "/dev/zero", "/proc/1/environ"] {
            assert_eq!(checked(&EVERY_SECRET.replace(name, other)), Ok(()), "{name} as {other}");
        }
    }
    for variable in ["env:PATH", "env:NO_SUCH_VARIABLE"] {
        assert_eq!(checked(&EVERY_SECRET.replace("file:cred", variable)), Ok(()), "{variable}");
    }
    let wrong = EVERY_SECRET.replace("paths", "path");
    assert!(checked(&wrong).unwrap_err().contains("did you mean"), "the text itself is judged as ever");
}

/// The time grew with the square of their number: this took minutes.
#[test]
fn thousands_of_services_are_read_in_seconds() {
    let mut text = SMALL.replace("/app", "/app\", \"/none");
    for n in 0..6000 {
        let service = format!(
            "[service.s{n}]\nupstream = \"up\"\npaths = [\"/s{n}\"]\nreaders = [\"g{n}\"]\n\
             limits = [{{ per = \"token\", rate = \"9/s\" }}]\n\
             [[public]]\nservice = \"s{n}\"\npath = \"/s{n}/health\"\n"
        );
        text += &service;
    }
    let began = std::time::Instant::now();
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let last = config.services.last().map(|service| (service.key.as_str(), service.origin.line));
    assert_eq!(last, Some(("s5999", 8 + 5999 * 8)));
    let groups: Vec<String> = (0..6000).map(|n| format!("G{n}")).collect();
    assert_eq!(config.unknown_readers(groups.iter().map(String::as_str)).len(), 1, "all-users is not given");
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn an_encrypted_private_key_is_called_one() {
    let directory = directory();
    let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(directory.path().join("one.key"), key).unwrap();
    let errors = parse(EVERY_SECRET, &directory.path().join("gateway.toml")).unwrap_err();
    let expected = "one.key has no private key, or an encrypted one";
    assert!(errors.to_string().contains(expected), "{errors}");
}

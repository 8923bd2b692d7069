//! Settings that several gateways must share.

use super::*;

#[test]
fn what_gateways_of_a_cluster_sign_by_comes_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("user_header_key = \"file:{}\"", path.display())
    };
    let vouched =
        |key: &str| format!("[admin]\nuser_header = \"X-User\"\nuser_header_from = [\"10.0.0.5\"]\n{key}\n");
    let check = |name: &str, addition: &str, cluster: bool, expected: &[&str]| {
        let section = "[store.cluster]\nendpoints = [\"http://localhost:2379\"]\nnode = \"a\"\n";
        let text = format!("{SMALL}{addition}{}", if cluster { section } else { "" });
        let errors = errors_of(&text);
        // A build without the feature reports that it lacks it.
        let errors: Vec<_> = errors.iter().filter(|error| !error.contains("was built without")).collect();
        assert_eq!(errors.len(), expected.len(), "{name}: {errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.contains(expected), "{name}: {error}");
        }
    };
    let (long, short) = (secret("long", &"x".repeat(32)), secret("short", "hunter2"));
    let assertion = "identity = \"jwt\"\n[assertion]\nissuer = \"https://gate.example\"\n";
    check("nothing to sign", "", true, &[]);
    check("assertions", assertion, true, &["sign assertions with its own keys"]);
    check("assertions alone", assertion, false, &[]);
    check(
        "forms",
        &vouched(""),
        true,
        &["sign CSRF tokens with its own key | give all of them the same file"],
    );
    check("forms alone", &vouched(""), false, &[]);
    check("forms by a file", &vouched(&long), true, &[]);
    check("known browsers by a file", &format!("[admin]\n{long}\n"), true, &[]);
    let key = |text: &str| read(&format!("{SMALL}[admin]\n{text}\n")).unwrap().admin.sign_in.form_key;
    assert!(
        key(&long).is_some() && key("").is_none(),
        "the key counts without a proxy that names users, too"
    );
    check(
        "a short secret",
        &vouched(&short),
        false,
        &["shorter than 32 characters | create one with `openssl rand -hex 32`"],
    );
    check(
        "written here",
        &vouched("user_header_key = \"hunter2\""),
        false,
        &["must not be written into this file"],
    );
}

#[test]
fn files_of_etcd_are_read_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("password"), "secret").unwrap();
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/net/certs/one.crt");
    let check = |name: &str, ca: &str, password: &str, expected: &[&str]| {
        let section = format!(
            "[store.cluster]\nendpoints = [\"https://10.0.0.1:2379\"]\nnode = \"a\"\n\
             tls.ca = {ca:?}\nuser = {{ name = \"permgate\", password = \"file:{password}\" }}\n"
        );
        let errors = errors_of(&format!("{SMALL}{section}"));
        let errors: Vec<_> = errors.iter().filter(|error| !error.contains("was built without")).collect();
        assert_eq!(errors.len(), expected.len(), "{name}: {errors:?}");
        assert!(
            errors.iter().zip(expected).all(|(error, words)| error.contains(words)),
            "{name}: {errors:?}"
        );
    };
    check("all there", ca, &at("password"), &[]);
    check("no authority in it", &at("empty"), &at("password"), &["empty has no certificate"]);
    check("no password", ca, &at("missing"), &["missing cannot be read: No such file or directory"]);
}

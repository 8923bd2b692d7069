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
fn files_of_etcd_are_read_by_a_start_and_not_by_a_reload() {
    if cfg!(not(feature = "etcd")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("password"), "secret").unwrap();
    let cert = |name: &str| format!("{}/tests/net/certs/{name}", env!("CARGO_MANIFEST_DIR"));
    let (ca, pair) =
        (cert("one.crt"), |cert: &str, key: &str| format!("tls.cert = {cert:?}\ntls.key = {key:?}"));
    let check = |name: &str, (ca, pair): (&str, &str), password: &str, expected: &[&str]| {
        let section = format!(
            "[store.cluster]\nendpoints = [\"https://10.0.0.1:2379\"]\nnode = \"a\"\n\
             tls.ca = {ca:?}\n{pair}\nuser = {{ name = \"permgate\", password = \"file:{password}\" }}\n"
        );
        let config = read(&format!("{SMALL}{section}")).unwrap();
        let errors: Vec<_> =
            config.etcd_errors().into_iter().map(|e| format!("{}: {}", e.line, e.message)).collect();
        assert_eq!(errors.len(), expected.len(), "{name}: {errors:?}");
        assert!(
            errors.iter().zip(expected).all(|(error, words)| error.contains(words)),
            "{name}: {errors:?}"
        );
        let found = config.file_errors();
        assert_eq!(found.len(), expected.len(), "{name}: check finds the same");
    };
    let whole = pair(&cert("one.crt"), &cert("one.key"));
    check("all there", (&ca, &whole), &at("password"), &[]);
    check("no certificate of its own", (&ca, ""), &at("password"), &[]);
    check("no authority in it", (&at("empty"), ""), &at("password"), &["11: "]);
    check("no password", (&ca, ""), &at("missing"), &["missing cannot be read: No such file or directory"]);
    check("no certificate", (&ca, &pair(&at("empty"), &cert("one.key"))), &at("password"), &["12: "]);
    check("no key", (&ca, &pair(&cert("one.crt"), &at("empty"))), &at("password"), &["13: "]);
    check("half renewed", (&ca, &pair(&cert("two.crt"), &cert("one.key"))), &at("password"), &["13: "]);
}

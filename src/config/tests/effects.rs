//! Settings that have no effect, or another one than they seem to have.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::authz::time::Timestamp;

/// `line: message` of every warning of a valid text.
fn warnings_of(text: &str) -> Vec<String> {
    let config = read(text).unwrap_or_else(|errors| panic!("{errors}"));
    let switched = |p: &&super::super::Problem| !p.message.contains("old names");
    config.warnings.iter().filter(switched).map(|p| format!("{}: {}", p.line, p.message)).collect()
}

#[test]
fn settings_without_effect_are_named() {
    let check = |name: &str, addition: &str, expected: &[&str]| {
        assert_eq!(warnings_of(&format!("{SMALL}{addition}\n")), expected, "{name}");
    };
    let none = "9: `unix_mode` has no effect: no address of `listen` is a unix socket";
    check("a mode without a socket", "[server]\nunix_mode = \"0660\"", &[none]);
    check("a mode with one", "[server]\nunix_mode = \"0660\"\nlisten = [\"unix:http.sock\"]", &[]);
    check("a log in a file", "[log]\naccess = \"access.log\"", &[]);
    for word in ["stderr", "None", "-"] {
        let lower = word.to_lowercase();
        let expected = format!("9: the access log is written to a file that is called {lower}");
        check("a log called like a word", &format!("[log]\naccess = {word:?}"), &[&expected]);
    }
    let tls = "[server]\nlisten = [\"http://[::]:8081\", \"127.0.0.1:8082\"]\n[admin]\nallow_remote = true";
    let expected = [
        "9: [::]:8081 accepts tokens in plain text from other machines",
        "9: [::]:8081 includes 127.0.0.1:8081, where clients reach only `admin.listen`",
        "9: 0.0.0.0:8082 includes 127.0.0.1:8082, where clients reach only `server.listen`",
        "12: other machines could reach the admin listener at 0.0.0.0:8082",
    ];
    let admin = "listen = [\"127.0.0.1:8081\", \"0.0.0.0:8082\"]";
    let mut found = warnings_of(&format!("{SMALL}{tls}\n{admin}\n"));
    found.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected, "one port for both listeners");
    let queue = |limit: &str| {
        SMALL.replace("[service", &format!("queue = 5\n{limit}queue_timeout = \"1s\"\n[service"))
    };
    let none = |line: u32, key: &str| {
        format!("{line}: `{key}` has no effect without `max_connections` or `max_in_flight`")
    };
    assert_eq!(warnings_of(&queue("")), [none(4, "queue"), none(5, "queue_timeout")]);
    assert_eq!(warnings_of(&queue("max_in_flight = 9\n")), [""; 0]);
}

#[test]
fn the_log_has_a_name() {
    let empty = "9:10 `log.access` is empty | write \"stdout\", \"off\" or the name of a file";
    assert_eq!(errors_of(&format!("{SMALL}[log]\naccess = \"\"\n")), [empty]);
}

#[test]
fn a_mistake_is_told_once_and_where_it_belongs() {
    let check = |addition: &str, expected: &[&str]| {
        assert_eq!(errors_of(&format!("{SMALL}{addition}\n")), expected, "{addition}");
    };
    let misplaced =
        "8:1 unknown key `timeouts` in [service.app] | it is a key of [server] and of [upstream.NAME]";
    check("timeouts.head = \"1s\"", &[misplaced]);
    let misplaced = "9:1 unknown key `readers` in [server] | it is a key of [service.NAME]";
    check("[server]\nreaders = [\"all-users\"]", &[misplaced]);
    let elsewhere = "8:2 unknown key `cert` | it is a key of [server.tls] and of [admin.tls] and of \
                     [store.cluster.tls] and of [upstream.NAME.tls]";
    check("[cert]", &[elsewhere]);
    let one = "8:1 `public` must be a list of tables, this is a table | write `[[public]]`";
    check("[public]\nservice = \"app\"\npath = \"/app\"", &[one]);
    let text = "9:8 `upstream.b.urls` must be a list of texts and tables, this is a string | write `urls = [\"...\"]`";
    check("[upstream.b]\nurls = \"http://b\"", &[text]);
}

#[test]
fn values_out_of_range_are_told_in_their_units() {
    let check = |setting: &str, expected: &str| {
        assert_eq!(errors_of(&format!("{SMALL}{setting}\n")), [format!("{expected} | ")]);
    };
    check("[tokens]\nmax_lifetime = \"0s\"", "9:16 `tokens.max_lifetime` must be at least 1s");
    check("[tokens]\nmax_lifetime = \"9999w\"", "9:16 `tokens.max_lifetime` must be at most 36600d");
    check("[store]\naudit_retention = \"1h\"", "9:19 `store.audit_retention` must be at least 1d");
    check("[server.timeouts]\nhead = \"0s\"", "9:8 `server.timeouts.head` must be at least 1ms");
    check("[server.limits]\nhead = \"2m\"", "9:8 `server.limits.head` must be at most 1m");
    check("[server.limits]\nhead = 1_048_577", "9:8 `server.limits.head` must be at most 1m");
}

#[test]
fn an_exchange_names_what_can_match() {
    let check = |old: &str, new: &str, expected: &[&str]| {
        let rule = "[exchange.ci]\nissuer = \"https://ci.example\"\naudience = \"gate\"\naccount = \"ci-app\"\n\
                    scope = [\"app\"]\nclaims = { name = \"sub\", value = \"job\" }\n";
        assert_eq!(errors_of(&format!("{SMALL}{}", rule.replace(old, new))), expected, "{new}");
    };
    let login =
        "a login has 1 to 64 of the characters A-Z a-z 0-9 . _ @ + - and begins with a letter or digit";
    check("", "", &[]);
    check("ci-app", "ci app", &[&format!("11:11 {login} | name a service account")]);
    check("ci-app", "me", &["11:11 the login \"me\" is reserved | name a service account"]);
    let issuer = |url: &str, message: &str| {
        let exactly = "write it exactly as `issuer` in the provider's metadata and `iss` in its tokens, such as \
                       \"https://id.example.com\"";
        let advice = if message.ends_with("plain text") {
            "write https://; http:// is only for a provider on this machine"
        } else {
            exactly
        };
        let shown = url.replace("me@", "...@");
        check("https://ci.example", url, &[&format!("9:10 {shown:?} {message} | {advice}")]);
    };
    check("https://ci.example", "http://127.0.0.1:9", &[]);
    issuer("http://ci.example", "sends secrets to ci.example in plain text");
    issuer("HTTP://127.0.0.1:9", "is not a provider's URL");
    issuer("HTTPS://ci.example", "is not a provider's URL");
    issuer("ci.example", "is not a provider's URL");
    issuer("https://ci.example?a=b", "has a query, a fragment or a user");
    issuer("https://me@ci.example", "has a query, a fragment or a user");
    let empty =
        |at: &str, key: &str| format!("{at} `{key}` is empty: no token of a CI system could match it | ");
    check("\"gate\"", "\"\"", &[&empty("10:12", "audience")]);
    check("\"sub\"", "\"\"", &[&empty("13:19", "name")]);
    check("\"job\"", "\"\"", &[&empty("13:34", "value")]);
    check(
        "{ name = \"sub\", value = \"job\" }",
        "[]",
        &[
            "13:10 every job of this issuer could exchange its token | name what only your jobs have, such as `claims = [{ name = \"repository\", value = \"acme/app\" }]`",
        ],
    );
}

#[test]
fn what_a_start_needs_is_missed_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, addition: &str, expected: &[&str]| {
        let config = parse(&format!("{SMALL}{addition}\n"), &directory.path().join("gateway.toml")).unwrap();
        let now = Timestamp::from_millis(4_000_000_000_000);
        let found: Vec<_> =
            config.file_warnings(now).into_iter().map(|p| format!("{}: {}", p.line, p.message)).collect();
        assert_eq!(found, expected, "{name}");
    };
    let below = directory.path().join("run").display().to_string();
    let missing = |line: u32| format!("{line}: the directory {below} of a unix socket does not exist");
    check("sockets beside the file", "", &[]);
    check("a listener", "[server]\nlisten = [\"unix:run/http.sock\"]", &[&missing(9)]);
    check("the operator's socket", "[admin]\nlisten = [\"unix:run/admin.sock\"]", &[&missing(9)]);
    check("metrics", "[admin]\nmetrics = \"unix:run/metrics.sock\"", &[&missing(9)]);
    check(
        "a socket beside the store",
        "[admin]\nlisten = [\"unix:run/a.sock\"]\n[store]\npath = \"run/store\"",
        &[],
    );
    check("a ballast", "[store]\nballast = \"1g\"", &[]);
    let large = "9: the ballast takes more than 1g of the disk, and is written at the first start";
    check("a typing mistake", "[store]\nballast = \"16g\"", &[large]);

    let write = |name: &str, end: i32| {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["gate.test".to_owned()]).unwrap();
        params.not_after = date_time_ymd(end, 1, 1);
        let file = |end: &str| directory.path().join(format!("{name}.{end}")).display().to_string();
        fs::write(file("crt"), params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(file("key"), pair.serialize_pem()).unwrap();
        (format!("tls = {{ cert = \"{name}.crt\", key = \"{name}.key\" }}"), file("crt"))
    };
    let ((old, old_path), (new, _)) = (write("old", 2090), write("new", 2100));
    let expired = |line: u32| format!("{line}: the certificate {old_path} has expired");
    check("a certificate", &format!("[server]\n{new}"), &[]);
    check("an old certificate", &format!("[server]\n{old}"), &[&expired(9)]);
    check("the admin listener's", &format!("[admin]\n{old}"), &[&expired(9)]);
    check(
        "a client certificate",
        &format!("[upstream.other]\nurls = [\"https://127.0.0.1:1\"]\n{old}"),
        &[&expired(10)],
    );
    if cfg!(feature = "etcd") {
        let etcd = format!("[store.cluster]\nendpoints = [\"https://10.0.0.1:2379\"]\nnode = \"a\"\n{old}");
        let etcd = etcd.replace("tls = {", "tls = { ca = \"new.crt\",");
        check("what etcd is shown", &etcd, &[&expired(11)]);
    }
}

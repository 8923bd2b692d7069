use std::{fmt::Write as _, fs, path::Path};

use proptest::prelude::*;
use toml::de::DeValue;

use super::{
    Config, Errors,
    key::{Key, ROOT, ValueKind},
    parse,
};
use crate::{
    authz::rules::{Authorization, BUILT_IN_SERVICE, Identity},
    config::key::schema,
    net,
    proxy::access_log::LogTarget,
    settings::{Ejection, UpstreamSettings, UpstreamUrl},
};

mod advice;
mod cluster;
mod effects;
mod environment;
mod keys;
mod mistakes;
mod oidc;
mod references;
mod sizes;
mod upstreams;

const EXAMPLE: &str = include_str!("../../gateway.toml");
/// The smallest configuration with a service; its lines are 1 to 7.
const SMALL: &str = r#"version = 1
[upstream.up]
urls = ["http://127.0.0.1:8090"]
[service.app]
upstream = "up"
paths = ["/app"]
readers = ["all-users"]
"#;

fn read(text: &str) -> Result<Config, Errors> {
    parse(text, Path::new("gateway.toml"))
}

/// `line:column message | advice` of every error.
fn errors_of(text: &str) -> Vec<String> {
    let errors = read(text).map_or_else(|errors| errors.0, |_| Vec::new());
    let one = |p: &super::Problem| format!("{}:{} {} | {}", p.line, p.column, p.message, p.advice);
    errors.iter().map(one).collect()
}

#[test]
fn the_example_is_valid_and_without_warnings() {
    let config = read(EXAMPLE).unwrap();
    assert_eq!(config.warnings, []);
    let keys: Vec<_> = config.services.iter().map(|s| (s.key.as_str(), s.origin.line)).collect();
    let line = |text: &str| EXAMPLE.lines().position(|l| l == text).unwrap() as u32 + 1;
    assert_eq!(
        keys,
        [("youtrack", line("[service.youtrack]")), ("youtrack-admin", line("[service.youtrack-admin]"))]
    );
}

/// Every key with its dotted path, without the names of named tables.
fn every_key() -> Vec<(String, &'static Key)> {
    fn walk(keys: &'static [Key], path: &str, found: &mut Vec<(String, &'static Key)>) {
        for key in keys {
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            found.push((path.clone(), key));
            if let ValueKind::Table(keys)
            | ValueKind::TableOrTables(keys)
            | ValueKind::Tables(keys)
            | ValueKind::NamedTables(keys) = key.kind
            {
                walk(keys, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&ROOT, "", &mut found);
    found
}

/// Returns the text without one of its tables.
fn without(header: &str, text: &str) -> String {
    let (before, after) = text.split_once(header).unwrap();
    let rest = after.find("\n[").map_or("", |at| &after[at + 1..]);
    format!("{before}{rest}")
}

#[test]
fn the_example_names_every_key_and_its_default() {
    // Everything that is commented out must be valid too.
    let uncommented: String = EXAMPLE.lines().skip(3).fold(String::new(), |mut text, line| {
        let line = line.strip_prefix("# ").unwrap_or(line.trim_start_matches('#'));
        let elsewhere =
            ["tls", "keys", "ca =", "client_secret", "user"].iter().any(|name| line.starts_with(name));
        let line = if elsewhere { "# a file, or a variable" } else { line };
        // Some settings that are off by default need others that are empty by default.
        let line = line.replace("trusted_proxies = []", "trusted_proxies = [\"unix\"]");
        writeln!(text, "{line}").unwrap();
        text
    });
    let uncommented =
        if cfg!(feature = "etcd") { uncommented } else { without("[store.cluster]", &uncommented) };
    let config = read(&uncommented).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.admin.sign_in.provider.is_some());
    assert_eq!(config.server.workers.map(std::num::NonZero::get), Some(2));
    assert_eq!(config.public.len(), 2);
    assert!(config.proxy.bad_tokens.is_some());

    for (path, key) in every_key() {
        let shown = EXAMPLE.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let table = line.trim_start_matches('[').split([']', ' ']).next().unwrap_or_default();
            let written = line.split(" = ").next().unwrap_or_default();
            written.rsplit('.').next() == Some(key.name) || table.split('.').any(|part| part == key.name)
        });
        assert!(shown || path.contains(".tls."), "{path} is not in the example");
        let Some(default) = key.default else { continue };
        let needle = format!("{} = {default}", key.name);
        assert!(EXAMPLE.contains(&needle), "{path}: the example does not show `{needle}`");
    }
}

#[test]
fn the_schema_has_every_key() {
    let schema = schema().to_string();
    for (path, key) in every_key() {
        assert!(schema.contains(&format!("\"{}\":", key.name)), "{path}");
    }
}

#[test]
fn every_default_is_toml_of_its_kind() {
    for (path, key) in every_key() {
        if let Some(default) = key.default {
            let value = DeValue::parse(default).unwrap_or_else(|error| panic!("{path}: {error}"));
            let fits = match key.kind {
                ValueKind::Text | ValueKind::Secret | ValueKind::Word(_) => value.get_ref().is_str(),
                ValueKind::Duration(_) => {
                    value.get_ref().as_str().is_some_and(|t| super::units::duration(t).is_some())
                }
                ValueKind::Size(_) => {
                    value.get_ref().as_str().is_some_and(|t| super::units::size(t).is_some())
                }
                ValueKind::Flag => value.get_ref().is_bool(),
                ValueKind::Count(..) => value.get_ref().is_integer(),
                ValueKind::Texts | ValueKind::Words(_) | ValueKind::TextsOrTables(_) => {
                    value.get_ref().is_array()
                }
                _ => false,
            };
            assert!(fits, "{path} = {default}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_floors_below() {
    let config = read(SMALL).unwrap();
    assert_eq!(format!("{:?}", config.server.limits), format!("{:?}", net::Limits::default()));
    let url = UpstreamUrl::parse("http://127.0.0.1:8090").unwrap();
    let upstream = config.proxy.upstreams.get("up").unwrap();
    assert_eq!(**upstream, UpstreamSettings::new("up", vec![url]));
    assert_eq!(upstream.ejection, Ejection::default());
    assert_eq!(
        config.server.listen.iter().map(|listen| listen.address.to_string()).collect::<Vec<_>>(),
        ["127.0.0.1:8080"]
    );
    assert_eq!(config.server.drain.as_secs(), 30);
    assert_eq!(config.policy, crate::store::Policy::default());
    assert_eq!(config.log.access, LogTarget::Stdout);
    assert!(config.rules.perm_alias && config.rules.trusted_proxies.is_empty());
    let service = &config.services[0];
    assert_eq!((service.title.as_str(), service.identity), ("app", Identity::Headers));
    assert_eq!(service.authorization, Authorization::Strip);
    assert!(service.methods.is_none() && service.identity_groups.is_none());
}

#[test]
fn no_secret_is_ever_shown() {
    let check = |name: &str, line: &str| {
        let errors = read(&format!("{SMALL}{line}\n")).unwrap_err();
        let shown = format!("{errors}\n{errors:?}");
        assert!(!shown.contains("hunter2"), "{name}: {shown}");
        assert!(shown.contains("gateway.toml:"), "{name}: {shown}");
    };
    check("written into the file", "authorization = \"Bearer hunter2\"");
    check("under a mistyped key", "authorisation = \"Bearer hunter2\"");
    check("in a string that does not end", "authorization = \"Bearer hunter2");
    check("in an unknown key", "api_key = \"hunter2\"");
    check("in a url", "[upstream.b]\nurls = [\"http://me:hunter2@localhost\"]");
}

#[test]
fn a_secret_is_read_from_a_file_without_its_newline() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let check = |name: &str, content: &[u8], expected: Result<&str, &str>| {
        fs::write(directory.path().join("cred"), content).unwrap();
        fs::write(&file, format!("{SMALL}authorization = \"file:cred\"\n")).unwrap();
        match (Config::load(&file), expected) {
            (Ok(config), Ok(text)) => match &config.services[0].authorization {
                Authorization::Replace(secret) => {
                    assert_eq!(secret.0.as_bytes(), text.as_bytes(), "{name}");
                    assert!(secret.0.is_sensitive(), "{name}");
                    assert!(!format!("{config:?}").contains(text), "{name}");
                }
                other => panic!("{name}: {other:?}"),
            },
            (Err(errors), Err(part)) => assert!(errors.to_string().contains(part), "{name}: {errors}"),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    };
    check("with a newline", b"Bearer abc\n", Ok("Bearer abc"));
    check("without", b"Basic YQ==", Ok("Basic YQ=="));
    check("as Windows writes it", b"Bearer abc\r\n", Ok("Bearer abc"));
    check("empty", b"\n", Err("is empty"));
    check("two lines", b"a\nb\n", Err("more than one line"));
    check("blanks", b" \t \n", Err("is empty"));
    check("too long", &[b'x'; 20_000], Err("longer than 16384 bytes"));
}

#[test]
fn old_names_of_metrics_are_warned_of_until_they_are_switched_off() {
    let check = |name: &str, text: &str, old_names: bool, line: Option<u32>| {
        let config = read(text).unwrap();
        assert_eq!(config.metrics.old_names, old_names, "{name}");
        let lines: Vec<u32> = config
            .warnings
            .iter()
            .filter(|p| p.message.starts_with("metrics are also reported under old names"))
            .map(|p| p.line)
            .collect();
        assert_eq!(lines, line.into_iter().collect::<Vec<_>>(), "{name}");
    };
    check("not written", SMALL, true, Some(1));
    check("an empty table", &format!("{SMALL}[metrics]\n"), true, Some(8));
    check("on", &format!("{SMALL}[metrics]\nold_names = true\n"), true, Some(9));
    check("off", &format!("{SMALL}[metrics]\nold_names = false\n"), false, None);
}

#[test]
fn warnings() {
    let check = |name: &str, text: &str, expected: &[&str]| {
        // Appended at the end, so that line numbers stay the same.
        let text = format!("{text}\n[metrics]\nold_names = false\n");
        let warnings: Vec<String> =
            read(&text).unwrap().warnings.into_iter().map(|p| format!("{}: {}", p.line, p.message)).collect();
        assert_eq!(warnings, expected, "{name}");
    };
    check("none", SMALL, &[]);
    check(
        "no readers",
        &SMALL.replace("readers = [\"all-users\"]", ""),
        &["4: no group may read the service \"app\""],
    );
    check(
        "a mistyped group",
        &SMALL.replace("all-users", "all-user"),
        &["7: the group \"all-user\" looks like the built-in \"all-users\""],
    );
    check(
        "plain text for others",
        &format!("{SMALL}[server]\nlisten = [\"0.0.0.0:80\"]\n"),
        &["9: 0.0.0.0:80 accepts tokens in plain text from other machines"],
    );
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs");
    let [cert, key] = ["one.crt", "one.key"].map(|file| certs.join(file).display().to_string());
    let tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    check("TLS for others", &format!("{SMALL}[server]\nlisten = [\"0.0.0.0:443\"]\n{tls}\n"), &[]);
    check(
        "plain text for others beside TLS",
        &format!("{SMALL}[server]\nlisten = [\"https://0.0.0.0:443\", \"http://0.0.0.0:80\"]\n{tls}\n"),
        &["9: 0.0.0.0:80 accepts tokens in plain text from other machines"],
    );
    check(
        "certificates for nobody",
        &format!("{SMALL}[server]\nlisten = [\"http://127.0.0.1:80\", \"unix:http.sock\"]\n{tls}\n"),
        &["10: `tls` has no effect: no address of `listen` uses TLS"],
    );
    check(
        "an upstream of no service",
        &format!("{SMALL}[upstream.b]\nurls = [\"http://b\"]\n"),
        &["8: no service uses the upstream \"b\""],
    );
    let public = |rule: &str| format!("{SMALL}[[public]]\nservice = \"app\"\n{rule}\n");
    check("a public page", &public("path = \"/app\""), &[]);
    check("a public corner", &public("prefix = \"/app/status\""), &[]);
    check(
        "a whole prefix made public",
        &public("prefix = \"/app\""),
        &["10: \"/app\" opens all of \"/app\", a path of the service \"app\""],
    );
    check("preflights made public", &public("prefix = \"/\"\nmethods = [\"OPTIONS\"]"), &[]);
    check(
        "everything made public",
        &public("prefix = \"/\""),
        &["10: \"/\" opens all of \"/app\", a path of the service \"app\""],
    );
    check(
        "changes by strangers",
        &public("path = \"/app/hook\"\nmethods = [\"GET\", \"POST\"]"),
        &["11: POST needs no token"],
    );
    check(
        "every user as a proxy",
        &format!(
            "{SMALL}[server]\ntrusted_proxies = [\"unix\"]\nunix_mode = \"0666\"\nlisten = [\"unix:a\"]\n"
        ),
        &["10: every user of this machine is a trusted proxy"],
    );
    check(
        "everybody as a proxy",
        &format!(
            "{SMALL}[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n[admin]\ntrusted_proxies = [\"::/0\"]\n\
             user_header = \"x-who\"\nuser_header_from = [\"0.0.0.0/0\"]\n"
        ),
        &[
            "9: every address in 0.0.0.0/0 is a trusted proxy: clients say themselves who they are",
            "11: every address in ::/0 is a trusted proxy: clients say themselves who they are",
            "13: every address in 0.0.0.0/0 is a trusted proxy: clients say themselves who they are",
        ],
    );
    check("no service", "version = 1\n", &["1: there is no service: no request is forwarded"]);
}

#[test]
fn what_a_reload_cannot_change() {
    let check = |name: &str, addition: &str, expected: Option<&str>| {
        let (old, new) = (read(SMALL).unwrap(), read(&format!("{SMALL}{addition}")).unwrap());
        assert_eq!(old.unreloadable_change(&new), expected, "{name}");
    };
    check("nothing", "", None);
    check("a limit", "[server.limits]\nhead = \"64k\"", None);
    check("the page's place", "[admin]\nurl = \"https://gate.example\"", Some("admin.url"));
    check("the page's names", "[admin]\nhosts = [\"gate.example\"]", Some("admin.hosts"));
    let vouched = "[admin]\nuser_header = \"X-User\"\nuser_header_from = [\"10.0.0.5\"]";
    check("who vouches", vouched, Some("admin.user_header"));
    check("what signs forms", "[admin]\nuser_header_key = \"env:PATH\"", Some("admin.user_header_key"));
    check("who names clients", "[admin]\ntrusted_proxies = [\"::1\"]", Some("admin.trusted_proxies"));
    check("who scrapes", "[admin]\nmetrics = \"socket\"", Some("admin.metrics"));
    check("a budget", "[server.budgets]\nstreams = 100", None);
    check("the services' place", "[server]\nurl = \"https://api.example\"", Some("server.url"));
    let announced = "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = \"required\"";
    check("the PROXY header", announced, Some("server.proxy_protocol"));
    check("the sockets' mode", "[server]\nunix_mode = \"0660\"", Some("server.unix_mode"));
    check("the listeners", "[server]\nlisten = [\"127.0.0.1:9\"]", Some("server.listen"));
    let scheme = "[server]\nlisten = [\"http://127.0.0.1:8080\"]";
    check("a listener's scheme", scheme, Some("server.listen"));
    check("the workers", "[server]\nworkers = 3", Some("server.workers"));
    check("the admin listener", "[admin]\nlisten = [\"127.0.0.1:9\"]", Some("admin.listen"));
    check("the store", "[store]\npath = \"other\"", Some("store.path"));
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = parse(SMALL, Path::new("/etc/permgate/gateway.toml")).unwrap();
    assert_eq!(config.store.path, Path::new("/etc/permgate/permgate-data"));
    assert_eq!(config.admin.listen[1].address.to_string(), "unix:/etc/permgate/permgate.sock");
}

#[test]
fn a_missing_file_is_told_by_name() {
    let errors = Config::load(Path::new("/nonexistent/gateway.toml")).unwrap_err();
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/gateway.toml: cannot be read: No such file or directory")
    );
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in ".{0,200}") {
        let _ = read(&text);
    }

    /// Cut, repeated and shuffled lines of the example reach more code than random text.
    #[test]
    fn any_mixture_of_lines_is_judged_without_panic(
        picks in proptest::collection::vec((0usize..200, 0usize..120), 0..40),
    ) {
        let lines: Vec<&str> = EXAMPLE.lines().collect();
        let text: String = picks.iter().fold(String::new(), |mut text, (line, cut)| {
            let line = lines[line % lines.len()].trim_start_matches("# ");
            text.extend(line.chars().take(*cut));
            text.push('\n');
            text
        });
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.0.is_empty());
            let _ = errors.to_string();
        }
    }
}

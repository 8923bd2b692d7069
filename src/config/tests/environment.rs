use std::{ffi::OsString, path::Path};

use super::SMALL;
use crate::config::{Config, Errors, document::References, resolve};

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, Errors> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    resolve::parse_with(text, Path::new("gateway.toml"), References::Read, variables)
}

fn errors(variables: &[(&str, &str)]) -> String {
    read(SMALL, variables).unwrap_err().to_string()
}

#[test]
fn a_variable_sets_a_key() {
    let config = read(
        &SMALL.replace("[service.app]", "[service.app-one]"),
        &[
            ("PERMGATE__SERVER__LISTEN", "127.0.0.1:1, [::1]:2"),
            ("PERMGATE__SERVER__WORKERS", "3"),
            ("PERMGATE__SERVER__DRAIN", "7s"),
            ("PERMGATE__LOG__LEVEL", "debug"),
            ("PERMGATE__ADMIN__HOSTS", r#"["a.example"]"#),
            ("PERMGATE__SERVICE__APP_ONE__TITLE", "12"),
            ("PERMGATE__UPSTREAM__UP__URLS", "http://127.0.0.1:9"),
            ("PERMGATE_CONFIG", "not one of them"),
            ("OTHER__SERVER__WORKERS", "4"),
        ],
    )
    .unwrap();
    let listen: Vec<String> = config.server.listen.iter().map(|one| one.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:1", "[::1]:2"]);
    assert_eq!(config.server.workers.unwrap().get(), 3);
    assert_eq!(config.server.drain.as_secs(), 7);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.admin.hosts, ["a.example"]);
    assert_eq!(config.services.len(), 1, "the service that there is, not one beside it");
    assert_eq!(config.services[0].title, "12", "text, whatever it looks like");
    assert_eq!(config.proxy.upstreams["up"].urls[0].url.to_string(), "127.0.0.1:9");
    assert_eq!(config.environment.len(), 7);
    assert_eq!(config.environment[2], "PERMGATE__SERVER__DRAIN sets server.drain = \"7s\"");
    let title = "PERMGATE__SERVICE__APP_ONE__TITLE sets service.app-one.title = \"12\"";
    assert_eq!(config.environment[5], title, "as the file spells it");
    assert!(config.annotated_text().ends_with(
        r#"# PERMGATE__UPSTREAM__UP__URLS sets upstream.up.urls = ["http://127.0.0.1:9"]
"#
    ));
}

#[test]
fn a_variable_with_one_underscore_is_told() {
    let check = |name: &str, meant: Option<&str>| {
        let config = read(SMALL, &[(name, "1")]).unwrap();
        let warnings = config.warnings.iter().filter(|warning| &*warning.file == name);
        let expected = meant.map(|meant| {
            format!("{name}: sets nothing\n      = write {meant}, with two underscores for each dot")
        });
        assert_eq!(warnings.map(ToString::to_string).collect::<Vec<_>>(), Vec::from_iter(expected), "{name}");
        assert_eq!(config.environment, Vec::<String>::new(), "{name}");
    };
    check("PERMGATE_SERVER_LISTEN", Some("PERMGATE__SERVER__LISTEN"));
    check("PERMGATE_SERVER_MAX_BODY", Some("PERMGATE__SERVER__MAX_BODY"));
    check("PERMGATE_SERVER_TIMEOUTS_HEAD", Some("PERMGATE__SERVER__TIMEOUTS__HEAD"));
    check("PERMGATE_LOG_LEVEL", Some("PERMGATE__LOG__LEVEL"));
    check("PERMGATE_SERVER__LISTEN", Some("PERMGATE__SERVER__LISTEN"));
    check("PERMGATE_SERVER_TLS_CERT", Some("PERMGATE__SERVER__TLS__CERT"));
    for other in [
        "PERMGATE_SERVICE_PORT",
        "PERMGATE_PORT",
        "PERMGATE_ADMIN",
        "PERMGATE_VERSION",
        "PERMGATE_LOG",
        "PERMGATE_CONFIG",
        "PERMGATE_TOKEN",
        "PERMGATE_TOKEN_FILE",
        "PERMGATE_TOKENS",
    ] {
        check(other, None);
    }
}

#[test]
fn the_environment_alone_may_configure() {
    let variables = [
        ("PERMGATE__VERSION", "1"),
        ("PERMGATE__UPSTREAM__UP__URLS", "http://127.0.0.1:8090"),
        ("PERMGATE__SERVICE__APP", r#"{ upstream = "up", paths = ["/app"], readers = ["all-users"] }"#),
        ("PERMGATE__PUBLIC", r#"[{ service = "app", prefix = "/app/public" }]"#),
    ];
    let config = read("", &variables).unwrap();
    assert_eq!((config.services.len(), config.public.len()), (1, 1));
    assert_eq!(&*config.services[0].origin.file, "PERMGATE__SERVICE__APP");
}

#[test]
fn an_error_names_the_variable() {
    let wrong = errors(&[("PERMGATE__SERVER__WORKERS", "many")]);
    assert!(wrong.starts_with("PERMGATE__SERVER__WORKERS:1:18: `server.workers` must be"), "{wrong}");
    assert!(
        wrong.contains("\n    1 | server.workers = \"many\"\n      |                  ^^^^^^\n"),
        "{wrong}"
    );
    let unknown = errors(&[("PERMGATE__SERVER__WORKER", "2")]);
    assert!(
        unknown.starts_with("PERMGATE__SERVER__WORKER:1:1: unknown key `worker` in [server]"),
        "{unknown}"
    );
    assert!(unknown.contains("did you mean \"workers\"?"), "{unknown}");
    let doubled = errors(&[("PERMGATE__PERMGATE__SERVER__WORKERS", "2")]);
    assert!(
        doubled.starts_with("PERMGATE__PERMGATE__SERVER__WORKERS:1:1: unknown key `permgate`"),
        "{doubled}"
    );
    let below = errors(&[("PERMGATE__VERSION__X", "2")]);
    assert!(below.starts_with("PERMGATE__VERSION__X:1:1: `version` is not a table"), "{below}");
    let twice = errors(&[(
        "PERMGATE__SERVICE__B",
        r#"{ upstream = "up", paths = ["/app"], readers = ["all-users"] }"#,
    )]);
    assert!(twice.contains("PERMGATE__SERVICE__B:1:1: "), "{twice}");
    let secret = errors(&[("PERMGATE__ADMIN__OIDC__CLIENT_SECRET", "hunter2")]);
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn who_may_not_learn_of_the_machine_learns_nothing_of_its_environment() {
    let none = resolve::parse(SMALL, Path::new("gateway.toml"), References::Ignored).unwrap();
    assert_eq!(none.environment, Vec::<String>::new());
}

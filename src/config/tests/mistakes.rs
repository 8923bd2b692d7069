//! Mistakes in a file, one by one: the error, its place and its advice.

use super::*;

#[test]
fn errors_name_place_fault_and_remedy() {
    let check = |name: &str, replace: &str, by: &str, expected: &[&str]| {
        let text = if replace.is_empty() { format!("{SMALL}{by}") } else { SMALL.replace(replace, by) };
        assert_eq!(errors_of(&text), expected, "{name}");
    };
    check(
        "an unknown key",
        "upstream = \"up\"",
        "upstrem = \"up\"",
        &[
            "4:1 [service.app] lacks `upstream` | add `upstream = \"...\"`",
            "5:1 unknown key `upstrem` in [service.app] | did you mean \"upstream\"?",
        ],
    );
    check("an unknown table", "", "[serverr]", &["8:2 unknown key `serverr` | did you mean \"server\"?"]);
    check(
        "an unknown upstream",
        "\"up\"",
        "\"uq\"",
        &["5:12 there is no upstream \"uq\" | did you mean \"up\"?"],
    );
    check(
        "a wrong type",
        "\"up\"",
        "7",
        &[
            "5:12 `service.app.upstream` must be text in quotes, this is an integer | write `upstream = \"...\"`",
        ],
    );
    check(
        "text for a list",
        "[\"/app\"]",
        "\"/app\"",
        &["6:9 `service.app.paths` must be a list of texts, this is a string | write `paths = [\"...\"]`"],
    );
    check(
        "a trailing slash",
        "/app\"",
        "/app/\"",
        &["6:10 \"/app/\" ends with \"/\" | write \"/app\": prefixes match whole segments"],
    );
    check("no slash", "\"/app\"", "\"app\"", &["6:10 \"app\" does not start with \"/\" | write \"/app\""]);
    check(
        "a path that can never match",
        "\"/app\"",
        "\"/app/../x\"",
        &["6:10 \"/app/../x\" can never match: the path has a \".\" or \"..\" segment | "],
    );
    check(
        "fields to drop that are needed, or none",
        "",
        "[server]\ndrop_fields = [\"X-Tenant-*\", \"Host\", \"co*\", \"a b\", \"\"]",
        &[
            "9:30 \"Host\" would drop host, which `drop_fields` cannot drop | ",
            "9:38 \"co*\" would drop content-length, which `drop_fields` cannot drop | ",
            "9:45 \"a b\" is not a field name | write \"X-Tenant\", or \"X-Tenant-*\" for all names that begin with it",
            "9:52 \"\" is not a field name | write \"X-Tenant\", or \"X-Tenant-*\" for all names that begin with it",
        ],
    );
    check(
        "fields that never pass",
        "",
        "[[service.app.pass_fields]]\nname = \"X-Permgate-User\"\nfrom = \"trusted\"\n[[service.app.pass_fields]]\nname = \"Remote_User\"\nfrom = \"trusted\"",
        &[
            "9:8 \"X-Permgate-User\" is never forwarded: permgate sets it | leave it out",
            "12:8 \"Remote_User\" is not the name of one field | write one such as \"X-Remote-User\": `*`, `_` and `.` are not allowed",
        ],
    );
    check(
        "hosts that no client sends",
        "",
        "hosts = [\"b\u{fc}cher.example\", \"a..b\", \"[::x]\"]",
        &[
            "8:10 \"b\u{fc}cher.example\" has non-ASCII letters, which clients send in another form | write \"xn--bcher-kva.example\"",
            "8:28 \"a..b\" is not a host name | write only the name, such as \"youtrack.example.com\"",
            "8:36 \"[::x]\" is not a host name | write only the name, such as \"youtrack.example.com\"",
        ],
    );
    check(
        "from nobody",
        "",
        "pass_fields = { name = \"Remote-User\" }",
        &["8:15 [service.app.pass_fields] lacks `from` | add `from = \"...\"`"],
    );
    check(
        "a header that anybody may send",
        "",
        "[admin]\nuser_header = \"X-User\"",
        &[
            "9:15 with `user_header = \"x-user\"` alone, every client could sign in as any user | name the proxies that set it: `user_header_from = [\"10.0.0.5\"]`",
        ],
    );
    check(
        "a header that means something else",
        "",
        "[admin]\nuser_header = \"Cookie\"\nuser_header_from = [\"10.0.0.5\"]",
        &[
            "9:15 \"Cookie\" cannot be the field that names the user | write a field that has no other meaning, such as \"X-Forwarded-User\"",
        ],
    );
    check(
        "a url that is none",
        "",
        "[admin]\nurl = \"gate.example\"",
        &[
            "9:7 \"gate.example\" is not an http:// or https:// URL | write it as \"https://gate.example.com\"",
        ],
    );
    check("a bad version", "version = 1", "version = 2", &["1:11 `version` must be 1 | "]);
    check("no version", "version = 1\n", "", &["1:1 the file lacks `version` | add `version = 1`"]);
    check(
        "the built-in service",
        "service.app",
        &format!("service.{BUILT_IN_SERVICE}"),
        &["4:10 the service \"permgate\" is built in: it is the admin listener | choose another name"],
    );
    check(
        "a bad key",
        "service.app",
        "service.App",
        &[
            "4:10 \"App\" cannot be a service's scope word | write a lower-case letter, then at most 62 lower-case letters, digits and `-`",
        ],
    );
    check(
        "websocket urls",
        "http://",
        "wss://",
        &[
            "3:9 wss:// upstreams are not supported | write \"http://HOST:PORT\", \"https://HOST\", \"h2c://HOST:PORT\" or \"unix:PATH\"",
        ],
    );
    check(
        "TLS for a url without",
        "[service.app]",
        "tls = { server_name = \"a\" }\n[service.app]",
        &["4:7 `tls` has no effect: no url is https:// | write https:// in the url, or leave `tls` out"],
    );
    check(
        "an authority that is not there",
        "urls = [\"http://127.0.0.1:8090\"]",
        "urls = [\"https://a\"]\ntls.ca = \"no-such.pem\"",
        &["4:10 no-such.pem cannot be read: No such file or directory | "],
    );
    check(
        "a file that has no certificate",
        "urls = [\"http://127.0.0.1:8090\"]",
        "urls = [\"https://a\"]\ntls.ca = \"Cargo.toml\"",
        &["4:10 Cargo.toml has no certificate | "],
    );
    check(
        "a certificate without its key",
        "urls = [\"http://127.0.0.1:8090\"]",
        "urls = [\"https://a\"]\ntls = { ca = \"Cargo.toml\", cert = \"Cargo.toml\" }",
        &["4:35 `tls.cert` needs `tls.key` | set `tls.key`"],
    );
    check(
        "HTTP/1.1 where the url says HTTP/2",
        "http://127.0.0.1:8090\"]",
        "h2c://127.0.0.1:8090\"]\nhttp = \"1.1\"",
        &[
            "4:8 `http = \"1.1\"` contradicts a url with h2c:// | write http:// in the url, or leave `http` out",
        ],
    );
    check(
        "an upstream with a path",
        "8090\"",
        "8090/base\"",
        &[
            "3:9 an upstream url has no path, query, fragment or user | leave it out: permgate forwards the request's path unchanged",
        ],
    );
    check(
        "a bare port",
        "",
        "[server]\nlisten = [\":8080\"]",
        &[
            "9:11 \":8080\" is not an address to listen on | write \"0.0.0.0:8080\" for every interface, \"127.0.0.1:8080\" for this machine only",
        ],
    );
    check(
        "a bare port with a scheme",
        "",
        "[server]\nlisten = [\"https://:8443\"]",
        &[
            "9:11 \"https://:8443\" is not an address to listen on | write \"https://0.0.0.0:8443\" for every interface, \"https://127.0.0.1:8443\" for this machine only",
        ],
    );
    check(
        "a scheme before a path",
        "",
        "[server]\nlisten = [\"http://unix:http.sock\"]",
        &[
            "9:11 \"http://unix:http.sock\" is not an address to listen on | write \"http://IP:PORT\": other addresses have no scheme",
        ],
    );
    check(
        "a socket with a long path",
        "",
        &format!("[server]\nlisten = [\"unix:/{}\"]", "a".repeat(107)),
        &["9:11 the path of a unix socket has at most 107 bytes | choose a shorter one"],
    );
    check(
        "https without a certificate",
        "",
        "[server]\nlisten = [\"127.0.0.1:8080\", \"https://0.0.0.0:8443\"]",
        &["9:29 https://0.0.0.0:8443 has no certificate | set `tls` in the same table"],
    );
    check(
        "the same for the admin listener",
        "",
        "[admin]\nlisten = [\"https://127.0.0.1:8081\"]",
        &["9:11 https://127.0.0.1:8081 has no certificate | set `tls` in the same table"],
    );
    check(
        "one address in both schemes",
        "",
        "[server]\nlisten = [\"127.0.0.1:9\", \"http://127.0.0.1:9\"]",
        &["9:10 127.0.0.1:9 is listened on twice (`server.listen`) | give each listener its own address"],
    );
    check(
        "one address in two notations",
        "",
        "[server]\nlisten = [\"[::ffff:127.0.0.1]:8081\"]",
        &["9:10 127.0.0.1:8081 is listened on twice (`admin.listen`) | give each listener its own address"],
    );
    check(
        "one socket in two spellings",
        "",
        "[server]\nlisten = [\"unix:a.sock\", \"unix:.//a.sock\"]",
        &["9:10 unix:.//a.sock is listened on twice (`server.listen`) | give each listener its own address"],
    );
    let least = |at: &str, key: &str| format!("{at} `server.budgets.{key}` must be at least 1m | ");
    check(
        "budgets without a unit",
        "",
        "[server.budgets]\nsend_buffers = 2\nreceive_buffers = \"512\"",
        &[&least("9:16", "send_buffers"), &least("10:19", "receive_buffers")],
    );
    check(
        "a store without a path",
        "",
        "[store]\npath = \"\"",
        &["9:8 `store.path` is empty | name a directory"],
    );
    check(
        "a remote admin listener",
        "",
        "[admin]\nlisten = [\"0.0.0.0:8081\"]",
        &[
            "9:11 other machines could reach the admin listener at 0.0.0.0:8081 | write a loopback address, or add `allow_remote = true` to [admin] if that is meant",
        ],
    );
    check(
        "one address for both",
        "",
        "[server]\nlisten = [\"127.0.0.1:8081\"]",
        &["9:10 127.0.0.1:8081 is listened on twice (`admin.listen`) | give each listener its own address"],
    );
    check(
        "a bad duration",
        "",
        "[server]\ndrain = \"30\"",
        &[
            "9:9 `server.drain` is not a duration | write a number and one of ms, s, m, h, d, w, such as \"10s\"",
        ],
    );
    check(
        "an identity that is none",
        "",
        "identity = \"cookie\"",
        &[
            "8:12 `service.app.identity` cannot be \"cookie\" | write \"headers\", \"jwt\", \"both\" or \"none\"",
        ],
    );
    check(
        "assertions that last too long, of keys that come too late",
        "",
        "identity = \"jwt\"\n[assertion]\nlifetime = \"1m\"\nrotate = \"1h\"\npublish_ahead = \"31m\"",
        &[
            "10:12 `assertion.lifetime` must be at most 30s | ",
            "12:17 `assertion.publish_ahead` is more than half of `assertion.rotate` | ",
        ],
    );
    check(
        "limits that limit nothing, or make no sense",
        "",
        "limits = [{ per = \"token\" }, { per = \"host\", rate = \"1/s\" }, { per = \"user\", rate = \"fast\" }, { rate = \"1/s\" }]\n\
         [[limits]]\nper = \"user\"\nburst = 3\n[[limits]]\nper = \"user\"\nrate = \"1/d\"\nburst = 1000",
        &[
            "8:11 this limit has neither `rate` nor `concurrent` | write `rate = \"100/s\"` or `concurrent = 10`",
            "8:38 `service.app.limits.per` cannot be \"host\" | write \"token\", \"user\", \"address\" or \"service\"",
            "8:85 \"fast\" is not a rate | write a number and a time, such as \"100/s\", \"10/5m\" or \"10000/d\"",
            "8:95 [service.app.limits] lacks `per` | add `per = \"...\"`",
            "11:9 `burst` has no effect without `rate` | ",
            "14:8 such a large burst takes longer than a year to refill | ",
        ],
    );
    check(
        "keys in the file itself",
        "",
        "[assertion]\nkeys = \"-----BEGIN PRIVATE KEY-----\"",
        &[
            "9:8 keys must not be written into this file | write \"file:PATH\"; if a secret was written here, replace it",
        ],
    );
    check(
        "a mistyped word",
        "",
        "identity = \"header\"",
        &["8:12 `service.app.identity` cannot be \"header\" | did you mean \"headers\"?"],
    );
    check(
        "a lower-case method",
        "",
        "methods = [\"get\"]",
        &["8:12 \"get\" is not a method: they are upper case | did you mean \"GET\"?"],
    );
    check(
        "a public rule of no service",
        "",
        "[[public]]\nservice = \"ap\"\npath = \"/app\"",
        &["9:11 there is no service \"ap\" | did you mean \"app\"?"],
    );
    check(
        "a public rule of nothing",
        "",
        "[[public]]\nservice = \"app\"",
        &[
            "8:1 this public rule opens nothing | add `path = \"/...\"` for one path, `prefix = \"/...\"` for all below it",
        ],
    );
    check(
        "a limiter without numbers",
        "",
        "[limiter]",
        &[
            "8:1 [limiter] lacks `bad_tokens` | add `bad_tokens = 1`",
            "8:1 [limiter] lacks `per` | add `per = \"10s\"`",
        ],
    );
    check(
        "a secret that is missing",
        "",
        "authorization = \"env:PERMGATE_TEST_NOT_SET\"",
        &[
            "8:17 the environment variable \"PERMGATE_TEST_NOT_SET\" is not set | set it where permgate is started",
        ],
    );
}

#[test]
fn forward_auth_needs_somebody_to_believe() {
    let check = |trusted: &str, section: &str, expected: &[&str]| {
        let server = format!("version = 1\n[server]\ntrusted_proxies = {trusted}\n");
        assert_eq!(errors_of(&format!("{}{section}", SMALL.replace("version = 1\n", &server))), expected);
    };
    check("[\"127.0.0.1\"]", "[forward_auth]\nproxy = \"nginx\"\n", &[]);
    check("[\"unix\"]", "[forward_auth]\nproxy = \"envoy\"\n", &[]);
    check(
        "[]",
        "[forward_auth]\nproxy = \"caddy\"\n",
        &[
            "10:1 `forward_auth` needs `server.trusted_proxies` | name the addresses of the proxy, such as [\"127.0.0.1\"]",
        ],
    );
    check(
        "[\"127.0.0.1\"]",
        "[forward_auth]\n",
        &["10:1 [forward_auth] lacks `proxy` | add `proxy = \"...\"`"],
    );
}

#[test]
fn prefixes_of_two_services_must_differ() {
    let second = "[service.other]\nupstream = \"up\"\npaths = [\"/app\"]\nreaders = [\"all-users\"]\n";
    let errors = errors_of(&format!("{SMALL}{second}"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("/app"), "{errors:?}");
}

#[test]
fn a_syntax_error_stops_no_other_error() {
    let text = "version = 1\nlisten = [\n\"a\"\n[serverr]\nx = 1\n[store]\npathh = \"x\"\nballast = @\n";
    let errors = errors_of(text);
    assert!(errors.iter().any(|e| e.contains("this is not TOML")), "{errors:?}");
    let errors = errors_of("version = 1\n[store]\npathh = \"x\"\nballast = @\n[tokens]\nperm_alias = 1\n");
    assert!(errors[0].starts_with("3:1 unknown key `pathh`"), "{errors:?}");
    assert!(errors[1].starts_with("4:11 this is not TOML"), "{errors:?}");
    assert!(errors[2].starts_with("6:14 `tokens.perm_alias` must be true or false"), "{errors:?}");
}

//! A token for one service reaches no other, however the path is spelt; judged by what the upstream receives.

use crate::{readings::could_reach, stage::Stage, support::http::Client};

/// Ways to write `..`.
const PARENT_SPELLINGS: [&str; 40] = [
    "..",
    "%2e%2e",
    ".%2E",
    "%2E.",
    "%252e%252e",
    "%25252e%25252e",
    "..;",
    "..;a=b",
    "%2e%2e;",
    "..%3b",
    "..%00",
    "..%0d",
    "..%09",
    "..%20",
    "..%2520",
    ".%20.",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%25c0%25ae%25c0%25ae",
    "%u002e%u002e",
    "%25u002e%25u002e",
    "%ef%bc%8e%ef%bc%8e",
    "%e2%80%a5",
    "%uff0e%uff0e",
    ".%e2%80%8b.",
    "..%e2%80%a8",
    "..%e2%80%a9",
    "%e2%80%8f..",
    ".%e2%80%af.",
    "..%e3%80%80",
    "..%e1%9a%80",
    "..%ef%bb%bf",
    "..%f3%a0%80%81",
    "..%c2%ad",
    "..%ff",
    ".%e9.",
    "..%a0",
    "./..",
    "..%23",
    "...",
];

/// Ways to write `/`.
const SLASH_SPELLINGS: [&str; 19] = [
    "/",
    "//",
    "/./",
    "%2f",
    "%2F",
    "%252f",
    "%25252f",
    "%5c",
    "%5C",
    "%255c",
    "\\",
    "/;/",
    "%c0%af",
    "%25c0%25af",
    "%e0%80%af",
    "%u2215",
    "%ef%bc%8f",
    "%e2%88%95",
    "%ef%bc%bc",
];

/// Ways to write the word `hub`.
const HUB_SPELLINGS: [&str; 30] = [
    "hub",
    "%68ub",
    "h%75b",
    "%68%75%62",
    "%2568ub",
    "%252568ub",
    "%25%36%38ub",
    "HUB",
    "Hub",
    "%48UB",
    "hub;",
    "hub;x=y",
    "hub%3b",
    "hub%3Bx",
    "hub.",
    "hub...",
    "hub%20",
    "hub%2e",
    "hub+",
    "hub%00",
    "hub%09",
    "%09hub",
    "h%0aub",
    "h%c2%adub",
    "h%e2%80%8bub",
    "%ef%bd%88ub",
    "%ef%bc%a8ub",
    "%u0068ub",
    "%25u0068ub",
    "%c1%a8ub",
];

fn targets() -> Vec<String> {
    let mut all = Vec::new();
    for up in PARENT_SPELLINGS {
        for slash in SLASH_SPELLINGS {
            all.push(format!("/api{slash}{up}{slash}hub/api/x"));
            all.push(format!("/api/x{slash}{up}{slash}{up}{slash}hub/api/x"));
            all.push(format!("/api/x/{up}{slash}{up}/hub{slash}api/x"));
        }
        all.extend([format!("/{up}/hub/api/x"), format!("/api/{up}"), format!("/hub/api/{up}/{up}/api/x")]);
    }
    for hub in HUB_SPELLINGS {
        for slash in SLASH_SPELLINGS {
            all.push(format!("/{hub}{slash}api/x"));
            all.push(format!("{slash}{hub}/api/x"));
            all.push(format!("/{hub}/api{slash}x"));
            all.push(format!("/api{slash}..{slash}{hub}/api/x"));
        }
    }
    for slash in SLASH_SPELLINGS {
        all.push(format!("/hub{slash}API/x"));
        all.push(format!("/api{slash}admin/x"));
        all.push(format!("/API{slash}admin"));
        all.push(format!("/api{slash}admin;x/y"));
        all.push(format!("/api{slash}%61dmin"));
        all.push(format!("/api{slash}admin%20"));
    }
    all.extend(
        [
            "//host/hub/api/x",
            "//host/api/../hub/api",
            "///hub/api/x",
            "///host/hub/api/x",
            "/%2f//host/hub/api/x",
            "/api../hub/api/x",
            "/api/x../../hub/api/x",
            "/static%2e./hub/api",
            "/(S(x))/hub/api/x",
            "/hub/(S(x)F(y))/api/x",
            "/%28S(x)%29/hub/api",
            "//hub/api",
            "/x?/../hub/api",
            "/api?/../../hub/api",
            "/api%3f/../hub/api",
            "/api%3Fx/hub/api",
            "/hub/api%3Fx",
            "/hub/api%23x",
            "/hub/api#x",
            "/api#/../hub/api",
            "/api/x%23/../../hub/api",
            "/hub/api%2f",
            "/hub/api;x",
            "/hub/api.",
            "/hub/api%20",
            "/hub/api%00",
            "/hub/api%00/x",
            "/hub/api%0a",
            "/api\u{0}/hub/api",
            "/api\t/../hub/api",
            "/api HTTP/1.1/../../hub/api",
            "/ /hub/api",
            "/hub /api",
            "/.;/hub/api",
            "/;/hub/api",
            "/;hub/api",
            "/%2e/hub/api",
            "/%2f/hub/api",
            "/%2fhub/api",
            "/%5chub/api",
            "/x//..//hub/api",
            "/hub%",
            "/hub%2",
            "/%/hub/api",
            "/hub/%zz/api",
            "/hub/%61pi/x",
            "/hub/ap%69",
            "/hub/api/",
            "/hub/apı",
            "/hub/ap%c4%b1",
            "/hub/%ef%bd%81pi",
            "/%C5%BFhub/api",
            "/hub\\api",
            "/hub|/api",
            "/hub\"/api",
            "*",
            "hub/api",
            "",
            "?/hub/api",
            "http:hub/api",
            "http:///hub/api",
            "http://g/hub/api/x",
            "HTTP://g/hub/api/x",
            "http://g/api/../hub/api",
            "http://evil/api/x",
            "http://evil@g/api/x",
            "http://g:81/api/x",
            "http://g\\@evil/api",
            "http://g?/hub/api",
            "http://g#/hub/api",
            "https://g/%68ub/api",
            "ftp://g/hub/api",
            "file:///hub/api",
            "g:80",
            "/%68%75%62%2f%61%70%69%2f%78",
            "/%2568%2575%2562%252f%2561%2570%2569",
        ]
        .map(str::to_owned),
    );
    all
}

fn check(stage: &Stage, others: &[&str], trailing: &str) -> usize {
    let (mut forwarded, mut failed) = (0, Vec::new());
    let all = targets();
    let rows = all.len();
    for target in all {
        let fields = format!("Host: g\r\n{}{trailing}", stage.bearer());
        let (answer, received) = stage.send_one("GET", target.as_bytes(), &fields);
        if !matches!(answer.status, 200 | 400 | 403 | 404) {
            failed.push(format!("{target}: {}", answer.status));
        }
        if (answer.status == 200) != (received.len() == 1) {
            failed.push(format!("{target}: {} and {} requests arrived", answer.status, received.len()));
        }
        for one in received {
            forwarded += 1;
            let path = one.target.split('?').next().unwrap();
            // A fragment is removed before the decision.
            let sent = target.split(['?', '#']).next().unwrap();
            let sent = sent.strip_prefix("http://g").or(sent.strip_prefix("HTTP://g")).unwrap_or(sent);
            if let Some(fault) = one.fault {
                failed.push(format!("{target}: {fault}"));
            }
            if let Some((prefix, reading)) = could_reach(path, others) {
                failed.push(format!("{target}: arrived as {path}, which is below {prefix} as {reading:?}"));
            }
            // An absolute target without a path means "/" (RFC 9112, section 3.2.1).
            if path != sent && !(path == "/" && sent.is_empty()) {
                failed.push(format!("{target}: altered to {path}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    println!("{rows} rows, {forwarded} forwarded");
    rows
}

#[test]
fn path_confusion_between_sibling_services_is_refused() {
    let stage = Stage::with_sibling_services();
    assert!(check(&stage, &["/hub/api", "/hub/rest"], "") > 1500);
}

#[test]
fn path_confusion_between_nested_services_is_refused() {
    let stage = Stage::with_nested_services();
    assert!(check(&stage, &["/hub/api", "/hub/rest", "/api/admin"], "") > 1500);
}

#[test]
fn paths_of_browsers_and_package_managers_pass_unchanged() {
    let stage = Stage::with_sibling_services();
    let check = |stage: &Stage, target: &str, status: u16| {
        let fields = format!("Host: g\r\n{}", stage.bearer());
        let (answer, received) = stage.send_one("GET", target.as_bytes(), &fields);
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{target}: {body}");
        assert!(received.iter().all(|one| one.target == target), "{target}: {received:?}");
        body.into_owned()
    };
    for target in ["/api/a[1].txt", "/api/a|b", "/api/^x", "/api/{id}", "/api/./Packages", "/api/x/."] {
        check(&stage, target, 200);
    }
    check(&stage, "/api/caf%E9", 400);
    for (target, named) in [("/api/../x", "segment"), ("/api/a%zz", "hexadecimal"), ("/api/%ff", "UTF-8")] {
        let body = check(&stage, target, 400);
        assert!(body.contains(named), "{target}: {body}");
    }
    let tolerant = Stage::with("\"/api\"]\nallow = [\"invalid-utf8\"", "", "");
    check(&tolerant, "/api/caf%E9", 200);
    check(&tolerant, "/api/..%ff/hub/api/x", 400);
    check(&tolerant, "/api/%85", 400);
    check(&tolerant, "/api/%c0%ae", 400);
}

#[test]
fn forwarded_host_is_the_decided_one() {
    let stage = Stage::with(
        r#""/api""#,
        "",
        r#"
[service.other]
title = "Other"
upstream = "one"
hosts = ["other.example"]
paths = ["/api"]
readers = ["developers"]
"#,
    );
    let bearer = stage.bearer();
    // (row, target, Host lines, status)
    let rows: [(&str, &str, &str, u16); 26] = [
        ("its own host", "/api/x", "Host: g\r\n", 200),
        ("the other's host", "/api/x", "Host: other.example\r\n", 403),
        ("in capitals", "/api/x", "Host: OTHER.example\r\n", 403),
        ("with a port", "/api/x", "Host: other.example:80\r\n", 403),
        ("with an empty port", "/api/x", "Host: other.example:\r\n", 403),
        ("with a dot behind", "/api/x", "Host: other.example.\r\n", 403),
        ("with two dots behind", "/api/x", "Host: other.example..\r\n", 400),
        ("absolute against Host", "http://other.example/api/x", "Host: g\r\n", 400),
        ("Host against absolute", "http://g/api/x", "Host: other.example\r\n", 400),
        ("absolute, the other's", "http://other.example/api/x", "Host: other.example\r\n", 403),
        ("two hosts", "/api/x", "Host: g\r\nHost: other.example\r\n", 400),
        ("two hosts, the same", "/api/x", "Host: g\r\nHost: g\r\n", 400),
        ("no host", "/api/x", "", 400),
        ("an empty host", "/api/x", "Host:\r\n", 400),
        ("a list", "/api/x", "Host: g, other.example\r\n", 400),
        ("a user", "/api/x", "Host: g@other.example\r\n", 400),
        ("a path", "/api/x", "Host: g/other.example\r\n", 400),
        ("a blank", "/api/x", "Host: g other.example\r\n", 400),
        ("an escape", "/api/x", "Host: other%2eexample\r\n", 400),
        ("a second colon", "/api/x", "Host: g:80:other.example\r\n", 400),
        ("a port that is none", "/api/x", "Host: g:@other.example\r\n", 400),
        ("a blank before the colon", "/api/x", "Host : g\r\n", 400),
        ("folded", "/api/x", "Host:\r\n other.example\r\n", 400),
        ("a blank in front", "/api/x", " Host: g\r\n", 400),
        ("not ASCII", "/api/x", "Host: ötherexample\r\n", 400),
        ("X-Forwarded-Host does not count", "/api/x", "Host: g\r\nX-Forwarded-Host: other.example\r\n", 200),
    ];
    for (row, target, host, status) in rows {
        let (answer, received) = stage.send_one("GET", target.as_bytes(), &format!("{host}{bearer}"));
        assert_eq!(answer.status, status, "{row}: {answer:?}");
        assert_eq!(received.len(), usize::from(status == 200), "{row}");
        assert!(received.iter().all(|one| one.fault.is_none()), "{row}: {received:?}");
        assert!(received.iter().all(|one| one.all("x-forwarded-host") == ["g"]), "{row}: {received:?}");
    }
    // Without Host, the upstream's own host is used, which belongs to another service here.
    let own = stage.recorder.address.ip();
    for (row, host, status) in
        [("somebody else's there", own.to_string(), 400), ("nobody else's", "other".to_owned(), 200)]
    {
        let stage = Stage::with(
            r#""/api""#,
            "",
            &format!(
                "[service.other]\nupstream = \"one\"\nhosts = [\"{host}\"]\npaths = [\"/api\"]\nreaders = [\"developers\"]\n"
            ),
        );
        let mut client = Client::tcp(stage.gateway.proxy);
        client.send(format!("GET /api/x HTTP/1.0\r\n{}\r\n", stage.bearer()));
        assert_eq!(client.head().status, status, "{row}");
    }
}

//! The access log: on stdout only, one line per request, with the fields in order.

use std::{
    io::Write,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use crate::{
    harness::{TestDirectory, services},
    support::{http::Client, upstream::Upstream},
};

const FIELDS: [&str; 16] = [
    "time",
    "request_id",
    "outcome",
    "reason",
    "status",
    "method",
    "path",
    "service",
    "token_id",
    "user",
    "client",
    "upstream",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
];

#[test]
fn one_log_line_per_request_with_ordered_fields() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let hub = directory.token("alice", "hub");
    let id = &token[4..16];
    let began = SystemTime::now();

    // (method, target, credential, status, reason, service, whether the line names the token)
    let bearer = format!("Bearer {token}");
    let other = format!("Bearer {hub}");
    let rows: [(&str, &str, Option<&str>, u64, &str, Option<&str>, bool); 7] = [
        ("POST", "/api/issues?fields=id", Some(&bearer), 200, "ok", Some("tracker"), true),
        ("GET", "/api/issues", Some(&bearer), 200, "ok", Some("tracker"), true),
        ("GET", "/api/issues", None, 401, "missing_credentials", Some("tracker"), false),
        ("GET", "/api/issues", Some("Basic eDp5"), 401, "unsupported_scheme", Some("tracker"), false),
        ("GET", "/api/issues", Some(&other), 403, "scope_denied", Some("tracker"), true),
        ("GET", "/nothing", Some(&bearer), 404, "no_service", None, true),
        ("GET", "/api/../hub", Some(&bearer), 400, "bad_path", None, true),
    ];
    let mut ids = Vec::new();
    for (method, target, credential, status, ..) in rows {
        let mut client = Client::tcp(process.proxy);
        let fields: Vec<_> = credential.iter().map(|value| ("Authorization", *value)).collect();
        let body = (method == "POST").then_some("{\"summary\": 1}");
        let answer = client.request(method, target, &fields, body);
        assert_eq!(u64::from(answer.status), status, "{method} {target}");
        ids.push((answer.field("x-request-id").unwrap().to_owned(), answer.body.len()));
    }
    // All lines have been written when the process ends.
    process.stop();

    let data = process.data.text();
    let lines: Vec<&str> = data.lines().collect();
    assert_eq!(lines.len(), rows.len(), "{data}");
    assert!(data.ends_with("}\n"));
    for ((line, row), (request_id, length)) in lines.iter().zip(rows).zip(ids) {
        let (method, target, credential, status, reason, service, named) = row;
        let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let places = FIELDS.map(|field| line.find(&format!("\"{field}\":")).unwrap_or(usize::MAX));
        assert!(places.is_sorted() && places[0] == 1, "{line}");
        assert_eq!(record.as_object().unwrap().len(), FIELDS.len(), "{line}");
        let path = target.split('?').next().unwrap();
        let forwarded = status == 200;
        let outcome = match reason {
            "ok" => "forwarded",
            "bad_path" => "rejected",
            _ => "denied",
        };
        let expected = [
            ("request_id", Value::from(request_id)),
            ("outcome", outcome.into()),
            ("reason", reason.into()),
            ("status", status.into()),
            ("method", method.into()),
            ("path", path.into()),
            ("service", service.map_or(Value::Null, Value::from)),
            ("user", if named { "alice".into() } else { Value::Null }),
            ("client", "127.0.0.1".into()),
            ("upstream", if forwarded { upstream.address.to_string().into() } else { Value::Null }),
            ("bytes_in", if method == "POST" { 14.into() } else { 0.into() }),
            ("bytes_out", length.into()),
        ];
        for (field, value) in expected {
            assert_eq!(record[field], value, "{field}: {line}");
        }
        let of_token = match credential {
            Some(text) if named && text == bearer => id.into(),
            Some(_) if named => (&hub[4..16]).into(),
            _ => Value::Null,
        };
        assert_eq!(record["token_id"], of_token, "{line}");
        assert!(record["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(record["upstream_ms"].is_null(), !forwarded, "{line}");
        let time: jiff::Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        let since: jiff::Timestamp = began.try_into().unwrap();
        assert!((time.as_second() - since.as_second()).abs() < 60, "{line}");
    }
    assert!(!process.words.text().contains("/api/issues"), "requests are told on stdout alone");
}

#[test]
fn every_field_is_documented() {
    let page = include_str!("../../docs/operations.md");
    let (_, section) = page.split_once("## The access log").unwrap();
    let names: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    for field in FIELDS.into_iter().chain(["carrier"]) {
        let named = names.iter().any(|row| row.split('|').nth(1).unwrap().contains(&format!("`{field}`")));
        assert!(named, "docs/operations.md does not describe `{field}`");
    }
}

/// A full disk or a pipe without a reader loses lines, not requests, and is seen.
#[test]
fn lost_lines_are_counted_and_reported_once_a_minute() {
    let upstream = Upstream::plain();
    let directory =
        TestDirectory::new(&format!("{}[log]\naccess = \"/dev/full\"\n", services(upstream.address)));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    for _ in 0..5 {
        assert_eq!(process.status("/api/x", &token), 200);
        // Not all in one chunk.
        std::thread::sleep(Duration::from_millis(120));
    }
    let line = process.words.wait_for("cannot write the access log");
    assert!(line.contains("No space left on device"), "{line}");
    let lost = || {
        let page = process.operator("GET", "/metrics", None);
        let line =
            page.text().lines().find_map(|line| line.strip_prefix("permgate_log_lines_dropped_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while lost() < 5 {
        assert!(Instant::now() < deadline, "{} lines are counted", lost());
        std::thread::sleep(Duration::from_millis(20));
    }
    process.stop();
    assert_eq!(process.words.text().matches("cannot write the access log").count(), 1);
}

/// The client and the access log get no more than `upstream_invalid`.
#[test]
fn fault_of_an_upstream_is_explained_once_a_minute() {
    let upstream = Upstream::start(|seen, socket| {
        let target = seen.head.split(' ').nth(1).unwrap();
        let [_, _, fields] = target.split('/').collect::<Vec<_>>()[..] else { unreachable!() };
        socket.write_all(format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", fields.replace('+', "\r\n")).as_bytes())
    });
    let check = |fields: &str, cause: &str| {
        let directory = TestDirectory::new(&services(upstream.address));
        let mut process = directory.run();
        let token = directory.token("alice", "tracker");
        for _ in 0..3 {
            assert_eq!(process.status(&format!("/api/{fields}"), &token), 502, "{fields}");
        }
        let line = process.words.wait_for("no valid response");
        assert!(line.contains(cause) && line.contains(&upstream.address.to_string()), "{line}");
        process.stop();
        assert_eq!(process.words.text().matches("no valid response").count(), 1, "{fields}");
    };
    check("Content-Length:1+Content-Length:2", "content-length");
    check("Transfer-Encoding:chunked+Content-Length:2", "unacceptable framing");
}

/// Whoever finds connections closed learns from the log what to raise.
#[test]
fn used_up_budget_is_logged() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    directory.write_all(&directory.read().replacen("[server]\n", "[server]\nlimits.connections = 1\n", 1));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    for round in 0..3 {
        let mut kept = process.open("/api/x", &token);
        assert_eq!(kept.answer("GET").status, 200, "{round}");
        assert_eq!(process.status("/api/x", &token), 200, "{round}: the idle connection makes room");
    }
    let line = process.words.wait_for("a budget is used up");
    assert!(line.contains("\"budget\":\"connections\",\"limit\":1"), "{line}");
    process.stop();
}

/// `journalctl -p err` finds errors. Nobody else gets the mark.
#[test]
fn journal_gets_the_priority_of_each_line() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let run = |stream: &str| {
        let mut command = directory.clean_command("sh");
        let program = env!("CARGO_BIN_EXE_permgate");
        command.args(["-c", &format!("JOURNAL_STREAM={stream} exec {program} run")]);
        let mut process = directory.start(command);
        process.words.wait_for("\"ready\"");
        process.stop();
        process.words.text()
    };
    let text = run("$(stat -Lc %d:%i /proc/self/fd/2)");
    let marked = |mark: &str, word: &str| {
        text.lines().any(|line| line.starts_with(&format!("{mark}{{")) && line.contains(word))
    };
    assert!(marked("<6>", "listener on") && marked("<4>", "there is no administrator"), "{text}");
    let text = run("1:1");
    assert!(text.lines().all(|line| line.starts_with('{')), "{text}");
}

/// A client that knows the gateway's name in `Via` cannot fill the log with warnings of loops.
#[test]
fn loops_are_logged_once_a_minute() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let mut process = directory.run();
    let bearer = format!("Bearer {}", directory.token("alice", "tracker"));
    assert_eq!(process.status("/api", &bearer["Bearer ".len()..]), 200);
    let head = upstream.seen.lock().unwrap()[0].head.to_ascii_lowercase();
    let via = head.lines().find_map(|line| line.strip_prefix("via: ")).unwrap().to_owned();
    let via = vec![via; 4].join(", ");
    for _ in 0..20 {
        let fields = [("Authorization", bearer.as_str()), ("Via", &via)];
        assert_eq!(Client::tcp(process.proxy).request("GET", "/api", &fields, None).status, 502);
    }
    process.stop();
    let words = process.words.text();
    assert_eq!(words.matches("a request loops through this gateway").count(), 1, "{words}");
}

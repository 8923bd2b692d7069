//! WebDAV's `Destination`: one request has two targets, and the second one is decided as well. Fields that
//! only re-route are tested in `headers.rs`.

use crate::stage::Stage;

const METHODS: [&str; 5] = ["COPY", "MOVE", "PUT", "GET", "BIND"];

#[test]
fn destination_is_decided_like_the_target() {
    let stage = Stage::with_sibling_services();
    let bearer = stage.bearer();
    let leaked = format!("Destination: /api/{}\r\n", stage.token);
    let rows: [(&str, &str, u16); 27] = [
        ("the same service", "Destination: /api/y\r\n", 200),
        ("another prefix of it", "Destination: http://g/rest/y\r\n", 200),
        ("behind TLS", "Destination: HTTPS://G./api/y%20z?q\r\n", 200),
        ("another service", "Destination: /hub/api/y\r\n", 403),
        ("by its URL", "Destination: http://g/hub/api/y\r\n", 403),
        ("nobody's", "Destination: /elsewhere\r\n", 403),
        ("the gateway's own", "Destination: /.permgate/whoami\r\n", 403),
        ("in other letters", "DESTINATION: /hub/api/y\r\n", 403),
        ("named by Connection", "Connection: Destination\r\nDestination: /hub/api/y\r\n", 403),
        ("a dot segment", "Destination: /api/../hub/api/y\r\n", 400),
        ("an escaped one", "Destination: /api/%2e%2e/hub/api/y\r\n", 400),
        ("an escaped slash", "Destination: /api/..%2fhub/api/y\r\n", 400),
        ("an escaped letter", "Destination: /%61pi/y\r\n", 403),
        ("another host", "Destination: http://h/api/y\r\n", 400),
        ("another port", "Destination: http://g:81/api/y\r\n", 400),
        ("no path", "Destination: http://g\r\n", 400),
        ("a user", "Destination: http://g@h/api/y\r\n", 400),
        ("no scheme", "Destination: //g/api/y\r\n", 400),
        ("another scheme", "Destination: ftp://g/api/y\r\n", 400),
        ("relative", "Destination: y\r\n", 400),
        ("relative, upwards", "Destination: ../hub/api/y\r\n", 400),
        ("empty", "Destination:\r\n", 400),
        ("two, the same", "Destination: /api/y\r\nDestination: /api/y\r\n", 400),
        ("two in one", "Destination: /api/y, /hub/api/y\r\n", 400),
        ("another spelling beside it", "Destination: /api/y\r\nDestination_: /hub/api/y\r\n", 400),
        ("a spelling with another sign", "Destin!ation: /hub/api/y\r\n", 400),
        ("a token in it", &leaked, 400),
    ];
    for method in METHODS {
        for (row, field, status) in rows {
            let (answer, received) =
                stage.send_one(method, b"/api/x", &format!("Host: g\r\n{bearer}{field}"));
            let body = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, status, "{method} {row}: {body}");
            assert_eq!(received.len(), usize::from(status == 200), "{method} {row}");
            for one in received {
                let sent = if row == "another prefix of it" { "/rest/y" } else { "/api/y" };
                let sent = if row == "behind TLS" { "/api/y%20z?q" } else { sent };
                assert_eq!(one.all("destination"), [sent], "{method} {row}");
            }
        }
    }
}

#[test]
fn denied_destination_is_named_only_to_its_readers() {
    let stage = Stage::with_sibling_services();
    let copy = |stage: &Stage, to: &str| {
        let fields = format!("Host: g\r\n{}Destination: {to}\r\n", stage.bearer());
        stage.send_one("COPY", b"/api/x", &fields).0
    };
    let challenge = |to: &str| copy(&stage, to).field("www-authenticate").unwrap_or_default().to_owned();
    assert!(challenge("/hub/api/y").ends_with("scope=\"hub\""), "{}", challenge("/hub/api/y"));
    assert!(!challenge("/elsewhere").contains("scope="));
    // Without a token, the answer reveals no more.
    let (answer, received) = stage.send_one("COPY", b"/api/x", "Host: g\r\nDestination: /hub/api/y\r\n");
    assert_eq!((answer.status, received.len()), (401, 0));
}

#[test]
fn other_fields_that_name_a_second_target_are_dropped() {
    let stage = Stage::with_sibling_services();
    for name in ["X-HTTP-DestinationURL", "X_HTTP_DestinationURL", "X-HTTP-Destination", "New-Uri", "New_Uri"]
    {
        let fields = format!("Host: g\r\n{}{name}: /hub/api/y\r\n", stage.bearer());
        let (answer, received) = stage.send_one("COPY", b"/api/x", &fields);
        assert_eq!(answer.status, 200, "{name}");
        let [one] = &received[..] else { panic!("{name}: {received:?}") };
        assert!(one.all(&name.to_ascii_lowercase()).is_empty(), "{name}: {one:?}");
    }
}

#[test]
fn public_rule_does_not_cover_a_destination_elsewhere() {
    let stage = Stage::with(
        r#""/api""#,
        "",
        r#"
[[public]]
service = "tracker"
prefix = "/api/open"
methods = ["COPY"]
"#,
    );
    let check = |to: &str, fields: &str, status: u16| {
        let fields = format!("Host: g\r\n{fields}Destination: {to}\r\n");
        let (answer, received) = stage.send_one("COPY", b"/api/open/x", &fields);
        assert_eq!((answer.status, received.len()), (status, usize::from(status == 200)), "{to}");
    };
    check("/api/open/y", "", 200);
    check("/api/y", "", 401);
    check("/hub/api/y", "", 401);
    check("/elsewhere", "", 401);
    check("/api/y", &stage.bearer(), 200);
    check("/hub/api/y", &stage.bearer(), 403);
}

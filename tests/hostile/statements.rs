//! Facts that a request states more than once: host, length and address. Contradictions are refused, and
//! nothing that was not compared reaches an upstream.

use crate::{
    recorder::{Received, Recorder},
    stage::Stage,
    support::{gateway::Gateway, http::Client},
};

/// `admin.example` and an IPv6 address have their own owners for `/api`; alice's token is for the other
/// services. Every client counts as a trusted proxy.
fn stage(more: &str) -> Stage {
    let recorder = Recorder::start();
    let service = |name: &str, hosts: &str| {
        format!(
            "[service.{name}]\nupstream = \"one\"\npaths = [\"/api\"]\nreaders = [\"developers\"]\n{hosts}\n"
        )
    };
    let sections: [&str; 4] = [
        &format!("[upstream.one]\nurls = [\"http://{}\"]\n", recorder.address),
        &service("tracker", ""),
        &service("hub", "hosts = [\"admin.example\", \"[::1]\", \"127.0.0.1\"]"),
        more,
    ];
    let server = r#"trusted_proxies = ["127.0.0.1"]"#;
    let text = Gateway::text_with(server, "", &sections.concat());
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "tracker", &["tracker"]);
    Stage { gateway, recorder, token }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

/// Sends a request over HTTP/1.1 with Host, over HTTP/1.1 with an absolute target, and over HTTP/2. Returns
/// the statuses and what reached the upstream.
fn ask(stage: &Stage, host: &str, fields: Fields<'_>) -> [(u16, Vec<Received>); 3] {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("Host: {host}\r\n{}{lines}", stage.bearer());
    let send = |target: &str| {
        let (answer, received) = stage.send_one("GET", target.as_bytes(), &head);
        (answer.status, received)
    };
    let (one, absolute) = (send("/api/x"), send(&format!("http://{host}/api/x")));
    let bearer = format!("Bearer {}", stage.token);
    let fields = [&[("authorization", bearer.as_str())][..], fields].concat();
    let status = crate::carriers::over_http2(stage, &format!("http://{host}/api/x"), &fields).0;
    [one, absolute, (status, stage.recorder.take())]
}

/// Checks for 200 with only the given hosts in the forwarded fields, or for a refusal that forwards nothing.
fn check(stage: &Stage, row: &str, host: &str, fields: Fields<'_>, expected: Result<&[&str], u16>) {
    for (way, (status, received)) in ask(stage, host, fields).into_iter().enumerate() {
        assert_eq!(status, expected.err().unwrap_or(200), "{row}, {way}: {received:?}");
        assert_eq!(received.len(), usize::from(expected.is_ok()), "{row}, {way}");
        for request in &received {
            let told = ["host", "x-forwarded-host", "forwarded"].map(|name| request.all(name).join(", "));
            let hosts = expected.unwrap_or_default();
            assert!(hosts.iter().all(|host| told.iter().any(|told| told.contains(host))), "{row}: {told:?}");
            assert!(!told.concat().contains("admin"), "{row}, {way}: {told:?}");
        }
    }
}

#[test]
fn conflicting_hosts_of_a_trusted_proxy_are_refused_in_every_form() {
    let stage = stage("");
    let refused = Err(400);
    let check =
        |row: &str, fields: Fields<'_>, expected| check(&stage, row, "public.example", fields, expected);
    check("none", &[], Ok(&["public.example"]));
    check("the same", &[("x-forwarded-host", "Public.example:80")], Ok(&["Public.example:80"]));
    check("another one with the same owner", &[("x-forwarded-host", "b.example")], Ok(&["b.example"]));
    check("of another owner", &[("x-forwarded-host", "admin.example")], refused);
    check("in other letters", &[("x-forwarded-host", "ADMIN.example.:80")], refused);
    check("in Forwarded", &[("forwarded", "host=admin.example")], refused);
    check("quoted", &[("forwarded", "for=_x;Host=\"admin.example:8443\"")], refused);
    check("escaped", &[("forwarded", r#"host="ad\min.example""#)], refused);
    check("in the last element", &[("forwarded", "for=1.1.1.1, for=1.1.1.2;host=admin.example")], refused);
    check("behind an empty pair", &[("forwarded", "for=1.1.1.1;;host=admin.example")], refused);
    check("IPv6 in another spelling", &[("x-forwarded-host", "[0:0::1]:80")], refused);
    check("IPv6 in Forwarded", &[("forwarded", "host=\"[0::0001]\"")], refused);
    // A more lenient server might read what the gateway cannot.
    for element in [
        "host=admin.example;host=admin.example",
        "host=public.example;host=admin.example",
        "host=admin.example:99999",
        "host=u@admin.example",
        "host=%61dmin.example",
        "host=\"admin.example, public.example\"",
        "host=\"admin.example",
        "host=\"admin.example\"x",
        "host=.admin.example",
        "for=1.1.1.1;admin;host=admin.example",
        "for=1.1.1.1;ho st=admin.example",
    ] {
        check(element, &[("forwarded", element)], refused);
    }
    // A chain of proxies may create such a list, so it is replaced.
    for host in [
        "admin.example, public.example",
        "admin.example,public.example",
        "admin.example:99999",
        "u@admin.example",
        ".admin.example",
        "admin.example;x",
        "admin.example!",
    ] {
        check(host, &[("x-forwarded-host", host)], Ok(&["public.example"]));
    }
    let twice = [("x-forwarded-host", "admin.example"), ("x-forwarded-host", "public.example")];
    check("two fields", &twice, Ok(&["public.example"]));
    for name in ["x-original-host", "x-host", "x-http-host-override", "x_forwarded_host", "x.forwarded.host"]
    {
        check(name, &[(name, "admin.example")], Ok(&["public.example"]));
    }
}

#[test]
fn forwarded_that_costs_too_much_is_refused() {
    let stage = stage("");
    let check = |row: &str, field: String, expected| {
        check(&stage, row, "public.example", &[("forwarded", &field)], expected);
    };
    let hosts = |count: usize| (0..count).map(|n| format!("host=h{n}.example")).collect::<Vec<_>>().join(",");
    let pairs = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join(";");
    check("32 hops", hosts(32), Ok(&["h31.example"]));
    check("33 hops", hosts(33), Err(400));
    check("16 parameters", pairs(16), Ok(&["public.example"]));
    check("17 parameters", pairs(17), Err(400));
}

#[test]
fn ip_address_host_has_one_spelling() {
    let stage = stage("");
    for (host, status) in [
        ("[::1]", 403),
        ("[0::1]:80", 403),
        ("[0:0:0:0:0:0:0:1]", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1.", 403),
        ("[::2]", 200),
        ("[::1%25lo]", 400),
        (".admin.example", 400),
        ("admin..example", 400),
        ("admin.example.", 403),
        ("ADMIN.EXAMPLE:80", 403),
    ] {
        for (way, (found, received)) in ask(&stage, host, &[]).into_iter().enumerate() {
            assert_eq!((found, received.len()), (status, usize::from(status == 200)), "{host}, {way}");
        }
    }
}

#[test]
fn conflicting_client_addresses_of_a_trusted_proxy_are_refused() {
    let stage = stage("");
    let check = |row: &str, fields: Fields<'_>, expected: u16| {
        for (status, received) in ask(&stage, "public.example", fields) {
            assert_eq!((status, received.len()), (expected, usize::from(expected == 200)), "{row}");
        }
    };
    let listed = ("x-forwarded-for", "192.0.2.1");
    check("the same", &[listed, ("forwarded", "for=192.0.2.1")], 200);
    check("mapped", &[listed, ("forwarded", "for=\"[::ffff:192.0.2.1]\"")], 200);
    check("another", &[listed, ("forwarded", "for=192.0.2.2")], 400);
    check("hidden", &[listed, ("forwarded", "for=_x")], 400);
    check("twice", &[listed, ("forwarded", "for=192.0.2.1;for=192.0.2.1")], 400);
}

#[test]
fn forward_auth_request_names_one_host_and_one_target() {
    for (proxy, sound) in [
        ("nginx", &[("X-Original-Method", "GET"), ("X-Original-URI", "/api/x")][..]),
        ("nginx", &[("X-Original-Method", "GET"), ("X-Original-URL", "http://public.example/api/x")]),
        (
            "traefik",
            &[
                ("X-Forwarded-Method", "GET"),
                ("X-Forwarded-Uri", "/api/x"),
                ("X-Forwarded-Host", "public.example"),
            ],
        ),
        ("envoy", &[]),
    ] {
        let stage = stage(&format!("[forward_auth]\nproxy = \"{proxy}\"\n"));
        let target = if proxy == "envoy" { "/.permgate/auth/api/x" } else { "/.permgate/auth" };
        let bearer = format!("Bearer {}", stage.token);
        let ask = |host: &str, fields: Fields<'_>| {
            let more = [("Host", host), ("Authorization", &bearer)];
            let fields = [&more, sound, fields].concat();
            let one = Client::tcp(stage.gateway.proxy).request("GET", target, &fields, None).status;
            let uri = format!("http://{host}{target}");
            let two = crate::carriers::over_http2(&stage, &uri, &fields[1..]).0;
            assert_eq!(one, two, "{proxy}: {fields:?}");
            one
        };
        assert_eq!(ask("public.example", &[]), 200, "{proxy}: {sound:?}");
        let names_host = |name: &str| sound.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        for (name, value) in [
            ("Forwarded", "host=admin.example"),
            ("Forwarded", "for=1.1.1.1;;host=admin.example"),
            ("Forwarded", "host=public.example;host=admin.example"),
            ("X-Forwarded-Host", "admin.example"),
            ("X-Forwarded-Host", "admin.example, public.example"),
            ("X-Forwarded-Host", "admin.example:99999"),
            ("X-Original-Host", "admin.example"),
            ("X-Original-URL", "http://admin.example/api/x"),
            ("X-Original-URI", "/api/y"),
            ("X-Forwarded-Uri", "/api/y"),
            ("X-Rewrite-URL", "/api/y"),
            ("X_Forwarded_Host", "admin.example"),
        ] {
            let status = ask("public.example", &[(name, value)]);
            assert!([400, 401, 403].contains(&status), "{proxy}, {name}: {value}: {status}");
        }
        // Host may be the gateway's own if another field states the host, but not another service's.
        if !names_host("X-Forwarded-Host") {
            assert_ne!(ask("admin.example", &[]), 200, "{proxy}");
        }
    }
}

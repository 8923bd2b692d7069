//! What a trusted proxy reports about earlier hops.

use super::*;

#[test]
fn a_trusted_proxy_is_added_to() {
    let fixture = Fixture::new();
    let check = |name: &str, fields: &[(&str, &str)], expected: &[(&str, Option<&str>)]| {
        let sent = sent(&fixture, fields, true).unwrap();
        for (field, value) in expected {
            let values: Vec<_> = sent.get_all(*field).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(values, value.iter().copied().collect::<Vec<_>>(), "{name}: {field}");
        }
    };
    check(
        "lists",
        &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2"), ("forwarded", "for=10.0.0.1")],
        &[
            ("x-forwarded-for", Some("10.0.0.1, 10.0.0.2, 192.0.2.1")),
            ("forwarded", Some("for=10.0.0.1, for=192.0.2.1;proto=http;host=\"example.org:8080\"")),
        ],
    );
    check(
        "what it says of the first hop",
        &[("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example"), ("x-forwarded-port", "443")],
        &[
            ("x-forwarded-proto", Some("https")),
            ("x-forwarded-host", Some("a.example")),
            ("x-forwarded-port", Some("443")),
        ],
    );
    check(
        "X-Forwarded-* without Forwarded",
        &[
            ("x-forwarded-for", "10.0.0.1, 2001:db8::1, x"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
        ],
        &[(
            "forwarded",
            Some(
                "for=10.0.0.1;proto=https;host=\"a.example\", for=\"[2001:db8::1]\", for=unknown, \
                 for=192.0.2.1;proto=http;host=\"example.org:8080\"",
            ),
        )],
    );
    check(
        "a scheme alone",
        &[("x-forwarded-proto", "wss")],
        &[
            ("x-forwarded-proto", Some("wss")),
            ("forwarded", Some("for=192.0.2.1;proto=wss;host=\"example.org:8080\"")),
        ],
    );
    check(
        "Forwarded without X-Forwarded-*",
        &[
            ("forwarded", "for=10.0.0.1;proto=https;host=a.example, for=\"[2001:db8::1]:80\""),
            ("forwarded", "for=_x"),
        ],
        &[
            ("x-forwarded-for", Some("10.0.0.1, 2001:db8::1, unknown, 192.0.2.1")),
            ("x-forwarded-proto", Some("https")),
            ("x-forwarded-host", Some("a.example")),
        ],
    );
    check(
        "Forwarded that says nothing sound",
        &[("forwarded", "proto=gopher;host=\"a b\"")],
        &[
            ("x-forwarded-for", Some("unknown, 192.0.2.1")),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-host", Some("example.org:8080")),
        ],
    );
    check(
        "what makes no sense",
        &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b"), ("x-forwarded-port", "x")],
        &[
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-host", Some("example.org:8080")),
            ("x-forwarded-port", None),
        ],
    );
    check(
        "aliases",
        &[("x_forwarded_for", "6.6.6.6")],
        &[("x_forwarded_for", None), ("x-forwarded-for", Some("192.0.2.1"))],
    );
    check("users", &[("x-forwarded-user", "root")], &[("x-forwarded-user", None)]);
    check(
        "Connection does not drop it",
        &[("connection", "x-forwarded-for, forwarded"), ("x-forwarded-for", "10.0.0.1")],
        &[("x-forwarded-for", Some("10.0.0.1, 192.0.2.1"))],
    );
    check(
        "nor what else the proxy says of its client",
        &[("connection", "X-Real-IP, cf-connecting-ip"), ("x-real-ip", "1"), ("cf-connecting-ip", "2")],
        &[("x-real-ip", Some("1")), ("cf-connecting-ip", Some("2"))],
    );
}

//! `[upstream.NAME]`: how it is read, and its errors.

use std::time::Duration;

use super::*;
use crate::settings::Balance;

const URLS: &str = r#"urls = ["http://127.0.0.1:8090"]"#;

#[test]
fn every_key_has_its_effect() {
    let written = r#"urls = [{ url = "http://a:1", weight = 3 }, "http://b:2", { url = "http://c:3", weight = 0 }]
balance = "least-requests"
health = { path = "/up?x=1", interval = "1s", timeout = "3s", rise = 4, fall = 5, status = 204 }
retries = 2
resolve = "7s"
max_connections = 8
max_in_flight = 9
queue = 0
queue_timeout = "20ms""#;
    let config = read(&SMALL.replace(URLS, written)).unwrap();
    let upstream = config.proxy.upstreams.get("up").unwrap();
    let urls: Vec<_> = upstream.urls.iter().map(|one| (one.url.to_string(), one.weight)).collect();
    assert_eq!(urls, [("a:1".into(), 3), ("b:2".into(), 1), ("c:3".into(), 0)]);
    assert_eq!(upstream.balance, Balance::LeastRequests);
    let health = upstream.health.as_ref().unwrap();
    assert_eq!(health.path, "/up?x=1");
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!((health.rise, health.fall, health.status.map(|s| s.as_u16())), (4, 5, Some(204)));
    assert_eq!((upstream.retries, upstream.resolve), (2, Duration::from_secs(7)));
    let limits = [upstream.max_connections, upstream.max_in_flight].map(|limit| limit.unwrap().get());
    assert_eq!((limits, upstream.queue), ([8, 9], 0));
    assert_eq!(upstream.queue_timeout, Duration::from_millis(20));
}

#[test]
fn mistakes_are_told() {
    let check = |name: &str, written: &str, expected: &[&str]| {
        assert_eq!(errors_of(&SMALL.replace(URLS, written)), expected, "{name}");
    };
    check(
        "nothing to send to",
        r#"urls = [{ url = "http://a", weight = 0 }]"#,
        &["3:8 every url has the weight 0: no request could be sent | give one a weight of at least 1"],
    );
    check(
        "the same twice",
        r#"urls = ["http://a", "http://A:80/"]"#,
        &[r#"3:21 "http://A:80/" is named twice | give it a weight"#],
    );
    check(
        "a weight without a url",
        "urls = [{ weight = 2 }]",
        &["3:9 [upstream.up.urls] lacks `url` | add `url = \"...\"`"],
    );
    check(
        "a number",
        r#"urls = ["http://a", 1]"#,
        &["3:21 `upstream.up.urls` must hold texts and tables, this is an integer | "],
    );
    check(
        "health of no path",
        &format!("{URLS}\nhealth.path = \"up\""),
        &["4:15 \"up\" is not a path | write the path to request, such as \"/health\""],
    );
    check(
        "health without a path",
        &format!("{URLS}\nhealth.rise = 1"),
        &["4:1 [upstream.up.health] lacks `path` | add `path = \"...\"`"],
    );
    check(
        "an unknown balance",
        &format!("{URLS}\nbalance = \"least-request\""),
        &["4:11 `upstream.up.balance` cannot be \"least-request\" | did you mean \"least-requests\"?"],
    );
}

#[test]
fn an_upstream_that_is_this_gateway_is_named() {
    let check = |listen: &str, url: &str, expected: bool| {
        let text =
            SMALL.replace("http://127.0.0.1:8090", url) + &format!("[server]\nlisten = [\"{listen}\"]");
        let problems = read(&text).err().map(|errors| errors.0).unwrap_or_default();
        let named =
            problems.iter().filter(|one| one.message.contains("is an address that this gateway listens on"));
        assert_eq!(named.count(), usize::from(expected), "{listen}, {url}");
    };
    check("127.0.0.1:8090", "http://127.0.0.1:8090", true);
    check("0.0.0.0:8090", "http://127.0.0.1:8090", true);
    check("127.0.0.1:8090", "http://localhost:8090", true);
    check("[::]:8090", "http://[::1]:8090", true);
    check("unix:/run/gate.sock", "unix:/run/gate.sock", true);
    check("127.0.0.1:8090", "http://0.0.0.0:8090", true);
    check("127.0.0.1:8090", "http://[::ffff:127.0.0.1]:8090", true);
    // The admin listener's default addresses.
    check("127.0.0.1:8090", "http://127.0.0.1:8081", true);
    check("127.0.0.1:8090", "unix:permgate.sock", true);
    check("127.0.0.1:8090", "unix:./permgate.sock", true);
    check("127.0.0.1:8090", "http://127.0.0.1:8091", false);
    check("127.0.0.1:8090", "http://127.0.0.2:8090", false);
    check("127.0.0.1:8090", "http://app:8090", false);
    check("unix:/run/gate.sock", "unix:/run/app.sock", false);

    let text = SMALL.replace("127.0.0.1:8090", "localhost:8099") + "[admin]\nmetrics = \"127.0.0.1:8099\"";
    let errors = read(&text).expect_err("the listener for metrics");
    assert!(errors.0[0].message.contains("is an address that this gateway listens on"), "{errors}");
}

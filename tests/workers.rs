//! State that several workers of one gateway share.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod support;

use support::{
    gateway::Gateway,
    upstream::{Upstream, json},
};

#[test]
fn workers_share_the_count_of_a_limit() {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let sections = |limits: &str| {
        let services = Gateway::services(upstream.address);
        services.replacen("[service.tracker]\n", &format!("[service.tracker]\n{limits}\n"), 1)
    };
    let quota = r#"limits = [{ per = "token", rate = "20/d" }]"#;
    let gateway = Gateway::with(&sections(quota));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "ci", &["tracker", "hub"]);
    let statuses = || {
        let ask = || (0..15).map(|_| gateway.get("/api/x", Some(&token)).status).collect::<Vec<_>>();
        // The kernel distributes the connections of four clients over both workers.
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect::<Vec<u16>>()
        })
    };
    let count = |statuses: &[u16], status: u16| statuses.iter().filter(|s| **s == status).count();
    let first = statuses();
    assert_eq!((count(&first, 200), count(&first, 429)), (20, 40), "{first:?}");
    assert_eq!(gateway.get("/hub/api", Some(&token)).status, 200, "another service has no limit");
    gateway.write(&sections(r#"limits = { per = "user", rate = "20/d", burst = 25 }"#));
    gateway.must("POST", "/v1/reload", None);
    let second = statuses();
    assert_eq!((count(&second, 200), count(&second, 429)), (25, 35), "{second:?}");
    gateway.write(&sections(&format!("{quota}\ntitle2 = 1")));
    assert_eq!(gateway.operator("POST", "/v1/reload", None).status, 422);
    assert_eq!(count(&statuses(), 200), 0, "a refused reload leaves the limits as they were");
}

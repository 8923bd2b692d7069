//! The metrics page of the real process counts what passes on the proxy's listener.

use std::time::{Duration, Instant};

use crate::{
    harness::{TestDirectory, services},
    support::{http::Client, upstream::Upstream},
};

#[test]
fn open_and_closed_connections_are_counted() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let check = |name: &str, accepted: u64, open: u64| {
        let expected = [accepted, open];
        let figures = || {
            let page = process.operator("GET", "/metrics", None);
            ["permgate_connections_accepted_total", "permgate_connections_open"].map(|family| {
                let row = page.text().lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '));
                row.unwrap_or_else(|| panic!("{family} in {}", page.text())).parse::<u64>().unwrap()
            })
        };
        // The connection's task notices its end after the client has gone.
        let late = Instant::now() + Duration::from_secs(30);
        while figures() != expected && Instant::now() < late {
            std::thread::yield_now();
        }
        assert_eq!(figures(), expected, "{name}");
    };
    check("the admin listener's own count for nothing", 0, 0);
    let mut client = process.open("/api/issues", &token);
    assert_eq!(client.answer("GET").status, 200);
    check("kept alive", 1, 1);
    let silent = Client::tcp(process.proxy);
    check("without a word", 2, 2);
    drop(silent);
    check("one has gone", 2, 1);
    let mut refused = Client::tcp(process.proxy);
    refused.send("nonsense\r\n\r\n");
    assert_eq!(refused.answer("GET").status, 400);
    drop(refused);
    check("refused", 3, 1);
    drop(client);
    check("nobody is left", 3, 0);
    process.stop();
}

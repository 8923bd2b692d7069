//! Upstreams with a name, which is resolved periodically and outside requests.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use permgate::{
    net::Budgets,
    proxy::{Resolver, Resolving, Upstreams},
    settings::UpstreamUrl,
};

use crate::harness::{Gate, Origin, Server, Setup, eventually, nobody};

/// A name server with scripted answers.
#[derive(Clone, Default)]
struct StubResolver {
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl StubResolver {
    fn resolve_to(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    fn lookups(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the gateway has received the current answer.
    fn wait_until_resolved(&self) {
        let asked = self.lookups();
        eventually("it is asked again", || self.lookups() > asked + 1);
    }

    fn start(&self) -> Gate {
        Setup::to(&[])
            .with(|setup| {
                setup.upstream.urls = vec![UpstreamUrl::parse("http://origin.test").unwrap().into()];
                setup.upstream.resolve = Duration::from_millis(20);
                setup.upstreams = Upstreams::with_resolver(Budgets::for_process(), self.clone());
            })
            .start()
    }
}

impl Resolver for StubResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            assert_eq!((name, port), ("origin.test", 80));
            self.asked.fetch_add(1, Ordering::SeqCst);
            let addresses = self.addresses.lock().unwrap().clone();
            if addresses.is_empty() { Err(io::Error::other("no such name")) } else { Ok(addresses) }
        })
    }
}

/// Sends requests on new connections. Returns the names of the servers that answered.
fn ask(gate: &Gate, times: usize) -> String {
    let one = |_| {
        let mut client = gate.client();
        client.send(gate.request("GET /api/x", &["Connection: close"]));
        let (status, _, body) = client.answer();
        if status == 200 { body } else { status.to_string() }
    };
    (0..times).map(one).collect()
}

#[test]
fn requests_follow_the_current_dns_result() {
    let (a, b) = (Server::new("a"), Server::new("b"));
    let names = StubResolver::default();
    names.resolve_to(&[a.address]);
    let gate = names.start();
    assert_eq!(ask(&gate, 3), "aaa");
    assert_eq!(a.accepted(), 1, "a connection is kept while the name leads to the same address");
    names.resolve_to(&[b.address]);
    names.wait_until_resolved();
    assert_eq!(ask(&gate, 3), "bbb", "also what was idle at the old address is given up");
    // Another order of the same addresses is no change.
    names.resolve_to(&[b.address, a.address]);
    names.wait_until_resolved();
    ask(&gate, 1);
    let kept = a.accepted() + b.accepted();
    names.resolve_to(&[a.address, b.address]);
    names.wait_until_resolved();
    ask(&gate, 3);
    assert_eq!(a.accepted() + b.accepted(), kept);
    // A short failure of the name server has no effect.
    names.resolve_to(&[]);
    eventually("it fails", || names.lookups() > 0);
    assert_eq!(ask(&gate, 3).len(), 3);
}

#[test]
fn every_address_is_used_and_failed_ones_are_skipped() {
    let (a, b) = (Origin::new(), Origin::new());
    let names = StubResolver::default();
    names.resolve_to(&[nobody(), a.address, b.address]);
    let gate = names.start();
    // All at once, so that none can use another's connection.
    let mut pairs: Vec<_> = [&a, &b, &a, &b].map(|origin| (gate.client_with_get(), origin.accept())).into();
    for (client, upstream) in &mut pairs {
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.answer().0, 200);
    }
}

#[test]
fn unresolvable_name_is_a_bad_gateway_at_once() {
    let names = StubResolver::default();
    let gate = names.start();
    assert_eq!(ask(&gate, 1), "502");
    assert_eq!(gate.next_outcome(), ("failed".into(), "upstream_connect".into(), 502));
    let a = Server::new("a");
    names.resolve_to(&[a.address]);
    eventually("the name is known in the end", || ask(&gate, 1) == "a");
}

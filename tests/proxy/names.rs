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
    fn say(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the gateway has received the current answer.
    fn heard(&self) {
        let asked = self.asked();
        eventually("it is asked again", || self.asked() > asked + 1);
    }

    fn start(&self) -> Gate {
        Setup::to(&[])
            .with(|setup| {
                setup.upstream.urls = vec![UpstreamUrl::parse("http://origin.test").unwrap().into()];
                setup.upstream.resolve = Duration::from_millis(20);
                setup.upstreams = Upstreams::with_resolver(Budgets::of_process(), self.clone());
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
fn requests_go_where_the_name_leads_now() {
    let (a, b) = (Server::new("a"), Server::new("b"));
    let names = StubResolver::default();
    names.say(&[a.address]);
    let gate = names.start();
    assert_eq!(ask(&gate, 3), "aaa");
    assert_eq!(a.accepted(), 1, "a connection is kept while the name leads to the same address");
    names.say(&[b.address]);
    names.heard();
    assert_eq!(ask(&gate, 3), "bbb", "also what was idle at the old address is given up");
    // Another order of the same addresses is no change.
    names.say(&[b.address, a.address]);
    names.heard();
    ask(&gate, 1);
    let kept = a.accepted() + b.accepted();
    names.say(&[a.address, b.address]);
    names.heard();
    ask(&gate, 3);
    assert_eq!(a.accepted() + b.accepted(), kept);
    // A short failure of the name server has no effect.
    names.say(&[]);
    eventually("it fails", || names.asked() > 0);
    assert_eq!(ask(&gate, 3).len(), 3);
}

#[test]
fn every_address_is_used_and_one_that_fails_is_passed_over() {
    let (a, b) = (Origin::new(), Origin::new());
    let names = StubResolver::default();
    names.say(&[nobody(), a.address, b.address]);
    let gate = names.start();
    // All at once, so that none can use another's connection.
    let mut pairs: Vec<_> = [&a, &b, &a, &b].map(|origin| (gate.asked(), origin.accept())).into();
    for (client, upstream) in &mut pairs {
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.answer().0, 200);
    }
}

#[test]
fn a_name_that_leads_nowhere_is_a_bad_gateway_at_once() {
    let names = StubResolver::default();
    let gate = names.start();
    assert_eq!(ask(&gate, 1), "502");
    assert_eq!(gate.logged(), ("failed".into(), "upstream_connect".into(), 502));
    let a = Server::new("a");
    names.say(&[a.address]);
    eventually("the name is known in the end", || ask(&gate, 1) == "a");
}

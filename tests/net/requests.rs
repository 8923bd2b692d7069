//! Requests that pass: one after another, pipelined, with bodies.

use permgate::net::Limits;

use crate::harness::Gate;

#[test]
fn a_connection_serves_one_request_after_another() {
    let gate = Gate::new(Limits::default());
    let mut client = gate.client();
    for _ in 0..3 {
        assert_eq!(client.get("/x").answer(), (200, "/x".to_owned()));
    }
}

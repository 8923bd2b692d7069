//! No bytes make the gateway and the servers around it disagree about where a message ends: the upstream
//! receives only unambiguous requests, and never one that was hidden in another.

mod chunks;
mod lengths;
mod lines;
mod pipelines;

use crate::stage::{ConnectionState, Heard, Stage, exchange_bytes};

/// The permitted outcomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpectedOutcome {
    /// An error; nothing arrives, and the connection ends.
    Refused(u16),
    /// One request arrives with this body, and the connection may continue.
    Passes(&'static str),
    /// Any safe outcome: at most the one request, never the hidden one.
    Safe,
}

use ExpectedOutcome::{Passes, Refused, Safe};

/// The request that an attacker hides: without a token, for another service's path.
const HIDDEN: &str = "GET /hub/api/hidden HTTP/1.1\r\nHost: g\r\nX-Hidden: 1\r\n\r\n";

fn send(stage: &Stage, head: &str, body: &[u8]) -> Heard {
    let mut bytes = head.replace("{bearer}", stage.bearer().trim_end()).into_bytes();
    bytes.extend_from_slice(body);
    exchange_bytes(stage.gateway.proxy, &bytes, true)
}

/// Checks the outcome of one attack.
fn check(stage: &Stage, row: &str, heard: &Heard, fate: ExpectedOutcome) -> Vec<String> {
    let received = stage.recorder.take();
    let mut failed = Vec::new();
    let mut fail = |what: String| failed.push(format!("{row}: {what}"));
    for one in &received {
        // A request that is truncated ends with its connection, so it is not ambiguous.
        let broken_off = one.fault.as_ref().is_some_and(|fault| fault.starts_with("the end inside a body"));
        if one.fault.is_some() && !broken_off {
            fail(format!("the upstream got {:?}", one.fault));
        }
        if one.target.contains("hidden") || one.fields.iter().any(|(n, _)| n == "x-hidden") {
            fail("the hidden request arrived".into());
        }
        for name in ["transfer_encoding", "content_length", "x-hidden"] {
            if !one.all(name).is_empty() {
                fail(format!("{name} arrived"));
            }
        }
    }
    let whole: Vec<_> = received.iter().filter(|one| one.fault.is_none()).collect();
    let answers = heard.answers();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    match fate {
        Refused(status) => {
            if statuses != [status] {
                fail(format!("answers {statuses:?} instead of {status}: {:?}", heard.end));
            }
            if !whole.is_empty() {
                fail(format!("{whole:?} arrived"));
            }
            if heard.end == ConnectionState::Open {
                fail("the connection was left open".into());
            }
            let close = answers.first().and_then(|answer| answer.field("connection"));
            if close != Some("close") {
                fail(format!("Connection: {close:?}"));
            }
        }
        Passes(body) => match &whole[..] {
            [one] if one.body == body.as_bytes() && statuses.first() == Some(&200) => {}
            other => fail(format!("answers {statuses:?}, arrived {other:?}")),
        },
        Safe => {
            if whole.len() > 1 || heard.end == ConnectionState::Open {
                fail(format!("answers {statuses:?}, arrived {whole:?}, {:?}", heard.end));
            }
        }
    }
    failed
}

fn finish(failed: &[String], rows: usize) {
    assert!(failed.is_empty(), "{} faults in {rows} rows:\n{}", failed.len(), failed.join("\n"));
    println!("{rows} rows");
}

/// Like [`check`], but after a well-formed message the hidden request is an ordinary
/// second one, which is refused without a token.
fn check_pipelined(stage: &Stage, row: &str, heard: &Heard, fate: ExpectedOutcome) -> Vec<String> {
    if fate != Safe {
        return check(stage, row, heard, fate);
    }
    let received = stage.recorder.take();
    let statuses: Vec<u16> = heard.answers().iter().map(|answer| answer.status).collect();
    let sound = matches!(&received[..], [one] if one.fault.is_none() && one.body == b"hello");
    if sound && statuses == [200, 401] && heard.end == ConnectionState::Closed {
        return Vec::new();
    }
    vec![format!("{row}: {statuses:?} {received:?} {:?}", heard.end)]
}

//! Budgets: a client that takes all it can get leaves some for others.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use permgate::net::{BudgetLimits, Limits, Machine};

use crate::{
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, PING, SETTINGS, check, frame},
    harness::{CloseKind, Gate, eventually},
};

fn limits() -> BudgetLimits {
    BudgetLimits::new(Machine::with_raised_file_limit(), 1, None)
}

/// Sends a GET of this path on this stream.
fn ask(client: &mut Frames, stream: u32, path: &str) {
    let mut fields = GET;
    fields[3].1 = path;
    client.headers(END_HEADERS | END_STREAM, stream, &fields);
}

/// Whether the next response is not 200, which HPACK encodes as one index.
fn is_refused(client: &mut Frames) -> bool {
    loop {
        let frame = client.next().expect("an answer");
        if frame.kind == HEADERS {
            return frame.payload.first() != Some(&0x88);
        }
    }
}

#[test]
fn stream_budget_leaves_a_share_for_others() {
    let gate = Gate::budgeted(&BudgetLimits { streams: 32, ..limits() });
    let mut hog = Frames::to(&gate);
    (0..16).for_each(|number| ask(&mut hog, 2 * number + 1, "/never"));
    ask(&mut hog, 101, "/x");
    assert!(is_refused(&mut hog), "as many as are left for all others");
    let mut other = Frames::to(&gate);
    ask(&mut other, 1, "/x");
    assert!(!is_refused(&mut other), "a neighbour has its own");
    assert!(gate.budget.readings().iter().any(|one| one.name == "streams" && one.refused > 0));
    drop((hog, other));
    eventually("all is given back", || gate.budget.streams.used() <= 16);
}

#[test]
fn largest_holder_is_closed_when_responses_fill_the_memory() {
    let gate = Gate::budgeted(&BudgetLimits { send_buffers: 1 << 20, ..limits() });
    let mut hog = Frames::to(&gate);
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    hog.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    (0..20).for_each(|number| ask(&mut hog, 2 * number + 1, "/endless"));
    let mut other = Frames::to(&gate);
    ask(&mut other, 1, "/x");
    assert!(!is_refused(&mut other));
    assert_eq!(hog.end_of(1), "closed");
    ask(&mut other, 3, "/x");
    assert!(!is_refused(&mut other), "the neighbour stays");
    eventually("nothing is held", || gate.budget.send_buffers.used() == 0);
}

#[test]
fn client_that_opens_no_window_is_closed() {
    let limits = Limits { write_timeout: Duration::from_millis(200), ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut client = Frames::to(&gate);
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    ask(&mut client, 1, "/endless");
    assert_eq!(client.end_of(1), "RST 8");
}

#[test]
fn excess_connection_is_refused_when_none_can_be_closed() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut busy = gate.client();
    busy.get("/first").head();
    assert_eq!(gate.client().wait_for_close(), CloseKind::Reset);
    let began = Instant::now();
    assert_eq!(gate.client().wait_for_close(), CloseKind::Reset);
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "the next one does not wait: {:?}",
        began.elapsed()
    );
    drop(busy);
    eventually("there is a place again", || gate.budget.open() == 0);
    assert_eq!(gate.client().get("/x").answer().0, 200);
}

/// Whatever a client does that has been refused, it does not keep others out.
#[test]
fn clients_without_a_permitted_request_make_room() {
    let check = |row: &str, play: &dyn Fn(&Gate) -> Box<dyn std::any::Any>| {
        let gate = Gate::new(&Limits { connections: 2, ..Limits::default() });
        let mut busy = gate.client();
        busy.get("/first").head();
        let stranger = play(&gate);
        let mut next = gate.client();
        assert_eq!(next.get("/x").answer().0, 200, "{row}");
        let refused = gate.budget.readings()[0].refused;
        assert_eq!(refused, 1, "{row}: once, however long it took");
        drop((stranger, next));
        eventually("the permitted one stays", || gate.budget.open() == 1);
        busy.get("/x");
        assert_eq!(gate.budget.open(), 1, "{row}");
    };
    let refused = [GET[0], GET[1], GET[2], (":path", "/refuse")];
    check("takes nothing of a refusal", &|gate| {
        let mut client = Frames::to(gate);
        client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).headers(END_HEADERS | END_STREAM, 1, &refused);
        while client.next().unwrap().stream != 1 {}
        Box::new(client)
    });
    check("sends more of a refused body", &|gate| {
        let mut client = Frames::to(gate);
        client.headers(END_HEADERS, 1, &refused);
        while client.next().unwrap().stream != 1 {}
        Box::new(client)
    });
    check("the same over HTTP/1.1", &|gate| {
        let mut client = gate.client();
        client.send("POST /refuse HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n");
        assert_eq!(client.head().1, 401);
        Box::new(client)
    });
    check("does not read that an idle connection closes", &|gate| {
        let mut client = Frames::to(gate);
        client.headers(END_HEADERS | END_STREAM, 1, &GET);
        assert_eq!(client.end_of(1), "answered");
        Box::new(client)
    });
}

/// By the last GOAWAY, a client whose request was on its way knows that it may send it again.
#[test]
fn http2_connection_that_makes_room_says_what_it_has_served() {
    let gate = Gate::new(&Limits { connections: 1, ..Limits::default() });
    let mut idle = Frames::to(&gate);
    idle.headers(END_HEADERS | END_STREAM, 1, &GET);
    assert_eq!(idle.end_of(1), "answered");
    assert_eq!(gate.client().get("/x").answer().0, 200);
    let told: Vec<_> = std::iter::from_fn(|| idle.next()).filter(|frame| frame.kind == GOAWAY).collect();
    let [.., last] = &told[..] else { panic!("no GOAWAY") };
    assert_eq!(last.payload, [0, 0, 0, 1, 0, 0, 0, 0], "the last stream, and no error");
}

#[test]
fn half_closed_connections_make_room_before_idle_ones() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let gate = Gate::new(&limits);
    let mut idle = gate.client();
    assert_eq!(idle.get("/x").answer().0, 200);
    for _ in 0..3 {
        let mut left = gate.client();
        left.get("/first").head();
        left.socket.shutdown(Shutdown::Write).unwrap();
        // The worker has noticed that by the time it answers the next request.
        assert_eq!(idle.get("/x").answer().0, 200, "the idle one stays");
    }
    assert_eq!(gate.client().get("/x").answer().0, 200);
    assert_eq!(idle.get("/x").answer().0, 200, "the idle one stays");
}

#[test]
fn idle_connections_make_room_on_every_worker() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let gate = Gate::with(2, &limits, |listener| listener);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = gate.client();
        assert_eq!(client.get("/y").answer().0, 200);
        clients.push(client);
    }
}

/// Single bytes of a body do not excuse any number of control frames between them.
#[test]
fn control_frames_between_single_bytes_exceed_the_limit() {
    check("PING between bytes", "GOAWAY 11", |client| {
        client.headers(END_HEADERS, 1, &[(":method", "POST"), GET[1], GET[2], (":path", "/echo")]);
        for _ in 0..20 {
            client.send(DATA, 0, 1, b"x");
            client.raw(&frame(PING, 0, 0, &[0; 8]).repeat(900));
        }
    });
}

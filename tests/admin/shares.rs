//! No account keeps all others from the listener, from signing in, or from reading.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{Credentials, Fixture, PASSWORD, new_token};

/// The login's credentials, in a header field.
fn bearer(fixture: &Fixture, login: &str) -> String {
    let Credentials::Bearer(token) = fixture.credentials(login) else { unreachable!() };
    format!("Authorization: Bearer {token}\r\n")
}

fn connect(fixture: &Fixture) -> TcpStream {
    let stream = TcpStream::connect(fixture.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Begins a request whose body is incomplete.
fn begin(stream: &mut TcpStream, target: &str, credentials: &str) {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{credentials}\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    // The listener may have closed the connection.
    let _ = stream.write_all(head.as_bytes());
}

/// Waits until so many of the requests in flight have this target.
fn await_live(fixture: &Fixture, target: &str, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while fixture.must("GET", "/v1/live", None).to_string().matches(target).count() < count {
        assert!(Instant::now() < deadline, "{target}");
    }
}

#[test]
fn one_account_does_not_keep_others_from_the_listener() {
    let check = |row: &str, fixture: Fixture, count: usize, hold: &dyn Fn(&mut TcpStream, &str)| {
        fixture.user("eve", &[]);
        fixture.user("alice", &[]);
        let (alice, eve) = (bearer(&fixture, "alice"), bearer(&fixture, "eve"));
        let open = |_| {
            let mut stream = connect(&fixture);
            hold(&mut stream, &eve);
            stream
        };
        let held: Vec<TcpStream> = (0..count).map(open).collect();
        // Until none of them is idle.
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..5 {
            let mut stream = connect(&fixture);
            let head =
                format!("GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\n{alice}Connection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{row}: {}", String::from_utf8_lossy(&answer));
        }
        drop(held);
    };
    let slow = |stream: &mut TcpStream, eve: &str| begin(stream, "/v1/users/me/tokens", eve);
    check("the most connections by default", Fixture::start(), 300, &slow);
    check("the fewest connections", Fixture::with_connections(8), 6, &slow);
    // A quarter is reserved for unix sockets.
    check(
        "without credentials after a request with them",
        Fixture::with_connections(32),
        24,
        &|stream, eve| {
            let head = format!("GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\n{eve}\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            begin(stream, "/v1/session", "");
        },
    );
}

/// It may have the text of a new token, which is shown once.
#[test]
fn answer_to_a_change_is_not_lost_to_make_room() {
    // Six over TCP; the share of an account is two.
    let fixture = Fixture::with_connections(8);
    let target = "/v1/users/me/tokens";
    let logins = ["eve", "bob", "carol"];
    let [eve, bob, carol] = logins.map(|login| {
        fixture.user(login, &[]);
        bearer(&fixture, login)
    });
    fixture.allow("eve", &["admin-write"]);
    let mut held: Vec<TcpStream> = [&eve, &eve, &bob, &bob, &carol]
        .into_iter()
        .zip(1..)
        .map(|(credentials, count)| {
            let mut stream = connect(&fixture);
            begin(&mut stream, target, credentials);
            await_live(&fixture, target, count);
            stream
        })
        .collect();
    let hold = Arc::new(tokio::sync::Notify::new());
    *fixture.around.hold.lock().unwrap() = Some(hold.clone());
    let mut reload = connect(&fixture);
    let head = format!("POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n{eve}Connection: close\r\n\r\n");
    reload.write_all(head.as_bytes()).unwrap();
    await_live(&fixture, "/v1/reload", 1);
    // Longer than a request has at least.
    std::thread::sleep(Duration::from_millis(300));
    let mut refused = connect(&fixture);
    let _ = refused.write_all(b"GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(refused.read(&mut [0; 100]).unwrap_or(0), 0, "there is no room");
    hold.notify_one();
    let mut answer = String::new();
    let _ = reload.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    held.clear();
}

/// Otherwise an account that keeps setting its own password would keep everybody from signing in.
#[test]
fn one_account_does_not_take_all_turns_of_those_who_sign_in() {
    let fixture = Fixture::start();
    for login in ["alice", "eve"] {
        fixture.user(login, &[]);
        fixture.must("PUT", &format!("/v1/users/{login}/password"), Some(json!({"password": PASSWORD})));
    }
    let (eve, over) = (fixture.credentials("eve"), AtomicBool::new(false));
    let change = json!({"password": PASSWORD, "current": PASSWORD});
    let sign_in = json!({"login": "alice", "password": PASSWORD});
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    fixture.call(&eve, "PUT", "/v1/users/me/password", Some(&change));
                }
            });
        }
        let signed_in = || fixture.call(&Credentials::Anonymous, "POST", "/v1/session", Some(&sign_in));
        let answers: Vec<u16> = (0..10).map(|_| signed_in().status).collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(answers, [201; 10]);
    });
}

#[test]
fn one_account_does_not_take_all_places_of_those_who_read() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let alice = fixture.credentials("alice");
    // Many readings, but not too many.
    let body = json!({"method": "GET", "url": format!("/api{}", "/a%2fb".repeat(900)), "user": "me"});
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| {
                assert_eq!(fixture.call(&alice, "POST", "/v1/explain", Some(&body)).status, 200);
            });
        }
        for _ in 0..20 {
            assert_eq!(fixture.call(&Credentials::Operator, "GET", "/v1/users", None).status, 200);
        }
    });
}

/// A report of leaked tokens may be large.
#[test]
fn large_bodies_do_not_wait_for_the_turn_of_another_account() {
    let fixture = Fixture::start();
    for login in ["alice", "eve"] {
        fixture.user(login, &[]);
        fixture.must("PUT", &format!("/v1/users/{login}/password"), Some(json!({"password": PASSWORD})));
    }
    let (alice, eve) = (fixture.credentials("alice"), fixture.credentials("eve"));
    let change = json!({"password": PASSWORD, "current": PASSWORD});
    let explain = json!({"method": "GET", "url": "/api", "user": "me", "client": " ".repeat(20_000)});
    let leaks = json!({"texts": vec!["x".repeat(200); 100]});
    let in_flight = |count: usize| {
        while fixture.must("GET", "/v1/live", None)["items"].as_array().unwrap().len() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..80 {
            scope.spawn(|| fixture.call(&eve, "PUT", "/v1/users/me/password", Some(&change)));
        }
        in_flight(40);
        let waiting = scope.spawn(|| fixture.call(&eve, "POST", "/v1/explain", Some(&explain)));
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(fixture.call(&alice, "POST", "/v1/leaks", Some(&leaks)).status, 200);
        assert!(!waiting.is_finished(), "40 derivations take longer");
    });
}

#[test]
fn one_account_does_not_take_all_memory_for_bodies() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.user("eve", &[]);
    let (alice, eve) = (fixture.credentials("alice"), bearer(&fixture, "eve"));
    let most = 1 << 20;
    fixture.budgets.bodies.set_limit(most);
    // Each connection holds as much as it leaves, with a body that never ends.
    let held: Vec<TcpStream> = (1..=20)
        .map(|step| {
            let mut stream = connect(&fixture);
            let head = format!(
                "POST /v1/users/me/tokens HTTP/1.1\r\nHost: localhost\r\n{eve}\
                 Content-Type: application/json\r\nContent-Length: {most}\r\n\r\n"
            );
            let _ = stream.write_all(&[head.into_bytes(), vec![b' '; most >> step]].concat());
            let deadline = Instant::now() + Duration::from_millis(300);
            while fixture.budgets.bodies.left() > most >> step && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            stream
        })
        .collect();
    let body = new_token("small", &["permgate"]);
    assert_eq!(fixture.call(&alice, "POST", "/v1/users/me/tokens", Some(&body)).status, 201);
    assert_eq!(fixture.sign_in("alice", PASSWORD).outcome().0, 401, "no password");
    drop(held);
}

/// A derivation goes on when its client is gone.
#[test]
fn clients_that_reset_do_not_take_all_turns_of_those_who_sign_in() {
    let fixture = Fixture::start();
    for login in ["alice", "bob", "eve"] {
        fixture.user(login, &[]);
    }
    fixture.allow("eve", &["update-user"]);
    fixture.must("PUT", "/v1/users/alice/password", Some(json!({"password": PASSWORD})));
    let (eve, over) = (bearer(&fixture, "eve"), AtomicBool::new(false));
    let body = json!({"password": PASSWORD}).to_string();
    let change = format!(
        "PUT /v1/users/bob/password HTTP/1.1\r\nHost: localhost\r\n{eve}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = connect(&fixture);
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    let _ = stream.write_all(change.as_bytes());
                    std::thread::sleep(Duration::from_millis(15));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        let answers: Vec<u16> = (0..5).map(|_| fixture.sign_in("alice", PASSWORD).status).collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(answers, [201; 5]);
    });
}

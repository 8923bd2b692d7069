//! SIGKILL in a loop while tokens are created and revoked and users are banned: every acknowledged change is
//! there after each restart.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use serde_json::json;

use crate::installation::{Installation, PATIENCE, Process, Sockets};

/// Number of kills; `PERMGATE_TEST_KILLS` overrides it.
const KILLS: usize = 5;
const CLIENTS: usize = 4;

/// What a client knows from answers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpectedAnswer {
    Good,
    Refused,
    /// A change was requested but not answered, so both outcomes are correct.
    Either,
}

struct Token {
    id: String,
    text: String,
    expected: ExpectedAnswer,
}

#[test]
fn acknowledged_changes_survive_every_kill() {
    let kills = std::env::var("PERMGATE_TEST_KILLS").ok().map_or(KILLS, |n| n.parse().unwrap());
    let installation = Installation::new();
    let tokens: Mutex<Vec<Token>> = Mutex::default();
    let mut process = installation.run();
    for round in 0..kills {
        let users: Vec<String> = (0..CLIENTS).map(|client| format!("user-{round}-{client}")).collect();
        users.iter().for_each(|login| process.user(login));
        let acknowledged = AtomicUsize::new(0);
        let sockets = process.sockets();
        std::thread::scope(|scope| {
            for login in &users {
                let (sockets, acknowledged, tokens) = (&sockets, &acknowledged, &tokens);
                scope.spawn(move || {
                    let own = traffic(sockets, login, acknowledged);
                    tokens.lock().unwrap().extend(own);
                });
            }
            // Each round is killed at another point, while all clients are making changes.
            let begun = Instant::now();
            while acknowledged.load(Ordering::Relaxed) < 23 + 31 * (round % 4) {
                assert!(begun.elapsed() < PATIENCE, "nothing is acknowledged any more");
                std::thread::yield_now();
            }
            process.kill();
        });
        process = installation.run();
        check(&process, &tokens.lock().unwrap(), round);
        installation.must("audit verify");
    }
    let tokens = tokens.into_inner().unwrap();
    let count = |expected| tokens.iter().filter(|token| token.expected == expected).count();
    assert!(
        count(ExpectedAnswer::Good) >= kills && count(ExpectedAnswer::Refused) >= kills,
        "both kinds were seen"
    );
    process.stop();
    installation.must("--offline audit verify");
    check(&installation.run(), &tokens, kills);
}

fn check(process: &Process, tokens: &[Token], round: usize) {
    for Token { id, text, expected } in tokens {
        let status = process.status(text);
        match expected {
            ExpectedAnswer::Good => assert_eq!(status, 200, "round {round}: {id} was acknowledged as made"),
            ExpectedAnswer::Refused => {
                assert_eq!(status, 401, "round {round}: {id} was acknowledged as ended");
            }
            ExpectedAnswer::Either => {
                assert!(status == 200 || status == 401, "round {round}: {id}: {status}");
            }
        }
    }
}

/// Makes changes until the process is gone: every second token is revoked; at the end the
/// user is banned and unbanned in turn.
fn traffic(sockets: &Sockets, login: &str, acknowledged: &AtomicUsize) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for number in 0.. {
        let Some(made) = sockets.create(login, &format!("token {number}")) else { break };
        assert_eq!(made.status, 201, "{made:?}");
        acknowledged.fetch_add(1, Ordering::Relaxed);
        let (id, text) = made.token();
        tokens.push(Token { id, text, expected: ExpectedAnswer::Good });
        if number % 2 == 1 {
            let token = tokens.last_mut().unwrap();
            token.expected = ExpectedAnswer::Either;
            let Some(revoked) = sockets.revoke(&token.id) else { break };
            assert_eq!(revoked.status, 200, "{revoked:?}");
            token.expected = ExpectedAnswer::Refused;
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if number % 5 == 4 && ban_and_unban(sockets, login, &mut tokens, acknowledged).is_none() {
            break;
        }
    }
    tokens
}

/// `None`: the process is gone; the possible outcomes are recorded.
fn ban_and_unban(
    sockets: &Sockets,
    login: &str,
    tokens: &mut [Token],
    acknowledged: &AtomicUsize,
) -> Option<()> {
    let mut good: Vec<&mut Token> =
        tokens.iter_mut().filter(|token| token.expected == ExpectedAnswer::Good).collect();
    for (verb, body, expected) in [
        ("ban", Some(json!({"reason": "test"})), ExpectedAnswer::Refused),
        ("unban", None, ExpectedAnswer::Good),
    ] {
        good.iter_mut().for_each(|token| token.expected = ExpectedAnswer::Either);
        let answer = sockets.operator("POST", &format!("/v1/users/{login}/{verb}"), body.as_ref())?;
        assert_eq!(answer.status, 200, "{answer:?}");
        good.iter_mut().for_each(|token| token.expected = expected);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Some(())
}

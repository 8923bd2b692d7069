//! EIO and ENOSPC at every kind of write: every acknowledged change is there after a restart, and a removal
//! is in force from the moment at which it was requested.

use std::fs;

use crate::{
    faults::Tracer,
    installation::{Installation, Process},
};

struct Token {
    id: String,
    text: String,
    /// What the gateway has answered; `None`: the outcome is unknown.
    good: Option<bool>,
}

/// Makes changes under a fault of the calls on one file of the generation, then restarts without it. In the
/// file's name, `{journal}` stands for the newest file of the journal and `{next}` for the one after it.
fn check(row: &str, file: &str, fault: &str) {
    let installation = Installation::new();
    let process = installation.run();
    process.user("alice");
    let mut tokens: Vec<Token> = Vec::new();
    for number in 0..10 {
        let (id, text) = process.token("alice", &format!("token {number}"));
        tokens.push(Token { id, text, good: Some(true) });
    }
    let generation = installation.path().join("data/gen-1");
    let journals =
        fs::read_dir(&generation).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let newest =
        journals.filter_map(|name| name.strip_prefix("journal-")?.parse::<u64>().ok()).max().unwrap();
    let name = |number: u64| format!("journal-{number:010}");
    let file = file.replace("{journal}", &name(newest)).replace("{next}", &name(newest + 1));
    let path = generation.join(file).display().to_string().trim_end_matches('/').to_owned();
    let inject = format!("inject={fault}");
    let Some(tracer) = Tracer::attach(&["-f", "-e", &inject, "-P", &path], process.id()) else { return };
    assert!(changes(&process, &mut tokens, row), "{row}: nothing was refused: {}", process.output());
    drop(tracer);
    if tokens.iter().any(|token| token.good.is_none()) {
        let after = process.sockets().create("alice", "after").unwrap();
        assert_eq!(
            after.status, 503,
            "{row}: until a restart, since what was taken away may come back: {after:?}"
        );
    }
    // It continues to serve, and removals stay in force.
    for Token { id, text, good } in &tokens {
        assert_eq!(
            process.status(text),
            if good == &Some(true) { 200 } else { 401 },
            "{row}: {id}: {good:?}"
        );
    }
    process.kill();

    let process = installation.run();
    for Token { id, text, good } in &tokens {
        match good {
            Some(true) => assert_eq!(process.status(text), 200, "{row}: {id} was acknowledged"),
            Some(false) => assert_eq!(process.status(text), 401, "{row}: {id} was acknowledged"),
            // Reported as not durable.
            None => {}
        }
    }
    let (code, words) = installation.run_command("store verify");
    assert_eq!(code, Some(0), "{row}: {words}");
    installation.must("audit verify");
    for Token { id, text, .. } in &tokens {
        process.must("DELETE", &format!("/v1/tokens/{id}"), None);
        assert_eq!(process.status(text), 401, "{row}: {id}");
    }
    process.stop();
}

/// Makes changes until some are refused, for more than one file of the journal, and then
/// a few more. Returns whether any was refused.
fn changes(process: &Process, tokens: &mut Vec<Token>, row: &str) -> bool {
    let (mut refused, mut more) = (0, 6);
    for number in 0..400 {
        let made = process.sockets().create("alice", &format!("later {number}")).unwrap();
        match made.status {
            201 => {
                let (id, text) = made.token();
                tokens.push(Token { id, text, good: Some(true) });
            }
            503 => refused += 1,
            _ => panic!("{row}: {made:?}"),
        }
        if refused > 0 || number % 50 == 0 {
            let token = tokens.iter_mut().find(|token| token.good == Some(true)).unwrap();
            let revoked = process.operator("DELETE", &format!("/v1/tokens/{}", token.id), None);
            match revoked.status {
                200 => token.good = Some(false),
                503 => {
                    assert_eq!(revoked.outcome().1, "not_durable", "{row}: {revoked:?}");
                    token.good = None;
                    refused += 1;
                }
                _ => panic!("{row}: {revoked:?}"),
            }
            assert_eq!(process.status(&token.text), 401, "{row}: removed at once");
        }
        more -= i32::from(refused > 0);
        if more == 0 {
            break;
        }
    }
    refused > 0
}

#[test]
fn journal_write_error_loses_nothing() {
    check("a batch", "{journal}", "pwrite64:error=EIO");
    check("a batch on a full disk", "{journal}", "pwrite64:error=ENOSPC");
    check("a slot", "{journal}", "pwrite64:error=EIO:when=2+2");
    check("a sync", "{journal}", "fdatasync:error=EIO:when=3");
}

#[test]
fn journal_error_while_creating_a_file_loses_nothing() {
    check("creation", "{next}.new", "openat:error=ENOSPC");
    check("content", "{next}.new", "pwrite64:error=ENOSPC");
    check("content, the last of it", "{next}.new", "pwrite64:error=EIO:when=5");
    check("sync", "{next}.new", "fsync:error=EIO");
    check("name", "{next}.new", "rename:error=EIO");
    check("directory", "", "fsync:error=EIO");
}

#[test]
fn sled_write_error_loses_nothing() {
    let calls = "pwrite64,write,ftruncate,fsync,fdatasync";
    for error in ["EIO", "ENOSPC"] {
        check(error, "sled/db", &format!("{calls}:error={error}"));
    }
}

/// The journal may have the change, so the caller must not be told that nothing was changed.
#[test]
fn creation_with_unknown_outcome_is_reported_as_such() {
    let installation = Installation::new();
    let process = installation.run();
    process.user("alice");
    let journal = installation.path().join("data/gen-1/journal-0000000002").display().to_string();
    let inject = ["-f", "-e", "inject=fdatasync:error=EIO", "-P", &journal];
    let Some(tracer) = Tracer::attach(&inject, process.id()) else { return };
    let made = process.sockets().create("alice", "unknown").unwrap();
    drop(tracer);
    assert_eq!(made.status, 503, "{made:?}");
    assert!(!made.text.contains("Nothing was changed"), "{made:?}");
    let later = process.sockets().create("alice", "later").unwrap();
    assert!(later.text.contains("Nothing was changed"), "{later:?}");
}

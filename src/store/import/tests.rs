use std::{
    fs,
    io::{BufReader, Read},
};

use super::*;
use crate::{
    authz::accounts::fold,
    store::{
        conformance::{id, live_token_named},
        model::{Revocation, RevokeReason, TokenRecord},
        tests::{configuration, service},
    },
};

fn settings(directory: &tempfile::TempDir) -> Settings {
    Settings { path: directory.path().join("store"), ballast: 0 }
}

fn options(make_owners: bool) -> Options {
    let services = ["svc1", "svc2"].map(|key| service(key, &format!("/{key}"), &[]));
    Options { make_owners, configuration: configuration(services.into()), now: Timestamp::from_millis(1_000) }
}

fn import(settings: &Settings, make_owners: bool, text: &[u8]) -> (Report, Vec<String>) {
    let mut bad = Vec::new();
    let report = offline(settings, options(make_owners), text, &mut |event| {
        if let ImportEvent::BadLine { number, why } = event {
            bad.push(format!("{number}: {why}"));
        }
    });
    (report.unwrap(), bad)
}

fn token(number: usize, owner: &str, name: &str, scope: &str) -> String {
    let digest = blake3::hash(&number.to_le_bytes()).to_hex();
    format!(r#"{{"digest":"{digest}","owner":"{owner}","name":"{name}","scope":[{scope}]}}"#)
}

#[test]
fn what_is_imported_is_in_the_store_and_bad_lines_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let lines = [
        r#"{"user":"ann","name":"Ann"}"#.to_owned(),
        token(1, "ann", "one", r#""svc1","svc2:read""#),
        token(2, "ANN", "two", r#""svc1""#),
        token(1, "ann", "again", r#""svc1""#),
        token(3, "ann", "ONE", r#""svc1""#),
        token(4, "nobody", "x", r#""svc1""#),
        token(5, "ann", "five", r#""hub""#),
        token(6, "ann", "six", ""),
        token(7, "ann", "seven", r#""svc1","svc1:read""#),
        token(8, "ann", "a\\u202eb", r#""svc1""#),
        "  ".to_owned(),
        "{\"user\":".to_owned(),
        "x".repeat(2 << 20),
        r#"{"group":"readers","members":["ann"]}"#.to_owned(),
        r#"{"group":"all-users","members":["ann"]}"#.to_owned(),
        r#"{"user":"me"}"#.to_owned(),
        format!(r#"{{"expires_at":"1970-01-01T00:00:01Z",{}"#, &token(9, "ann", "nine", r#""svc1""#)[1..]),
        token(10, "ann", "ten", r#""svc1""#),
    ];
    let (report, bad) = import(&settings, false, lines.join("\r\n").as_bytes());
    let expected = [
        (5, "already has a token named \"ONE\""),
        (6, "no user \"nobody\""),
        (7, "no service \"hub\""),
        (8, "1 to 50 services"),
        (9, "svc1 twice"),
        (10, "bidi"),
        (12, "not a JSON object"),
        (13, "longer than"),
        (15, "all-users"),
        (16, "reserved"),
        (17, "expired"),
    ];
    assert_eq!(bad.len(), expected.len(), "{bad:#?}");
    for (line, (number, why)) in bad.iter().zip(expected) {
        assert!(line.starts_with(&format!("{number}: ")) && line.contains(why), "{line}");
    }
    assert_eq!((report.lines, report.tokens, report.users, report.skipped), (18, 3, 1, 1));
    assert_eq!((report.groups, report.members, report.bad), (1, 1, 11));

    let engine = Engine::open(&settings).unwrap();
    let user = &engine.users().unwrap()[0];
    assert_eq!((user.login.as_str(), user.name.as_str()), ("ann", "Ann"));
    let tokens = engine.tokens_of(&user.id, None, 10).unwrap();
    let mut names: Vec<_> = tokens.iter().map(|token| token.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "ten", "two"]);
    assert!(tokens.iter().all(|token| token.imported && token.revoked.is_none()));
    let now = Timestamp::from_millis(0);
    assert!(live_token_named(&engine, &user.id, &fold("TWO"), now).unwrap().is_some());
    assert_eq!(engine.members().unwrap(), [(engine.groups().unwrap()[0].id.clone(), user.id.clone())]);
    assert_eq!(engine.token(id(1)).unwrap(), None);
    let events = engine.audit_from(0, 10).unwrap();
    let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["store.create", "user.create", "group.create", "group.member.add", "token.import"]);
    let counts = r#"{"groups":1,"members":1,"tokens":3,"users":1}"#;
    assert_eq!(events.last().unwrap().change.as_deref(), Some(counts));
    engine.close();
}

#[test]
fn a_second_run_goes_on_where_the_first_ended() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let lines: Vec<String> =
        (0..100).map(|n| token(n, &format!("user{}", n % 7), &format!("t{n}"), r#""svc1""#)).collect();
    let (first, _) = import(&settings, true, lines[..60].join("\n").as_bytes());
    assert_eq!((first.tokens, first.users), (60, 7));
    let (second, bad) = import(&settings, true, lines.join("\n").as_bytes());
    assert_eq!((second.tokens, second.skipped, second.users), (40, 60, 0), "{bad:?}");
}

/// The import's own load of the rows is the one that finds damage.
#[test]
fn a_damaged_replica_is_rebuilt_first() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let line = |n: usize| token(n, "ann", &format!("t{n}"), r#""svc1""#);
    let lines: Vec<String> = (0..500).map(line).collect();
    assert_eq!(import(&settings, true, lines.join("\n").as_bytes()).0.tokens, 500);
    let sled = fs::read_dir(&settings.path).unwrap().map(|entry| entry.unwrap().path().join("sled/db"));
    let sled = sled.into_iter().find(|path| path.exists()).unwrap();
    let first = blake3::hash(&0usize.to_le_bytes());
    for (name, before, length) in [("a key", 0, 1), ("a row", -40, 8), ("a node's head", 300, 250)] {
        // sled then makes a snapshot. Behind it, damage would only cut sled's log, which the journal completes.
        Engine::open(&settings).unwrap().close();
        let mut file = fs::read(&sled).unwrap();
        // Older copies of the row, too.
        let places = file.windows(32).enumerate().filter(|(_, bytes)| bytes == first.as_bytes());
        for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
            let from = at.strict_sub_signed(before);
            file[from..from + length].iter_mut().for_each(|byte| *byte ^= 1);
        }
        fs::write(&sled, file).unwrap();
        let marker = sled.with_file_name("marker");
        fs::write(&marker, "").unwrap();
        let (report, bad) = import(&settings, true, lines.join("\n").as_bytes());
        assert_eq!((report.tokens, report.skipped), (0, 500), "{name}: {bad:?}");
        assert!(!marker.exists(), "{name}: not rebuilt");
    }
}

#[test]
fn what_has_ended_or_is_anothers_is_not_there_already() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let scope = r#""svc1""#;
    let lines =
        [token(1, "ann", "one", scope), token(2, "ann", "two", scope), token(3, "ann", "three", scope)];
    assert_eq!(import(&settings, true, lines.join("\n").as_bytes()).0.tokens, 3);
    let engine = Engine::open(&settings).unwrap();
    let owner = engine.users().unwrap()[0].id.clone();
    let now = Timestamp::from_millis(0);
    let named = |name: &str| live_token_named(&engine, &owner, name, now).unwrap().unwrap();
    let at = Timestamp::from_millis(500);
    let revoked = Some(Revocation { at, by: None, reason: RevokeReason::Leaked });
    let revoked = TokenRecord { revoked, ..named("one") };
    let expired = TokenRecord { expires_at: Some(at), ..named("three") };
    engine.commit(&[Op::PutToken(revoked), Op::PutToken(expired)]).unwrap();
    engine.close();

    let lines = [
        token(1, "ann", "one", scope),
        token(2, "bob", "two", scope),
        token(2, "ann", "two", scope),
        token(4, "ann", "three", scope),
    ];
    let (report, bad) = import(&settings, true, lines.join("\n").as_bytes());
    assert_eq!(
        (report.tokens, report.skipped, report.bad),
        (1, 1, 2),
        "the name of an expired token is free"
    );
    assert!(bad[0].contains("1: ") && bad[0].contains("revoked or replaced"), "{bad:?}");
    assert!(bad[1].contains("2: ") && bad[1].contains("another owner"), "{bad:?}");
}

#[test]
fn what_is_underway_counts_as_taken() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    // Every name twice, next to each other and far apart: in one batch, in the next one, and later.
    let named = |n: usize, name: String| token(n, "ann", &name, r#""svc1""#);
    let mut lines: Vec<String> = (0..50).map(|n| named(n, format!("t{n}"))).collect();
    for n in 0..50 {
        lines.insert(50 + n - n / 2, named(1000 + n, format!("T{}", 49 - n)));
    }
    for chunk in [1, 2, 3, 10, 1000] {
        let settings = Settings { path: settings.path.join(chunk.to_string()), ..settings.clone() };
        let (mut bad, mut progress) = (0, Vec::new());
        let mut on_event = |event: ImportEvent<'_>| match event {
            ImportEvent::BadLine { .. } => bad += 1,
            ImportEvent::Progress(report) => progress.push(report.tokens),
        };
        let report = offline_in_chunks(
            chunk..=chunk,
            &settings,
            options(true),
            lines.join("\n").as_bytes(),
            &mut on_event,
        )
        .unwrap();
        assert_eq!((report.tokens, report.users, report.bad, bad), (50, 1, 50, 50), "{chunk}");
        assert!(progress.is_sorted() && progress.last() == Some(&50), "{chunk}: {progress:?}");
        let engine = Engine::open(&settings).unwrap();
        let owner = engine.users().unwrap()[0].id.clone();
        assert_eq!(engine.tokens_of(&owner, None, 100).unwrap().len(), 50, "{chunk}");
        engine.close();
    }
}

#[test]
fn an_error_tells_what_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let lines: String = (0..3).map(|n| token(n, "ann", &format!("t{n}"), r#""svc1""#) + "\n").collect();
    let input = BufReader::new(lines.as_bytes().chain(Broken));
    let mut progress = Vec::new();
    let mut on_event = |event: ImportEvent<'_>| {
        if let ImportEvent::Progress(report) = event {
            progress.push(report.tokens);
        }
    };
    let outcome = offline_in_chunks(1..=1, &settings, options(true), input, &mut on_event);
    assert!(matches!(outcome, Err(ImportError::Input { line: 4, .. })), "{outcome:?}");
    assert_eq!(progress, [1, 2, 3], "what is under way is stored");
}

/// Input that cannot be read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[test]
fn a_group_line_that_is_refused_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let line = br#"{"group":"readers","members":["fine","not a login"]}"#;
    let (report, bad) = import(&settings, true, line);
    assert!(bad.len() == 1 && bad[0].contains("a login has 1 to 64"), "{bad:?}");
    assert_eq!((report.users, report.groups, report.members), (0, 0, 0));
    let engine = Engine::open(&settings).unwrap();
    assert!(engine.users().unwrap().is_empty() && engine.groups().unwrap().is_empty());
}

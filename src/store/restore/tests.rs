use std::{fs, ops::ControlFlow};

use super::*;
use crate::store::{
    backup,
    conformance::{event, id, live_token_named, token},
    model::{AuditEvent, GrantRecord, IdentityRecord, TokenRecord, UserKind, UserRecord},
};

struct TestDirectory {
    directory: tempfile::TempDir,
}

impl TestDirectory {
    fn settings(&self) -> Settings {
        Settings { path: self.directory.path().join("store"), ballast: 0 }
    }

    fn restore(&self, backup: &[u8], accept_lost_revocations: bool) -> Result<Restored, RestoreError> {
        let options = Options { accept_lost_revocations, now: at(50) };
        offline(&self.settings(), &options, backup, &mut |_| {})
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn user(banned: bool) -> UserRecord {
    UserRecord {
        id: "ann".to_owned(),
        login: "ann".to_owned(),
        name: "Ann".to_owned(),
        email: None,
        kind: UserKind::Human,
        password: None,
        banned: banned.then(|| "left".to_owned()),
        created_at: at(1),
        deleted_at: None,
        revision: 1,
    }
}

fn identity(number: u8, user: &str) -> IdentityRecord {
    let (issuer, subject) = ("https://id.example".to_owned(), number.to_string());
    IdentityRecord { issuer, subject, user: user.to_owned() }
}

fn revoked(number: usize) -> Op {
    let revocation = Revocation { at: at(9), by: None, reason: RevokeReason::Leaked };
    Op::PutToken(TokenRecord { revoked: Some(revocation), ..token(number, "ann") })
}

/// A store with 600 tokens, and its backup.
fn filled() -> (TestDirectory, Engine, Vec<u8>) {
    let dir = TestDirectory { directory: tempfile::tempdir().unwrap() };
    let engine = Engine::open(&dir.settings()).unwrap();
    let mut ops: Vec<Op> = (0..600).map(|number| Op::PutToken(token(number, "ann"))).collect();
    ops.push(Op::PutUser(user(false)));
    ops.extend([1, 2, 3].map(|number| Op::PutIdentity(identity(number, "ann"))));
    // Enough rows for several slices of a copy.
    ops.extend((1..=1000).map(|seq| Op::AppendAudit(event(seq))));
    engine.commit(&ops).unwrap();
    let mut backup = Vec::new();
    backup::write(engine.replica(), at(20), &mut backup, &mut |_| ControlFlow::Continue(())).unwrap();
    (dir, engine, backup)
}

#[test]
fn a_restore_does_not_bring_the_revoked_back() {
    let (dir, engine, backup) = filled();
    let gone = Op::DropToken { id: id(8), owner: "ann".to_owned() };
    engine.commit(&[revoked(7), gone, Op::PutUser(user(true)), Op::PutToken(token(900, "ann"))]).unwrap();
    let unlinked = Op::DropIdentity(IdentityRecord::digest("https://id.example", "1"));
    engine.commit(&[unlinked, Op::PutIdentity(identity(2, "bob"))]).unwrap();
    let locked = dir.restore(&backup, true);
    assert!(matches!(locked, Err(RestoreError::Open(_))), "a store in use: {locked:?}");
    engine.close();

    let restored = dir.restore(&backup, false).unwrap();
    assert_eq!((restored.revoked, restored.users), (2, 1));
    assert!(restored.replaced.unwrap().join("sled/db").exists(), "what was the store is still there");
    let engine = Engine::open(&dir.settings()).unwrap();
    assert!(engine.token(id(7)).unwrap().unwrap().revoked.is_some());
    assert_eq!(live_token_named(&engine, "ann", "token 7", at(20)).unwrap(), None);
    assert!(engine.token(id(8)).unwrap().unwrap().revoked.is_some(), "purged since: it had been revoked");
    assert_eq!(engine.token(id(9)).unwrap(), Some(token(9, "ann")));
    assert_eq!(engine.token(id(900)).unwrap(), None, "made since");
    assert!(engine.users().unwrap()[0].banned.is_some());
    assert_eq!(engine.identities().unwrap(), [identity(3, "ann")], "unlinked, or another's since");
    assert_eq!(engine.audit_before(None, 1).unwrap()[0].event, "store.restore");
    engine.close();
}

#[test]
fn a_restore_does_not_bring_replaced_passwords_back() {
    let with = |id: &str, password: Option<&str>| {
        let password = password.map(str::to_owned);
        Op::PutUser(UserRecord { id: id.to_owned(), login: id.to_owned(), password, ..user(false) })
    };
    let before = [("leaked", Some("old")), ("removed", Some("old")), ("first", None), ("same", Some("same"))];
    let since = [("leaked", Some("new")), ("removed", None), ("first", Some("new")), ("made", Some("new"))];
    let (dir, engine, earlier) = filled();
    engine.commit(&before.map(|(id, phc)| with(id, phc))).unwrap();
    let mut backup = Vec::new();
    backup::write(engine.replica(), at(30), &mut backup, &mut |_| ControlFlow::Continue(())).unwrap();
    engine.commit(&since.map(|(id, phc)| with(id, phc))).unwrap();
    engine.close();
    let restore = |backup: &[u8], expected: u64| {
        let restored = dir.restore(backup, false).unwrap();
        assert_eq!((restored.users, restored.passwords), (0, expected));
        let engine = Engine::open(&dir.settings()).unwrap();
        let mut users = engine.users().unwrap();
        engine.close();
        users.retain(|user| user.id != "ann");
        users.sort_by(|one, other| one.id.cmp(&other.id));
        users.into_iter().map(|user| (user.id, user.password.unwrap_or_default())).collect::<Vec<_>>()
    };
    let of = |rows: &[(&str, &str)]| -> Vec<(String, String)> {
        rows.iter().map(|(id, phc)| ((*id).to_owned(), (*phc).to_owned())).collect()
    };
    let expected = of(&[("first", "new"), ("leaked", "new"), ("removed", ""), ("same", "same")]);
    assert_eq!(restore(&backup, 3), expected);
    assert_eq!(restore(&earlier, 0), [], "from before there was anybody");
    // The store is older than the backup now, and lacks everything newer.
    let expected = of(&[("first", ""), ("leaked", "old"), ("removed", "old"), ("same", "same")]);
    assert_eq!(restore(&backup, 0), expected);
}

#[test]
fn a_restore_does_not_widen_what_was_narrowed() {
    let scope = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), Access::Full)).collect::<Vec<_>>();
    let wide = |number: usize| TokenRecord {
        scope: scope(&["hub", "wiki"]),
        expires_at: Some(at(1_000)),
        ..token(number, "ann")
    };
    let (dir, engine, _) = filled();
    engine.commit(&[700, 701, 702, 703].map(|number| Op::PutToken(wide(number)))).unwrap();
    let backup = |seconds: i64| {
        let mut backup = Vec::new();
        backup::write(engine.replica(), at(seconds), &mut backup, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        backup
    };
    let before = backup(30);
    let since = [
        TokenRecord { scope: scope(&["hub"]), ..wide(700) },
        TokenRecord { expires_at: Some(at(40)), ..wide(701) },
        TokenRecord { allow_ips: vec!["10.0.0.0/8".parse().unwrap()], ..wide(702) },
    ];
    engine.commit(&since.clone().map(Op::PutToken)).unwrap();
    let after = backup(35);
    engine.close();
    let restore = |dir: &TestDirectory, backup: &[u8], lost: bool, narrowed: u64| {
        let restored = dir.restore(backup, lost).unwrap();
        assert_eq!((restored.revoked, restored.narrowed), (0, narrowed));
        let engine = Engine::open(&dir.settings()).unwrap();
        let tokens = [700, 701, 702, 703].map(|number| engine.token(id(number)).unwrap().unwrap());
        engine.close();
        tokens.map(|token| (token.scope, token.allow_ips, token.expires_at))
    };
    let reach = |token: TokenRecord| (token.scope, token.allow_ips, token.expires_at);
    let [one, two, three] = since;
    let narrowed = [one, two, three, wide(703)].map(reach);
    assert_eq!(restore(&dir, &before, false, 3), narrowed);
    let elsewhere = TestDirectory { directory: tempfile::tempdir().unwrap() };
    assert_eq!(restore(&elsewhere, &before, true, 0), [700, 701, 702, 703].map(wide).map(reach));
    // The store has them as they were before: it does not widen those of the backup.
    assert_eq!(restore(&elsewhere, &after, false, 0), narrowed);
}

#[test]
fn a_user_deleted_since_has_neither_groups_nor_roles() {
    let (dir, engine, _) = filled();
    let bob = UserRecord { id: "bob".to_owned(), login: "bob".to_owned(), ..user(false) };
    let role = |id: &str| {
        Op::PutGrant(GrantRecord { role: "system-admin".to_owned(), to: Grantee::User(id.to_owned()) })
    };
    let member = |id: &str| Op::PutMember { group: "g".to_owned(), user: id.to_owned() };
    engine.commit(&[Op::PutUser(bob), role("ann"), role("bob"), member("ann"), member("bob")]).unwrap();
    let mut backup = Vec::new();
    backup::write(engine.replica(), at(30), &mut backup, &mut |_| ControlFlow::Continue(())).unwrap();
    engine.commit(&[Op::PutUser(UserRecord { deleted_at: Some(at(40)), ..user(false) })]).unwrap();
    engine.close();
    assert_eq!(dir.restore(&backup, false).unwrap().users, 1);
    let engine = Engine::open(&dir.settings()).unwrap();
    assert_eq!(engine.members().unwrap(), [("g".to_owned(), "bob".to_owned())]);
    let grants = engine.grants().unwrap().into_iter().map(|grant| grant.to);
    assert_eq!(grants.collect::<Vec<_>>(), [Grantee::User("bob".to_owned())]);
    engine.close();
}

#[test]
fn an_unknown_past_has_to_be_accepted() {
    let (dir, engine, backup) = filled();
    engine.close();
    let elsewhere = TestDirectory { directory: tempfile::tempdir().unwrap() };
    let refused = elsewhere.restore(&backup, false).unwrap_err();
    assert!(refused.to_string().contains("taken at 1970-01-01T00:00:20Z"), "{refused}");
    assert_eq!(elsewhere.restore(&backup, true).unwrap().revoked, 0);
    assert_eq!(elsewhere.restore(&backup, false).unwrap().revoked, 0, "the same store, restored before");

    let generation = Engine::open(&dir.settings()).unwrap().generation.clone();
    for file in fs::read_dir(generation).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() {
            fs::write(file, b"").unwrap();
        }
    }
    assert!(matches!(dir.restore(&backup, false), Err(RestoreError::LostRevocations { .. })));
    dir.restore(&backup, true).unwrap();
    let engine = Engine::open(&dir.settings()).unwrap();
    assert_eq!((engine.tokens(None, 1000).unwrap().len(), engine.identities().unwrap().len()), (600, 3));
    engine.close();
}

#[test]
fn changes_during_a_backup_are_not_in_it() {
    /// Changes the store each time that a part of the backup arrives.
    struct Changing<'a> {
        engine: &'a Engine,
        bytes: Vec<u8>,
        count: usize,
    }
    impl io::Write for Changing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes.extend_from_slice(bytes);
            self.count += 1;
            if self.count.is_multiple_of(30) {
                let number = (self.count * 7) % 600;
                let seq = (self.count as u64 * 7) % 1200;
                let changed = AuditEvent { outcome: "changed".to_owned(), ..event(seq) };
                let made = Op::PutToken(token(10_000 + self.count, "bob"));
                let ops = [revoked(number), made, Op::AppendAudit(changed)];
                self.engine.commit(&ops).unwrap();
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_place, engine, quiet) = filled();
    let mut busy = Changing { engine: &engine, bytes: Vec::new(), count: 0 };
    let (_, _, progress) =
        backup::write(engine.replica(), at(20), &mut busy, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(busy.count > 1000, "{progress:?}");
    assert!(busy.bytes == quiet, "the backup is not of one moment");
    assert!(engine.token(id(7)).unwrap().is_some());
    engine.close();
}

#[test]
fn a_spoilt_backup_is_refused_and_the_store_stays() {
    let (dir, engine, backup) = filled();
    engine.close();
    let generations = || {
        let names = fs::read_dir(dir.settings().path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("gen-"));
        names.sort();
        names
    };
    // The generation that the last restore replaced stays until another restore has succeeded.
    dir.restore(&backup, false).unwrap();
    assert_eq!(generations(), ["gen-1", "gen-2"]);
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let said = dir.restore(bytes, true).unwrap_err().to_string();
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(generations(), ["gen-1", "gen-2"], "{name}");
        let engine = Engine::open(&dir.settings()).unwrap();
        assert_eq!(engine.tokens(None, 1000).unwrap().len(), 600, "{name}");
        engine.close();
    };
    check("nothing", b"", "not a permgate backup");
    check("something else", &[b'x'; 500], "not a permgate backup");
    check("without its trailer", &backup[..backup.len() - 49], "ends too early");
    check("half of it", &backup[..backup.len() / 2], "ends too early");
    check("more behind it", &[&backup[..], b"x"].concat(), "damaged");
    for at in [40, backup.len() / 3, backup.len() - 10] {
        let mut spoilt = backup.clone();
        spoilt[at] ^= 1;
        check("a flipped bit", &spoilt, "damaged");
    }
    assert!(dir.restore(&backup, true).is_ok());
    assert_eq!(generations(), ["gen-2", "gen-3"]);
    fs::write(dir.settings().path.join("cluster"), "").unwrap();
    for accept in [false, true] {
        let said = dir.restore(&backup, accept).unwrap_err().to_string();
        assert!(said.contains("a node's copy of a cluster's store") && !said.contains("--accept"), "{said}");
    }
}

//! One suite of what every engine must do: an engine's tests call [`conforms`] with a way to open it again
//! in the same place.

use std::net::IpAddr;

use crate::{
    authz::{
        accounts::fold,
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{
        ReadError,
        engine::{CommitError, Engine},
        model::{AuditEvent, LastUsed, Revocation, RevokeReason, Rotation, TokenRecord},
        op::Op,
        replica::Staged,
    },
};

mod people;
mod sessions;
mod trail;
pub(crate) mod whole;

/// `open` gives an empty engine the first time and the same one, reopened, from then on.
pub(crate) fn conforms(open: impl Fn() -> Engine) {
    let engine = open();
    empty(&engine);
    tokens(&engine);
    names(&engine);
    last_used(&engine);
    people::accounts(&engine);
    sessions::sessions(&engine);
    trail::audit(&engine);
    trail::idempotency(&engine);
    all_or_nothing(&engine);
    many(&engine);
    let before = contents(&engine);
    engine.close();
    assert!(engine.users().is_err(), "a closed engine still answers");
    assert!(engine.commit(&[]).is_err(), "a closed engine still takes changes");
    let engine = open();
    assert_eq!(contents(&engine), before, "reopened");
    engine.close();
}

pub(crate) fn token(number: usize, owner: &str) -> TokenRecord {
    let id = id(number);
    let digest = Digest::from_bytes(*blake3::hash(id.as_str().as_bytes()).as_bytes());
    let scope = vec![("hub".to_owned(), Access::Read), ("youtrack".to_owned(), Access::Full)];
    let record = TokenRecord::new(id, digest, owner.to_owned(), format!("Token {number}"), scope, at(1));
    TokenRecord { imported: number % 2 == 1, ..record }
}

pub(crate) fn id(number: usize) -> TokenId {
    TokenId::parse(&format!("{number:012}")).expect("twelve digits are an id")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn put(number: usize, owner: &str) -> Op {
    Op::PutToken(token(number, owner))
}

fn ids(tokens: &[TokenRecord]) -> Vec<TokenId> {
    tokens.iter().map(|token| token.id).collect()
}

/// The names of an owner's tokens that have not ended.
fn names_of(engine: &Engine, owner: &str) -> Vec<String> {
    let tokens = engine.tokens_of(owner, None, usize::MAX).unwrap().into_iter();
    let names: Vec<_> =
        tokens.filter(|token| !token.head().is_ended()).map(|token| fold(&token.name)).collect();
    for name in &names {
        assert!(live_named(engine, owner, name).is_some(), "{owner}/{name}");
    }
    let live = engine.with_staged(&Staged::default()).count_live(owner, at(0), usize::MAX, |_| true);
    assert_eq!(live.unwrap(), names.len(), "{owner}");
    names
}

fn live_named(engine: &Engine, owner: &str, name: &str) -> Option<TokenId> {
    live_token_named(engine, owner, name, at(0)).unwrap().map(|token| token.id)
}

/// The owner's live token with the folded name.
pub(crate) fn live_token_named(
    engine: &Engine,
    owner: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<TokenRecord>, ReadError> {
    engine.with_staged(&Staged::default()).live_token_named(owner, name, now)
}

fn contents(engine: &Engine) -> String {
    let mut scanned = Vec::new();
    engine.load(&mut |digest, row| scanned.push(format!("{digest:?} {row:?}"))).unwrap();
    scanned.sort_unstable();
    let owners = ["ann", "bob", "cy", "many-0", "many-9"];
    format!(
        "{:?}\n{scanned:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        engine.tokens(None, usize::MAX).unwrap(),
        owners.map(|owner| ids(&engine.tokens_of(owner, None, usize::MAX).unwrap())),
        owners.map(|owner| {
            let tokens = engine.tokens_of(owner, None, usize::MAX).unwrap();
            let counts = engine.counts(owner).unwrap();
            assert_eq!(
                (counts.all, counts.ended),
                (tokens.len(), tokens.iter().filter(|token| token.head().is_ended()).count())
            );
            (names_of(engine, owner), counts)
        }),
        engine.users().unwrap(),
        engine.groups().unwrap(),
        engine.members().unwrap(),
        engine.roles().unwrap(),
        engine.grants().unwrap(),
        engine.sessions().unwrap(),
        engine.invitations().unwrap(),
        engine.identities().unwrap(),
        engine.audit_from(0, usize::MAX).unwrap(),
        engine.audit_start().unwrap(),
        engine.idempotency_records(None, usize::MAX).unwrap(),
    )
}

fn empty(engine: &Engine) {
    assert_eq!(engine.token(id(1)).unwrap(), None);
    assert_eq!(engine.tokens(None, 10).unwrap(), []);
    assert_eq!(engine.tokens_of("ann", None, 10).unwrap(), []);
    assert_eq!(live_named(engine, "ann", "x"), None);
    assert_eq!(engine.users().unwrap(), []);
    assert_eq!(engine.members().unwrap(), []);
    assert_eq!(engine.audit_before(None, 10).unwrap(), []);
    assert_eq!(engine.audit_start().unwrap(), None);
    assert_eq!(engine.with_staged(&Staged::default()).idempotency("x").unwrap(), None);
    engine.commit(&[]).expect("an empty batch is one");
}

fn tokens(engine: &Engine) {
    let full = TokenRecord {
        author: Some("bob".to_owned()),
        note: "für die Pipeline".to_owned(),
        allow_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        not_before: Some(at(-5)),
        expires_at: Some(at(500)),
        revoked: Some(Revocation { at: at(3), by: Some("bob".to_owned()), reason: RevokeReason::Leaked }),
        rotation: Some(Rotation { to: id(2), grace_until: at(9) }),
        family: id(1),
        revision: 7,
        ..token(3, "ann")
    };
    engine.commit(&[put(2, "ann"), put(1, "bob"), Op::PutToken(full.clone())]).unwrap();
    assert_eq!(engine.token(id(3)).unwrap().as_ref(), Some(&full), "every field comes back");
    assert_eq!(engine.token(id(1)).unwrap(), Some(token(1, "bob")));
    assert_eq!(ids(&engine.tokens(None, 10).unwrap()), [id(1), id(2), id(3)]);
    assert_eq!(ids(&engine.tokens(Some(id(1)), 1).unwrap()), [id(2)]);
    assert_eq!(ids(&engine.tokens_of("ann", None, 10).unwrap()), [id(2), id(3)]);
    assert_eq!(ids(&engine.tokens_of("ann", Some(id(2)), 10).unwrap()), [id(3)]);
    assert_eq!(engine.tokens_of("an", None, 10).unwrap(), [], "an owner's id is no prefix");

    let mut rows = Vec::new();
    engine
        .load(&mut |digest, row| {
            if row.id == id(3) {
                assert_eq!((row.owner, digest, row.imported), ("ann", full.digest, true));
                assert_eq!(row.scope, [("hub", Access::Read), ("youtrack", Access::Full)]);
                assert_eq!((row.allow_ips, row.not_before), (full.allow_ips.clone(), full.not_before));
                assert_eq!((row.expires_at, row.revoked_at), (full.expires_at, Some(at(3))));
                assert_eq!(row.rotation, full.rotation);
            }
            rows.push(row.id);
        })
        .unwrap();
    rows.sort_unstable();
    assert_eq!(rows, [id(1), id(2), id(3)], "each once");

    let renamed = TokenRecord { name: "n".repeat(100), revision: 2, ..token(2, "ann") };
    engine.commit(&[Op::PutToken(renamed.clone())]).unwrap();
    assert_eq!(engine.token(id(2)).unwrap(), Some(renamed), "replaced");
    assert_eq!(ids(&engine.tokens_of("ann", None, 10).unwrap()), [id(2), id(3)]);

    let stolen = engine.commit(&[put(2, "bob")]);
    assert!(matches!(stolen, Err(CommitError::Refused(_))), "an owner never changes");

    engine.commit(&[Op::DropToken { id: id(2), owner: "ann".to_owned() }]).unwrap();
    assert_eq!(engine.token(id(2)).unwrap(), None);
    assert_eq!(ids(&engine.tokens(None, 10).unwrap()), [id(1), id(3)]);
    assert_eq!(ids(&engine.tokens_of("ann", None, 10).unwrap()), [id(3)]);
    engine.commit(&[Op::DropToken { id: id(2), owner: "ann".to_owned() }]).expect("dropping is idempotent");
}

fn names(engine: &Engine) {
    let check = |name: &str, owner: &str, expected: Option<usize>| {
        assert_eq!(live_named(engine, owner, name), expected.map(id), "{owner}/{name}");
    };
    let put = |number: usize, owner: &str, name: &str| {
        Op::PutToken(TokenRecord { name: name.to_owned(), ..token(number, owner) })
    };
    let rotation = Some(Rotation { to: id(4), grace_until: at(9) });
    let replaced =
        |number: usize| Op::PutToken(TokenRecord { name: "CI".to_owned(), rotation, ..token(number, "ann") });
    engine.commit(&[put(3, "ann", "CI"), put(1, "bob", "ci")]).unwrap();
    check("ci", "ann", Some(3));
    check("ci", "bob", Some(1));
    check("c", "ann", None);
    check("ci", "an", None);

    // In the order of a rotation, then in the other one.
    engine.commit(&[put(4, "ann", "ci"), replaced(3)]).unwrap();
    check("ci", "ann", Some(4));
    engine.commit(&[replaced(4), put(5, "ann", "ci")]).unwrap();
    check("ci", "ann", Some(5));
    engine.commit(&[Op::DropToken { id: id(5), owner: "ann".to_owned() }]).unwrap();
    check("ci", "ann", None);
    check("ci", "bob", Some(1));
    engine.commit(&[put(5, "ann", "one"), put(5, "ann", "two")]).unwrap();
    check("one", "ann", None);
    check("two", "ann", Some(5));
    engine.commit(&[put(5, "ann", "Straße"), put(6, "ann", "two")]).unwrap();
    check("two", "ann", Some(6));
    check("straße", "ann", Some(5));
    // An expired token leaves its name to another one, and an exchanged one takes none.
    let expired = TokenRecord { name: "two".to_owned(), expires_at: Some(at(-1)), ..token(6, "ann") };
    let exchanged =
        TokenRecord { name: "three".to_owned(), author: Some("exchange:ci".to_owned()), ..token(8, "ann") };
    engine.commit(&[put(7, "ann", "two"), Op::PutToken(expired), Op::PutToken(exchanged)]).unwrap();
    check("two", "ann", Some(7));
    check("three", "ann", None);
    let live = engine.with_staged(&Staged::default()).count_live("ann", at(0), usize::MAX, |_| true);
    assert_eq!(live.unwrap(), 2, "5 and 7: exchanged tokens do not count");
    let drop = |number| Op::DropToken { id: id(number), owner: "ann".to_owned() };
    engine.commit(&[drop(6), drop(8)]).unwrap();
    let [take, free] = [
        Op::TakeName { owner: "ann".to_owned(), name: "x".to_owned(), token: id(6) },
        Op::FreeName { owner: "ann".to_owned(), name: "two".to_owned() },
    ];
    engine.commit(&[take, free]).expect("operations of older logs");
    check("two", "ann", Some(7));
    check("x", "ann", None);
}

fn last_used(engine: &Engine) {
    let used = |seconds, service: &str| LastUsed {
        at: at(seconds),
        from: IpAddr::from([192, 0, 2, 1]),
        service: service.to_owned(),
    };
    let put_used = |token: usize, used: &LastUsed| Op::PutLastUsed { token: id(token), used: used.clone() };
    let check = |name: &str, token: usize, expected: Option<LastUsed>| {
        let got = engine.token(id(token)).unwrap().and_then(|token| token.last_used);
        assert_eq!(got, expected, "{name}");
    };
    engine.commit(&[put_used(3, &used(10, "hub")), put_used(99, &used(10, "hub"))]).unwrap();
    check("noted", 3, Some(used(10, "hub")));
    engine.commit(&[put_used(3, &used(10, "other")), put_used(3, &used(9, "other"))]).unwrap();
    check("forward only", 3, Some(used(10, "hub")));
    engine.commit(&[put_used(3, &used(11, "youtrack"))]).unwrap();
    check("forward", 3, Some(used(11, "youtrack")));
    engine
        .commit(&[Op::PutToken(TokenRecord { last_used: Some(used(99, "x")), ..token(3, "ann") })])
        .unwrap();
    check("a change of the token leaves it", 3, Some(used(11, "youtrack")));
    assert_eq!(
        engine.tokens_of("ann", None, 1).unwrap()[0].last_used,
        Some(used(11, "youtrack")),
        "in lists"
    );
    engine.commit(&[put(99, "cy"), put_used(99, &used(5, "hub"))]).unwrap();
    engine.commit(&[Op::DropToken { id: id(99), owner: "cy".to_owned() }]).unwrap();
    engine.commit(&[put(99, "cy")]).unwrap();
    check("gone with its token", 99, None);
}

pub(crate) fn event(seq: u64) -> AuditEvent {
    AuditEvent {
        seq,
        at: at(1),
        event: "token.create".to_owned(),
        actor: "operator".to_owned(),
        target: "user:ann".to_owned(),
        service: Some("hub".to_owned()),
        request_id: None,
        outcome: "ok".to_owned(),
        reason: Some("because".to_owned()),
        change: Some("{}".to_owned()),
        prev: [u8::try_from(seq % 256).unwrap(); 32],
        hash: [7; 32],
    }
}

fn all_or_nothing(engine: &Engine) {
    let before = contents(engine);
    let check = |name: &str, bad: Op| {
        let refused = engine.commit(&[put(50, "ann"), bad, put(51, "ann")]);
        assert!(matches!(refused, Err(CommitError::Refused(_))), "{name}: {refused:?}");
        assert_eq!(contents(engine), before, "{name}");
    };
    let large = TokenRecord { note: "x".repeat(20_000), ..token(52, "ann") };
    check("a record beyond 16 KiB", Op::PutToken(large));
    let other = TokenRecord { digest: Digest::from_bytes([9; 32]), ..token(1, "bob") };
    check("the id of another token", Op::PutToken(other));
    let other = TokenRecord { digest: Digest::from_bytes([9; 32]), ..token(50, "ann") };
    check("the id of another token of the batch", Op::PutToken(other));
    let nul = Op::PutMember { group: "a\0b".to_owned(), user: "u1".to_owned() };
    check("a separator in a key", nul);
}

/// Enough for several pages, blocks and nodes; the result is the same in one batch as in many.
fn many(engine: &Engine) {
    let owner = |number: usize| format!("many-{}", number % 10);
    let numbers: Vec<usize> = (1000..3000).collect();
    for chunk in numbers.chunks(1500) {
        let ops = chunk.iter().map(|number| put(*number, &owner(*number)));
        engine.commit(&ops.collect::<Vec<_>>()).unwrap();
    }
    for number in (1000..3000).step_by(3) {
        engine.commit(&[Op::DropToken { id: id(number), owner: owner(number) }]).unwrap();
    }
    let pages = |of: &dyn Fn(Option<TokenId>) -> Vec<TokenRecord>| {
        let (mut found, mut after) = (Vec::new(), Some(id(999)));
        while after.is_some() {
            let page = ids(&of(after));
            after = page.last().copied();
            found.extend(page);
        }
        found
    };
    let expected: Vec<TokenId> = (1000..3000).filter(|n| (n - 1000) % 3 != 0).map(id).collect();
    assert_eq!(pages(&|after| engine.tokens(after, 300).unwrap()), expected);
    for (number, token) in (1000..3000).filter(|n| (n - 1000) % 3 != 0).zip(&expected) {
        assert_eq!(live_named(engine, &owner(number), &format!("token {number}")), Some(*token));
    }
    for number in 0..10 {
        let expected = (1000..3000).filter(|n| (n - 1000) % 3 != 0 && n % 10 == number).map(id);
        let found = pages(&|after| engine.tokens_of(&owner(number), after, 30).unwrap());
        assert_eq!(found, expected.collect::<Vec<_>>(), "owner {number}");
    }
}

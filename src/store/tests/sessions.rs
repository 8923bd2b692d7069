//! Sessions and invitations over time, over a restart, and after the store has failed.

use super::*;

const PHC: &str = "$argon2id$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$aGFzaA";
const MINUTE: i64 = 60_000;

fn digest(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

impl Bench {
    async fn signed_in(&self, login: &str, number: u8) -> Option<SessionRecord> {
        let accounts = self.store.accounts();
        let user = accounts.user_by_login(login).unwrap().record.id.clone();
        let client = [127, 0, 0, 1].into();
        let verified = PHC.to_owned();
        let new = NewSession { user, verified, digest: digest(number), client, replaces: None };
        self.store.begin_session(new).await.unwrap().record
    }

    async fn with_passwords() -> Self {
        let bench = Self::peopled().await;
        for login in ["alice", "bob"] {
            bench.store.set_password(operator(), login.into(), None, Some(PHC.into())).await.unwrap();
        }
        bench
    }

    async fn begin_provided(&self, new: FederatedSession) -> Result<SessionRecord, ChangeError> {
        self.store.begin_federated_session(new).await.map(|changed| changed.record)
    }

    /// Groups that a user is a direct member of.
    fn groups(&self, login: &str) -> Vec<String> {
        let accounts = self.store.accounts();
        let user = accounts.user_by_login(login).unwrap();
        let mut names: Vec<_> =
            user.groups.iter().map(|ix| accounts.group(*ix).unwrap().record.name.clone()).collect();
        names.sort();
        names
    }

    fn later(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    fn is_valid(&self, number: u8) -> bool {
        self.store.session(&digest(number)).is_some()
    }
}

/// What a provider says of a user.
fn of(subject: &str, login: &str, groups: &[(&str, bool)], number: u8) -> FederatedSession {
    FederatedSession {
        issuer: "https://id.example".into(),
        subject: subject.into(),
        login: login.into(),
        name: "Zoe\u{202e}".into(),
        email: Some("not an address".into()),
        adopt: false,
        groups: groups.iter().map(|(name, member)| ((*name).to_owned(), *member)).collect(),
        digest: digest(number),
        client: [127, 0, 0, 1].into(),
        replaces: None,
        request_id: "r".into(),
    }
}

#[tokio::test]
async fn who_a_provider_names_is_found_again_by_subject() {
    let bench = Bench::with_passwords().await;
    let first = bench.begin_provided(of("1", "zoe", &[("ops", true), ("absent", false)], 1)).await.unwrap();
    assert_eq!((first.by, bench.is_valid(1)), (SignedInBy::Provider, true));
    for event in bench.store.audit(None, 4).unwrap().items {
        let change = event.change.unwrap();
        assert!(change.contains(r#""from":{"client":"127.0.0.1"}"#), "{}: {change}", event.event);
    }
    let zoe = bench.store.accounts().user_by_login("zoe").unwrap().record.clone();
    assert_eq!((zoe.id == first.user, zoe.name.as_str(), zoe.email), (true, "zoe", None));
    assert_eq!(bench.groups("zoe"), ["ops"], "made when somebody is in it, not before");
    assert!(bench.store.accounts().group_by_name("absent").is_none());
    let bench = bench.again().await;
    let again = bench.begin_provided(of("1", "renamed", &[("ops", false)], 2)).await.unwrap();
    assert_eq!(
        (again.user == first.user, bench.groups("zoe")),
        (true, vec![]),
        "the subject tells, over a restart"
    );
    let other = bench.begin_provided(of("2", "zed", &[], 3)).await.unwrap();
    assert_ne!(other.user, first.user);
    let elsewhere = FederatedSession { issuer: "https://other.example".into(), ..of("1", "zac", &[], 4) };
    assert_ne!(bench.begin_provided(elsewhere).await.unwrap().user, first.user, "of another provider");
}

/// A worker that never applies a change shows which changes wait for the workers.
#[tokio::test]
async fn what_a_provider_takes_away_is_in_force_before_the_session_begins() {
    let bench = Bench::with_passwords().await;
    bench.begin_provided(of("1", "zoe", &[("ops", true)], 1)).await.unwrap();
    let Bench { dir, store, clock, .. } = bench;
    store.close().await;
    let fence = Fence::new(std::time::Duration::from_millis(50));
    let bench = Bench::with_fence(dir, usual(), clock, fence.clone());
    let _silent = fence.join();
    assert!(bench.begin_provided(of("1", "zoe", &[("ops", true)], 2)).await.is_ok());
    let taken = bench.begin_provided(of("1", "zoe", &[("ops", false)], 3)).await;
    assert!(matches!(taken, Err(ChangeError::FenceIncomplete)), "{taken:?}");
}

#[tokio::test]
async fn a_provider_takes_no_account_over() {
    let bench = Bench::with_passwords().await;
    let refused = async |new: FederatedSession| code(bench.begin_provided(new).await);
    assert_eq!(refused(of("1", "ALICE", &[("ops", true)], 1)).await, "name_taken");
    assert!(bench.store.accounts().group_by_name("ops").is_none(), "nothing is left of what was refused");
    assert_eq!(refused(of("1", "me", &[], 1)).await, "invalid_name");
    assert_eq!(refused(of("1", "../x", &[], 1)).await, "invalid_name");
    let adopt = |login: &str| FederatedSession { adopt: true, ..of("7", login, &[], 2) };
    bench.store.ban_user(operator(), "bob".into(), Some(String::new())).await.unwrap();
    assert_eq!(refused(adopt("bob")).await, "user_banned");
    let alice = bench.store.accounts().user_by_login("alice").unwrap().record.id.clone();
    assert_eq!(bench.begin_provided(adopt("alice")).await.unwrap().user, alice, "where the operator says so");
    bench.store.ban_user(operator(), "alice".into(), Some(String::new())).await.unwrap();
    assert_eq!((bench.is_valid(2), refused(adopt("alice")).await), (false, "user_banned".into()));
    bench.store.delete_user(operator(), "alice".into()).await.unwrap();
    assert_eq!(refused(adopt("alice")).await, "permission_denied", "the deleted are not made again");
}

#[tokio::test]
async fn an_identity_is_given_and_taken() {
    let bench = Bench::with_passwords().await;
    let link = |actor: Actor, login: &str, subject: &str| {
        bench.store.link_identity(actor, login.into(), "https://id.example".into(), subject.into())
    };
    assert_eq!(code(link(operator(), "alice", "1").await), "ok");
    assert_eq!(code(link(operator(), "alice", "1").await), "ok", "again");
    assert_eq!(code(link(operator(), "bob", "1").await), "name_taken");
    assert_eq!(code(link(operator(), "nobody", "2").await), "not_found");
    assert_eq!(code(link(operator(), "bob", "").await), "invalid_name");
    assert_eq!(
        code(link(bench.by("alice"), "alice", "2").await),
        "permission_denied",
        "nobody links themself"
    );
    assert_eq!(code(link(bench.by("bob"), "alice", "2").await), "permission_denied");
    let alice = bench.store.accounts().user_by_login("alice").unwrap().record.id.clone();
    assert_eq!(bench.begin_provided(of("1", "whatever", &[], 1)).await.unwrap().user, alice);
    let unlinked = bench.store.unlink_identities(operator(), "alice".into()).await.unwrap();
    assert_eq!((unlinked.record, bench.is_valid(1)), (1, false), "who was signed in by it is signed out");
    let other = bench.begin_provided(of("1", "whatever", &[], 2)).await.unwrap();
    assert_ne!(other.user, alice);
    bench.store.delete_user(operator(), "whatever".into()).await.unwrap();
    assert_eq!(code(bench.begin_provided(of("1", "whatever", &[], 3)).await), "permission_denied");
    assert_eq!(code(link(operator(), "bob", "1").await), "ok", "whom the deleted one leaves");
    let bench = bench.again().await;
    let bob = bench.store.accounts().user_by_login("bob").unwrap().record.id.clone();
    assert_eq!(bench.begin_provided(of("1", "whatever", &[], 4)).await.unwrap().user, bob);
    assert_eq!(bench.store.identities_of(&bob).len(), 1);
}

#[tokio::test]
async fn a_session_ends_by_idling_and_by_age() {
    let bench = Bench::with_passwords().await;
    bench.signed_in("alice", 1).await.unwrap();
    bench.signed_in("alice", 2).await.unwrap();
    bench.later(30 * MINUTE - 1);
    assert_eq!(bench.store.touch_session(&digest(1)), Some(bench.now()));
    bench.store.record_session(digest(1), bench.now()).await.unwrap();
    assert_eq!(bench.store.touch_session(&digest(1)), None, "not with every request");
    bench.later(1);
    assert_eq!((bench.is_valid(1), bench.is_valid(2)), (true, false), "idle");
    for _ in 0..25 {
        bench.later(29 * MINUTE);
        bench.store.touch_session(&digest(1));
    }
    assert!(!bench.is_valid(1), "twelve hours are enough, however busy");
    bench.store.create_user(operator(), person("carol")).await.unwrap();
    // Expired rows are kept for a day, in case the clock was wrong.
    bench.later(24 * 60 * MINUTE);
    bench.store.create_user(operator(), person("dave")).await.unwrap();
    bench.store.create_user(operator(), person("erin")).await.unwrap();
    assert_eq!(bench.store.engine().sessions().unwrap(), [], "rows of what has ended go");
}

#[tokio::test]
async fn a_session_lives_over_a_restart() {
    let bench = Bench::with_passwords().await;
    let made = bench.signed_in("alice", 1).await.unwrap();
    bench.signed_in("bob", 2).await.unwrap();
    let alice = bench.by("alice");
    let (_, invitation) = bench.store.invite(operator(), "bob".into(), digest(3)).await.unwrap().record;
    bench.store.end_sessions(alice, "alice".into()).await.unwrap();
    let bench = bench.again().await;
    assert_eq!((bench.is_valid(1), bench.is_valid(2)), (false, true));
    assert_eq!(bench.store.invitation(&digest(3)), Some(invitation));
    assert_eq!(made.ends_at(), made.created_at.plus_seconds(12 * 3600));
}

#[tokio::test]
async fn who_may_not_sign_in_gets_no_session() {
    let bench = Bench::with_passwords().await;
    bench.store.set_password(operator(), "alice".into(), None, Some(format!("{PHC}x"))).await.unwrap();
    assert!(bench.signed_in("alice", 1).await.is_none(), "the password that was verified is another one");
    bench.store.ban_user(operator(), "bob".into(), Some(String::new())).await.unwrap();
    assert!(bench.signed_in("bob", 2).await.is_none(), "banned");
    assert!(!bench.is_valid(1) && !bench.is_valid(2));
}

#[tokio::test]
async fn ones_own_password_takes_the_place_of_the_one_that_was_verified() {
    let bench = Bench::with_passwords().await;
    let set = async |verified: Option<Option<&str>>, phc: Option<&str>| {
        let verified = verified.map(|phc| phc.map(str::to_owned));
        let phc = phc.map(str::to_owned);
        code(bench.store.set_password(bench.by("alice"), "alice".into(), verified, phc).await)
    };
    let reset = async |phc: Option<&str>| {
        let phc = phc.map(str::to_owned);
        code(bench.store.set_password(operator(), "alice".into(), None, phc).await)
    };
    assert_eq!(set(Some(Some(PHC)), Some("mine")).await, "ok");
    assert_eq!(set(Some(Some(PHC)), Some("a thief's")).await, "wrong_password", "set since");
    assert_eq!(reset(Some("fresh")).await, "ok");
    for (name, verified) in
        [("reset since", Some(Some("mine"))), ("set since", Some(None)), ("another's", None)]
    {
        for phc in [Some("a thief's"), None] {
            assert_eq!(set(verified, phc).await, "wrong_password", "{name}, {phc:?}");
        }
    }
    assert_eq!(reset(None).await, "ok");
    assert_eq!(set(Some(Some("fresh")), Some("a thief's")).await, "wrong_password", "taken away since");
    assert_eq!(set(Some(None), Some("first")).await, "ok");
    let bobs = bench.store.set_password(bench.by("alice"), "bob".into(), Some(Some(PHC.into())), None).await;
    assert_eq!(code(bobs), "permission_denied");
    let bobs = bench.store.set_password(operator(), "bob".into(), Some(Some(PHC.into())), None).await;
    assert_eq!(code(bobs), "wrong_password", "it was one's own, and is somebody else's by now");
}

#[tokio::test]
async fn a_users_sessions_are_bounded() {
    let bench = Bench::with_passwords().await;
    for number in 0..30 {
        bench.signed_in("alice", number).await.unwrap();
        bench.later(1);
    }
    assert_eq!(
        bench.store.sessions_of(&bench.store.accounts().user_by_login("alice").unwrap().record.id).len(),
        20
    );
    assert_eq!((bench.is_valid(9), bench.is_valid(10)), (false, true), "the oldest make room");
}

#[tokio::test]
async fn a_session_that_has_ended_asks_for_nothing() {
    let bench = Bench::with_passwords().await;
    bench.signed_in("alice", 1).await.unwrap();
    let actor = Actor { session: Some(digest(1)), ..bench.by("alice") };
    let edit = |name: &str| UserEdit { name: Some(name.into()), ..UserEdit::default() };
    let rename = |actor: Actor, name: &str| bench.store.edit_user(actor, "alice".into(), None, edit(name));
    assert_eq!(code(rename(actor.clone(), "A").await), "ok");
    bench.store.end_session(actor.clone(), digest(1)).await.unwrap();
    assert_eq!(code(rename(actor, "B").await), "permission_denied");
}

#[tokio::test]
async fn an_invitation_holds_for_a_day_and_once() {
    let bench = Bench::with_passwords().await;
    let invite = |number| bench.store.invite(operator(), "alice".into(), digest(number));
    let redeem = |number| bench.store.redeem(digest(number), PHC.into(), [192, 0, 2, 1].into());
    invite(1).await.unwrap();
    bench.later(24 * 60 * MINUTE);
    assert_eq!(code(redeem(1).await), "permission_denied", "late");
    invite(2).await.unwrap();
    let (one, other) = tokio::join!(redeem(2), redeem(2));
    assert_eq!((code(one), code(other)), ("ok".into(), "permission_denied".into()), "twice at once");
    invite(3).await.unwrap();
    bench.store.set_password(operator(), "alice".into(), None, Some(PHC.into())).await.unwrap();
    assert_eq!(code(redeem(3).await), "permission_denied", "another password was set since");
}

#[tokio::test]
async fn a_session_ends_though_nothing_lasts() {
    let bench = Bench::with_passwords().await;
    bench.signed_in("alice", 1).await.unwrap();
    bench.signed_in("bob", 2).await.unwrap();
    bench.store.engine().break_sync();
    let banned = bench.store.ban_user(operator(), "alice".into(), Some(String::new())).await;
    assert_eq!((code(banned), bench.is_valid(1)), ("not_durable".into(), false));
    let ended = bench.store.end_session(bench.by("bob"), digest(2)).await;
    assert_eq!((code(ended), bench.is_valid(2)), ("not_durable".into(), false));
}

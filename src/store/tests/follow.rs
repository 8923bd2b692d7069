//! Nodes that share a log: each that applies its entries reaches the same rows, index and snapshot.

use proptest::prelude::*;

use super::*;
use crate::{
    authz::subject::Permission,
    store::{
        engine::Generation,
        log::{Log as _, memory::MemoryLog},
        replica::Table,
    },
};

mod unwritten;

const PHC: &str = "$argon2id$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$aGFzaA";

struct Node {
    directory: tempfile::TempDir,
    store: Store,
    state: Arc<State>,
}

struct Cluster {
    log: MemoryLog,
    clock: Arc<AtomicI64>,
}

/// One change, with small numbers that select its user and its object.
#[derive(Clone, Copy, Debug)]
struct Step {
    method: u8,
    node: usize,
    who: u8,
    what: u8,
    yes: bool,
}

impl Cluster {
    fn new() -> Self {
        let log = MemoryLog::new(log::StoreId([9; 16]), log::Head::EMPTY);
        Self { log, clock: Arc::new(AtomicI64::new(NOW)) }
    }

    fn node(&self) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let generation = Generation { path: directory.path().to_owned(), store: self.log.store() };
        let engine = generation.with_log(Box::new(self.log.reopen())).unwrap();
        let now = self.clock.clone();
        let time_source: writer::Clock =
            Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed)));
        let (store, state, _) =
            load::serve(engine, usual(), Fence::new(ACKNOWLEDGE_TIMEOUT), time_source, None).unwrap();
        Node { directory, store, state }
    }
}

impl Node {
    /// Every row of every tree.
    fn rows(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        self.store.engine().all_rows()
    }

    /// What workers and the admin listener read, owners by login.
    fn memory(&self) -> Vec<String> {
        let accounts = self.store.accounts();
        let snapshot = self.state.snapshot();
        let index = self.state.index();
        let mut all = vec![format!("{} tokens, {} imported", index.len(), index.imported())];
        for digest in index.find(|_| true) {
            let token = self.indexed(&digest);
            let owner = accounts.user(token.owner).unwrap().record.id.clone();
            let Token { id, scope, expires_at, restrictions, .. } = token;
            all.push(format!("{digest:?} {id} {owner} {scope:?} {expires_at:?} {restrictions:?}"));
        }
        for user in &snapshot.directory.users {
            let mut groups: Vec<_> =
                user.groups.iter().map(|ix| &snapshot.directory.groups[ix.0 as usize]).collect();
            groups.sort();
            let mut sessions = self.store.sessions_of(&user.id);
            sessions.sort_by_key(|session| *session.digest.as_bytes());
            let identities = self.store.identities_of(&user.id);
            let own = accounts.user_by_id(&user.id).unwrap();
            all.push(format!(
                "{:?} {sessions:?} {identities:?} {groups:?} {} {:?} {:?} {:?} {:?}",
                own.record, user.login, user.banned, user.permissions, user.readable, own.roles
            ));
        }
        all.extend(accounts.roles().map(|role| format!("{role:?}")));
        all.extend(accounts.groups().map(|group| format!("{:?} {:?}", group.record, group.roles)));
        all.sort();
        all
    }

    fn indexed(&self, digest: &Digest) -> Token {
        self.state.index().with(digest, |token| token.cloned().unwrap())
    }

    /// One of the tokens; `None` if there is none.
    fn some_token(&self, number: u8) -> Option<TokenRecord> {
        let all = self.store.tokens(&TokenFilter::default(), None, 1000).unwrap().items;
        let at = usize::from(number) % all.len().max(1);
        all.into_iter().nth(at)
    }

    /// Makes a change. Many are refused, which is tested as well.
    async fn take(&self, step: Step) {
        let Step { method, who, what, yes, .. } = step;
        let store = &self.store;
        let login = format!("user{}", who % 3);
        let group = if what % 3 == 0 { "developers".to_owned() } else { format!("group{}", what % 3) };
        let digest = Digest::from_bytes([what % 4; 32]);
        let token = self.some_token(what);
        let by = || match store.accounts().user_by_login(&login) {
            Some(user) if yes => Actor { kind: ActorKind::User(user.record.id.clone()), ..operator() },
            _ => operator(),
        };
        let outcome = match (method % 22, token) {
            (0, _) => code(store.create_user(by(), person(&login)).await),
            (1, _) => code(store.create_group(operator(), group, yes.then(|| "developers".into())).await),
            (2, _) => code(store.set_member(operator(), group, login, yes).await),
            (3, _) => {
                code(store.set_grant(operator(), "observer".into(), GrantTarget::User(login), yes).await)
            }
            (4, _) => code(store.set_grant(operator(), "extra".into(), GrantTarget::Group(group), yes).await),
            (5, _) if who % 3 == 0 => {
                let permissions = Some(Vec::from_iter(yes.then_some(Permission::ReadUser)));
                let edit = RoleEdit { name: None, permissions };
                code(store.edit_role(operator(), "extra".into(), None, edit).await)
            }
            (5, _) if yes => {
                let permissions = vec![Permission::ReadAudit];
                code(store.create_role(operator(), "extra".into(), "Extra".into(), permissions).await)
            }
            (5, _) => code(store.delete_role(operator(), "extra".into()).await),
            (6, _) => code(store.delete_group(operator(), group).await),
            (7, _) if what % 4 == 0 => code(store.delete_user(operator(), login).await),
            (8, _) => code(store.ban_user(operator(), login, yes.then(|| "x".into())).await),
            (9, _) => code(store.set_password(operator(), login, None, yes.then(|| PHC.into())).await),
            (10, _) => {
                let user = store.accounts().user_by_login(&login).map(|user| user.record.id.clone());
                let Some(user) = user else { return };
                let (client, replaces) = ([127, 0, 0, 1].into(), None);
                let new = NewSession { user, verified: PHC.into(), digest, client, replaces };
                code(store.begin_session(new).await)
            }
            (11, _) => code(store.end_sessions(by(), login).await),
            (12, _) => code(store.invite(operator(), login, digest).await),
            (13, _) => code(store.redeem(digest, PHC.into(), [192, 0, 2, 1].into()).await),
            (14, _) => code(store.link_identity(operator(), login, "https://id".into(), group).await),
            (15, _) => code(store.unlink_identities(operator(), login).await),
            (16, Some(token)) => code(store.revoke_token(operator(), token.id, RevokeReason::Admin).await),
            (17, Some(token)) => {
                let grace = yes.then(|| std::time::Duration::from_secs(3600));
                code(store.rotate_token(operator(), token.id, grace, None).await)
            }
            (18, Some(token)) => {
                let edit = TokenEdit { name: Some(format!("name{what}")), ..TokenEdit::default() };
                code(store.edit_token(operator(), token.id, None, edit).await)
            }
            (19, Some(token)) => {
                let used = LastUsed {
                    at: Timestamp::from_millis(NOW + i64::from(what)),
                    from: [127, 0, 0, 1].into(),
                    service: "wiki".into(),
                };
                code(store.record_use(vec![(token.digest, used)]).await)
            }
            (20, _) => {
                let (digest, name) = (Digest::from_bytes([100 + what; 32]), format!("imported{what}"));
                let scope = vec![("wiki".into(), FULL)];
                let one = ImportedToken { digest, owner: login, name, scope, expires_at: None };
                code(store.import_tokens(operator(), vec![one], yes).await)
            }
            _ => {
                let once = Idempotency { key: format!("key{what}"), request: [what; 32] };
                let end = yes.then(|| Timestamp::from_millis(NOW + 3_600_000 * i64::from(1 + what)));
                let new = NewToken { expires_at: end, ..named(&login, &format!("name{what}")) };
                code(store.create_token(by(), new, yes.then_some(once)).await)
            }
        };
        for broken in ["closed", "not_durable", "store"] {
            assert!(!outcome.contains(broken), "{step:?}: {outcome}");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), 0..2usize, any::<u8>(), 0..12u8, any::<bool>())
        .prop_map(|(method, node, who, what, yes)| Step { method, node, who, what, yes })
}

/// Runs the steps, each on its node, and compares all nodes.
fn check(steps: &[Step], writers: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::new();
        let nodes: Vec<Node> = (0..writers).map(|_| cluster.node()).collect();
        let follower = cluster.node();
        for login in ["user0", "user1"] {
            nodes[0].store.create_user(operator(), person(login)).await.unwrap();
        }
        nodes[0].store.create_group(operator(), "developers".into(), None).await.unwrap();
        for step in steps {
            // Some time passes, so that rows expire.
            cluster.clock.fetch_add(i64::from(step.what / 10) * 40 * 3_600_000, Ordering::Relaxed);
            nodes[step.node % writers].take(*step).await;
        }
        // Twice: after an answer, a node may still drop what has expired, and its own call waits for that. The
        // follower drops what the writers have left, each of which looks once in a while.
        for node in nodes.iter().chain(&nodes).chain([&follower; 2]).chain(&nodes) {
            node.store.follow(None).await.unwrap();
        }
        let (head, _) = follower.store.follow(None).await.unwrap();
        assert_eq!(head, cluster.log.head().unwrap());
        // A node that starts only now, and one that has the rows already.
        let late = cluster.node();
        let (rows, memory) = (follower.rows(), follower.memory());
        for (name, node) in nodes.iter().map(|node| ("a writer", node)).chain([("a late one", &late)]) {
            assert!(node.rows() == rows, "the rows of {name}");
            assert_eq!(node.memory(), memory, "{name}");
        }
        assert!(follower.store.verify_audit().unwrap().events > 0);
        follower.store.close().await;
        let generation =
            Generation { path: follower.directory.path().to_owned(), store: cluster.log.store() };
        let again = generation.with_log(Box::new(cluster.log.reopen())).unwrap();
        assert!(again.all_rows() == rows, "rows that lasted");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_follower_comes_to_what_the_writer_has(steps in prop::collection::vec(step(), 1..60)) {
        check(&steps, 1);
    }

    /// Each node finds the other's entries before its own, follows them and plans again.
    #[test]
    fn writers_that_take_turns_agree(steps in prop::collection::vec(step(), 1..60)) {
        check(&steps, 2);
    }
}

/// What a follower has followed is in force there when the call returns.
#[tokio::test]
async fn a_revocation_reaches_the_follower_and_its_fence() {
    let cluster = Cluster::new();
    let (writer, follower) = (cluster.node(), cluster.node());
    writer.store.create_user(operator(), person("alice")).await.unwrap();
    let token = writer.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    follower.store.follow(None).await.unwrap();
    assert_eq!(follower.indexed(&token.digest).restrictions.end, TokenEnd::None);
    writer.store.revoke_token(operator(), token.id, RevokeReason::Admin).await.unwrap();
    let before = follower.store.metrics().fences_raised.value();
    follower.store.follow(None).await.unwrap();
    assert_eq!(follower.indexed(&token.digest).restrictions.end, TokenEnd::Revoked);
    assert_eq!(follower.store.metrics().fences_raised.value(), before + 1);
}

/// A change that is planned twice, since another node's came first, counts once for its account's rate.
#[tokio::test]
async fn a_change_is_counted_once() {
    let number = |n| std::num::NonZeroU32::new(n).unwrap();
    let window = std::time::Duration::from_secs(60);
    let write_rate = crate::settings::Rate { count: number(1), window, burst: number(2) };
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    let policy = Policy { write_rate, ..Policy::default() };
    one.store.replace_configuration(operator(), Configuration { policy, ..usual() }).await.unwrap();
    let alice = one.store.create_user(operator(), person("alice")).await.unwrap().record;
    let alice = Actor::new(ActorKind::User(alice.id));
    let token = one.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    for seconds in [100, 50] {
        other.store.follow(None).await.unwrap();
        other.store.create_user(operator(), person(&format!("user{seconds}"))).await.unwrap();
        let end = Some(Timestamp::from_millis(NOW + seconds * 1000));
        let edit = TokenEdit { expires_at: end, ..TokenEdit::default() };
        assert_eq!(code(one.store.edit_token(alice.clone(), token.id, None, edit).await), "ok");
    }
    for name in ["first", "second"] {
        other.store.follow(None).await.unwrap();
        other.store.create_user(operator(), person(name)).await.unwrap();
        assert_eq!(code(one.store.create_token(alice.clone(), named("alice", name), None).await), "ok");
    }
}

/// A change that was planned on an outdated state is planned again, and is then refused.
#[tokio::test]
async fn an_invariant_holds_over_nodes() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    one.store.create_user(operator(), person("alice")).await.unwrap();
    one.store.create_token(operator(), named("alice", "ci"), None).await.unwrap();
    // The other node knows neither alice nor the name.
    assert_eq!(code(other.store.create_token(operator(), named("alice", "CI"), None).await), "not_found");
    other.store.follow(None).await.unwrap();
    one.store.create_token(operator(), named("alice", "deploy"), None).await.unwrap();
    assert_eq!(
        code(other.store.create_token(operator(), named("alice", "Deploy"), None).await),
        "name_taken"
    );
    assert_eq!(code(other.store.create_token(operator(), named("alice", "third"), None).await), "ok");
    let again = one.store.create_user(operator(), person("alice")).await;
    assert_ne!(code(again), "ok");
}

//! Loads the engine's rows into what workers read, in one scan before anything is published.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    OpenError, ReadError, Store,
    change::{Configuration, Settings},
    cluster::{Applied, Node, NodeIdentity},
    engine::Engine,
    model::{AuditEvent, AuditPosition},
    op::Op,
    replica::Table,
    sessions::Sessions,
    state::{Effects, State},
    writer::{self, Batch, Clock, Retention, Shared, Transaction, WriteRates, Writer},
};
use crate::{
    authz::{
        accounts::{Accounts, compile, initial_grant},
        rules::{Rules, ServiceIds},
        time::Timestamp,
    },
    fence::Fence,
    state::{self, Snapshot},
};

pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

pub(crate) fn open(
    settings: &Settings,
    configuration: Configuration,
    fence: Arc<Fence>,
    clock: Clock,
) -> Result<(Store, Arc<state::State>), OpenError> {
    serve(Engine::open_unloaded(settings)?, configuration, fence, clock, None)
        .map(|(store, state, _)| (store, state))
}

/// Loads an engine's rows and starts the writer thread. `node`: the identity with which it joins a cluster, and
/// the lease; the receiver then gets the entries that the writer has applied.
pub(super) fn serve(
    engine: Engine,
    configuration: Configuration,
    fence: Arc<Fence>,
    clock: Clock,
    node: Option<(NodeIdentity, Duration)>,
) -> Result<(Store, Arc<state::State>, Option<UnboundedReceiver<Applied>>), OpenError> {
    let (tx, applied) = transaction(engine, configuration, clock, node)?;
    let (shared, published) = (tx.shared.clone(), tx.shared.state.clone());
    let retention = Retention::new(tx.now);
    let writer = Writer { tx, shared: shared.clone(), fence, retention, unwritten: None };
    let (queue, commands) = writer::Queue::new();
    std::thread::Builder::new().name("permgate-writer".into()).spawn(move || writer.run(commands))?;
    Ok((Store { shared, queue }, published, applied))
}

/// Loads an engine's rows, and begins the transaction that plans changes of them.
pub(super) fn transaction(
    mut engine: Engine,
    configuration: Configuration,
    clock: Clock,
    node: Option<(NodeIdentity, Duration)>,
) -> Result<(Transaction, Option<UnboundedReceiver<Applied>>), OpenError> {
    let now = clock();
    let mut ids = ServiceIds::default();
    let Configuration { services, public, rules, proxy, policy } = configuration;
    let rules = Rules::compile(services, public, rules, &mut ids).map_err(OpenError::Rules)?;
    let rules = Arc::new(rules);
    let state = State { accounts: Accounts::new(), audit: AuditPosition::START, rules, proxy, policy };
    let (state, published, sessions, members) = engine.load_or_rebuild(|engine| {
        let loaded = load(engine, state.clone(), &mut ids, now)?;
        Ok((loaded.0, loaded.1, Sessions::load(engine)?, engine.members_of_cluster()?))
    })?;
    let join = |(identity, lease)| Node::new(identity, members, lease, engine.head(), published.clone());
    let (node, applied) = node.map(join).unzip();
    let shared = Arc::new(Shared {
        state: published,
        sessions: Arc::new(sessions),
        accounts: arc_swap::ArcSwap::from_pointee(state.accounts.clone()),
        engine: Arc::new(engine),
        unsaved: Default::default(),
        unwritten: std::sync::atomic::AtomicU64::default(),
        closed: Default::default(),
        clock,
        metrics: Arc::default(),
        node,
    });
    let tx = Transaction {
        shared,
        now,
        state,
        ids,
        batch: Batch::default(),
        committing: None,
        affected: None,
        power_changes: Effects::default(),
        counted: false,
        rates: WriteRates::default(),
        was_counted: false,
        as_logged: false,
        failed: None,
    };
    Ok((tx, applied))
}

/// Loads an engine's rows into memory.
fn load(
    engine: &Engine,
    mut state: State,
    ids: &mut ServiceIds,
    now: Timestamp,
) -> Result<(State, Arc<state::State>), OpenError> {
    state.audit = begin(engine, now)?;
    state.accounts = accounts(engine)?;
    let directory = Arc::new(compile(&state.accounts, &state.rules));
    let (rules, proxy) = (state.rules.clone(), state.proxy.clone());
    let published = state::State::new(Snapshot { rules, directory, proxy });
    index(engine, &state, ids, &published)?;
    Ok((state, published))
}

/// The end of the audit chain. A new store first gets the grant that every user has, and the first event.
pub(super) fn begin(engine: &Engine, now: Timestamp) -> Result<AuditPosition, OpenError> {
    let mut audit = AuditPosition::load(engine)?;
    if audit == AuditPosition::START {
        let first = AuditEvent::new(now, "store.create", "system", "store", None);
        let ops = [Op::PutGrant(initial_grant()), Op::AppendAudit(audit.append(first))];
        let path = || engine.generation.clone();
        let begun = engine.commit(&ops);
        begun.map_err(|error| OpenError::Write { path: path(), why: error.to_string() })?;
    }
    Ok(audit)
}

/// Users, groups, roles, members and grants.
fn accounts(engine: &Engine) -> Result<Accounts, ReadError> {
    let mut accounts = Accounts::new();
    for user in engine.users()? {
        accounts.put_user(user);
    }
    for group in engine.groups()? {
        accounts.put_group(group);
    }
    engine.roles()?.into_iter().for_each(|role| accounts.put_role(role));
    engine.members()?.iter().for_each(|(group, user)| accounts.set_member(group, user, true));
    engine.grants()?.iter().for_each(|grant| accounts.set_grant(grant, true));
    Ok(accounts)
}

/// Fills the index.
fn index(
    engine: &Engine,
    state: &State,
    ids: &mut ServiceIds,
    published: &state::State,
) -> Result<(), OpenError> {
    let (mut imported, mut wrong) = (0, None);
    let about = usize::try_from(engine.replica().state().sum(Table::Tokens).rows).unwrap_or(0);
    published.index().fill(about, |put| {
        engine.load(&mut |digest, row| {
            let (id, is_imported) = (row.id, row.imported);
            let Some(token) = state.compile(row, ids) else {
                let what = || format!("token {id}: its owner is unknown, or its scope is empty");
                wrong.get_or_insert_with(what);
                return;
            };
            imported += u64::from(is_imported);
            put(digest, token);
        })
    })?;
    published.index().set_imported(imported);
    wrong.map_or(Ok(()), |what| Err(OpenError::Row(what)))
}

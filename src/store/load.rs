//! From the engine's rows to what workers read: one scan, before anything is published.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;

use super::{
    ReadError, Store,
    audit::{AuditHead, Entry},
    change::{Configuration, Settings},
    engine::{self, CommitError, Engine},
    op::Op,
    record::TokenHead,
    replica::{Damage, Table},
    sessions::Sessions,
    writer::{self, Clock, Command, Desk, Pending, Replaced, Shared, Standing, Upkeep, Writer},
};
use crate::{
    authz::{
        accounts::{Accounts, compile, first_grant},
        rules::{RuleError, Rules, ServiceId, ServiceIds},
        subject::{Ending, Scope, Token, UserIx},
        time::Timestamp,
    },
    fence::Fence,
    settings::ProxySettings,
    state::{Snapshot, State},
};

/// Why a store does not open. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory: locked, foreign, damaged, full.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
    #[error("the configuration contradicts itself")]
    Rules(Vec<RuleError>),
    #[error("the store's rows cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the store cannot be written: {0}")]
    Write(String),
    /// A row that no version of permgate writes.
    #[error("the store has a row that cannot be: {0}")]
    Row(String),
    #[error("the store's writer thread does not start: {0}")]
    Thread(#[from] std::io::Error),
}

pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

pub(crate) fn open(
    settings: &Settings,
    configuration: Configuration,
    fence: Arc<Fence>,
    clock: Clock,
) -> Result<(Store, Arc<State>), OpenError> {
    let mut engine = Engine::open_unloaded(settings)?;
    let now = clock();
    let mut ids = ServiceIds::default();
    let Configuration { services, public, rules, proxy, policy } = configuration;
    let rules = Rules::compile(services, public, rules, &mut ids).map_err(OpenError::Rules)?;
    let rules = Arc::new(rules);
    let loaded = match load(&engine, &rules, &mut ids, &proxy, now)? {
        Ok(loaded) => loaded,
        Err(damage) => {
            engine.rebuild(&damage.to_string())?;
            let again = load(&engine, &rules, &mut ids, &proxy, now)?;
            again.map_err(|damage| ReadError(damage.to_string()))?
        }
    };
    let Loaded { audit, accounts, state, imported, replaced } = loaded;
    let engine = Arc::new(engine);

    let sessions = Arc::new(Sessions::load(&engine)?);
    let shared = Arc::new(Shared {
        engine: engine.clone(),
        state: state.clone(),
        sessions: sessions.clone(),
        accounts: arc_swap::ArcSwap::from_pointee(accounts.clone()),
        unsaved: std::sync::Mutex::default(),
        closed: std::sync::Mutex::default(),
        clock,
        metrics: Arc::default(),
    });
    let standing = Standing { accounts, rules, proxy, policy, imported, audit };
    let desk = Desk {
        engine,
        state: state.clone(),
        sessions,
        now,
        standing,
        ids,
        pending: Pending::default(),
        affected: None,
        unsaved: HashMap::new(),
        replaced,
    };
    let writer = Writer { desk, shared: shared.clone(), fence, upkeep: Upkeep::new(now) };
    let (queue, commands) = mpsc::channel::<Command>(writer::QUEUE);
    std::thread::Builder::new().name("permgate-writer".into()).spawn(move || writer.run(commands))?;
    Ok((Store { shared, queue }, state))
}

/// What a start reads.
struct Loaded {
    audit: AuditHead,
    accounts: Accounts,
    state: Arc<State>,
    imported: u64,
    replaced: Replaced,
}

/// From the engine into memory. The inner error says that the replica has to be made again first.
fn load(
    engine: &Engine,
    rules: &Arc<Rules>,
    ids: &mut ServiceIds,
    proxy: &Arc<ProxySettings>,
    now: Timestamp,
) -> Result<Result<Loaded, Damage>, OpenError> {
    let mut audit = AuditHead::load(engine)?;
    if audit == AuditHead::START {
        begin(engine, &mut audit, now)?;
    }
    let accounts = accounts(engine)?;
    let directory = Arc::new(compile(&accounts, rules));
    let state = State::new(Snapshot { rules: rules.clone(), directory, proxy: proxy.clone() });
    let (imported, replaced) = match index(engine, &accounts, ids, &state, now)? {
        Ok(found) => found,
        Err(damage) => return Ok(Err(damage)),
    };
    state.index().set_imported(imported);
    Ok(Ok(Loaded { audit, accounts, state, imported, replaced }))
}

/// A new store: the one grant that everybody has, and the first event of the chain.
pub(super) fn begin(engine: &Engine, audit: &mut AuditHead, now: Timestamp) -> Result<(), OpenError> {
    let first = Entry {
        event: "store.create",
        actor: "system".into(),
        target: "store".into(),
        request_id: None,
        reason: None,
        change: None,
    };
    let ops = [Op::PutGrant(first_grant()), Op::AppendAudit(audit.append(first.at(now)))];
    engine.commit(&ops).map_err(|error| match error {
        CommitError::Refused(reason) | CommitError::Failed(reason) => OpenError::Write(reason),
    })
}

fn accounts(engine: &Engine) -> Result<Accounts, ReadError> {
    let mut accounts = Accounts::new();
    for user in engine.users()? {
        accounts.put_user(user);
    }
    for group in engine.groups()? {
        accounts.put_group(group);
    }
    for role in engine.roles()? {
        accounts.put_role(role);
    }
    for (group, user) in engine.members()? {
        accounts.set_member(&group, &user, true);
    }
    for grant in engine.grants()? {
        accounts.set_grant(&grant, true);
    }
    Ok(accounts)
}

/// What the keys in scopes stand for. Each token asks for each of its own.
type Services = HashMap<String, ServiceId, foldhash::fast::RandomState>;

/// Answers how many tokens are imported, and which are in their grace.
fn index(
    engine: &Engine,
    accounts: &Accounts,
    ids: &mut ServiceIds,
    state: &State,
    now: Timestamp,
) -> Result<Result<(u64, Replaced), Damage>, OpenError> {
    let mut services = Services::default();
    let mut owners: HashMap<String, UserIx, foldhash::fast::RandomState> = HashMap::default();
    let (mut imported, mut replaced) = (0, Replaced::new());
    let mut wrong = None;
    let about = usize::try_from(engine.replica().state().sum(Table::Tokens).rows).unwrap_or(0);
    let loaded = state.index().fill(about, |put| {
        engine.load(&mut |digest, row| {
            let owner = owners.get(row.owner).copied().or_else(|| {
                let ix = accounts.user_by_id(row.owner)?.ix;
                owners.insert(row.owner.to_owned(), ix);
                Some(ix)
            });
            let scope = scope(&row, &mut services, ids);
            let (Some(owner), Some(scope)) = (owner, scope) else {
                let what = || format!("token {}: its owner is unknown, or its scope empty", row.id);
                wrong.get_or_insert_with(what);
                return;
            };
            imported += u64::from(row.imported);
            if row.revoked_at.is_none() && row.rotation.is_some_and(|rotation| rotation.grace_until > now) {
                replaced.entry(row.owner.to_owned()).or_default().insert(row.id);
            }
            put(digest, token(row, owner, scope));
        })
    })?;
    match (loaded, wrong) {
        (Err(damage), _) => Ok(Err(damage)),
        (Ok(()), Some(what)) => Err(OpenError::Row(what)),
        (Ok(()), None) => Ok(Ok((imported, replaced))),
    }
}

fn token(row: TokenHead<'_>, owner: UserIx, scope: Scope) -> Token {
    Token {
        id: row.id,
        owner,
        scope,
        not_before: row.not_before,
        expires_at: row.expires_at,
        end: match (row.revoked_at, row.rotation) {
            (Some(_), _) => Ending::Revoked,
            (None, Some(rotation)) => Ending::Rotated { grace_until: rotation.grace_until },
            (None, None) => Ending::None,
        },
        allow_ips: row.allow_ips.into(),
    }
}

fn scope(row: &TokenHead<'_>, services: &mut Services, ids: &mut ServiceIds) -> Option<Scope> {
    let mut unknown = false;
    let scope = Scope::new(row.scope.iter().filter_map(|(key, access)| {
        let id = match services.get(*key) {
            Some(id) => Some(*id),
            None => writer::intern(ids, key).inspect(|id| {
                services.insert((*key).to_owned(), *id);
            }),
        };
        unknown |= id.is_none();
        Some((id?, *access))
    }));
    scope.filter(|_| !unknown)
}

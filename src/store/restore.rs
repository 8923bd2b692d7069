//! Restores a store from a backup. What was revoked, narrowed, banned or deleted after the backup stays so, as
//! the replaced store has it. If that store cannot be read, the operator has to accept the loss.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    path::{Path, PathBuf},
    rc::Rc,
};

use ipnet::IpNet;

use crate::{
    authz::{
        accounts::Grantee,
        administration::tokens::TokenBounds,
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{
        OpenError, ReadError, Settings,
        backup::{Header, Progress, Reader, StreamError, Writer},
        cluster,
        engine::{Engine, Generation, StoreDirectory, checkpoint},
        exists,
        generation::parse_id,
        log::{Failure, Head, StoreId, files::OsDirectory},
        migration::{self, first_position},
        model::{AuditEvent, AuditPosition, Revocation, RevokeReason, Rotation, UserId, UserRecord},
        op::Op,
        record::TokenHead,
        sessions::KeyedByDigest as _,
    },
};

pub struct Options {
    /// Whether what was revoked, banned or deleted since the backup may become valid again.
    pub accept_lost_revocations: bool,
    pub now: Timestamp,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub rows: u64,
    pub taken_at_millis: i64,
    /// Tokens that were valid in the backup, but ended in the replaced store.
    pub revoked: u64,
    /// Tokens whose scope, addresses or expiry were reduced since the backup, and stay so.
    pub narrowed: u64,
    /// Users banned or deleted since the backup.
    pub users: u64,
    /// Users whose password was set, changed or removed since the backup, and stays so.
    pub passwords: u64,
    /// The generation that was the store before.
    pub replaced: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the backup cannot be restored: {0}")]
    Stream(#[from] StreamError),
    #[error(
        "the backup was taken at {taken_at}, and revocations, bans, deletions and password changes since \
         then are unknown ({why}); to undo them all, pass --accept-lost-revocations"
    )]
    LostRevocations { taken_at: String, why: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the restored store cannot be written: {0}")]
    Write(String),
    #[error(transparent)]
    Io(#[from] Failure),
}

/// How tokens and users ended in the store that is replaced.
#[derive(Default)]
struct Tombstones {
    /// Position in the log.
    position: u64,
    tokens: HashMap<TokenId, LastState>,
    users: HashMap<UserId, UserRecord>,
    /// The users of the identities at providers.
    identities: HashMap<Digest, UserId>,
}

/// A token in the store that is replaced.
struct LastState {
    revoked: bool,
    rotation: Option<Rotation>,
    expires_at: Option<Timestamp>,
    /// Scope and networks. Shared, since many tokens have the same.
    scope_and_networks: Rc<ScopeAndNetworks>,
}

type ScopeAndNetworks = (Vec<(String, Access)>, Vec<IpNet>);

/// Rows between two reports of progress.
const PROGRESS_INTERVAL: u64 = 1000;

/// Builds the new store as a generation beside the current one, and switches to it once it is whole. The
/// replaced generation stays until the next restore has succeeded.
pub fn offline(
    settings: &Settings,
    options: &Options,
    input: impl Read,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError> {
    if cluster::is_copy(&settings.path) {
        return Err(OpenError::Copy { path: settings.path.clone() }.into());
    }
    let mut reader = Reader::open(input)?;
    let header = reader.header.clone();
    let store = parse_id(&header.store).ok_or(StreamError::Damaged(0))?;
    let (tombstones, replaced) = match read_tombstones(settings, store)? {
        Ok((tombstones, replaced)) => (Some(tombstones), Some(replaced)),
        Err(_) if options.accept_lost_revocations => (None, None),
        Err(why) => {
            let taken_at = jiff::Timestamp::from_millisecond(header.taken_at.as_millis());
            let taken_at = taken_at.map_or_else(|_| "an unknown time".to_owned(), |at| at.to_string());
            return Err(RestoreError::LostRevocations { taken_at, why });
        }
    };
    let directory = StoreDirectory::open(&settings.path)?;
    let generations = directory.generations();
    let new = generations.begin(Some(store)).map_err(OpenError::from)?;
    let mut restored =
        Restored { taken_at_millis: header.taken_at.as_millis(), replaced, ..Restored::default() };
    let mut fill = || {
        let head = write_checkpoint(&mut reader, store, new.directory.path(), on_progress)?;
        restored.rows = reader.progress.rows;
        let generation = Generation::begin(&new, head, settings)?;
        let files = Box::new(OsDirectory::new(&generation.path));
        let engine = generation.open(files, settings)?;
        let merge = Merge { engine: &engine, now: options.now, restored: &mut restored, ops: Vec::new() };
        let merged = merge.run(tombstones.as_ref());
        engine.close();
        merged
    };
    if let Err(error) = fill() {
        // What cannot be removed now is removed when the next generation is begun.
        let _ = generations.abandon(&new);
        return Err(error);
    }
    generations.switch_and_keep(&new).map_err(OpenError::from)?;
    migration::finish(directory.path())?;
    Ok(restored)
}

/// Reads the whole backup into a generation, as its checkpoint.
fn write_checkpoint(
    reader: &mut Reader<impl Read>,
    store: StoreId,
    generation: &Path,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Head, RestoreError> {
    let write = |e: io::Error| Failure::new("write a checkpoint in", generation, e);
    let header = Header { store: store.to_string(), ..reader.header.clone() };
    let mut head = Head::EMPTY;
    checkpoint::write(generation, |out| -> Result<u64, RestoreError> {
        let mut stream = Writer::begin(out, &header).map_err(write)?;
        let mut ops = Vec::new();
        while reader.next(&mut ops)? {
            ops.drain(..).try_for_each(|op| stream.write_op(&op)).map_err(write)?;
            if reader.progress.rows.is_multiple_of(PROGRESS_INTERVAL) {
                on_progress(reader.progress);
            }
        }
        on_progress(reader.progress);
        head = Head { position: first_position(reader.head.position), ..reader.head };
        stream.finish(head).map_err(write)?;
        Ok(head.position)
    })?;
    Ok(head)
}

/// The current store's tombstones and its path, or why they are not known.
fn read_tombstones(
    settings: &Settings,
    store: StoreId,
) -> Result<Result<(Tombstones, PathBuf), String>, RestoreError> {
    if !exists(settings) {
        return Ok(Err("there is no current store".to_owned()));
    }
    let mut engine = match Engine::open_unloaded(settings) {
        Ok(engine) => engine,
        Err(error @ OpenError::Locked { .. }) => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    if engine.store != store {
        return Ok(Err(format!("{} has another store", settings.path.display())));
    }
    let known = engine.load_or_rebuild(collect).map_err(|e| e.to_string());
    Ok(known.map(|tombstones| (tombstones, engine.generation.clone())))
}

fn collect(engine: &Engine) -> Result<Tombstones, OpenError> {
    let mut tombstones = Tombstones { position: engine.head().position, ..Tombstones::default() };
    let mut known: HashSet<Rc<ScopeAndNetworks>> = HashSet::new();
    engine.load(&mut |_, row| {
        let scope_and_networks = scope_and_networks(&row);
        let scope_and_networks =
            known.get(&scope_and_networks).cloned().unwrap_or_else(|| Rc::new(scope_and_networks));
        known.insert(scope_and_networks.clone());
        let (revoked, rotation, expires_at) = (row.revoked_at.is_some(), row.rotation, row.expires_at);
        tombstones.tokens.insert(row.id, LastState { revoked, rotation, expires_at, scope_and_networks });
    })?;
    for user in engine.users()? {
        tombstones.users.insert(user.id.clone(), user);
    }
    for identity in engine.identities()? {
        tombstones.identities.insert(identity.key(), identity.user);
    }
    Ok(tombstones)
}

fn scope_and_networks(row: &TokenHead<'_>) -> ScopeAndNetworks {
    let scope = row.scope.iter().map(|(service, access)| ((*service).to_owned(), *access));
    (scope.collect(), row.allow_ips.clone())
}

/// The operations that keep what ended since the backup.
struct Merge<'a> {
    engine: &'a Engine,
    now: Timestamp,
    restored: &'a mut Restored,
    ops: Vec<Op>,
}

impl Merge<'_> {
    fn run(mut self, tombstones: Option<&Tombstones>) -> Result<(), RestoreError> {
        let engine = self.engine;
        let is_newer = tombstones.is_some_and(|tombstones| tombstones.position >= engine.head().position);
        if let Some(tombstones) = tombstones {
            self.tokens(tombstones, is_newer)?;
            self.users(tombstones, is_newer)?;
        }
        // Otherwise an identity that was unlinked since could sign in again.
        if let Some(tombstones) = tombstones.filter(|_| is_newer) {
            for identity in engine.identities()? {
                let key = identity.key();
                if tombstones.identities.get(&key) != Some(&identity.user) {
                    self.ops.push(Op::DropIdentity(key));
                }
            }
        }
        // Otherwise users who signed out or changed their password since would be signed in again.
        self.ops.extend(engine.sessions()?.into_iter().map(|session| Op::DropSession(session.digest)));
        self.ops.extend(engine.invitations()?.into_iter().map(|one| Op::DropInvitation(one.digest)));
        let mut audit = AuditPosition::load(engine)?;
        let change = serde_json::json!({
            "taken_at": self.restored.taken_at_millis,
            "revoked": self.restored.revoked,
            "narrowed": self.restored.narrowed,
            "users": self.restored.users,
            "passwords": self.restored.passwords,
            "revocations_lost": tombstones.is_none(),
        });
        let event = AuditEvent::new(self.now, "store.restore", "operator", "store", change);
        self.ops.push(Op::AppendAudit(audit.append(event)));
        for part in self.ops.chunks(10_000) {
            engine.commit(part).map_err(|error| RestoreError::Write(error.to_string()))?;
        }
        Ok(())
    }

    fn tokens(&mut self, tombstones: &Tombstones, is_newer: bool) -> Result<(), RestoreError> {
        let engine = self.engine;
        let mut changed = Vec::new();
        engine.load(&mut |_, row| {
            let last = tombstones.tokens.get(&row.id);
            let ended = match last {
                Some(last) => last.revoked && row.revoked_at.is_none() || last.rotation != row.rotation,
                // A row leaves a store only after its token has ended.
                None => is_newer && row.revoked_at.is_none(),
            };
            let other = last.is_some_and(|last| {
                last.expires_at != row.expires_at || *last.scope_and_networks != scope_and_networks(&row)
            });
            if ended || other {
                changed.push((row.id, last));
            }
        })?;
        for (id, last) in changed {
            let Some(before) = engine.token(id)? else { continue };
            let mut token = before.clone();
            if let Some(last) = last {
                let (scope, allow_ips) = (*last.scope_and_networks).clone();
                let by = TokenBounds { scope, expires_at: last.expires_at, allow_ips };
                let TokenBounds { scope, expires_at, allow_ips } = token.bounds().narrowed(&by);
                (token.scope, token.expires_at, token.allow_ips) = (scope, expires_at, allow_ips);
            }
            self.restored.narrowed += u64::from(token != before);
            if last.is_none_or(|last| last.revoked) && token.revoked.is_none() {
                token.revoked = Some(Revocation { at: self.now, by: None, reason: RevokeReason::Admin });
            }
            token.rotation = token.rotation.or_else(|| last?.rotation);
            if (&token.revoked, token.rotation) != (&before.revoked, before.rotation) {
                self.restored.revoked += 1;
            }
            if token != before {
                token.revision += 1;
                self.ops.push(Op::PutToken(token));
            }
        }
        Ok(())
    }

    fn users(&mut self, tombstones: &Tombstones, is_newer: bool) -> Result<(), RestoreError> {
        let engine = self.engine;
        let mut deleted = HashSet::new();
        for mut user in engine.users()? {
            let Some(ended) = tombstones.users.get(&user.id) else { continue };
            let before = user.clone();
            user.banned = user.banned.or_else(|| ended.banned.clone());
            user.deleted_at = user.deleted_at.or(ended.deleted_at);
            self.restored.users += u64::from(user != before);
            if user.deleted_at != before.deleted_at {
                deleted.insert(user.id.clone());
            }
            // The backup's password may be known to others: it was changed since.
            if is_newer && user.password != ended.password {
                user.password.clone_from(&ended.password);
                self.restored.passwords += 1;
            }
            if user != before {
                user.revision += 1;
                self.ops.push(Op::PutUser(user));
            }
        }
        // A deleted user has neither groups nor roles: they would be counted as an administrator.
        for (group, user) in engine.members()?.into_iter().filter(|(_, user)| deleted.contains(user)) {
            self.ops.push(Op::DropMember { group, user });
        }
        let of_deleted = |to: &Grantee| matches!(to, Grantee::User(id) if deleted.contains(id));
        let grants = engine.grants()?.into_iter().filter(|grant| of_deleted(&grant.to));
        self.ops.extend(grants.map(Op::DropGrant));
        Ok(())
    }
}

#[cfg(test)]
mod tests;

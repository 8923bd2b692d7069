//! A store out of a backup. What was revoked, banned or deleted after the backup stays so: the store
//! that is replaced knows. Where it cannot be read, somebody has to accept the loss.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    authz::{
        accounts::fold,
        secret::{Digest, TokenId},
        time::Timestamp,
    },
    store::{
        OpenError, ReadError, Settings,
        audit::{Entry, Head},
        backup::{Progress, Reader, StreamError},
        embedded::{self, FillError, Filling},
        engine::{CommitError, Engine, Op},
        model::{IdentityRecord, Revocation, RevokeReason, Rotation, UserId},
    },
};

pub struct Options {
    /// What was revoked, banned or deleted since the backup may hold again.
    pub accept_lost_revocations: bool,
    pub now: Timestamp,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub rows: u64,
    pub taken_at_millis: i64,
    /// Tokens that the backup held for good and the replaced store did not.
    pub revoked: u64,
    /// Users banned or deleted since the backup.
    pub users: u64,
    /// Where the replaced store lies now.
    pub replaced: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the backup cannot be restored: {0}")]
    Stream(#[from] StreamError),
    #[error("the backup holds a row that cannot be restored: {0}")]
    Row(String),
    #[error(
        "the backup was taken at {taken_at}, and what was revoked, banned or deleted since is not known ({why}); \
         to let it hold again say --accept-lost-revocations"
    )]
    LostRevocations { taken_at: String, why: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the restored store cannot be written: {0}")]
    Write(String),
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// How tokens and users ended in the store that is replaced.
#[derive(Default)]
struct Ends {
    revision: u64,
    tokens: HashMap<TokenId, (bool, Option<Rotation>)>,
    users: HashMap<String, (Option<String>, Option<Timestamp>)>,
    /// Whom providers mean.
    identities: HashMap<Digest, UserId>,
}

/// Progress is told every so many rows.
const TELL: u64 = 1000;

/// Builds the new store beside `settings.path`, and only when it is whole puts it there; the one that
/// was there is kept beside it.
pub fn offline(
    settings: &Settings,
    options: &Options,
    input: impl Read,
    tell: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError> {
    let mut reader = Reader::open(input)?;
    let header = reader.header.clone();
    let ends = match ends(settings, &header.store)? {
        Ok(ends) => Some(ends),
        Err(_) if options.accept_lost_revocations => None,
        Err(why) => {
            let taken_at = jiff::Timestamp::from_millisecond(header.taken_at.as_millis());
            let taken_at = taken_at.map_or_else(|_| "an unknown time".to_owned(), |at| at.to_string());
            return Err(RestoreError::LostRevocations { taken_at, why });
        }
    };
    let new = beside(&settings.path, "restoring");
    if new.join("format").exists() {
        fs::remove_dir_all(&new).map_err(|e| fail("remove the unfinished", &new, e))?;
    }
    let mut filling = Filling::begin(&new, &header.store)?;
    while let Some((key, row)) = reader.next_row()? {
        filling.put(&key, &row)?;
        if reader.progress.rows.is_multiple_of(TELL) {
            tell(reader.progress);
        }
    }
    filling.finish()?;
    tell(reader.progress);

    let engine =
        Engine::open(&Settings { path: new.clone(), ..settings.clone() }).map_err(OpenError::from)?;
    let mut restored = Restored {
        rows: reader.progress.rows,
        taken_at_millis: header.taken_at.as_millis(),
        ..Restored::default()
    };
    let merged = merge(&engine, ends.as_ref(), options.now, &mut restored);
    engine.close();
    merged?;
    if settings.path.exists() {
        let old = beside(&settings.path, &format!("replaced-{}", options.now.as_millis()));
        fs::rename(&settings.path, &old).map_err(|e| fail("move aside", &settings.path, e))?;
        restored.replaced = Some(old);
    }
    fs::rename(&new, &settings.path).map_err(|e| fail("put in its place", &new, e))?;
    let parent = settings.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|d| d.sync_all()).map_err(|e| fail("sync", parent, e))?;
    Ok(restored)
}

/// What the present store knows, or why it is not known.
fn ends(settings: &Settings, store: &str) -> Result<Result<Ends, String>, RestoreError> {
    if !settings.path.join("format").exists() {
        return Ok(Err("there is no store to ask".to_owned()));
    }
    let engine = match Engine::open(settings) {
        Ok(engine) => engine,
        Err(error @ embedded::OpenError::Locked { .. }) => return Err(OpenError::from(error).into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let known = if engine.store_id() == store {
        collect(&engine).map_err(|e| e.to_string())
    } else {
        Err(format!("{} holds another store", settings.path.display()))
    };
    engine.close();
    Ok(known)
}

fn collect(engine: &Engine) -> Result<Ends, ReadError> {
    let mut ends = Ends { revision: engine.revision(), ..Ends::default() };
    engine.scan_tokens(&mut |row| {
        ends.tokens.insert(row.id, (row.revoked_at.is_some(), row.rotation));
    })?;
    for user in engine.users()? {
        ends.users.insert(user.id, (user.banned, user.deleted_at));
    }
    for identity in engine.identities()? {
        ends.identities.insert(IdentityRecord::key(&identity.issuer, &identity.subject), identity.user);
    }
    Ok(ends)
}

fn merge(
    engine: &Engine,
    ends: Option<&Ends>,
    now: Timestamp,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let mut ops = Vec::new();
    if let Some(ends) = ends {
        let mut changed = Vec::new();
        engine.scan_tokens(&mut |row| {
            let revoked = row.revoked_at.is_some();
            let (ended, rotation) = match ends.tokens.get(&row.id) {
                Some((ended, rotation)) => (*ended, *rotation),
                // Rows leave a store only when they were revoked long ago.
                None => (ends.revision >= engine.revision(), None),
            };
            if (ended && !revoked) || (rotation.is_some() && row.rotation.is_none()) {
                changed.push((row.id, ended, rotation));
            }
        })?;
        for (id, ended, rotation) in changed {
            let Some(mut token) = engine.token(id)? else { continue };
            let name = fold(&token.name);
            if engine.named(&token.owner, &name)? == Some(id) {
                ops.push(Op::FreeName { owner: token.owner.clone(), name });
            }
            if ended && token.revoked.is_none() {
                token.revoked = Some(Revocation { at: now, by: None, reason: RevokeReason::Admin });
            }
            token.rotation = token.rotation.or(rotation);
            token.revision += 1;
            ops.push(Op::PutToken(token));
            restored.revoked += 1;
        }
        for mut user in engine.users()? {
            let Some((banned, deleted_at)) = ends.users.get(&user.id) else { continue };
            let before = user.clone();
            user.banned = user.banned.or_else(|| banned.clone());
            user.deleted_at = user.deleted_at.or(*deleted_at);
            if user != before {
                user.revision += 1;
                restored.users += 1;
                ops.push(Op::PutUser(user));
            }
        }
    }
    // Whoever was unlinked since would be let in again.
    if let Some(ends) = ends.filter(|ends| ends.revision >= engine.revision()) {
        for identity in engine.identities()? {
            let key = IdentityRecord::key(&identity.issuer, &identity.subject);
            if ends.identities.get(&key) != Some(&identity.user) {
                ops.push(Op::DropIdentity(key));
            }
        }
    }
    // Who signed out or changed a password since would be signed in again.
    ops.extend(engine.sessions()?.into_iter().map(|session| Op::DropSession(session.digest)));
    ops.extend(engine.invitations()?.into_iter().map(|one| Op::DropInvitation(one.digest)));
    let mut audit = Head::load(engine)?;
    let change = serde_json::json!({
        "taken_at": restored.taken_at_millis,
        "revoked": restored.revoked,
        "users": restored.users,
        "revocations_lost": ends.is_none(),
    });
    let event = Entry {
        event: "store.restore",
        actor: "operator".to_owned(),
        target: "store".to_owned(),
        request_id: None,
        reason: None,
        change: Some(change),
    };
    ops.push(Op::AppendAudit(audit.append(event.at(now))));
    for part in ops.chunks(10_000) {
        engine.commit(part).map_err(|error| match error {
            CommitError::Refused(why) | CommitError::Failed(why) => RestoreError::Write(why),
        })?;
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Io { action, path: path.to_owned(), source }
}

impl From<FillError> for RestoreError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Open(error) => OpenError::from(error).into(),
            FillError::Row(why) => Self::Row(why),
            FillError::Write(why) => Self::Write(why),
        }
    }
}

#[cfg(test)]
mod tests;

//! Begins, records and ends sessions and invitations. Whatever ends an account's power ends them, too.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{PERMISSION_DENIED, Transaction, users::target};
use crate::{
    authz::{
        administration::{AdminError, Principal, users},
        secret::Digest,
        subject::UserIx,
        time::Timestamp,
    },
    fence::Affected,
    store::{
        ChangeError,
        change::{Actor, ActorKind, NewSession},
        model::{InvitationRecord, SessionRecord, SignedInBy, UserRecord},
        op::Op,
        sessions::{KeyedByDigest, changes},
        state::Effects,
    },
};

/// Maximum sessions of a user, more than a user has browsers. The least recently used one makes room.
const MAX_SESSIONS: usize = 20;

/// Seconds for which an invitation is valid.
const INVITATION_LIFETIME: i64 = 24 * 3600;

/// The parameters of a new session.
#[derive(Clone, Copy)]
pub(super) struct SessionParameters {
    pub digest: Digest,
    pub client: IpAddr,
    /// The browser's previous session.
    pub replaces: Option<Digest>,
    pub by: SignedInBy,
}

impl Transaction {
    /// Returns `None` if the account may not sign in, or if its password has changed meanwhile.
    pub(crate) fn begin_session(&mut self, new: &NewSession) -> Result<Option<SessionRecord>, ChangeError> {
        let Some(user) = self.state.accounts.user_by_id(&new.user) else { return Ok(None) };
        let (ix, user) = (user.ix, user.record.clone());
        if !user.may_sign_in() || user.password.as_ref() != Some(&new.verified) {
            return Ok(None);
        }
        let NewSession { digest, client, replaces, .. } = *new;
        let (actor, by) = (self_actor(&user, client), SignedInBy::Password);
        Ok(Some(self.open_session(&actor, ix, &user, SessionParameters { digest, client, replaces, by })))
    }

    /// Opens a session for a user who has authenticated.
    pub(super) fn open_session(
        &mut self,
        actor: &Actor,
        ix: UserIx,
        user: &UserRecord,
        opening: SessionParameters,
    ) -> SessionRecord {
        let mut others = self.sessions_of(&user.id);
        others.sort_by_key(|session| session.last_seen_at);
        let spare = (others.len() + 1).saturating_sub(MAX_SESSIONS);
        for session in &others[..spare.min(others.len())] {
            self.affects(Affected::User(ix));
            self.apply(Op::DropSession(session.digest));
        }
        // The browser's previous session, whichever user's it was: its requests are cut as by a sign-out.
        if let Some(replaced) = opening.replaces {
            self.end_session(actor, &replaced, Some(json!({"by": "sign-in"})));
        }
        let record = SessionRecord {
            digest: opening.digest,
            user: user.id.clone(),
            created_at: self.now,
            last_seen_at: self.now,
            client: opening.client,
            by: opening.by,
        };
        let change = json!({"client": record.client.to_string(), "by": record.by.into_str()});
        self.audit_as(actor, "session.begin", target(&user.login), Some(change));
        self.apply(Op::PutSession(record.clone()));
        record
    }

    /// Records a session's last use. Not audited: it only says when the user was last there.
    pub(crate) fn record_session(&mut self, digest: &Digest, seen: Timestamp) {
        if let Some(session) = self.session(digest) {
            let last_seen_at = seen.max(session.last_seen_at);
            self.apply(Op::PutSession(SessionRecord { last_seen_at, ..session }));
        }
    }

    /// Ends one session. Idempotent.
    pub(crate) fn end_session(&mut self, actor: &Actor, digest: &Digest, change: Option<Value>) {
        let Some(session) = self.session(digest) else { return };
        let Some(user) = self.state.accounts.user_by_id(&session.user) else { return };
        let (ix, target) = (user.ix, target(&user.record.login));
        self.affects(Affected::User(ix));
        self.apply(Op::DropSession(*digest));
        self.audit_as(actor, "session.end", target, change);
    }

    /// Ends all sessions of a user; returns how many there were.
    pub(crate) fn end_sessions(&mut self, actor: &Actor, login: &str) -> Result<usize, ChangeError> {
        let principal = self.principal(actor)?;
        let user = users::end_sessions(&self.admin_facts(&principal), login)?;
        let (ix, user) = (user.ix, user.record.clone());
        let ended = self.sign_out(ix, &user.id);
        if ended > 0 {
            let change = json!({"sessions": ended});
            self.audit_as(actor, "session.end", target(&user.login), Some(change));
        }
        Ok(ended)
    }

    /// Creates an invitation, in place of the previous one.
    pub(crate) fn invite(
        &mut self,
        actor: &Actor,
        login: &str,
        digest: Digest,
    ) -> Result<(UserRecord, InvitationRecord), ChangeError> {
        let principal = self.principal(actor)?;
        let user = users::invite(&self.admin_facts(&principal), login)?.record.clone();
        self.drop_invitations_of(&user.id);
        let expires_at = self.now.plus_seconds(INVITATION_LIFETIME);
        let author = Transaction::author(actor);
        let record = InvitationRecord { digest, user: user.id.clone(), author, expires_at };
        self.audit_as(actor, "user.invite", target(&user.login), None);
        self.apply(Op::PutInvitation(record.clone()));
        Ok((user, record))
    }

    /// Sets the password of the invited user. This works once, and only while the author could still
    /// invite.
    pub(crate) fn redeem(
        &mut self,
        digest: &Digest,
        phc: &str,
        client: IpAddr,
    ) -> Result<UserRecord, ChangeError> {
        let gone = || {
            AdminError::new(
                PERMISSION_DENIED,
                "the invitation is invalid or has expired: ask an administrator for a new one",
            )
        };
        let invitation = self.staged_record::<InvitationRecord>(digest);
        let invitation = invitation.filter(|record| self.now < record.expires_at);
        let invitation = invitation.ok_or_else(gone)?;
        let user = self.state.accounts.user_by_id(&invitation.user).ok_or_else(gone)?;
        let (ix, user) = (user.ix, user.record.clone());
        if !user.may_sign_in() || !self.may_invite(&invitation) {
            return Err(gone().into());
        }
        let change = json!({"password": "set", "by": "invitation"});
        self.audit_as(&self_actor(&user, client), "user.password", target(&user.login), Some(change));
        Ok(self.replace_password(ix, user, Some(phc)))
    }

    /// Whether the author of an invitation could create it now.
    fn may_invite(&self, invitation: &InvitationRecord) -> bool {
        let principal = match &invitation.author {
            None => Ok(Principal::operator(&self.state.rules)),
            Some(author) => Principal::user(&self.state.accounts, &self.state.rules, author, None),
        };
        let user = self.state.accounts.user_by_id(&invitation.user);
        let login = user.map(|user| user.record.login.as_str());
        principal.is_ok_and(|principal| {
            login.is_some_and(|login| users::invite(&self.admin_facts(&principal), login).is_ok())
        })
    }

    /// After a change of power, drops every invitation that its author could no longer create, since the
    /// author has less power or the invited user more. It stays gone, whatever comes later.
    pub(super) fn drop_orphaned_invitations(&mut self) {
        let Effects { users, all_users, .. } = std::mem::take(&mut self.power_changes);
        if users.is_empty() && !all_users {
            return;
        }
        let users: Vec<&str> = users
            .iter()
            .filter_map(|ix| self.state.accounts.user(*ix))
            .map(|user| user.record.id.as_str())
            .collect();
        let concerned = |record: &InvitationRecord| {
            let is = |id: &str| all_users || users.contains(&id);
            record.author.as_deref().is_some_and(|author| is(author) || is(&record.user))
        };
        let mut orphaned = self.staged_records(concerned);
        orphaned.retain(|invitation| !self.may_invite(invitation));
        for invitation in orphaned {
            self.apply(Op::DropInvitation(invitation.digest));
        }
    }

    /// Replaces a password, and ends the user's sessions and invitations.
    pub(super) fn replace_password(
        &mut self,
        ix: UserIx,
        before: UserRecord,
        phc: Option<&str>,
    ) -> UserRecord {
        self.sign_out(ix, &before.id);
        self.drop_invitations_of(&before.id);
        let after =
            UserRecord { password: phc.map(ToOwned::to_owned), revision: before.revision + 1, ..before };
        self.apply(Op::PutUser(after.clone()));
        after
    }

    /// Ends every session of a user; returns how many there were.
    pub(super) fn sign_out(&mut self, ix: UserIx, user: &str) -> usize {
        let sessions = self.sessions_of(user);
        if !sessions.is_empty() {
            self.affected = Some(Affected::User(ix));
        }
        sessions.iter().for_each(|session| self.apply(Op::DropSession(session.digest)));
        sessions.len()
    }

    pub(super) fn drop_invitations_of(&mut self, user: &str) {
        for record in self.staged_records(|record: &InvitationRecord| record.user == user) {
            self.apply(Op::DropInvitation(record.digest));
        }
    }

    pub(super) fn session(&self, digest: &Digest) -> Option<SessionRecord> {
        let is_valid = |session: &SessionRecord| self.as_logged || session.is_valid(self.now);
        self.staged_record(digest).filter(is_valid)
    }

    fn sessions_of(&self, user: &str) -> Vec<SessionRecord> {
        self.staged_records(|session: &SessionRecord| session.user == user)
    }

    /// A record as the batch leaves it, or else as it is in memory.
    pub(super) fn staged_record<R: KeyedByDigest>(&self, digest: &Digest) -> Option<R> {
        match self.batch.staged.change(R::TABLE, digest.as_bytes()) {
            Some(row) => R::decode(row?).ok(),
            None if self.as_logged => self.known_records(|record: &R| record.key() == *digest).pop(),
            None => self.shared.sessions.get(digest),
        }
    }

    /// The records that fit, as the batch leaves them, or else as they are in memory.
    pub(super) fn staged_records<R: KeyedByDigest>(&self, fits: impl Fn(&R) -> bool) -> Vec<R> {
        let mut found = self.known_records(&fits);
        found.retain(|record| self.batch.staged.change(R::TABLE, record.key().as_bytes()).is_none());
        found.extend(changes(&self.batch.staged).filter_map(|(_, record)| record).filter(fits));
        found
    }

    /// The records in memory, or those of the log: memory lacks what a removal that is not written has ended.
    fn known_records<R: KeyedByDigest>(&self, fits: impl Fn(&R) -> bool) -> Vec<R> {
        if self.as_logged
            && let Ok(stored) = R::stored(&self.shared.engine)
        {
            return stored.into_iter().filter(fits).collect();
        }
        self.shared.sessions.find(fits)
    }
}

/// The actor of what users do for themselves once they have authenticated.
pub(super) fn self_actor(user: &UserRecord, client: IpAddr) -> Actor {
    Actor { client: Some(client), ..Actor::new(ActorKind::User(user.id.clone())) }
}

//! The records as the store keeps them and the admin listener shows them. `record` puts a version before the
//! stored bytes, so the fields of a serializable record are its stored form and never change; `admin` turns
//! records into JSON by views of its own.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strum::IntoStaticStr;

use super::record::wire;
use crate::authz::{
    administration::tokens::TokenBounds,
    secret::{Digest, TokenId},
    subject::Access,
    time::Timestamp,
};

pub use crate::authz::accounts::{
    GrantRecord, Grantee, GroupRecord, RoleRecord, UserId, UserKind, UserRecord,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: TokenId,
    pub digest: Digest,
    /// Registered by its digest; permgate has never seen the token's text.
    pub imported: bool,
    pub owner: UserId,
    /// User id, or `None` for the operator on the unix socket.
    pub author: Option<UserId>,
    pub name: String,
    pub note: String,
    /// Service keys, sorted.
    pub scope: Vec<(String, Access)>,
    pub allow_ips: Vec<IpNet>,
    pub created_at: Timestamp,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub last_used: Option<LastUsed>,
    pub revoked: Option<Revocation>,
    pub rotation: Option<Rotation>,
    /// The id of the first token of the family.
    pub family: TokenId,
    pub revision: u64,
}

impl TokenRecord {
    /// A new token: valid from every address, without expiry, authored by the operator.
    pub(crate) fn new(
        id: TokenId,
        digest: Digest,
        owner: UserId,
        name: String,
        scope: Vec<(String, Access)>,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            digest,
            imported: false,
            owner,
            author: None,
            name,
            note: String::new(),
            scope,
            allow_ips: Vec::new(),
            created_at,
            not_before: None,
            expires_at: None,
            last_used: None,
            revoked: None,
            rotation: None,
            family: id,
            revision: 1,
        }
    }

    pub(crate) fn bounds(&self) -> TokenBounds {
        TokenBounds {
            scope: self.scope.clone(),
            expires_at: self.expires_at,
            allow_ips: self.allow_ips.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUsed {
    #[serde(with = "wire")]
    pub at: Timestamp,
    pub from: IpAddr,
    /// Service key.
    pub service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    #[serde(with = "wire")]
    pub at: Timestamp,
    pub by: Option<UserId>,
    pub reason: RevokeReason,
}

/// Stored as the variant's number, like [`SignedInBy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum RevokeReason {
    User,
    Admin,
    Rotated,
    OwnerDeleted,
    Leaked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    #[serde(with = "wire")]
    pub to: TokenId,
    #[serde(with = "wire")]
    pub grace_until: Timestamp,
}

/// A browser's sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Digest of the cookie's value, which is stored nowhere.
    #[serde(with = "wire")]
    pub digest: Digest,
    pub user: UserId,
    #[serde(with = "wire")]
    pub created_at: Timestamp,
    /// Exact in memory; the stored one may be a minute late.
    #[serde(with = "wire")]
    pub last_seen_at: Timestamp,
    /// Address of the client that signed in.
    pub client: IpAddr,
    pub by: SignedInBy,
}

/// How the user authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum SignedInBy {
    Password,
    /// An OpenID Connect provider.
    Provider,
}

/// A provider's subject, linked to a user. Providers never reuse subjects, unlike logins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    pub issuer: String,
    pub subject: String,
    pub user: UserId,
}

impl IdentityRecord {
    /// The key of the record.
    pub fn digest(issuer: &str, subject: &str) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("permgate 2026-11 identity");
        hasher.update(&(issuer.len() as u64).to_le_bytes()).update(issuer.as_bytes());
        Digest::from_bytes(*hasher.update(subject.as_bytes()).finalize().as_bytes())
    }
}

/// A link by which a user sets their own password. It is shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRecord {
    #[serde(with = "wire")]
    pub digest: Digest,
    pub user: UserId,
    /// User id, or `None` for the operator on the unix socket.
    pub author: Option<UserId>,
    #[serde(with = "wire")]
    pub expires_at: Timestamp,
}

/// A request with an `Idempotency-Key` that has been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    pub key: String,
    pub request: [u8; 32],
    /// The token that the request created.
    #[serde(with = "wire")]
    pub token: TokenId,
    #[serde(with = "wire")]
    pub at: Timestamp,
}

/// A position in the audit chain: where its kept part begins, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditPosition {
    /// `seq` of the event at this position.
    pub seq: u64,
    /// What its `prev` must be.
    pub prev: [u8; 32],
}

/// The longest change, in bytes, that is recorded in full; the rest of a record is far below what then remains.
const MAX_CHANGE: usize = 14 << 10;
/// What remains of each text in a longer change, in bytes. No change has more than eight that are longer.
const MAX_CUT_TEXT: usize = 700;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    pub seq: u64,
    #[serde(with = "wire")]
    pub at: Timestamp,
    /// `token.create`, `user.ban`, `refusal`, ...
    pub event: String,
    /// Login, `operator` (unix socket), `system`, or `token:<id>` if a token was refused.
    pub actor: String,
    /// `token:<id>`, `user:<login>`, `group:<name>`, ...
    pub target: String,
    pub service: Option<String>,
    pub request_id: Option<String>,
    pub outcome: String,
    pub reason: Option<String>,
    /// What changed, as JSON text; never a secret.
    pub change: Option<String>,
    /// Hash of the event before (BLAKE3).
    pub prev: [u8; 32],
    pub hash: [u8; 32],
}

impl AuditEvent {
    /// Something that was done. The store sets its place in the chain.
    pub(crate) fn new(
        at: Timestamp,
        event: &str,
        actor: impl Into<String>,
        target: impl Into<String>,
        change: impl Into<Option<Value>>,
    ) -> Self {
        Self {
            seq: 0,
            at,
            event: event.to_owned(),
            actor: actor.into(),
            target: target.into(),
            service: None,
            request_id: None,
            outcome: "ok".to_owned(),
            reason: None,
            change: change.into().map(change_text),
            prev: [0; 32],
            hash: [0; 32],
        }
    }

    /// Refusals that are recorded together, after the last of them. The store sets their place in the chain.
    pub fn refused(
        event: &str,
        at: Timestamp,
        client: IpAddr,
        target: String,
        request_id: &str,
        reason: &str,
        count: u64,
    ) -> Self {
        Self {
            request_id: Some(request_id.to_owned()),
            outcome: "refused".to_owned(),
            reason: Some(reason.to_owned()),
            ..Self::new(at, event, format!("address:{client}"), target, json!({"count": count}))
        }
    }
}

/// The change as text. In one that would not fit into a record, long texts are cut: an edit is not refused because
/// its event names too much.
fn change_text(mut change: Value) -> String {
    let text = change.to_string();
    if text.len() <= MAX_CHANGE {
        return text;
    }
    cut_texts(&mut change);
    change.to_string()
}

fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_CUT_TEXT => {
            text.truncate(text.floor_char_boundary(MAX_CUT_TEXT));
            text.push('…');
        }
        Value::Array(values) => values.iter_mut().for_each(cut_texts),
        Value::Object(fields) => fields.values_mut().for_each(cut_texts),
        _ => {}
    }
}

//! A token as the API shows it, never with its text or digest.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{ApiResult, Context, Problem, wire::Time};
use crate::{
    authz::{accounts::Accounts, network, secret, subject::Access, time::Timestamp},
    store::model::{LastUsed, TokenRecord, UserId},
};

/// A scope entry; `access` is `full` by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeEntry {
    pub service: String,
    #[serde(default = "full", with = "AccessWord")]
    #[schema(value_type = AccessWord)]
    pub access: Access,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(remote = "Access", rename_all = "lowercase")]
#[schema(as = Access)]
enum AccessWord {
    Read,
    Full,
}

/// A scope that names no more than the service means full access.
const fn full() -> Access {
    Access::Full
}

impl ScopeEntry {
    pub fn is_reading(&self) -> bool {
        self.access == Access::Read
    }
}

/// A token's record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    pub id: String,
    /// Login of the owner.
    pub user: String,
    pub user_id: String,
    /// Login of the account that created it, or `operator`.
    pub author: String,
    pub name: String,
    pub note: String,
    pub scope: Vec<ScopeEntry>,
    pub allow_ips: Vec<IpNetText>,
    /// `pending`, `active`, `expired`, `rotating`, `rotated`, `revoked` or `suspended`.
    pub state: String,
    pub created_at: Time,
    pub not_before: Option<Time>,
    pub expires_at: Option<Time>,
    pub last_used_at: Option<Time>,
    pub last_used_ip: Option<String>,
    pub last_used_service: Option<String>,
    pub revoked_at: Option<Time>,
    pub revoked_by: Option<String>,
    pub revoke_reason: Option<String>,
    pub family: String,
    pub rotated_to: Option<String>,
    pub grace_until: Option<Time>,
    pub imported: bool,
    pub revision: u64,
}

/// A network such as `10.0.0.0/8`, or a single address.
pub type IpNetText = String;

impl TokenView {
    pub fn new(context: &Context, record: TokenRecord) -> Self {
        Self::at(context, &context.store.accounts(), record, Time::now())
    }

    /// As [`TokenView::new`], for lists: accounts and time are read once.
    pub fn at(context: &Context, accounts: &Arc<Accounts>, record: TokenRecord, now: Timestamp) -> Self {
        let owner = accounts.user_by_id(&record.owner);
        let banned = owner.is_some_and(|owner| owner.record.banned.is_some());
        let state = record.state(banned, now).into_str().to_owned();
        let used = last_used(context, &record);
        let login =
            |id: &UserId| accounts.user_by_id(id).map_or_else(|| id.clone(), |u| u.record.login.clone());
        Self {
            user: login(&record.owner),
            author: record.author.as_ref().map_or_else(|| "operator".to_owned(), login),
            revoked_by: record
                .revoked
                .as_ref()
                .map(|r| r.by.as_ref().map_or_else(|| "operator".to_owned(), login)),
            id: record.id.to_string(),
            user_id: record.owner,
            name: record.name,
            note: record.note,
            scope: entries(record.scope),
            allow_ips: record.allow_ips.iter().map(IpNet::to_string).collect(),
            state,
            created_at: Time(record.created_at),
            not_before: record.not_before.map(Time),
            expires_at: record.expires_at.map(Time),
            last_used_at: used.as_ref().map(|used| Time(used.at)),
            last_used_ip: used.as_ref().map(|used| used.from.to_string()),
            last_used_service: used.map(|used| used.service),
            revoked_at: record.revoked.as_ref().map(|r| Time(r.at)),
            revoke_reason: record.revoked.map(|r| r.reason.into_str().to_owned()),
            family: record.family.to_string(),
            rotated_to: record.rotation.map(|r| r.to.to_string()),
            grace_until: record.rotation.map(|r| Time(r.grace_until)),
            imported: record.imported,
            revision: record.revision,
        }
    }
}

/// The later of the uses that the store and the workers know.
pub(in crate::admin) fn last_used(context: &Context, record: &TokenRecord) -> Option<LastUsed> {
    let recent = context.uses.last(&record.digest);
    match (recent, record.last_used.clone()) {
        (Some(recent), Some(stored)) if recent.at < stored.at => Some(stored),
        (recent, stored) => recent.or(stored),
    }
}

pub(super) fn scope(entries: Vec<ScopeEntry>) -> Vec<(String, Access)> {
    entries.into_iter().map(|entry| (entry.service, entry.access)).collect()
}

pub(super) fn entries(scope: Vec<(String, Access)>) -> Vec<ScopeEntry> {
    scope.into_iter().map(|(service, access)| ScopeEntry { service, access }).collect()
}

/// Parses networks and single addresses.
pub(super) fn addresses(texts: &[String]) -> ApiResult<Vec<IpNet>> {
    let bad = |text: &str| {
        format!("allow_ips takes addresses and networks such as 10.0.0.0/8, not {:?}", secret::redact(text))
    };
    let net = |text: &String| network::parse(text).ok_or_else(|| Problem::value(bad(text)));
    texts.iter().map(net).collect()
}

//! A token as the API shows it, never with its text or digest, and lists of tokens, with filters and pages.

use std::sync::Arc;

use axum::extract::Path;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{ApiResult, Context, Problem, wire::Time},
    READ_OTHERS_TOKENS,
};
use crate::{
    admin::{
        Caller,
        offload::READS,
        pagination::{self, PageRequest},
        wire::{HumanDuration, Page, ok},
    },
    authz::{
        accounts::Accounts,
        administration::tokens::{MAX_NETWORKS, too_many_networks},
        network,
        secret::{self, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{
        ChangeError, TokenFilter, TokenState,
        model::{LastUsed, TokenRecord, UserId},
    },
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

/// Parses networks and single addresses, no more than a token may have.
pub(super) fn addresses(texts: &[String]) -> ApiResult<Vec<IpNet>> {
    if texts.len() > MAX_NETWORKS {
        return Err(ChangeError::from(too_many_networks()).into());
    }
    let bad = |text: &str| {
        format!("{:?} is neither an address nor a network such as 10.0.0.0/8", secret::redact(text))
    };
    let net = |text: &String| network::parse(text).ok_or_else(|| Problem::value(bad(text)));
    texts.iter().map(net).collect()
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Filters {
    pub user: Option<String>,
    pub service: Option<String>,
    pub unused_for: Option<String>,
    pub expiring_in: Option<String>,
    pub state: Option<String>,
    pub cursor: Option<String>,
    pub limit: Option<usize>,
}

/// The tokens of one user: the caller's own, or with the permission to see others.
pub async fn list_of_user(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    pagination::Params(filters): pagination::Params<Filters>,
) -> ApiResult {
    if filters.user.is_some() {
        return Err(Problem::invalid("The path names the user already"));
    }
    let owner = Some(caller.login(&login)?);
    READS.run(move || Ok(ok(&page(&context, &caller, owner, filters)?))).await?
}

/// All tokens for a caller who may see them, else the caller's own.
pub async fn list_all(
    context: Context,
    caller: Caller,
    pagination::Params(mut filters): pagination::Params<Filters>,
) -> ApiResult {
    let owner = filters.user.take().map(|login| caller.login(&login)).transpose()?;
    let own = || caller.user().map(|user| user.login.to_string());
    let owner = if caller.may_any(&READ_OTHERS_TOKENS) { owner } else { owner.or_else(own) };
    READS.run(move || Ok(ok(&page(&context, &caller, owner, filters)?))).await?
}

/// One page of a user's tokens, or of all tokens.
pub(in crate::admin) fn page(
    context: &Context,
    caller: &Caller,
    owner: Option<String>,
    filters: Filters,
) -> ApiResult<Page<TokenView>> {
    let accounts = context.store.accounts();
    match &owner {
        Some(login) => {
            caller.visible(accounts.user_by_login(login), &READ_OTHERS_TOKENS)?;
        }
        None => caller.require_any(&READ_OTHERS_TOKENS)?,
    }
    let now = Time::now();
    let filter = TokenFilter {
        owner,
        service: filters.service,
        unused_since: span("unused_for", filters.unused_for.as_deref())?.map(|span| span.before(now)),
        expiring_before: span("expiring_in", filters.expiring_in.as_deref())?.map(|span| span.after(now)),
        state: filters.state.as_deref().map(state).transpose()?,
    };
    let unused_since = filter.unused_since;
    let paging = PageRequest { cursor: filters.cursor, limit: filters.limit };
    let (limit, cursor) = (paging.limit()?, paging.cursor);
    if cursor.as_deref().is_some_and(|cursor| TokenId::parse(cursor).is_none()) {
        return Err(pagination::bad_cursor());
    }
    let found = context.store.tokens(&filter, cursor.as_deref(), limit)?;
    // The workers may know of a use that the store has yet to record.
    let used = |record: &_| last_used(context, record).map(|used| used.at);
    let items =
        found.items.into_iter().filter(|record| unused_since.is_none_or(|at| used(record) < Some(at)));
    let items = items.map(|record| TokenView::at(context, &accounts, record, now)).collect();
    Ok(Page { items, next: found.next })
}

fn span(name: &str, text: Option<&str>) -> ApiResult<Option<HumanDuration>> {
    let bad = || Problem::invalid(format!("{name} takes a duration such as 90d or 12h, or seconds"));
    text.map(|text| HumanDuration::parse(text).ok_or_else(bad)).transpose()
}

fn state(word: &str) -> ApiResult<TokenState> {
    let text = "state takes pending, active, expired, rotating, rotated, revoked or suspended";
    word.parse().map_err(|_| Problem::invalid(text))
}

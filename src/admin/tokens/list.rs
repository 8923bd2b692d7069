//! Lists of tokens, with filters and pages.

use axum::extract::Path;
use serde::Deserialize;

use super::{
    super::{
        ApiResult, Caller, Context, Problem,
        offload::READS,
        pagination::{self, PageRequest},
        wire::{HumanDuration, Page, Time, ok},
    },
    READ_OTHERS_TOKENS, TokenView,
};
use crate::{
    authz::secret::TokenId,
    store::{TokenFilter, TokenState},
};

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
pub async fn of_user(
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
pub async fn all(
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
    let PageRequest { cursor, limit } = PageRequest::new(filters.cursor, filters.limit)?;
    if cursor.as_deref().is_some_and(|cursor| TokenId::parse(cursor).is_none()) {
        return Err(pagination::bad_cursor());
    }
    let found = context.store.tokens(&filter, cursor.as_deref(), limit)?;
    // The workers may know of a use that the store has yet to record.
    let used = |record: &_| super::view::last_used(context, record).map(|used| used.at);
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

//! The page of one token: its record and what the reader may do with it; during a rotation, the old and the
//! new token side by side.

use askama::Template;
use axum::extract::Path;

use super::{
    ApiResult, Reader, Shell, example_url, explain_link, render,
    token_list::{LoadedTokens, is_alive},
    words,
};
use crate::{
    admin::{
        Context,
        offload::READS,
        tokens::{ScopeEntry, TokenView, find_visible},
        users::READ_OTHERS,
        wire::Time,
    },
    authz::subject::Permission,
};

/// A token as lists and its own page show it.
pub struct TokenRow {
    pub view: TokenView,
    /// Requests in flight.
    pub live: usize,
    /// The token that it replaces.
    pub rotated_from: Option<String>,
}

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    shell: Shell,
    token: TokenRow,
    /// During a rotation: the old token and the new one.
    pair: Option<(TokenRow, TokenRow)>,
    /// Whether the reader may change it.
    may_edit: bool,
    /// The link to the page that explains a request with it.
    explain: String,
    /// A path and a host of its first service that has one, for the command to try.
    path: String,
    host: String,
    gateway: String,
}

pub(super) async fn show(context: Context, reader: Reader, Path(id): Path<String>) -> ApiResult {
    let record = find_visible(&context, &reader.caller, &id)?;
    let own = reader.caller.is(&record.owner);
    let needed = if own { Permission::UpdateSelf } else { Permission::UpdateUser };
    let (now, accounts) = (Time::now(), context.store.accounts());
    let live = context.fence.list().await;
    let row = |view: TokenView| {
        let live = live.iter().filter(|row| row.token.is_some_and(|id| id.as_str() == view.id)).count();
        TokenRow { view, live, rotated_from: None }
    };
    let family = record.family;
    let keys: Vec<String> = record.scope.iter().map(|(key, _)| key.clone()).collect();
    let mut token = row(TokenView::at(&context, &accounts, record, now));
    // A token that is alone in its family and was not replaced has no relatives to read.
    let mut relatives: Vec<TokenView> = Vec::new();
    if token.view.rotated_to.is_some() || family.as_str() != token.view.id {
        let (store, owner) = (context.clone(), token.view.user.clone());
        let found = READS.run(move || LoadedTokens::of_owner(&store, &owner)).await??;
        let found = found.all.into_iter().filter(|other| other.family == family);
        relatives = found.map(|other| TokenView::at(&context, &accounts, other, now)).collect();
    }
    let before = relatives.iter().find(|other| other.rotated_to.as_deref() == Some(&token.view.id));
    token.rotated_from = before.map(|other| other.id.clone());
    let after = relatives.iter().find(|other| token.view.rotated_to.as_ref() == Some(&other.id));
    let pair = match (before, after) {
        (_, Some(after)) if token.view.state == "rotating" => {
            Some((row(token.view.clone()), row(after.clone())))
        }
        (Some(before), None) if before.state == "rotating" => {
            Some((row(before.clone()), row(token.view.clone())))
        }
        _ => None,
    };
    let rules = context.rules();
    let mut specs = keys.iter().filter_map(|key| Some(&rules.service_by_key(key)?.spec));
    // The admin listener has none.
    let spec = specs.find(|spec| !spec.paths.is_empty());
    let url = spec.and_then(example_url);
    let page = TokenPage {
        shell: reader.shell("Token", if own { "/profile/authentication" } else { "/tokens" }),
        may_edit: reader.caller.may(needed),
        explain: explain_link(url.as_deref(), Some(&token.view.id)),
        path: spec.and_then(|spec| spec.paths.first().cloned()).unwrap_or_default(),
        host: spec.and_then(|spec| spec.hosts.first().cloned()).unwrap_or_default(),
        gateway: context.sign_in.gateway.clone().unwrap_or_default(),
        token,
        pair,
    };
    Ok(render(&page))
}

impl TokenRow {
    /// Whether requests with it may be permitted, now or later.
    pub fn is_alive(&self) -> bool {
        self.view.state.parse().is_ok_and(is_alive)
    }

    pub fn tone(&self) -> &'static str {
        words::state_tone(&self.view.state)
    }

    /// The services that a row has room for; the others are `remaining_services`.
    pub fn few(&self) -> &[ScopeEntry] {
        &self.view.scope[..self.view.scope.len().min(2)]
    }

    pub fn remaining_services(&self) -> Option<(usize, String)> {
        let rest: Vec<&str> = self.view.scope.iter().skip(2).map(|entry| entry.service.as_str()).collect();
        (!rest.is_empty()).then(|| (rest.len(), rest.join(", ")))
    }

    /// The consequences of a revocation, for its confirmation.
    pub fn consequence(&self) -> String {
        let live = match self.live {
            0 => String::new(),
            count => format!(" {} in flight will be cut.", words::count(count, "request")),
        };
        let used = self.view.last_used_at.map_or_else(
            || "It has never been used.".to_owned(),
            |used| format!("It was last used {}.", used.in_words()),
        );
        format!("{used}{live} Every request with it will be refused. This cannot be undone.")
    }
}

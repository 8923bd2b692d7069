//! One token: all that is known of it, and what its owner or an administrator does with it.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;

use super::{Failed, Reader, Shell, assets::TOKENS, render, time::Moment};
use crate::{
    admin::{
        Context,
        tokens::{AccessWord, TokenView, visible},
    },
    authz::subject::Permission,
};

/// A token as lists and its own page show it.
pub struct TokenRow {
    pub view: TokenView,
    pub scope: Vec<Entry>,
    pub created: Moment,
    pub used: Option<Moment>,
    pub begins: Option<Moment>,
    pub expires: Option<Moment>,
    pub ended: Option<Moment>,
    pub grace: Option<Moment>,
    /// Requests with it may still be let through, now or later.
    pub alive: bool,
}

/// A service in a scope.
pub struct Entry {
    pub service: String,
    pub reading: bool,
}

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    shell: Shell,
    tokens_script: &'static str,
    token: TokenRow,
    /// The reader may change it.
    may_edit: bool,
    gateway: String,
}

pub(super) async fn show(
    State(context): State<Context>,
    reader: Reader,
    Path(id): Path<String>,
) -> Result<Response, Failed> {
    let record = visible(&context, &reader.caller, &id)?;
    let own = reader.caller.is(&record.owner);
    let needed = if own { Permission::UpdateSelf } else { Permission::UpdateUser };
    let page = TokenPage {
        shell: reader.shell("Token", if own { "/profile/authentication" } else { "/tokens" }),
        tokens_script: &TOKENS.path,
        token: TokenView::new(&context, record).into(),
        may_edit: reader.caller.may(needed),
        gateway: context.sign_in.gateway.clone().unwrap_or_default(),
    };
    Ok(render(StatusCode::OK, &page))
}

impl From<TokenView> for TokenRow {
    fn from(view: TokenView) -> Self {
        let entry = |entry: &crate::admin::ScopeEntry| Entry {
            service: entry.service.clone(),
            reading: entry.access == AccessWord::Read,
        };
        Self {
            scope: view.scope.iter().map(entry).collect(),
            created: view.created_at.into(),
            used: view.last_used_at.map(Moment::from),
            begins: view.not_before.map(Moment::from),
            expires: view.expires_at.map(Moment::from),
            ended: view.revoked_at.map(Moment::from),
            grace: view.grace_until.map(Moment::from),
            alive: matches!(view.state.as_str(), "pending" | "active" | "rotating" | "suspended"),
            view,
        }
    }
}

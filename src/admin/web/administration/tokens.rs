//! Everybody's tokens, found by owner, service, age and state.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Failed, Reader, Shell, filled, render};
use crate::admin::{
    Context,
    pages::Params,
    tokens::{self, Filters, SEES_TOKENS},
    web::token::TokenRow,
};

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    shell: Shell,
    tokens: Vec<TokenRow>,
    next: Option<String>,
    asked: Filters,
    services: Vec<String>,
}

pub async fn list(
    State(context): State<Context>,
    reader: Reader,
    Params(filters): Params<Filters>,
) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_TOKENS)?;
    let asked = Filters {
        user: filled(filters.user),
        service: filled(filters.service),
        unused_for: filled(filters.unused_for),
        expiring_in: filled(filters.expiring_in),
        state: filled(filters.state),
        ..filters
    };
    let owner = asked.user.clone();
    let found = tokens::page(&context, &reader.caller, owner, Filters { user: None, ..asked.clone() })?;
    let next = found.next.map(|cursor| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let pairs = [
            ("user", &asked.user),
            ("service", &asked.service),
            ("unused_for", &asked.unused_for),
            ("expiring_in", &asked.expiring_in),
            ("state", &asked.state),
        ];
        query.extend_pairs(pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        query.append_pair("cursor", &cursor).finish()
    });
    let rules = context.rules();
    let page = TokensPage {
        shell: reader.shell("Tokens", "/tokens"),
        tokens: found.items.into_iter().map(TokenRow::from).collect(),
        next,
        asked,
        services: rules.services().iter().map(|service| service.spec.key.as_str().to_owned()).collect(),
    };
    Ok(render(StatusCode::OK, &page))
}

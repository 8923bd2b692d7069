//! The gateway itself: its services, what is in flight, why something is decided, its configuration.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Deserialize;

use super::{Failed, Reader, Shell, filled, render};
use crate::{
    admin::{
        Context, ExplainRequest, LiveView, ServiceView, error::Problem, explain::explained, pages::Params,
    },
    authz::{explain::Explanation, subject::Permission},
};

#[derive(Template)]
#[template(path = "services.html")]
struct ServicesPage {
    shell: Shell,
    services: Vec<ServiceRow>,
}

struct ServiceRow {
    view: ServiceView,
    /// `gateway.toml:12`.
    origin: String,
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    shell: Shell,
    rows: Vec<LiveView>,
    may_cut: bool,
}

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    shell: Shell,
    asked: Question,
    told: Option<Explanation>,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "configuration.html")]
struct ConfigurationPage {
    shell: Shell,
    text: String,
    may_reload: bool,
}

/// What the form of the page asks.
#[derive(Debug, Default, Deserialize)]
pub struct Question {
    #[serde(default)]
    method: String,
    #[serde(default)]
    url: String,
    token_id: Option<String>,
    user: Option<String>,
    client: Option<String>,
}

pub async fn services(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let snapshot = context.state.snapshot();
    let services = snapshot.rules.services().iter().map(|service| ServiceRow {
        view: ServiceView::new(service).with_readers(service, &snapshot.directory),
        origin: format!("{}:{}", service.spec.origin.file, service.spec.origin.line),
    });
    let page = ServicesPage { shell: reader.shell("Services", "/services"), services: services.collect() };
    Ok(render(StatusCode::OK, &page))
}

pub async fn live(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let mut rows = context.fence.list().await;
    rows.sort_by_key(|row| std::cmp::Reverse(row.age));
    let directory = context.state.snapshot().directory.clone();
    let page = LivePage {
        shell: reader.shell("Live", "/live"),
        rows: rows.into_iter().map(|row| LiveView::new(&directory, row)).collect(),
        may_cut: reader.caller.may(Permission::AdminWrite),
    };
    Ok(render(StatusCode::OK, &page))
}

pub async fn explain(
    State(context): State<Context>,
    reader: Reader,
    Params(asked): Params<Question>,
) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let told = (!asked.url.is_empty()).then(|| {
        let client = filled(asked.client.clone()).map(|text| text.trim().parse());
        let client =
            client.transpose().map_err(|_| Problem::invalid("The client is an address, as 10.0.0.7"))?;
        let request = ExplainRequest {
            method: asked.method.clone(),
            url: asked.url.trim().to_owned(),
            token_id: filled(asked.token_id.clone()),
            user: filled(asked.user.clone()),
            client,
            carrier: None,
        };
        explained(&context, &reader.caller, &request)
    });
    let (told, wrong) = match told.transpose() {
        Ok(told) => (told, None),
        Err(problem) => (None, Some(problem.description().to_owned())),
    };
    let page = ExplainPage { shell: reader.shell("Explain", "/explain"), asked, told, wrong };
    Ok(render(StatusCode::OK, &page))
}

pub async fn configuration(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let page = ConfigurationPage {
        shell: reader.shell("Configuration", "/configuration"),
        text: context.configuration.text(),
        may_reload: reader.caller.may(Permission::AdminWrite),
    };
    Ok(render(StatusCode::OK, &page))
}

//! The last hour at a glance: figures, and charts drawn here as SVG.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use self::chart::Chart;
use super::{Failed, Reader, Shell, render};
use crate::{
    admin::{Context, Overview, Series, overview},
    authz::subject::Permission,
};

mod chart;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    overview: Overview,
    charts: Vec<Chart>,
    services: Vec<ServiceRow>,
    refusals: Vec<(&'static str, u64)>,
}

/// A service's hour.
struct ServiceRow {
    key: String,
    requests: u64,
    refused: u64,
    /// The worst of the steps' medians and 95th percentiles, in milliseconds.
    p50: String,
    p95: String,
}

pub async fn show(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require(Permission::AdminRead)?;
    let overview = overview::read(&context).await;
    let mut charts = charts("All services", &overview.all, &overview).to_vec();
    for (key, series) in overview.services.iter().filter(|(key, _)| !key.is_empty()) {
        charts.extend(self::charts(key, series, &overview));
    }
    let mut refusals: Vec<(&'static str, u64)> =
        overview.refusals.iter().map(|(reason, count)| (*reason, *count)).collect();
    refusals.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    let services = overview.services.iter().map(|(key, series)| ServiceRow::new(key, series)).collect();
    let page =
        OverviewPage { shell: reader.shell("Overview", "/overview"), overview, charts, services, refusals };
    Ok(render(StatusCode::OK, &page))
}

fn charts(of: &str, series: &Series, overview: &Overview) -> [Chart; 2] {
    let seconds = overview.step.max(1) as f64;
    let rate = |counts: &[u64]| counts.iter().map(|count| Some(*count as f64 / seconds)).collect::<Vec<_>>();
    [
        Chart::new(
            format!("{of}: requests a second"),
            ["permitted and refused", "refused"],
            [&rate(&series.requests), &rate(&series.refused)],
            overview.step,
        ),
        Chart::new(
            format!("{of}: latency in milliseconds"),
            ["median", "95 of 100 are faster"],
            [&series.p50, &series.p95],
            overview.step,
        ),
    ]
}

impl ServiceRow {
    fn new(key: &str, series: &Series) -> Self {
        let worst = |values: &[Option<f64>]| {
            let worst = values.iter().flatten().copied().reduce(f64::max);
            worst.map_or_else(|| "–".to_owned(), |worst| format!("{worst:.1}"))
        };
        Self {
            key: if key.is_empty() { "no service".to_owned() } else { key.to_owned() },
            requests: series.requests.iter().sum(),
            refused: series.refused.iter().sum(),
            p50: worst(&series.p50),
            p95: worst(&series.p95),
        }
    }
}

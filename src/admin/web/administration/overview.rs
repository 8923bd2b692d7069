//! The overview page: problems first, then the last hour in figures, charts and lists.

use askama::Template;

use self::{
    attention::{Alert, Attention},
    chart::{Chart, spark},
};
use super::{ApiResult, Reader, Shell, gateway::Health, render};
use crate::{
    admin::{Context, Overview, Series, offload::READS, overview, web::words},
    authz::subject::Permission,
    metrics::UpstreamReading,
};

mod attention;
mod chart;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    alerts: Vec<Alert>,
    requests: u64,
    denied: Figure,
    failed: Figure,
    latency: String,
    live: usize,
    tokens: u64,
    users: usize,
    chart: Chart,
    services: Vec<ServiceRow>,
    refusals: Vec<RefusalCount>,
    attention: Attention,
}

/// A count and its share of all requests.
struct Figure {
    count: u64,
    share: String,
}

/// A service's last hour.
struct ServiceRow {
    key: String,
    requests: u64,
    denied: u64,
    failed: u64,
    p50: String,
    p95: String,
    spark: String,
    health: Option<Health>,
}

struct RefusalCount {
    code: &'static str,
    count: u64,
    share: u64,
}

pub async fn show(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require(Permission::AdminRead)?;
    let overview = overview::read(&context, &reader.caller).await?;
    let upstreams = context.metrics.upstreams();
    let read = context.clone();
    let attention = READS.run(move || Attention::count(&read)).await??;
    let all = &overview.all;
    let (requests, denied, failed) = sums(all);
    let mut refusals: Vec<(&'static str, u64)> =
        overview.refusals.iter().map(|(reason, count)| (*reason, *count)).collect();
    refusals.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    let refused: u64 = refusals.iter().map(|(_, count)| count).sum();
    let refusals = refusals.into_iter().map(|(code, count)| RefusalCount {
        code,
        count,
        share: count * 100 / refused.max(1),
    });
    let figure = |count: u64| Figure { count, share: share(count, requests) };
    let mut alerts = attention::alerts(&overview, &upstreams, &attention);
    if let Some(node) = context.store.node() {
        alerts.splice(0..0, attention::of_cluster(&node.status().into()));
    }
    let page = OverviewPage {
        shell: reader.shell("Overview", "/overview"),
        alerts,
        requests,
        denied: figure(denied),
        failed: figure(failed),
        latency: latest(&all.p95),
        live: overview.live,
        tokens: overview.tokens,
        users: overview.users,
        chart: Chart::new(all, overview.step),
        services: services(&context, &overview, &upstreams),
        refusals: refusals.collect(),
        attention,
    };
    Ok(render(&page))
}

/// Every configured service, and removed ones that had requests.
fn services(context: &Context, overview: &Overview, upstreams: &[UpstreamReading]) -> Vec<ServiceRow> {
    let rules = context.rules();
    let none = Series::default();
    let row = |key: &str, health: Option<Health>| {
        let series = overview.services.get(key).unwrap_or(&none);
        let (requests, denied, failed) = sums(series);
        ServiceRow {
            key: key.to_owned(),
            requests,
            denied,
            failed,
            p50: latest(&series.p50),
            p95: latest(&series.p95),
            spark: spark(&series.requests),
            health,
        }
    };
    let present = rules.services().iter().map(|service| {
        let upstream = upstreams.iter().find(|reading| *reading.name == *service.spec.upstream);
        row(service.spec.key.as_str(), upstream.map(|reading| Health::from_reading(Some(reading))))
    });
    let gone = overview.services.keys().filter(|key| rules.service_by_key(key).is_none());
    let mut rows: Vec<ServiceRow> = present.chain(gone.map(|key| row(key, None))).collect();
    rows.sort_by_key(|row| (row.key.is_empty(), std::cmp::Reverse(row.requests)));
    rows
}

/// The number of all, denied and failed requests.
fn sums(series: &Series) -> (u64, u64, u64) {
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    let (refused, failed) = (sum(&series.refused), sum(&series.failed));
    (sum(&series.requests), refused.saturating_sub(failed), failed)
}

/// The newest measured value in milliseconds, as text.
fn latest(values: &[Option<f64>]) -> String {
    match values.iter().rev().flatten().next() {
        Some(value) if *value < 10.0 => format!("{value:.1} ms"),
        Some(value) if *value < 10_000.0 => format!("{value:.0} ms"),
        Some(value) => format!("{:.0} s", value / 1000.0),
        None => "–".to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display only")]
fn share(count: u64, all: u64) -> String {
    match (count, all) {
        (0, _) | (_, 0) => "none".to_owned(),
        _ => {
            let share = count as f64 * 100.0 / all as f64;
            if share < 0.1 { "under 0.1 %".to_owned() } else { format!("{share:.1} %") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!(latest(&[Some(4.25), None]), "4.2 ms");
        assert_eq!(latest(&[Some(250.4)]), "250 ms");
        assert_eq!(latest(&[Some(60_000.0)]), "60 s");
        assert_eq!(latest(&[None]), "–");
        assert_eq!([share(0, 0), share(1, 8), share(1, 1_000_000)], ["none", "12.5 %", "under 0.1 %"]);
    }
}

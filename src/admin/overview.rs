//! `/v1/overview`: the last hour in figures, for a page with charts.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context,
    offload::READS,
    wire::{Time, ok},
};
use crate::{
    authz::subject::Permission,
    metrics::{RequestStats, STEP_LENGTH},
};

#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    pub ready: bool,
    /// Whether the store accepts changes.
    pub writable: bool,
    pub tokens: u64,
    pub imported: u64,
    pub users: usize,
    /// Requests in flight now, without this one.
    pub live: usize,
    /// URLs that are down or ejected, by upstream.
    pub down: BTreeMap<String, Vec<String>>,
    /// The length of a step in seconds.
    pub step: u64,
    /// The end of each step, oldest first; every list below has as many items. The last step is not over.
    pub at: Vec<Time>,
    pub all: Series,
    /// By service key; the empty key is for requests that no service owns.
    pub services: BTreeMap<String, Series>,
    /// Counts by reason, over the whole hour.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// Lists with one item for each step.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Series {
    pub requests: Vec<u64>,
    /// Requests that were neither forwarded nor answered.
    pub refused: Vec<u64>,
    /// Of the refused ones, those that an upstream or the gateway caused.
    pub failed: Vec<u64>,
    /// Median (`p50`) and 95th percentile (`p95`) of the latency in milliseconds; `null` without requests.
    pub p50: Vec<Option<f64>>,
    pub p95: Vec<Option<f64>>,
}

pub async fn overview(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    Ok(ok(&read(&context, &caller).await?))
}

pub(super) async fn read(context: &Context, caller: &Caller) -> ApiResult<Overview> {
    let rows = context.fence.list().await;
    let live = rows.iter().filter(|row| *row.request_id != *caller.request_id).count();
    let context = context.clone();
    READS.run(move || summarize(&context, live)).await
}

fn summarize(context: &Context, live: usize) -> Overview {
    let steps = context.history().steps(&context.metrics, Time::now());
    let mut keys: Vec<&String> = steps.iter().flat_map(|step| step.services.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut services: BTreeMap<String, Series> =
        keys.into_iter().map(|key| (key.clone(), Series::default())).collect();
    let (mut all, mut refusals) = (Series::default(), BTreeMap::new());
    for step in &steps {
        let mut sum = RequestStats::default();
        for (key, series) in &mut services {
            let counted = step.services.get(key).cloned().unwrap_or_default();
            sum.merge(&counted);
            series.push(&counted);
        }
        for (reason, count) in sum.refusals() {
            *refusals.entry(reason.code()).or_insert(0) += count;
        }
        all.push(&sum);
    }
    let readings = context.readings();
    let down = context.metrics.upstreams().into_iter().filter_map(|upstream| {
        let urls = upstream.urls.into_iter().filter(|url| !url.up || url.ejected).map(|url| url.url);
        let urls: Vec<String> = urls.collect();
        (!urls.is_empty()).then_some((upstream.name, urls))
    });
    let accounts = context.store.accounts();
    Overview {
        ready: readings.ready,
        writable: readings.writable,
        tokens: readings.tokens,
        imported: readings.imported,
        users: accounts.present_users().count(),
        live,
        down: down.collect(),
        step: STEP_LENGTH.as_secs(),
        at: steps.iter().map(|step| Time(step.at)).collect(),
        all,
        services,
        refusals,
    }
}

impl Series {
    fn push(&mut self, counted: &RequestStats) {
        self.requests.push(counted.requests());
        self.refused.push(counted.refused());
        self.failed.push(counted.failed());
        self.p50.push(counted.quantile(0.5));
        self.p95.push(counted.quantile(0.95));
    }
}

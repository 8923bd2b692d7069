//! The budgets of the process, read at each scrape.

use std::fmt;

use prometheus_client::{
    encoding::DescriptorEncoder,
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::exposition::{Labels, family};
use crate::net::Reading;

pub type BudgetReadings = Box<dyn Fn() -> Vec<Reading> + Send + Sync>;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, budgets: &[Reading]) -> fmt::Result {
    let label = |one: &Reading| Labels([("budget", one.name)]);
    let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let help = "The size of a budget: connections, streams, tunnels, or bytes.";
    family(encoder, "budget_limit", help, budgets.iter().map(|one| (label(one), gauge(one.limit))))?;
    let help = "How much of a budget is in use.";
    family(encoder, "budget_used", help, budgets.iter().map(|one| (label(one), gauge(one.used))))?;
    let refusals = budgets.iter().map(|one| (label(one), ConstCounter::new(one.refused)));
    family(encoder, "budget_refusals", "What was refused or closed because a budget was used up.", refusals)
}

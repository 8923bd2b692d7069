//! `process_*`: the metrics that Prometheus' own client libraries report, from `/proc`. Values that cannot be
//! read are omitted.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::exposition::{NO_LABELS, family};

#[derive(Debug)]
pub(super) struct Process;

/// Values from `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    /// Since the system booted.
    start_ticks: u64,
    resident_pages: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let ticks = clock_ticks_per_second();
            let cpu = ConstCounter::new(seconds(stat.cpu_ticks, ticks));
            family(encoder, "cpu_seconds", "User and system CPU time.", [(NO_LABELS, cpu)])?;
            let resident = stat.resident_pages.saturating_mul(page_size() as u64);
            gauge(encoder, "resident_memory_bytes", "Resident memory.", resident)?;
            if let Some(boot) = boot_time() {
                let help = "When the process started, in seconds since 1970.";
                gauge(encoder, "start_time_seconds", help, boot + seconds(stat.start_ticks, ticks))?;
            }
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // Reading the directory opens one more.
            gauge(encoder, "open_fds", "Open file descriptors.", descriptors.count().saturating_sub(1))?;
        }
        match getrlimit(Resource::Nofile).current {
            Some(limit) => gauge(encoder, "max_fds", "How many file descriptors may be open.", limit),
            None => Ok(()),
        }
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    family(encoder, name, help, [(NO_LABELS, ConstGauge::new(value))])
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may contain anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the name is the second field.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// Returns when the system booted, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "ticks are hundredths of a second")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_fields_are_parsed() {
        let text = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 23 16 17 18 19 20 21 4000 5000 60 61";
        let expected = Stat { cpu_ticks: 123, start_ticks: 4000, resident_pages: 60 };
        assert_eq!(Stat::parse(text), Some(expected));
        for broken in ["", "7 (a) S", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 23 16 17 18 19 20 21 4000 5000 60"] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }
}

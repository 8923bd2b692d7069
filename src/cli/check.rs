//! `permgate check`: the complete validation of the start-up, without starting.

use std::time::SystemTime;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, path_of, response_failure},
    failure::{Failure, colored, print_stderr},
    output::{Format, counted, pretty, print},
    target::Target,
};
use crate::{
    config::{self, Config, Problem},
    net::{Address, BudgetLimits, Machine},
};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Also fail on warnings
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        if let Some(address) = &global.admin {
            Target::parse(address)?;
        }
        let loaded = Config::load(global.config());
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        match &loaded {
            Ok(config) => {
                warnings.extend_from_slice(&config.warnings);
                let (found, unchecked) = ask(global, config);
                warnings.extend(found);
                // Otherwise nobody has asked for more than the file: the variable is meant for other commands.
                if global.offline || global.names_admin() {
                    warnings.extend(unchecked.map(|message| config.problem(message)));
                }
                warnings.extend(config.file_warnings(SystemTime::now().into()));
                errors.extend_from_slice(&config.exposed_secrets);
                errors.extend(config.access_log_error().into_iter().chain(config.file_errors()));
            }
            Err(found) => errors.extend_from_slice(&found.0),
        }
        let config = loaded.ok();
        let budgets = config.as_ref().map(|config| config.budget_limits(Machine::read()));
        let environment = config.as_ref().map(|config| config.environment.as_slice()).unwrap_or_default();
        let problems = [(&errors, "error", "1;31"), (&warnings, "warning", "1;33")];
        let failed = !errors.is_empty() || (self.strict && !warnings.is_empty());
        match global.output {
            Format::Json => print(&pretty(&json!({
                "valid": !failed,
                "errors": errors.iter().map(record).collect::<Vec<_>>(),
                "warnings": warnings.iter().map(record).collect::<Vec<_>>(),
                "environment": environment,
                "budgets": budgets.as_ref().map(budget_record),
            })))?,
            Format::Jsonl => {
                for (found, severity, _) in problems {
                    for problem in found {
                        let mut record = record(problem);
                        record["severity"] = json!(severity);
                        print(&record.to_string())?;
                    }
                }
            }
            Format::Table | Format::Id => {
                environment.iter().for_each(|line| print_stderr(line));
                for (found, severity, color) in problems {
                    let label = colored(&format!("{severity}:"), color, &std::io::stderr());
                    found.iter().for_each(|problem| print_stderr(&format!("{label} {problem}\n")));
                }
            }
        }
        if failed {
            let found = match errors.len() {
                0 => counted(warnings.len() as u64, "warning"),
                errors => counted(errors as u64, "error"),
            };
            return Err(Failure::usage(format!("{} has {found}", global.config().display())));
        }
        let services = counted(config.map_or(0, |config| config.services.len()) as u64, "service");
        let warnings = match warnings.len() {
            0 => String::new(),
            warnings => format!(", {}", counted(warnings as u64, "warning")),
        };
        print_stderr(&format!("{} is valid: {services}{warnings}", global.config().display()));
        if let (Format::Table, Some(budgets)) = (global.output, &budgets) {
            print_stderr(&budget_lines(budgets));
        }
        Ok(())
    }
}

type LookUp = fn(&Client, &Config) -> Result<Vec<Problem>, Failure>;

/// What the file alone does not tell. Each is looked up even if another one is refused.
const LOOKUPS: [(&str, LookUp); 3] = [
    ("groups", unknown_readers),
    ("accounts", unfit_accounts),
    ("the running gateway's settings", unreloadable),
];

/// What is wrong according to the store and the running gateway, if they can be asked: by unix socket,
/// `--admin` or `--offline` only. Also returns what could not be checked, and why.
fn ask(global: &Global, config: &Config) -> (Vec<Problem>, Option<String>) {
    let socket = config.admin.listen.iter().any(|listen| matches!(listen.address, Address::Unix(_)));
    if !socket && global.admin.is_none() && !global.offline {
        return (Vec::new(), None);
    }
    let (mut found, mut unchecked) = (Vec::new(), Vec::new());
    let mut reason = String::new();
    match Client::new(global) {
        Ok(listener) => {
            for (subject, look_up) in LOOKUPS {
                match look_up(&listener, config) {
                    Ok(problems) => found.extend(problems),
                    Err(failure) => {
                        unchecked.push(subject);
                        reason = failure.message;
                    }
                }
            }
        }
        Err(failure) => {
            unchecked.extend(LOOKUPS.map(|(subject, _)| subject));
            reason = failure.message;
        }
    }
    let message =
        (!unchecked.is_empty()).then(|| format!("{} were not checked: {reason}", unchecked.join(", ")));
    (found, message)
}

/// Readers that name no existing group. Groups are in the store, not in the file.
fn unknown_readers(listener: &Client, config: &Config) -> Result<Vec<Problem>, Failure> {
    let groups = listener.list("/v1/groups?limit=1000", None)?;
    Ok(config.unknown_readers(groups.iter().filter_map(|group| group["name"].as_str())))
}

/// Accounts of exchange rules that do not exist, or are not service accounts: every exchange would be refused.
fn unfit_accounts(listener: &Client, config: &Config) -> Result<Vec<Problem>, Failure> {
    let mut unfit = Vec::new();
    for rule in &config.proxy.exchange {
        let user = listener.send(&Method::GET, &path_of("users", &rule.account), None)?;
        let account = &rule.account;
        let (message, advice) = match (user.status, user.body["kind"].as_str()) {
            (StatusCode::NOT_FOUND, _) => (
                format!("there is no user {account:?}"),
                format!("create it with `permgate user create {account} --kind service`"),
            ),
            (_, Some("human")) => {
                (format!("{account:?} is not a service account"), "name one that is".to_owned())
            }
            (status, _) if status.is_success() => continue,
            _ => return Err(response_failure(&user)),
        };
        unfit.push(config.problem_at_key(&format!("exchange.{}.account", rule.name), message, &advice));
    }
    Ok(unfit)
}

/// A warning about changes from the running configuration that a reload would refuse.
fn unreloadable(listener: &Client, config: &Config) -> Result<Vec<Problem>, Failure> {
    let response = listener.get("/v1/config")?;
    // A store alone has none.
    let running = response["text"].as_str().and_then(|text| config::parse(text, &config.file).ok());
    Ok(running.and_then(|running| config.restart_warning(&running)).into_iter().collect())
}

/// The budgets that result from this user's open files and this machine's memory.
fn budget_lines(budgets: &BudgetLimits) -> String {
    let Machine { files, memory } = budgets.machine;
    let lines = named(budgets).map(|(name, value, is_bytes)| {
        let value = if is_bytes { mebibytes(value) } else { value.to_string() };
        format!("  {name:<22}{value}")
    });
    let all = mebibytes(budgets.memory());
    let excess = if budgets.memory() > memory {
        let derived = BudgetLimits::new(budgets.machine, 1, Some(budgets.admin_connections));
        let written = [
            ("server.budgets.streams", budgets.streams > derived.streams),
            ("server.budgets.tunnels", budgets.tunnels > derived.tunnels),
            ("server.budgets.send_buffers", budgets.send_buffers > derived.send_buffers),
            ("server.budgets.receive_buffers", budgets.receive_buffers > derived.receive_buffers),
            ("admin.bodies", budgets.bodies > derived.bodies),
        ];
        let large = written.iter().filter(|(_, is_large)| *is_large).map(|(key, _)| format!("`{key}`"));
        let large = large.collect::<Vec<_>>().join(" and ");
        let keys =
            if large.is_empty() { "`server.limits.connections` and `admin.connections`" } else { &large };
        format!(": more than there is. Lower {keys}")
    } else {
        String::new()
    };
    format!(
        "budgets with {files} open files (ulimit -n) and {} of memory:\n{}\nmemory: about {all} if every budget is used up, without the store{excess}",
        mebibytes(memory),
        lines.join("\n")
    )
}

fn budget_record(budgets: &BudgetLimits) -> Value {
    let mut record: serde_json::Map<_, _> =
        named(budgets).map(|(name, value, _)| (name.to_owned(), json!(value))).into_iter().collect();
    record.insert("open_files".to_owned(), json!(budgets.machine.files));
    record.insert("machine_memory".to_owned(), json!(budgets.machine.memory));
    record.insert("memory".to_owned(), json!(budgets.memory()));
    record.into()
}

/// Each budget's name in the metrics, its value, and whether it counts bytes.
fn named(budgets: &BudgetLimits) -> [(&'static str, usize, bool); 8] {
    [
        ("connections", budgets.connections, false),
        ("upstream_connections", budgets.upstream_connections, false),
        ("streams", budgets.streams, false),
        ("tunnels", budgets.tunnels, false),
        ("send_buffers", budgets.send_buffers, true),
        ("receive_buffers", budgets.receive_buffers, true),
        ("admin_connections", budgets.admin_connections, false),
        ("admin_bodies", budgets.bodies, true),
    ]
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

fn record(problem: &Problem) -> Value {
    json!({
        "file": &*problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "advice": problem.advice,
        "excerpt": problem.excerpt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_memory_is_named() {
        let check = |name: &str, change: fn(&mut BudgetLimits), expected: &str| {
            let machine = Machine { files: 20_000, memory: 1 << 30 };
            let mut budgets = BudgetLimits { connections: 1000, ..BudgetLimits::new(machine, 2, Some(16)) };
            change(&mut budgets);
            let lines = budget_lines(&budgets);
            let last = lines.lines().last().unwrap_or_default();
            assert!(last.ends_with(expected), "{name}: {last}");
        };
        let connections = "Lower `server.limits.connections` and `admin.connections`";
        check("all fits", |_| {}, "without the store");
        check("connections", |budgets| budgets.connections = 10_000, connections);
        check(
            "send buffers",
            |budgets| budgets.send_buffers = 2 << 30,
            "Lower `server.budgets.send_buffers`",
        );
        let two = "Lower `server.budgets.receive_buffers` and `admin.bodies`";
        let change =
            |budgets: &mut BudgetLimits| (budgets.receive_buffers, budgets.bodies) = (1 << 30, 1 << 30);
        check("two of them", change, two);
    }
}

//! `permgate completion SHELL`: prints a script with which the shell asks this binary for completions. Names
//! in the store (logins, groups, roles, services and tokens) are requested from the gateway that the
//! configuration names. If it does not answer, there are no candidates.

use std::{env, ffi::OsString};

use clap::Args;
use clap_complete::{
    Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use serde_json::Value;

use super::{client::Client, failure::Failure, output::print, parse};

/// The maximum number of candidates.
const MAX_CANDIDATES: usize = 1000;

pub(super) fn logins() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates("/v1/users?limit=1000", "login", "name"))
}

pub(super) fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates("/v1/groups?limit=1000", "name", "parent"))
}

pub(super) fn roles() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates("/v1/roles?limit=1000", "key", "name"))
}

pub(super) fn services() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates("/v1/services", "key", "title"))
}

/// Token ids, with the names as help for shells that show it.
pub(super) fn tokens() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates("/v1/tokens?state=active&limit=1000", "id", "name"))
}

fn candidates(path: &str, field: &str, help: &str) -> Vec<CompletionCandidate> {
    records(path)
        .unwrap_or_default()
        .iter()
        .filter_map(|record| {
            let help =
                record[help].as_str().filter(|text| !text.is_empty()).map(|text| text.to_owned().into());
            Some(CompletionCandidate::new(record[field].as_str()?).help(help))
        })
        .collect()
}

/// Requests the records with the configuration and listener that the completed line names, if any.
fn records(path: &str) -> Option<Vec<Value>> {
    let mut words = vec![OsString::from("permgate")];
    let mut line = env::args_os().skip_while(|word| word != "--").skip(2);
    while let Some(word) = line.next() {
        let text = word.to_string_lossy();
        if ["--config=", "--admin=", "--token-file="].iter().any(|option| text.starts_with(option)) {
            words.push(word);
        } else if matches!(&*text, "-c" | "--config" | "--admin" | "--token-file") {
            words.extend([word, line.next()?]);
        }
    }
    words.push("health".into());
    let global = parse(words).ok()?.global.with_machine_config();
    Client::new(&global).ok()?.list(path, Some(MAX_CANDIDATES)).ok()
}

/// The environment variable with which the script calls the binary.
pub(super) const VARIABLE: &str = "PERMGATE_COMPLETE";

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell that reads the script
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell.to_string()).expect("every shell of the enum is built in");
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "permgate", "permgate", "permgate", &mut script)?;
        print(String::from_utf8_lossy(&script).trim_end())
    }
}

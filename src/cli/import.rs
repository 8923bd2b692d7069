//! `permgate token import FILE`: sends NDJSON to the listener in chunks, or offline straight into the store.
//! A line that cannot be imported is reported by its number and does not stop the others.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::Path,
    time::{Duration, SystemTime},
};

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Global,
    client::{ApiResponse, Client, escape, path_of, response_failure},
    failure::{Failure, chain, print_stderr, unreadable},
    output::{Format, counted, texts},
    owner::StoreOwner,
    target,
    token::Import,
};
use crate::{
    admin::ImportLine,
    store::import::{self as store_import, ImportEvent, ImportRecord, Options, Report},
};

/// Limits of a chunk: well below the listener's 1 MiB with scopes of usual length.
const CHUNK_LINES: usize = 1000;
const CHUNK_BYTES: usize = 512 << 10;
/// A record has at most 16 KiB; a longer line cannot be one.
const MAX_LINE: usize = 64 << 10;
/// The most bad lines that are reported one by one.
const MAX_REPORTED: u64 = 100;

/// An import in progress.
struct Importer<'g> {
    client: Client,
    make_owners: bool,
    progress: ProgressBar,
    /// The chunk's lines with their numbers, or why they are invalid: refusals are reported in line order.
    chunk: Vec<(u64, Result<Value, String>)>,
    bytes: usize,
    /// All of its `lines` have been answered.
    report: Report,
    global: &'g Global,
}

pub(super) fn run(global: &Global, import: &Import) -> Result<(), Failure> {
    if global.offline {
        return offline(global, import);
    }
    let (input, length) = open(&import.file)?;
    let mut importer = Importer {
        client: Client::new(global)?,
        make_owners: import.make_owners,
        progress: progress_bar(length),
        chunk: Vec::new(),
        bytes: 0,
        report: Report { lines: import.skip, ..Report::default() },
        global,
    };
    let outcome = importer.read(BufReader::new(input), import);
    importer.progress.finish_and_clear();
    let report = importer.report;
    match outcome {
        Ok(()) => summarize(global, &report),
        Err(failure) => {
            print_stderr(&counts(&report));
            print_stderr(&format!("continue with `--skip {}`", report.lines));
            Err(failure)
        }
    }
}

fn summarize(global: &Global, report: &Report) -> Result<(), Failure> {
    print_stderr(&counts(report));
    let Report { lines, tokens, users, groups, members, skipped, bad, .. } = report;
    let record = json!({
        "tokens": tokens, "users": users, "groups": groups, "members": members,
        "known": skipped, "refused": bad, "lines": lines,
    });
    global.output.document(&record, || Ok(()), || Ok(()))?;
    match bad {
        0 => Ok(()),
        1 => Err(Failure::failed("1 line was refused")),
        _ => Err(Failure::failed(format!("{bad} lines were refused"))),
    }
}

fn counts(report: &Report) -> String {
    let Report { lines, tokens, users, groups, members, skipped, bad, .. } = *report;
    let (tokens, users) = (counted(tokens, "token"), counted(users, "user"));
    let (groups, members) = (counted(groups, "group"), counted(members, "membership"));
    let there = if skipped == 1 { "1 line was".to_owned() } else { format!("{skipped} lines were") };
    format!(
        "{tokens}, {users}, {groups}, {members} imported; {there} there already, {bad} refused, {lines} read"
    )
}

/// Opens the file, or standard input, and returns its length; 0 if unknown.
fn open(path: &Path) -> Result<(Box<dyn Read>, u64), Failure> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), 0));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), metadata.len()))
}

/// Imports straight into the store, which skips lines that it has already: `--skip` is not needed.
fn offline(global: &Global, import: &Import) -> Result<(), Failure> {
    let config = target::load(global.config())?;
    let (input, length) = open(&import.file)?;
    let progress = progress_bar(length);
    let options = Options {
        make_owners: import.make_owners,
        configuration: config.configuration(),
        now: SystemTime::now().into(),
    };
    let mut bad = 0;
    let mut on_event = |event: ImportEvent<'_>| match event {
        ImportEvent::Progress(report) => progress.set_position(report.bytes),
        ImportEvent::BadLine { number, why } => {
            bad += 1;
            report_bad_line(&progress, global, bad, number, why);
        }
    };
    let input = BufReader::with_capacity(1 << 20, input);
    let _owner = StoreOwner::detect(&config.store.path);
    let report = store_import::offline(&config.store, options, input, &mut on_event);
    progress.finish_and_clear();
    let report = report.map_err(|error| Failure::failed(chain(&error)))?;
    summarize(global, &report)
}

impl Importer<'_> {
    fn read(&mut self, mut lines: impl BufRead, import: &Import) -> Result<(), Failure> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line)?;
            if read == 0 {
                return self.send(number);
            }
            number += 1;
            self.progress.inc(read as u64);
            if number <= import.skip || line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Err(why) = self.take(number, &line)? {
                self.chunk.push((number, Err(why)));
            }
            if self.chunk.len() >= CHUNK_LINES || self.bytes >= CHUNK_BYTES {
                self.send(number)?;
            }
        }
    }

    /// Adds a line to the chunk, or returns what is wrong with it. Users and groups are created at once,
    /// after the tokens before them.
    fn take(&mut self, number: u64, line: &[u8]) -> Result<Result<(), String>, Failure> {
        if line.len() > MAX_LINE {
            return Ok(Err(format!("longer than {MAX_LINE} bytes")));
        }
        let (path, body, group) = match ImportRecord::parse(line) {
            Err(error) => return Ok(Err(error)),
            Ok(ImportRecord::Token(token)) => match serde_json::to_value(ImportLine::from(token)) {
                Err(error) => return Ok(Err(error.to_string())),
                Ok(body) => {
                    // A scope has a longer form in the body than on the line.
                    self.bytes += body.to_string().len();
                    self.chunk.push((number, Ok(body)));
                    return Ok(Ok(()));
                }
            },
            Ok(ImportRecord::User { login, name, kind }) => {
                let name = name.unwrap_or_else(|| login.clone());
                ("/v1/users", json!({ "login": login, "name": name, "kind": kind.word() }), None)
            }
            Ok(ImportRecord::Group { name, members }) => {
                let path = path_of("groups", &name);
                ("/v1/groups", json!({ "name": name }), Some((path, members)))
            }
        };
        self.send(number - 1)?;
        let made = self.client.send(&Method::POST, path, Some(&body))?;
        // One that exists is no error, because an import may be repeated.
        let is_new = made.status.is_success();
        if !is_new && made.body["error"] != "name_taken" {
            return self.line_refused(&made);
        }
        let Some((path, members)) = group else {
            self.report.users += u64::from(is_new);
            self.report.skipped += u64::from(!is_new);
            return Ok(Ok(()));
        };
        let present = if is_new { made.body } else { self.client.get(&path).unwrap_or_default() };
        let present: Vec<&str> = texts(&present["members"]).collect();
        let (mut joined, mut refused) = (0, Ok(()));
        for login in members {
            if present.iter().any(|member| member.eq_ignore_ascii_case(&login)) {
                continue;
            }
            let response =
                self.client.send(&Method::PUT, &format!("{path}/members/{}", escape(&login)), None)?;
            if !response.status.is_success() {
                // The group and the members before stay, so they count.
                refused = self.line_refused(&response)?;
                break;
            }
            joined += 1;
        }
        self.report.groups += u64::from(is_new);
        self.report.members += joined;
        self.report.skipped += u64::from(refused.is_ok() && !is_new && joined == 0);
        Ok(refused)
    }

    /// Returns an error of the line itself; any other error ends the import.
    fn line_refused(&self, response: &ApiResponse) -> Result<Result<(), String>, Failure> {
        let ours = matches!(response.status.as_u16(), 400 | 404 | 409 | 422);
        match response.body["error_description"].as_str() {
            Some(why) if ours => Ok(Err(why.to_owned())),
            _ => Err(response_failure(response)),
        }
    }

    /// Sends the chunk, and reports the result of each line.
    fn send(&mut self, upto: u64) -> Result<(), Failure> {
        let chunk = std::mem::take(&mut self.chunk);
        self.bytes = 0;
        let tokens: Vec<&Value> = chunk.iter().filter_map(|(_, line)| line.as_ref().ok()).collect();
        let response = if tokens.is_empty() {
            Value::Null
        } else {
            let body = json!({ "tokens": tokens, "make_owners": self.make_owners });
            self.client.post("/v1/tokens/import", &body)?
        };
        let outcomes = response["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
        if outcomes.len() != tokens.len() {
            return Err(Failure::failed("the admin listener did not answer for every line"));
        }
        let mut outcomes = outcomes.iter();
        for (number, line) in chunk {
            let outcome = match line {
                Err(why) => {
                    self.refused(number, &why);
                    continue;
                }
                Ok(_) => outcomes.next().unwrap_or(&Value::Null),
            };
            match outcome["error_description"].as_str().or(outcome["error"].as_str()) {
                Some(why) => self.refused(number, why),
                None if outcome["known"] == true => self.report.skipped += 1,
                None => self.report.tokens += 1,
            }
        }
        self.report.lines = upto.max(self.report.lines);
        Ok(())
    }

    fn refused(&mut self, number: u64, why: &str) {
        self.report.bad += 1;
        report_bad_line(&self.progress, self.global, self.report.bad, number, why);
    }
}

/// Reports the bad line with this `count`: for people only the first ones.
fn report_bad_line(progress: &ProgressBar, global: &Global, count: u64, number: u64, why: &str) {
    if count <= MAX_REPORTED || global.output != Format::Table {
        progress.suspend(|| print_stderr(&format!("line {number}: {why}")));
    } else if count == MAX_REPORTED + 1 {
        progress.suspend(|| print_stderr("more lines were refused; -o id reports all"));
    }
}

/// A progress bar on a terminal only; logs get the messages alone.
fn progress_bar(length: u64) -> ProgressBar {
    if length == 0 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {bytes}/{total_bytes}, {eta} left");
    let progress_bar = ProgressBar::new(length).with_style(style.expect("the template is valid"));
    progress_bar.enable_steady_tick(Duration::from_millis(200));
    progress_bar
}

//! `permgate token import FILE`: NDJSON through the listener, a chunk at a time. A line that cannot
//! be taken is told by its number and stops no other; a repetition of an import changes nothing.

use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Global,
    client::Client,
    failure::{Failure, say},
    token::Import,
};

/// Well below the listener's 1 MiB with scopes of usual length, and one group commit a chunk.
const CHUNK_LINES: usize = 1000;
const CHUNK_BYTES: usize = 512 << 10;
/// A record is 16 KiB at most; a longer line is none.
const LONGEST_LINE: usize = 64 << 10;
/// So many bad lines are told one by one.
const TOLD: u64 = 100;

/// Where an import stands.
struct Importer<'g> {
    client: Client,
    make_owners: bool,
    progress: ProgressBar,
    /// Lines of the chunk, with their numbers.
    chunk: Vec<(u64, Value)>,
    bytes: usize,
    imported: u64,
    bad: u64,
    /// Everything up to here has been answered.
    done: u64,
    global: &'g Global,
}

pub(super) fn run(global: &Global, import: &Import) -> Result<(), Failure> {
    let unreadable = |error| Failure::usage(format!("{}: {error}", import.file.display()));
    let file = File::open(&import.file).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut importer = Importer {
        client: Client::new(global)?,
        make_owners: import.make_owners,
        progress: bar(length),
        chunk: Vec::new(),
        bytes: 0,
        imported: 0,
        bad: 0,
        done: import.skip,
        global,
    };
    let outcome = importer.read(BufReader::new(file), import);
    importer.progress.finish_and_clear();
    let Importer { imported, bad, done, .. } = importer;
    say(&format!("{imported} tokens imported, {bad} lines refused, {done} lines read"));
    outcome.inspect_err(|_| say(&format!("go on with `--skip {done}`")))?;
    if bad > 0 { Err(Failure::failed(format!("{bad} lines were refused"))) } else { Ok(()) }
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
            match parse(&line) {
                Ok(value) => {
                    self.bytes += line.len();
                    self.chunk.push((number, value));
                }
                Err(why) => self.refused(number, &why),
            }
            if self.chunk.len() >= CHUNK_LINES || self.bytes >= CHUNK_BYTES {
                self.send(number)?;
            }
        }
    }

    /// Sends what has gathered, and tells what became of each line.
    fn send(&mut self, upto: u64) -> Result<(), Failure> {
        let chunk = std::mem::take(&mut self.chunk);
        self.bytes = 0;
        if !chunk.is_empty() {
            let (numbers, tokens): (Vec<u64>, Vec<Value>) = chunk.into_iter().unzip();
            let body = json!({ "tokens": tokens, "make_owners": self.make_owners });
            let answer = self.client.post("/v1/tokens/import", &body)?;
            let outcomes = answer["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
            if outcomes.len() != numbers.len() {
                return Err(Failure::failed("the admin listener did not answer for every line"));
            }
            for (number, outcome) in numbers.into_iter().zip(outcomes) {
                match outcome["error_description"].as_str().or(outcome["error"].as_str()) {
                    None => self.imported += 1,
                    Some(why) => self.refused(number, why),
                }
            }
        }
        self.done = upto.max(self.done);
        Ok(())
    }

    fn refused(&mut self, number: u64, why: &str) {
        self.bad += 1;
        let told = match self.bad {
            ..=TOLD => format!("line {number}: {why}"),
            bad if bad == TOLD + 1 => "more lines were refused; -o jsonl tells all".to_owned(),
            _ => String::new(),
        };
        let all = self.global.output != super::output::Format::Table;
        let told = if all { format!("line {number}: {why}") } else { told };
        if !told.is_empty() {
            self.progress.suspend(|| say(&told));
        }
    }
}

/// A line's JSON; the keys are the listener's to judge.
fn parse(line: &[u8]) -> Result<Value, String> {
    if line.len() > LONGEST_LINE {
        return Err(format!("longer than {LONGEST_LINE} bytes"));
    }
    const KEYS: [&str; 5] = ["digest", "owner", "name", "scope", "expires_at"];
    // The parser's words may quote the line, and a line may hold a secret by mistake.
    let value: Value =
        serde_json::from_slice(line).map_err(|error| format!("not JSON, at column {}", error.column()))?;
    let Some(fields) = value.as_object() else {
        return Err("not a JSON object".to_owned());
    };
    if let Some(missing) = KEYS[..4].iter().find(|key| !fields.contains_key(**key)) {
        return Err(format!("lacks {missing:?}"));
    }
    if let Some(unknown) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown field {unknown:?}"));
    }
    if !value["scope"].as_array().is_some_and(|scope| scope.iter().all(Value::is_object)) {
        return Err("\"scope\" is not a list of {\"service\", \"access\"?}".to_owned());
    }
    let texts = ["digest", "owner", "name"];
    if let Some(field) = texts.iter().find(|field| !value[**field].is_string()) {
        return Err(format!("{field:?} is not text"));
    }
    Ok(value)
}

/// On a terminal only: logs keep the words.
fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {percent:>3}% {bytes}/{total_bytes}, {eta} left")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, expected: Result<(), &str>| {
            let parsed = parse(line.as_bytes()).map(|_| ());
            assert_eq!(
                parsed.as_ref().map(|()| ()).map_err(String::as_str),
                expected.as_ref().map(|()| ()).map_err(|e| *e),
                "{line}"
            );
        };
        let sound = r#"{"digest":"00","owner":"ann","name":"ci","scope":[{"service":"yt"}]}"#;
        check(sound, Ok(()));
        check("{", Err("not JSON, at column 1"));
        check("[]", Err("not a JSON object"));
        check(r#"{"digest":"00"}"#, Err(r#"lacks "owner""#));
        check(&sound.replace("}]}", r#"}],"text":"x"}"#), Err(r#"unknown field "text""#));
        check(
            &sound.replace(r#"[{"service":"yt"}]"#, r#"["yt"]"#),
            Err(r#""scope" is not a list of {"service", "access"?}"#),
        );
        check(&sound.replace(r#""ann""#, "7"), Err(r#""owner" is not text"#));
    }
}

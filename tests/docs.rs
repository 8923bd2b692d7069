//! The documents match the code: every key and command is described, and every link resolves.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::CommandFactory;
use permgate::config::{
    key::{Key, ROOT, ValueKind},
    units::{in_words, size_in_words},
};

const BEGIN: &str = "<!-- keys: made from src/config/keys.toml, do not edit -->\n";
const END: &str = "<!-- end of keys -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 200, "README.md has {lines} lines: move what is not an overview into docs/");
}

#[test]
fn key_reference_matches_the_key_table() {
    let page = read("docs/configuration.md");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = [before, BEGIN, &reference(), END, after].concat();
    if page == expected {
        return;
    }
    if std::env::var_os("PERMGATE_WRITE_DOCS").is_some() {
        fs::write(root().join("docs/configuration.md"), expected).unwrap();
        return;
    }
    panic!(
        "docs/configuration.md is behind src/config/keys.toml: run PERMGATE_WRITE_DOCS=1 cargo test --test docs"
    );
}

/// The reference of keys: a section for each table of `gateway.toml`, with a row for each of its keys.
fn reference() -> String {
    let mut text = String::new();
    table(&mut text, "Top level", "", "", &ROOT.iter().collect::<Vec<_>>());
    for key in *ROOT {
        section(&mut text, key, "");
    }
    text
}

fn section(text: &mut String, key: &Key, prefix: &str) {
    let Some(keys) = children(key) else { return };
    let (heading, path) = match key.kind {
        ValueKind::NamedTables(_) => {
            (format!("`[{prefix}{}.NAME]`", key.name), format!("{prefix}{}.NAME.", key.name))
        }
        ValueKind::Tables(_) => (format!("`[[{prefix}{}]]`", key.name), format!("{prefix}{}.", key.name)),
        ValueKind::TableOrTables(_) => {
            (format!("`[{prefix}{0}]` or `[[{prefix}{0}]]`", key.name), format!("{prefix}{}.", key.name))
        }
        _ => (format!("`[{prefix}{}]`", key.name), format!("{prefix}{}.", key.name)),
    };
    table(text, &heading, key.description, &path, &keys.iter().collect::<Vec<_>>());
    for key in keys {
        section(text, key, &path);
    }
}

fn table(text: &mut String, heading: &str, about: &str, prefix: &str, keys: &[&Key]) {
    *text += &format!("\n### {heading}\n\n");
    if !about.is_empty() {
        *text += &format!("{about}\n\n");
    }
    let rows: Vec<String> = keys
        .iter()
        .filter(|key| {
            !matches!(key.kind, ValueKind::Table(_) | ValueKind::NamedTables(_) | ValueKind::Tables(_))
        })
        .map(|key| row(prefix, key))
        .collect();
    if !rows.is_empty() {
        *text += &format!("| key | default | form | meaning |\n|---|---|---|---|\n{}", rows.concat());
    }
}

fn row(prefix: &str, key: &Key) -> String {
    let default = match (key.default, key.required) {
        (Some(default), _) => format!("`{}`", spaced(default)),
        (None, true) => "required".to_owned(),
        (None, false) => String::new(),
    };
    let words =
        |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    let form = match key.kind {
        ValueKind::Text | ValueKind::Secret => "text".to_owned(),
        ValueKind::Flag => "`true`, `false`".to_owned(),
        ValueKind::Count(from, to) if from == to => from.to_string(),
        ValueKind::Count(from, to) => format!("{from} to {to}"),
        ValueKind::Duration(0) => "duration, also `0s`".to_owned(),
        ValueKind::Duration(1) => "duration".to_owned(),
        ValueKind::Duration(least) => {
            format!("duration, at least `{}`", in_words(Duration::from_millis(least)))
        }
        ValueKind::Size(1) => "size".to_owned(),
        ValueKind::Size(least) => format!("size, at least `{}`", size_in_words(least)),
        ValueKind::Word(list) => words(list),
        ValueKind::Words(list) => format!("list of {}", words(list)),
        ValueKind::Texts => "list of texts".to_owned(),
        ValueKind::TextsOrTables(_) => "list of texts or tables".to_owned(),
        ValueKind::TableOrTables(_) => "table, or list of tables".to_owned(),
        ValueKind::Table(_) | ValueKind::Tables(_) | ValueKind::NamedTables(_) => {
            unreachable!("has a section instead of a row")
        }
    };
    let form = key.max.map_or(form.clone(), |max| format!("{form}, at most `{max}`"));
    format!("| `{prefix}{}` | {default} | {form} | {} |\n", key.name, key.description)
}

/// A list as written in `gateway.toml`, with a space after each comma.
fn spaced(default: &str) -> String {
    default.replace("\",\"", "\", \"")
}

fn children(key: &Key) -> Option<&'static [Key]> {
    match key.kind {
        ValueKind::Table(keys)
        | ValueKind::NamedTables(keys)
        | ValueKind::Tables(keys)
        | ValueKind::TableOrTables(keys)
        | ValueKind::TextsOrTables(keys) => Some(keys),
        _ => None,
    }
}

#[test]
fn every_key_is_in_the_reference_with_its_default() {
    let page = read("docs/configuration.md");
    let mut missing = Vec::new();
    keys(&permgate::config::key::schema(), "", &mut |key, default| {
        let row = match default {
            Some(value) => format!("| `{key}` | `{}` |", written(value)),
            None => format!("| `{key}` | "),
        };
        if !page.contains(&row) {
            missing.push(row);
        }
    });
    assert!(missing.is_empty(), "docs/configuration.md does not have {missing:#?}");
}

/// A value as written in `gateway.toml`.
fn written(value: &serde_json::Value) -> String {
    match value.as_array() {
        Some(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        None => value.to_string(),
    }
}

/// Visits every key of the schema that is not a table, as the reference writes it.
fn keys(node: &serde_json::Value, prefix: &str, visit: &mut impl FnMut(&str, Option<&serde_json::Value>)) {
    for (name, inner) in node["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let tables = [&inner["items"], inner];
        if let Some(table) = tables.into_iter().find(|node| node["properties"].is_object()) {
            keys(table, &path, visit);
        } else if inner["additionalProperties"].is_object() {
            keys(&inner["additionalProperties"], &format!("{path}.NAME"), visit);
        } else {
            visit(&path, inner.get("default"));
        }
    }
}

#[test]
fn every_command_is_in_the_reference() {
    let page = read("docs/cli.md");
    for command in permgate::cli::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(page.contains(&format!("`{name}")), "docs/cli.md does not describe `permgate {name}`");
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let verb = verb.get_name();
            assert!(page.contains(verb), "docs/cli.md does not describe `permgate {name} {verb}`");
        }
    }
}

/// The paths of all documents, relative to the repository.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(PathBuf::from)
        .into_iter()
        .filter(|path| root().join(path).exists())
        .collect();
    let mut directories = vec![PathBuf::from("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = read("docs/SUMMARY.md");
    let listed: BTreeSet<PathBuf> = links(&summary).map(|link| Path::new("docs").join(link)).collect();
    let pages: BTreeSet<PathBuf> = documents()
        .into_iter()
        .filter(|path| path.starts_with("docs") && !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(listed, pages, "docs/SUMMARY.md lists the pages of docs/");
}

#[test]
fn every_link_has_a_target() {
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> =
        documents().into_iter().map(|path| (path.clone(), anchors(&read(path.to_str().unwrap())))).collect();
    let mut broken = Vec::new();
    for page in anchors.keys() {
        for link in links(&read(page.to_str().unwrap())) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { normal(&page.with_file_name(file)) };
            let outside = page.starts_with("docs") && !target.starts_with("docs");
            let known = anchors.get(&target).is_some_and(|known| anchor.is_empty() || known.contains(anchor))
                || (anchor.is_empty() && root().join(&target).exists());
            if outside || !known {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere, or out of the book: {broken:#?}");
}

/// Normalises `a/../b` to `b`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

/// The text without its code blocks.
fn prose(text: &str) -> String {
    let mut code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.map(|line| format!("{line}\n")).collect()
}

fn links(text: &str) -> impl Iterator<Item = String> {
    let text = prose(text);
    let found: Vec<String> = text
        .match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split_once(')').map(|(link, _)| link.to_owned()))
        .collect();
    found.into_iter()
}

/// The anchors of all headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|&c| c.is_alphanumeric() || "-_ ".contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The API reference lists the codes with the statuses that `/openapi.json` gives them.
#[test]
fn every_error_code_is_in_the_api_reference() {
    let reference = read("docs/api.md");
    let document = permgate::admin::document();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
    let mut missing = BTreeSet::new();
    for (status, response) in operations.filter_map(|(_, call)| call["responses"].as_object()).flatten() {
        let row =
            reference.lines().find(|line| line.starts_with(&format!("| {status} |"))).unwrap_or_default();
        let is_code = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let words = response["description"].as_str().unwrap_or_default().split('`').skip(1).step_by(2);
        let codes = words.filter(is_code).filter(|code| !row.contains(&format!("`{code}`")));
        missing.extend(codes.filter(|_| !status.starts_with('2')).map(|code| format!("{status} {code}")));
    }
    assert!(missing.is_empty(), "not in the table of docs/api.md: {missing:?}");
}

/// Complete configurations, wherever they are shown or shipped.
#[test]
fn every_documented_configuration_is_valid() {
    let mut shown: Vec<(String, String)> = Vec::new();
    for path in documents() {
        let text = read(path.to_str().unwrap());
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        let whole = blocks.filter(|block| block.starts_with("version = 1"));
        shown.extend(whole.map(|block| (path.display().to_string(), block)));
    }
    assert!(shown.len() >= 6, "the task pages have whole configurations");
    for path in ["deploy/packaging/gateway.toml", "deploy/packaging/container.toml"] {
        shown.push((path.to_owned(), read(path)));
    }
    for (path, key) in
        [("deploy/compose.yaml", "content: |"), ("deploy/kubernetes/permgate.yaml", "gateway.toml: |")]
    {
        shown.push((path.to_owned(), indented(&read(path), key)));
    }
    // Their certificates are on other machines, and a variable names the node in the second one.
    for text in [
        read("deploy/cluster/gateway.toml"),
        indented(&read("deploy/cluster/statefulset.yaml"), "gateway.toml: |")
            .replace("[store.cluster]\n", "[store.cluster]\nnode = \"permgate-0\"\n"),
    ] {
        let checked = permgate::config::check_text(&text, Path::new("gateway.toml"));
        if cfg!(feature = "etcd") {
            checked.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        }
    }
    for (path, text) in shown {
        let place = tempfile::tempdir().unwrap();
        for (at, _) in text.match_indices("\"file:") {
            let name = text[at + "\"file:".len()..].split('"').next().unwrap();
            // A name with an absolute path is in a comment.
            if !name.starts_with('/') {
                fs::write(place.path().join(name), "Bearer secret").unwrap();
            }
        }
        let file = place.path().join("gateway.toml");
        fs::write(&file, &text).unwrap();
        match permgate::config::Config::load(&file) {
            Ok(config) => assert!(!config.metrics.old_names, "{path} follows advice that `check` warns of"),
            Err(errors) => panic!("{path}: {errors}\n{text}"),
        }
    }
}

/// The lines after `key` that are indented further.
fn indented(text: &str, key: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != key);
    let depth = |line: &str| line.len() - line.trim_start().len();
    let outer = depth(lines.next().unwrap());
    let inner: Vec<&str> = lines.take_while(|line| line.is_empty() || depth(line) > outer).collect();
    let depth = inner.first().map(|line| depth(line)).unwrap();
    inner.iter().map(|line| format!("{}\n", line.get(depth..).unwrap_or_default())).collect()
}

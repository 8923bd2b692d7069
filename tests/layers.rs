//! Imports point down only: checks every `crate::…` path in `src` against the table of layers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Module, the modules that it may use, and the reason.
const FLOORS: [(&str, &[&str], &str); 14] = [
    ("authz", &[], "the decision is pure and knows nobody"),
    ("fence", &["authz"], "names whom a change affects; what an entry is, is its owner's affair"),
    ("metrics", &["authz", "net"], "counts by reason and service, and how handshakes end"),
    (
        "net",
        &["authz"],
        "knows no domain; only points in time, whom to trust, and how hosts and names are read",
    ),
    ("settings", &["authz", "net"], "what config builds and workers obey; TLS files are read by net"),
    ("state", &["authz", "settings"], "holds what the workers read"),
    ("assertion", &["authz"], "signs what the decision came to; the keys are its own"),
    ("issuer", &["authz", "net"], "verifies what others sign, for both listeners"),
    ("store", &["authz", "settings", "state", "fence", "metrics"], "the only publisher"),
    (
        "proxy",
        &["authz", "settings", "state", "fence", "metrics", "net", "assertion", "issuer", "store"],
        "a request's way",
    ),
    (
        "admin",
        &["authz", "settings", "state", "fence", "metrics", "net", "issuer", "store"],
        "never proxy: what both need lies below",
    ),
    (
        "config",
        &["authz", "metrics", "net", "settings", "assertion", "issuer", "store", "proxy", "admin"],
        "builds the settings that the floors below own",
    ),
    (
        "app",
        &[
            "authz",
            "settings",
            "state",
            "fence",
            "metrics",
            "net",
            "assertion",
            "store",
            "proxy",
            "admin",
            "config",
        ],
        "composes everything but the command line",
    ),
    (
        "cli",
        &["authz", "state", "fence", "metrics", "net", "store", "proxy", "admin", "config", "app"],
        "the top floor",
    ),
];

#[test]
fn imports_point_only_down() {
    let floors: BTreeMap<_, _> = FLOORS.iter().map(|(module, may, why)| (*module, (*may, *why))).collect();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let module = module_of(&file);
        if module == "main" || module == "lib" {
            continue;
        }
        let (may, why) = floors[module.as_str()];
        let text = fs::read_to_string(&file).unwrap();
        for used in used_modules(&text) {
            seen += 1;
            if used != module && !may.contains(&used.as_str()) {
                wrong.push(format!("{} uses crate::{used}, but {module} may not: {why}", file.display()));
            }
        }
    }
    assert!(seen > 50, "the scan finds the imports: {seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn scan_detects_every_form_of_a_path() {
    let text = "use crate::net::Limits;\nuse crate::{\n  authz::{a, b},\n  state::State,\n};\nfn f() { crate::app::run() }";
    assert_eq!(used_modules(text), ["app", "authz", "net", "state"]);
}

#[test]
fn no_module_uses_mod_rs() {
    let hidden: Vec<PathBuf> = rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")))
        .into_iter()
        .filter(|f| f.ends_with("mod.rs"))
        .collect();
    assert!(hidden.is_empty(), "foo.rs and foo/, never foo/mod.rs: {hidden:?}");
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// `src/net/tls.rs` and `src/net.rs` both belong to `net`.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The first segment after every `crate::`, and after every comma of `crate::{…}` at its own depth.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // Not the end of another word, as in `my_crate::`.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (i, c) in list.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && c.is_alphabetic() => {
                    used.push(word(&list[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    used.sort();
    used.dedup();
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

//! The document and the Router say the same.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// Every `.route("PATH", get(..).post(..))` of the sources.
fn routed() -> BTreeSet<(String, String)> {
    fn files(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "openapi" && name != "web") {
                    files(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin"), &mut texts);
    let mut routes = BTreeSet::new();
    for text in texts {
        for call in text.split(".route(").skip(1) {
            let Some(path) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            let end = call.find(".route(").unwrap_or(call.len());
            let handlers = call[..end].split("\n}").next().unwrap_or_default();
            for method in ["get", "post", "put", "patch", "delete"] {
                let called = handlers.match_indices(&format!("{method}(")).any(|(at, _)| {
                    !handlers[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                });
                if called
                    && (path.starts_with("/v1") || path.starts_with("/hub") || path.starts_with("/oauth2"))
                {
                    routes.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
    }
    routes
}

#[test]
fn every_route_is_told_and_nothing_else() {
    let document = serde_json::to_value(document()).unwrap();
    let mut told = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        told.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let others = ["/healthz", "/readyz", "/metrics", "/openapi.json"];
    let api: BTreeSet<_> =
        told.iter().filter(|(_, path)| !others.contains(&path.as_str())).cloned().collect();
    let routed = routed();
    assert!(routed.len() > 60, "the scan finds the routes: {routed:?}");
    assert_eq!(api.difference(&routed).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "not there");
    assert_eq!(routed.difference(&api).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "not told");
}

#[test]
fn every_reference_leads_somewhere() {
    let text = serde_json::to_string(&document()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut references = 0;
    for reference in text.split("\"$ref\":\"").skip(1) {
        let path = reference.split('"').next().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(path).is_some(), "{path}");
        references += 1;
    }
    assert!(references > 60);
}

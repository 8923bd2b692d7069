//! The document and the router agree.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// Every `.route("PATH", get(..).post(..))` in the sources.
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
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = vec![fs::read_to_string(sources.join("admin.rs")).unwrap()];
    files(&sources.join("admin"), &mut texts);
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
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        documented.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let others = ["/healthz", "/readyz", "/metrics", "/openapi.json"];
    let api: BTreeSet<_> =
        documented.iter().filter(|(_, path)| !others.contains(&path.as_str())).cloned().collect();
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

#[test]
fn fields_of_requests_are_told() {
    let document = document();
    let body = |method: &str, path: &str, field: &str| {
        let parameters = document["paths"][path][method]["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|p| p["in"] == "header" && p["name"] == field)
    };
    for path in ["/v1/tokens/{id}", "/v1/users/{login}", "/v1/groups/{name}", "/v1/roles/{key}"] {
        assert!(body("patch", path, "If-Match"), "{path}");
    }
    for path in ["/v1/users/{login}/tokens", "/v1/tokens/{id}/rotate"] {
        assert!(body("post", path, "Idempotency-Key"), "{path}");
        assert!(document["paths"][path]["post"]["responses"]["200"]["content"].is_object(), "{path}");
    }
}

/// Every example in the document, with its schema and its place.
fn examples(document: &serde_json::Value) -> Vec<(String, serde_json::Value, Option<serde_json::Value>)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let body = operation["requestBody"]["content"].as_object().into_iter().flatten();
            let body = body.map(|(_, content)| ("body".to_owned(), content));
            let returns = operation["responses"].as_object().unwrap().iter();
            let returns = returns.flat_map(|(status, answer)| {
                let json = answer["content"].as_object().unwrap().iter();
                json.filter(|(form, _)| form.ends_with("json")).map(|(_, content)| (status.clone(), content))
            });
            for (what, content) in body.chain(returns) {
                let at = format!("{method} {path} {what}");
                found.push((at, content["schema"].clone(), content.get("example").cloned()));
            }
        }
    }
    found
}

#[test]
fn every_body_and_answer_has_an_example_that_fits() {
    fn fits(at: &str, schema: &serde_json::Value, example: &serde_json::Value, document: &serde_json::Value) {
        if let Some(reference) = schema["$ref"].as_str() {
            return fits(at, document.pointer(&reference[1..]).unwrap(), example, document);
        }
        if let Some(items) = example.as_array() {
            items.iter().for_each(|item| fits(at, &schema["items"], item, document));
        }
        let Some(fields) = example.as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{at}: the example lacks {name}");
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in fields {
            match properties.get(name) {
                Some(property) => fits(&format!("{at} {name}"), property, value, document),
                // What a response has in addition to a record.
                None => assert!(at.contains(" 20"), "{at}: {name} is not in the schema"),
            }
        }
    }
    let document = document();
    let found = examples(&document);
    assert!(found.len() > 500, "{}", found.len());
    for (at, schema, example) in &found {
        fits(at, schema, example.as_ref().unwrap_or_else(|| panic!("{at} has no example")), &document);
    }
}

//! The README names every key of the configuration with its default, and every command.

use clap::CommandFactory;

const README: &str = include_str!("../README.md");

#[test]
fn every_key_is_in_the_reference_with_its_default() {
    let mut missing = Vec::new();
    keys(&permgate::config::schema::schema(), "", &mut |key, default| {
        let default = default.map(|value| format!("`{}`", written(value))).unwrap_or_default();
        let row = format!("| `{key}` | {default} |");
        if !README.contains(&row) {
            missing.push(row);
        }
    });
    assert!(missing.is_empty(), "README.md does not say {missing:#?}");
}

/// As `gateway.toml` would have it.
fn written(value: &serde_json::Value) -> String {
    match value.as_array() {
        Some(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        None => value.to_string(),
    }
}

#[test]
fn every_command_is_in_the_reference() {
    let table = README.split("## Command line").nth(1).unwrap().split("## Admin API").next().unwrap();
    for command in permgate::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(table.contains(&format!("`{name}")), "README.md does not tell of `permgate {name}`");
        for verb in command.get_subcommands() {
            let verb = verb.get_name();
            assert!(table.contains(verb), "README.md does not tell of `permgate {name} {verb}`");
        }
    }
}

/// Every key that is no table, as the README writes it.
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

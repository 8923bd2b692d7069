//! `permgate explain METHOD URL`.

use std::net::IpAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    Global,
    client::Client,
    failure::Failure,
    output::{Format, pretty, print},
};

#[derive(Debug, Args)]
pub(super) struct Explain {
    method: String,
    /// A path, or a URL whose host is looked at too
    url: String,
    /// As the holder of this token
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    token_id: Option<String>,
    /// As this user, with a token that fits
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,
    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
}

impl Explain {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let mut body =
            Map::from_iter([("method".to_owned(), json!(self.method)), ("url".to_owned(), json!(self.url))]);
        let client = self.client.map(|client| client.to_string());
        for (field, value) in [("token_id", &self.token_id), ("user", &self.user), ("client", &client)] {
            if let Some(value) = value {
                body.insert(field.to_owned(), json!(value));
            }
        }
        let answer = Client::new(global)?.post("/v1/explain", &Value::Object(body))?;
        match global.output {
            Format::Json => print(&pretty(&answer)),
            Format::Jsonl => print(&answer.to_string()),
            Format::Id => print(answer["reason"].as_str().unwrap_or_default()),
            Format::Table => tell(&answer, 0),
        }
    }
}

/// A nested answer as indented lines.
fn tell(value: &Value, depth: usize) -> Result<(), Failure> {
    let indent = "  ".repeat(depth);
    for (field, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Object(_) => {
                print(&format!("{indent}{field}:"))?;
                tell(value, depth + 1)?;
            }
            Value::Array(items) => {
                print(&format!("{indent}{field}:"))?;
                for item in items {
                    print(&format!("{indent}  - {}", line(item)))?;
                }
            }
            other => print(&format!("{indent}{field}: {}", line(other)))?,
        }
    }
    Ok(())
}

fn line(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(field, value)| format!("{field}: {}", line(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(items) => items.iter().map(line).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

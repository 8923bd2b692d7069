//! `permgate token ...`. The text of a token goes to stdout once, when it is made.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    import,
    output::{Columns, Format, print},
};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token and print its text, this once
    Create(Create),
    /// List tokens
    List(List),
    /// Show one token
    Show { id: String },
    /// Narrow, rename or shorten a token
    Edit(Edit),
    /// Replace a token by a new one and print its text, this once
    Rotate {
        id: String,
        /// How long the old one still holds: 0s to 7d
        #[arg(long, value_name = "DURATION")]
        grace: Option<String>,
    },
    /// Revoke tokens; what they hold open is cut before this answers
    Revoke {
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Tell who the token in use belongs to
    Whoami,
    /// Register tokens by digest, from NDJSON
    Import(Import),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Login of the owner
    #[arg(long, value_name = "LOGIN", default_value = "me")]
    user: String,
    #[arg(long)]
    name: String,
    /// A service, or SERVICE:read; several times for several
    #[arg(long, value_name = "SERVICE[:read]", required = true)]
    scope: Vec<String>,
    /// Such as 90d; never unless given
    #[arg(long, value_name = "DURATION", conflicts_with = "expires_at")]
    expires_in: Option<String>,
    /// Such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// An address or a network it may be used from; several times for several
    #[arg(long, value_name = "NETWORK")]
    allow_ip: Vec<String>,
    #[arg(long)]
    note: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,
    #[arg(long)]
    service: Option<String>,
    #[arg(long, value_name = "DURATION")]
    unused_for: Option<String>,
    #[arg(long, value_name = "DURATION")]
    expiring_in: Option<String>,
    /// pending, active, expired, rotating, rotated, revoked or suspended
    #[arg(long)]
    state: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct Edit {
    id: String,
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    note: Option<String>,
    /// The whole new scope, not wider than the old one
    #[arg(long, value_name = "SERVICE[:read]")]
    scope: Vec<String>,
    #[arg(long, value_name = "DURATION", conflicts_with = "expires_at")]
    expires_in: Option<String>,
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    #[arg(long, value_name = "NETWORK")]
    allow_ip: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Lines of {"digest", "owner", "name", "scope": ["SERVICE[:read]"], "expires_at"?}, {"user"} or {"group", "members"}
    pub(super) file: PathBuf,
    /// Make owners that do not exist
    #[arg(long)]
    pub(super) make_owners: bool,
    /// Start behind this line, where an interrupted import has ended
    #[arg(long, value_name = "LINE", default_value_t = 0)]
    pub(super) skip: u64,
}

const COLUMNS: Columns = &[
    ("ID", "id"),
    ("USER", "user"),
    ("NAME", "name"),
    ("SCOPE", "scope"),
    ("STATE", "state"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
];

impl Token {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Import(import) => import::run(global, &import),
            Self::Create(create) => create.run(global),
            Self::List(list) => list.run(global),
            Self::Edit(edit) => edit.run(global),
            Self::Show { id } => {
                let record = Client::new(global)?.get(&path(&id))?;
                global.output.record(&record, COLUMNS)
            }
            Self::Rotate { id, grace } => {
                let body = Value::Object(present([("grace", grace.map(Value::String))]));
                let made = Client::new(global)?.post(&format!("{}/rotate", path(&id)), &body)?;
                show_made(global, &made)
            }
            Self::Revoke { ids } => {
                let client = Client::new(global)?;
                for id in ids {
                    let answer = client.delete(&path(&id))?;
                    say(&format!("revoked {id}"));
                    tell_cut(&answer);
                }
                Ok(())
            }
            Self::Whoami => {
                let answer = Client::new(global)?.get("/v1/whoami")?;
                global.output.record(&answer, &[("USER", "user")])
            }
        }
    }
}

impl Create {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let allow_ips = (!self.allow_ip.is_empty()).then(|| json!(self.allow_ip));
        let body = present([
            ("name", Some(json!(self.name))),
            ("scope", Some(scope(&self.scope)?)),
            ("expires_in", self.expires_in.map(Value::String)),
            ("expires_at", self.expires_at.map(Value::String)),
            ("not_before", self.not_before.map(Value::String)),
            ("allow_ips", allow_ips),
            ("note", self.note.map(Value::String)),
        ]);
        let path = format!("/v1/users/{}/tokens", escape(&self.user));
        let made = Client::new(global)?.post(&path, &Value::Object(body))?;
        show_made(global, &made)
    }
}

impl List {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let filters = [
            ("user", self.user),
            ("service", self.service),
            ("unused_for", self.unused_for),
            ("expiring_in", self.expiring_in),
            ("state", self.state),
            ("limit", Some(self.limit.unwrap_or(1000).clamp(1, 1000).to_string())),
        ];
        let query: Vec<String> = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escape(&value?))))
            .collect();
        let records = Client::new(global)?.list(&format!("/v1/tokens?{}", query.join("&")), self.limit)?;
        global.output.list(&records, COLUMNS)
    }
}

impl Edit {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let scope = if self.scope.is_empty() { None } else { Some(scope(&self.scope)?) };
        let body = present([
            ("name", self.name.map(Value::String)),
            ("note", self.note.map(Value::String)),
            ("scope", scope),
            ("expires_in", self.expires_in.map(Value::String)),
            ("expires_at", self.expires_at.map(Value::String)),
            ("allow_ips", (!self.allow_ip.is_empty()).then(|| json!(self.allow_ip))),
        ]);
        if body.is_empty() {
            return Err(Failure::usage("nothing to change: name a field, such as --name or --scope"));
        }
        let answer = Client::new(global)?.patch(&path(&self.id), &Value::Object(body))?;
        tell_cut(&answer);
        global.output.record(&answer, COLUMNS)
    }
}

/// The text on stdout: alone for people and scripts, in the record for JSON.
fn show_made(global: &Global, made: &Value) -> Result<(), Failure> {
    tell_cut(made);
    match (global.output, made["token"].as_str()) {
        (Format::Table, Some(text)) => {
            say(&format!(
                "made token {} ({}); its text is shown this once:",
                made["id"].as_str().unwrap_or_default(),
                made["name"].as_str().unwrap_or_default().escape_debug()
            ));
            print(text)
        }
        (format, _) => format.record(made, COLUMNS),
    }
}

fn path(id: &str) -> String {
    format!("/v1/tokens/{}", escape(id))
}

/// `hub:read` to `{"service": "hub", "access": "read"}`.
fn scope(words: &[String]) -> Result<Value, Failure> {
    let entry = |word: &String| match word.split_once(':') {
        None => Ok(json!({ "service": word })),
        Some((service, access @ ("read" | "full"))) => Ok(json!({ "service": service, "access": access })),
        Some(_) => Err(Failure::usage(format!("{word:?} is not a scope: write SERVICE or SERVICE:read"))),
    };
    let words = words.iter().flat_map(|words| words.split([' ', ','])).filter(|word| !word.is_empty());
    words.map(|word| entry(&word.to_owned())).collect()
}

/// The fields that have a value.
pub(super) fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

//! `permgate token ...`. A token's text is printed to stdout once, when it is created.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use serde_json::{Value, json};
use strum::VariantNames as _;

use super::{
    Global,
    client::{Client, escape, path_of, without_nulls},
    complete,
    failure::{self, Failure, print_stderr},
    hint, import,
    output::{Format, ListView, cell, print, report_effect},
    time,
    token_file::TokenFile,
};
use crate::{authz::subject::parse_scope_entry, store::TokenState};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Create a token and print its text, which is shown only once
    Create(Create),
    /// List tokens
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one token
    Show(TokenSelector),
    /// Reduce the scope of a token, rename it, or let it expire earlier
    Edit(Edit),
    /// Replace a token by a new one and print its text, which is shown only once
    Rotate {
        #[command(flatten)]
        which: TokenSelector,
        /// How long the old token stays valid: 0s to 7d; 1h if not given. The expiry does not change
        #[arg(long, value_name = "DURATION", value_parser = time::duration)]
        grace: Option<String>,
    },
    /// Revoke tokens; their requests in flight are cut before the command returns
    #[command(visible_alias = "rm")]
    Revoke {
        /// Ids or names
        #[arg(required = true, value_name = "TOKEN", add = complete::tokens())]
        tokens: Vec<String>,
        /// Login of the owner, if the name could be another user's token
        #[arg(long, value_name = "LOGIN", add = complete::logins())]
        user: Option<String>,
    },
    /// Show the owner of the token in use, and what it may do
    Whoami,
    /// Register existing secrets by their digests, from lines of JSON
    Import(Import),
}

/// One token.
#[derive(Debug, Args)]
pub(super) struct TokenSelector {
    /// Id or name of the token
    #[arg(value_name = "TOKEN", add = complete::tokens())]
    token: String,
    /// Login of the owner, if the name could be another user's token
    #[arg(long, value_name = "LOGIN", add = complete::logins())]
    user: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Login of the owner; yourself if not given
    #[arg(long, value_name = "LOGIN", default_value = "me", hide_default_value = true, add = complete::logins())]
    user: String,
    /// What the token is for; unique among the owner's tokens
    #[arg(long)]
    name: String,
    /// A service, or SERVICE:read for reading only; may be repeated
    #[arg(long, value_name = "SERVICE[:read]", required = true, add = complete::services())]
    scope: Vec<String>,
    /// How long the token is valid, such as 90d; it does not expire if not given
    #[arg(long, value_name = "DURATION", conflicts_with = "expires_at", value_parser = time::duration)]
    expires_in: Option<String>,
    /// When the token expires: 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::timestamp)]
    expires_at: Option<String>,
    /// When the token becomes valid: 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::timestamp)]
    not_before: Option<String>,
    /// An address or network from which the token may be used; may be repeated. Default: anywhere
    #[arg(long, value_name = "NETWORK")]
    allow_ip: Vec<String>,
    /// Note for people
    #[arg(long)]
    note: Option<String>,
    /// Write the token to this new file instead of printing it, with the address of its listener
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only tokens of this user
    #[arg(long, value_name = "LOGIN", add = complete::logins())]
    user: Option<String>,
    /// Only tokens whose scope includes this service
    #[arg(long, add = complete::services())]
    service: Option<String>,
    /// Only tokens that were not used for this long, such as 90d
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    unused_for: Option<String>,
    /// Only tokens that expire within this time, such as 14d
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    expiring_in: Option<String>,
    /// Only tokens in this state
    #[arg(long, value_parser = PossibleValuesParser::new(TokenState::VARIANTS))]
    state: Option<String>,
    /// Maximum number of tokens
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Edit {
    #[command(flatten)]
    which: TokenSelector,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New note
    #[arg(long)]
    note: Option<String>,
    /// The whole new scope, no wider than the old one; may be repeated
    #[arg(long, value_name = "SERVICE[:read]", add = complete::services())]
    scope: Vec<String>,
    /// Earlier expiry, counted from now, such as 7d
    #[arg(long, value_name = "DURATION", conflicts_with = "expires_at", value_parser = time::duration)]
    expires_in: Option<String>,
    /// Earlier expiry: 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::timestamp)]
    expires_at: Option<String>,
    /// The whole new list of networks, no wider than the old one; may be repeated
    #[arg(long, value_name = "NETWORK")]
    allow_ip: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Lines of {"digest", "owner", "name", "scope": ["SERVICE[:read]"], "expires_at"?}, {"user"} or
    /// {"group", "members"}; - is standard input
    pub(super) file: PathBuf,
    /// Create owners that do not exist
    #[arg(long)]
    pub(super) make_owners: bool,
    /// Skip this many lines, to continue an interrupted import
    #[arg(long, value_name = "LINE", default_value_t = 0)]
    pub(super) skip: u64,
}

/// Shown to people in place of a time.
const NEVER: &str = "never";

const VIEW: ListView =
    ListView::new("tokens", "user name created_at", "id user name scope state expires_at last_used_at");

impl Token {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Import(import) => import::run(global, &import),
            Self::Create(create) => create.run(global),
            Self::List(list) => list.run(global),
            Self::Edit(edit) => edit.run(global),
            Self::Show(which) => {
                let client = Client::new(global)?;
                let mut record = client.get(&which.path(&client)?)?;
                if global.output == Format::Table && record["expires_at"].is_null() {
                    record["expires_at"] = NEVER.into();
                }
                global.output.record(&record, "id")
            }
            Self::Rotate { which, grace } => {
                let client = Client::new(global)?;
                let body = without_nulls(json!({"grace": grace}));
                let old = which.path(&client)?;
                let created = client.post(&format!("{old}/rotate"), &body)?;
                show_created(global, &created, None)?;
                if let (Format::Table | Format::Id, Ok(old)) = (global.output, client.get(&old)) {
                    let end = match old["state"] == "rotating" {
                        true => format!("works until {}", cell(&ends_at(&old))),
                        false => "no longer works".to_owned(),
                    };
                    print_stderr(&format!("the old {} {end}", display_name(&old)));
                }
                Ok(())
            }
            Self::Revoke { tokens, user } => {
                let client = Client::new(global)?;
                failure::for_each(tokens, |token| {
                    failure::for_each(hint::token_ids(&client, &token, user.as_deref())?, |id| {
                        let mut response = client.delete(&path_of("tokens", &id))?;
                        response["id"] = id.as_str().into();
                        let shown = hint::shown(&token);
                        let which = if id == *shown { id } else { format!("{shown} ({id})") };
                        global.output.done(&response, &format!("revoked {which}"))
                    })
                })
            }
            Self::Whoami => whoami(global),
        }
    }
}

/// Shows the caller: a user by a token, or the operator.
pub(super) fn whoami(global: &Global) -> Result<(), Failure> {
    let mut response = Client::new(global)?.get("/v1/whoami")?;
    if global.output == Format::Table && response["operator"] == true {
        print_stderr("you are the operator: the admin socket needs no token and belongs to no account");
    }
    if let (Format::Table, Some(token)) = (global.output, response["token"].as_object().cloned()) {
        let word = |field: &str| token[field].as_str().unwrap_or_default();
        response["token"] = format!("{} ({})", word("name"), word("id")).into();
        for field in ["scope", "state", "expires_at"] {
            response[field] = token[field].clone();
        }
    }
    global.output.record(&response, "user")
}

impl TokenSelector {
    fn path(&self, client: &Client) -> Result<String, Failure> {
        hint::token_id(client, &self.token, self.user.as_deref()).map(|id| path_of("tokens", &id))
    }
}

impl Create {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let scope = scope(&self.scope)?;
        let body = without_nulls(json!({
            "name": self.name, "scope": scope, "expires_in": self.expires_in, "expires_at": self.expires_at,
            "not_before": self.not_before, "allow_ips": named(&self.allow_ip), "note": self.note,
        }));
        let path = format!("{}/tokens", path_of("users", &self.user));
        let client = Client::new(global)?;
        let file = self.save.as_deref().map(TokenFile::create).transpose()?;
        let mut created = client.post(&path, &body).map_err(|failure| {
            if self.user == "me" && failure.error == "not_found" {
                let message = "the operator has no account of its own: name the owner with --user LOGIN";
                return Failure::usage(message);
            }
            hint::unreadable(&client, failure, &self.user, &scope)
        })?;
        let mut saved = None;
        if let (Some(file), Some(text)) = (file, created["token"].as_str()) {
            match file.write(text, client.target()) {
                Ok(()) => {
                    created["token"].take();
                    saved = self.save.as_deref();
                }
                // The text is shown only once, so it must not be lost.
                Err(error) => {
                    print_stderr(&format!("the file cannot be written, so here is the text: {error}"));
                }
            }
        }
        show_created(global, &created, saved)
    }
}

impl List {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let service = self.service.clone();
        let filters = [
            ("user", self.user),
            ("service", self.service),
            ("unused_for", self.unused_for),
            ("expiring_in", self.expiring_in),
            ("state", self.state),
            ("limit", Some(self.limit.unwrap_or(1000).min(1000).to_string())),
        ];
        let query: Vec<String> = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escape(&value?))))
            .collect();
        let client = Client::new(global)?;
        let limit = self.limit.map(|limit| limit as usize);
        let mut records = client.list(&format!("/v1/tokens?{}", query.join("&")), limit)?;
        if global.output == Format::Table {
            for record in &mut records {
                record["expires_at"] = ends_at(record);
            }
        }
        if let Some(service) = service.filter(|_| records.is_empty()) {
            hint::known_service(&client, &service)?;
        }
        global.output.list(records, VIEW)
    }
}

impl Edit {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let body = without_nulls(json!({
            "name": self.name, "note": self.note, "scope": named(&self.scope).map(scope).transpose()?,
            "expires_in": self.expires_in, "expires_at": self.expires_at, "allow_ips": named(&self.allow_ip),
        }));
        if body == json!({}) {
            return Err(Failure::usage(
                "nothing to change: give --name, --note, --scope, --expires-in, --expires-at or --allow-ip",
            ));
        }
        let client = Client::new(global)?;
        let response = client.patch(&self.which.path(&client)?, &body)?;
        global.output.changed(&response, "id", &format!("changed {}", display_name(&response)))
    }
}

/// Prints the text on stdout unless it was saved: alone for people and scripts, in the record for JSON. It
/// is shown only once, so every format includes it.
fn show_created(global: &Global, created: &Value, saved: Option<&Path>) -> Result<(), Failure> {
    report_effect(created);
    let until = created["expires_at"].as_str().map(|at| format!(", valid until {at}")).unwrap_or_default();
    let sentence = format!("created {}{until}", display_name(created));
    match (global.output, created["token"].as_str(), saved) {
        (Format::Table | Format::Id, Some(text), _) => {
            print_stderr(&format!("{sentence}; its text is shown only once:"));
            print(text)
        }
        (Format::Table, None, Some(file)) => {
            print_stderr(&format!("{sentence}; its text is in {}", file.display()));
            Ok(())
        }
        (format, ..) => format.record(created, "id"),
    }
}

/// When a token ends by time: one that was replaced does so with its grace period, if not before.
fn ends_at(record: &Value) -> Value {
    let grace = Some(&record["grace_until"]).filter(|_| record["state"] == "rotating");
    let ends = [Some(&record["expires_at"]), grace].into_iter().flatten().filter_map(Value::as_str);
    ends.min().unwrap_or(NEVER).into()
}

/// A record's token in a sentence.
fn display_name(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or_default();
    format!("token {} ({})", text("id"), text("name").escape_debug())
}

/// A list that was given.
fn named(words: &[String]) -> Option<&[String]> {
    Some(words).filter(|words| !words.is_empty())
}

/// Parses `hub:read` to `{"service": "hub", "access": "read"}`.
fn scope(words: &[String]) -> Result<Value, Failure> {
    let entry = |word: &str| match parse_scope_entry(word) {
        Ok((service, access)) => Ok(json!({ "service": service, "access": access.word() })),
        Err(_) => Err(Failure::usage(format!("{word:?} is not a scope: write SERVICE or SERVICE:read"))),
    };
    let words = words.iter().flat_map(|words| words.split([' ', ','])).filter(|word| !word.is_empty());
    words.map(entry).collect()
}

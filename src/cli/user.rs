//! `permgate user ...`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    output::Columns,
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Make an account
    Create {
        login: String,
        /// The login unless given
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, value_enum, default_value_t = Kind::Human)]
        kind: Kind,
    },
    /// List accounts
    List,
    /// Show one account
    Show { login: String },
    /// Change an account
    Edit {
        login: String,
        #[arg(long, value_name = "LOGIN")]
        rename: Option<String>,
        #[arg(long)]
        name: Option<String>,
        /// Empty takes it away
        #[arg(long)]
        email: Option<String>,
    },
    /// Disable an account: its tokens stop, what they hold open is cut
    Ban {
        login: String,
        #[arg(long)]
        reason: String,
    },
    /// Enable a disabled account
    Unban { login: String },
    /// Delete an account and revoke its tokens, for good
    Delete { login: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Human,
    /// No password, no session: tokens only
    Service,
}

const COLUMNS: Columns = &[
    ("LOGIN", "login"),
    ("NAME", "name"),
    ("KIND", "kind"),
    ("BANNED", "banned"),
    ("GROUPS", "groups"),
    ("ROLES", "roles"),
];

impl User {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        let show = |record: &Value| {
            tell_cut(record);
            global.output.record(record, COLUMNS)
        };
        match self {
            Self::Create { login, name, email, kind } => {
                let kind = match kind {
                    Kind::Human => "human",
                    Kind::Service => "service",
                };
                let body = present([
                    ("name", Some(json!(name.as_ref().unwrap_or(&login)))),
                    ("login", Some(json!(login))),
                    ("kind", Some(json!(kind))),
                    ("email", email.map(Value::String)),
                ]);
                show(&client.post("/v1/users", &Value::Object(body))?)
            }
            Self::List => global.output.list(&client.list("/v1/users?limit=1000", None)?, COLUMNS),
            Self::Show { login } => show(&client.get(&path(&login))?),
            Self::Edit { login, rename, name, email } => {
                let email = email.map(|email| if email.is_empty() { Value::Null } else { json!(email) });
                let body = present([
                    ("login", rename.map(Value::String)),
                    ("name", name.map(Value::String)),
                    ("email", email),
                ]);
                if body.is_empty() {
                    return Err(Failure::usage("nothing to change: give --rename, --name or --email"));
                }
                show(&client.patch(&path(&login), &Value::Object(body))?)
            }
            Self::Ban { login, reason } => {
                show(&client.post(&format!("{}/ban", path(&login)), &json!({ "reason": reason }))?)
            }
            Self::Unban { login } => show(&client.post(&format!("{}/unban", path(&login)), &json!({}))?),
            Self::Delete { login } => {
                let answer = client.delete(&path(&login))?;
                say(&format!("deleted {login}"));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

fn path(login: &str) -> String {
    format!("/v1/users/{}", escape(login))
}

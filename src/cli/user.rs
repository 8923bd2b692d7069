//! `permgate user ...`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    output::Columns,
    target::ADMIN_VARIABLE,
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Make an account; with a bare `--admin` an administrator's, and print an invitation
    #[command(visible_alias = "add")]
    Create {
        #[arg(required_unless_present = "admin")]
        login: Option<String>,
        /// The login unless given
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, value_enum, default_value_t = Kind::Human)]
        kind: Kind,
        /// Print a link, this once, by which the person sets a password
        #[arg(long, conflicts_with = "kind")]
        invite: bool,
    },
    /// Print a link, this once, by which the person sets a password, the first or another
    Invite { login: String },
    /// Let an OpenID Connect subject sign in as this account
    Link {
        login: String,
        /// The provider's claim `sub`; the gateway's log has it
        subject: String,
        /// Of the configured provider unless given
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
    },
    /// Let no provider sign this account in any more, and end its sessions
    Unlink { login: String },
    /// End every session of an account in the web page
    SignOut { login: String },
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

const IDENTITY: Columns = &[("ISSUER", "issuer"), ("SUBJECT", "subject")];
const INVITATION: Columns = &[("USER", "user"), ("LINK", "link"), ("EXPIRES", "expires_at")];

impl User {
    pub(super) fn run(mut self, global: &Global) -> Result<(), Failure> {
        let mut global = global.clone();
        let admin = self.take_switch(&mut global);
        let global = &global;
        let client = Client::new(global)?;
        let show = |record: &Value| {
            tell_cut(record);
            global.output.record(record, COLUMNS)
        };
        match self {
            Self::Create { login, name, email, kind, invite } => {
                let login = login.ok_or_else(|| Failure::usage("name the login of the account"))?;
                if admin && matches!(kind, Kind::Service) {
                    return Err(Failure::usage("a service account has tokens only: it is invited nowhere"));
                }
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
                let made = client.post("/v1/users", &Value::Object(body))?;
                let login = made["login"].as_str().unwrap_or_default();
                if admin {
                    client.post("/v1/grants", &json!({"role": "system-admin", "user": login}))?;
                    say(&format!("{login} holds system-admin"));
                }
                if admin || invite { invitation(global, &client, login) } else { show(&made) }
            }
            Self::Invite { login } => invitation(global, &client, &login),
            Self::Link { login, subject, issuer } => {
                let body =
                    present([("subject", Some(json!(subject))), ("issuer", issuer.map(Value::String))]);
                let linked = client.post(&format!("{}/identities", path(&login)), &Value::Object(body))?;
                global.output.record(&linked, IDENTITY)
            }
            Self::Unlink { login } => {
                let answer = client.delete(&format!("{}/identities", path(&login)))?;
                say(&format!("unlinked {} identities of {login}", answer["identities"]));
                tell_cut(&answer);
                Ok(())
            }
            Self::SignOut { login } => {
                let answer = client.delete(&format!("{}/sessions", path(&login)))?;
                say(&format!("ended {} sessions of {login}", answer["sessions"]));
                tell_cut(&answer);
                Ok(())
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

impl User {
    /// `--admin` names the listener; without an address it means, here, that the account is to be an
    /// administrator's. An address has a colon, and a login never has.
    fn take_switch(&mut self, global: &mut Global) -> bool {
        let Self::Create { login, .. } = self else { return false };
        let Some(written) = global.admin.take_if(|written| !written.contains(':')) else { return false };
        if login.is_none() && !written.is_empty() {
            *login = Some(written);
        }
        // Where both are written, the parser keeps the one that stands last: the switch.
        let variable = || std::env::var(ADMIN_VARIABLE).ok().filter(|address| !address.is_empty());
        let named = address(std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()));
        let variable = if global.offline { None } else { variable() };
        global.admin = named.or(variable);
        true
    }
}

/// The listener that a command line names beside a bare `--admin`.
fn address(arguments: impl Iterator<Item = String>) -> Option<String> {
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--admin=") {
            Some(value) => Some(value.to_owned()),
            None if argument == "--admin" => arguments.peek().cloned(),
            None => None,
        };
        if let Some(value) = value.filter(|value| value.contains(':')) {
            return Some(value);
        }
    }
    None
}

/// The link is data, so that it can be piped into a mail.
fn invitation(global: &Global, client: &Client, login: &str) -> Result<(), Failure> {
    let made = client.post(&format!("{}/invitation", path(login)), &json!({}))?;
    say("whoever opens this link within a day sets the password; it is shown this once");
    global.output.record(&made, INVITATION)
}

fn path(login: &str) -> String {
    format!("/v1/users/{}", escape(login))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_named_beside_the_switch() {
        let check = |line: &str, expected: Option<&str>| {
            let found = address(line.split(' ').map(str::to_owned));
            assert_eq!(found.as_deref(), expected, "{line}");
        };
        check("user add ann --admin", None);
        check("user add --admin ann", None);
        check("--admin unix:a.sock user add ann --admin", Some("unix:a.sock"));
        check("--admin=http://[::1]:1 user add ann --admin", Some("http://[::1]:1"));
        check("-c gateway.toml user add ann --name a:b --admin", None);
    }
}

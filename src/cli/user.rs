//! `permgate user ...`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    complete,
    confirm::confirm,
    failure::{Failure, say},
    hint::{self, Named},
    output::{Columns, Format, ListView, counted, print},
    target::ADMIN_VARIABLE,
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Create an account
    #[command(visible_alias = "add")]
    Create {
        /// 1 to 64 of A-Z a-z 0-9 . _ @ + -, the first one a letter or digit; has to be given
        #[arg(required_unless_present = "admin")]
        login: Option<String>,
        /// The person's or the machine's name; the login unless given
        #[arg(long)]
        name: Option<String>,
        /// An address for people to write to
        #[arg(long)]
        email: Option<String>,
        /// A person, or a machine that has tokens only
        #[arg(long, value_enum, default_value_t = AccountKind::Human)]
        kind: AccountKind,
        /// Grant the role system-admin, and print a link with which the person sets a password
        #[arg(long)]
        administrator: bool,
        /// Print a link with which the person sets a password
        #[arg(long)]
        invite: bool,
    },
    /// Print a link with which the person sets a password, the first one or another
    Invite {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
    },
    /// Let an identity at the OpenID Connect provider sign in as this account
    Link {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
        /// The provider's claim `sub`; the gateway's log shows it
        subject: String,
        /// The provider; the configured one unless given
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
    },
    /// Remove all identities at providers from an account, and end its sessions
    Unlink {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
    },
    /// End every session of an account on the page
    SignOut {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
    },
    /// List accounts
    #[command(visible_alias = "ls")]
    List,
    /// Show one account
    Show {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
    },
    /// Change an account
    Edit {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
        /// Another login
        #[arg(long, value_name = "LOGIN")]
        rename: Option<String>,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another address; an empty one removes it
        #[arg(long)]
        email: Option<String>,
    },
    /// Disable an account: its tokens stop working, and what they hold open is cut
    Ban {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
        /// Why; shown to administrators
        #[arg(long)]
        reason: String,
    },
    /// Enable a disabled account
    Unban {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
    },
    /// Delete an account and revoke its tokens, for good
    #[command(visible_alias = "rm")]
    Delete {
        /// Login of the account
        #[arg(add = complete::logins())]
        login: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AccountKind {
    Human,
    /// No password and no session, only tokens
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

const VIEW: ListView = ListView { nouns: "users", sort: &["login"], columns: COLUMNS };
const IDENTITY: Columns = &[("ISSUER", "issuer"), ("SUBJECT", "subject")];
const INVITATION: Columns = &[("USER", "user"), ("LINK", "link"), ("EXPIRES", "expires_at")];

impl User {
    pub(super) fn run(mut self, global: &Global) -> Result<(), Failure> {
        let mut global = global.clone();
        let switch = self.take_switch(&mut global);
        let client = Client::new(&global)?;
        let named = match &self {
            Self::Create { .. } | Self::List => None,
            Self::Invite { login }
            | Self::Link { login, .. }
            | Self::Unlink { login }
            | Self::SignOut { login }
            | Self::Show { login }
            | Self::Edit { login, .. }
            | Self::Ban { login, .. }
            | Self::Unban { login }
            | Self::Delete { login, .. } => Some(login.clone()),
        };
        self.ask(&global, &client, switch)
            .map_err(|failure| hint::missing(&client, failure, named.as_deref().map(Named::User).as_slice()))
    }

    fn ask(self, global: &Global, client: &Client, switch: bool) -> Result<(), Failure> {
        let changed = |record: &Value, sentence: &str| {
            global.output.changed(record, COLUMNS, sentence)?;
            tell_cut(record);
            Ok(())
        };
        match self {
            Self::Create { login, name, email, kind, administrator, invite } => {
                let login = login.ok_or_else(|| Failure::usage("name the login of the account"))?;
                let administrator = administrator || switch;
                if (administrator || invite) && matches!(kind, AccountKind::Service) {
                    return Err(Failure::usage("a service account has only tokens: it cannot be invited"));
                }
                create(global, client, &login, name.as_deref(), email, kind, administrator, invite)
            }
            Self::Invite { login } => invitation(global, client, &login),
            Self::Link { login, subject, issuer } => {
                let body =
                    present([("subject", Some(json!(subject))), ("issuer", issuer.map(Value::String))]);
                let linked = client.post(&format!("{}/identities", path(&login)), &Value::Object(body))?;
                global.output.record(&linked, IDENTITY)
            }
            Self::Unlink { login } => {
                let answer = client.delete(&format!("{}/identities", path(&login)))?;
                let identities = counted(answer["identities"].as_u64().unwrap_or_default(), "identity");
                say(&format!("unlinked {identities} from {login}"));
                tell_cut(&answer);
                Ok(())
            }
            Self::SignOut { login } => {
                let answer = client.delete(&format!("{}/sessions", path(&login)))?;
                let sessions = counted(answer["sessions"].as_u64().unwrap_or_default(), "session");
                say(&format!("ended {sessions} of {login}"));
                tell_cut(&answer);
                Ok(())
            }
            Self::List => global.output.list(client.list("/v1/users?limit=1000", None)?, VIEW),
            Self::Show { login } => global.output.record(&client.get(&path(&login))?, COLUMNS),
            Self::Edit { login, rename, name, email } => {
                let email = email.map(|email| if email.is_empty() { Value::Null } else { json!(email) });
                let body = present([
                    ("login", rename.clone().map(Value::String)),
                    ("name", name.map(Value::String)),
                    ("email", email),
                ]);
                if body.is_empty() {
                    return Err(Failure::usage("nothing to change: give --rename, --name or --email"));
                }
                let record = client.patch(&path(&login), &Value::Object(body))?;
                let renamed = rename.map(|new| format!(", now called {new}")).unwrap_or_default();
                changed(&record, &format!("changed {login}{renamed}"))
            }
            Self::Ban { login, reason } => {
                let record = client.post(&format!("{}/ban", path(&login)), &json!({ "reason": reason }))?;
                changed(&record, &format!("banned {login}: none of their tokens works any more"))
            }
            Self::Unban { login } => {
                let record = client.post(&format!("{}/unban", path(&login)), &json!({}))?;
                changed(&record, &format!("unbanned {login}"))
            }
            Self::Delete { login, yes } => {
                if !yes {
                    let tokens = client.list(&format!("{}/tokens?limit=1000", path(&login)), None)?;
                    let dead = |token: &&Value| {
                        matches!(token["state"].as_str(), Some("revoked" | "rotated" | "expired"))
                    };
                    let live = tokens.len() - tokens.iter().filter(dead).count();
                    let tokens = counted(live as u64, "token");
                    confirm(&format!("Delete {login} and revoke {tokens}, for good?"), yes)?;
                }
                let answer = client.delete(&path(&login))?;
                say(&format!("deleted {login}"));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

/// The account, and what the two switches add to it.
#[expect(clippy::too_many_arguments, reason = "each is one option of the command")]
fn create(
    global: &Global,
    client: &Client,
    login: &str,
    name: Option<&str>,
    email: Option<String>,
    kind: AccountKind,
    administrator: bool,
    invite: bool,
) -> Result<(), Failure> {
    let kind = match kind {
        AccountKind::Human => "human",
        AccountKind::Service => "service",
    };
    let body = present([
        ("name", Some(json!(name.unwrap_or(login)))),
        ("login", Some(json!(login))),
        ("kind", Some(json!(kind))),
        ("email", email.map(Value::String)),
    ]);
    let record = client.post("/v1/users", &Value::Object(body))?;
    let login = record["login"].as_str().unwrap_or_default();
    if administrator {
        client
            .post("/v1/grants", &json!({"role": "system-admin", "user": login}))
            .map_err(|failure| failure.adding(&format!("{login} was created, without the role")))?;
    }
    if administrator || invite {
        say(&format!("created {}{login}", if administrator { "administrator " } else { "" }));
        return invitation(global, client, login)
            .map_err(|failure| failure.adding(&format!("{login} was created, without a link")));
    }
    global.output.changed(&record, COLUMNS, &format!("created {login}"))
}

impl User {
    /// `--admin` names the listener. Without an address it means here what `--administrator` means, since that is how
    /// the switch was written before. An address has a colon, and a login never has.
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
    let mut created = client.post(&format!("{}/invitation", path(login)), &json!({}))?;
    say(
        "Whoever opens this link sets the password. It is shown only once, and is valid for a day and one use.",
    );
    if !created["link"].as_str().is_some_and(|link| link.starts_with("http")) {
        say(
            "The page has no address that a browser can open: add one to admin.listen, such as \"127.0.0.1:8081\", or set admin.url.",
        );
    }
    match global.output {
        // It is shown only once, so no format leaves it out.
        Format::Id => print(created["link"].as_str().unwrap_or_default()),
        Format::Table => {
            // The link ends with it.
            created.as_object_mut().map(|fields| fields.remove("invitation"));
            Format::Table.record(&created, INVITATION)
        }
        other => other.record(&created, INVITATION),
    }
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

//! `permgate user ...`: accounts, their invitations, identities and sessions.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, path_of, without_nulls},
    complete,
    confirm::confirm,
    failure::{Failure, print_stderr},
    hint,
    output::{Format, ListView, counted, print},
    target::ADMIN_VARIABLE,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Create an account
    #[command(visible_alias = "add")]
    Create(Create),
    /// Print a link with which the person sets a first or new password
    #[command(aliases = ["password", "passwd"])]
    Invite(UserSelector),
    /// Let an identity at the OpenID Connect provider sign in as this account
    Link {
        #[command(flatten)]
        user: UserSelector,
        /// The provider's claim `sub`; the gateway's log shows it
        subject: String,
        /// Issuer URL of the provider; the configured one if not given
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
    },
    /// Remove all identities at providers from an account, and end its sessions
    Unlink(UserSelector),
    /// End every browser session of an account
    SignOut(UserSelector),
    /// List accounts
    #[command(visible_alias = "ls")]
    List,
    /// Show one account
    Show(UserSelector),
    /// Change an account
    Edit {
        #[command(flatten)]
        user: UserSelector,
        /// New login
        #[arg(long, value_name = "LOGIN")]
        rename: Option<String>,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// New email address; an empty value removes it
        #[arg(long)]
        email: Option<String>,
    },
    /// Disable an account: its tokens stop working, and their requests in flight are cut
    Ban {
        #[command(flatten)]
        user: UserSelector,
        /// Reason, shown to administrators
        #[arg(long)]
        reason: String,
    },
    /// Enable a disabled account
    Unban(UserSelector),
    /// Delete an account and revoke its tokens, for good
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        user: UserSelector,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Login of the account, required: 1 to 64 of A-Z a-z 0-9 . _ @ + -, beginning with a letter or digit
    #[arg(required_unless_present = "admin")]
    login: Option<String>,
    /// Name of the person or machine; the login if not given
    #[arg(long)]
    name: Option<String>,
    /// Email address
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
}

/// One account.
#[derive(Debug, Args)]
pub(super) struct UserSelector {
    /// Login of the account
    #[arg(add = complete::logins())]
    login: String,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum AccountKind {
    Human,
    /// No password and no session, only tokens
    Service,
}

const VIEW: ListView = ListView::new("users", "login", "login name kind banned groups roles");

impl User {
    pub(super) fn run(mut self, global: &Global) -> Result<(), Failure> {
        let mut global = global.clone();
        if let Self::Create(create) = &mut self {
            let arguments = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned());
            create.take_switch(&mut global, &arguments.collect::<Vec<_>>());
        }
        let client = Client::new(&global)?;
        let output = global.output;
        match self {
            Self::Create(create) => create.run(&global, &client),
            Self::Invite(UserSelector { login }) => invitation(&global, &client, &login),
            Self::Link { user: UserSelector { login }, subject, issuer } => {
                let body = without_nulls(json!({"subject": subject, "issuer": issuer}));
                let linked = client.post(&format!("{}/identities", path_of("users", &login)), &body)?;
                output.record(&linked, "issuer")
            }
            Self::Unlink(UserSelector { login }) => {
                let response = client.delete(&format!("{}/identities", path_of("users", &login)))?;
                let identities = counted(response["identities"].as_u64().unwrap_or_default(), "identity");
                output.done(&response, &format!("unlinked {identities} from {login}"))
            }
            Self::SignOut(UserSelector { login }) => {
                let response = client.delete(&format!("{}/sessions", path_of("users", &login)))?;
                let sessions = counted(response["sessions"].as_u64().unwrap_or_default(), "session");
                output.done(&response, &format!("ended {sessions} of {login}"))
            }
            Self::List => output.list(client.list("/v1/users?limit=1000", None)?, VIEW),
            Self::Show(UserSelector { login }) => {
                output.record(&client.get(&path_of("users", &login))?, "login")
            }
            Self::Edit { rename: None, name: None, email: None, .. } => {
                Err(Failure::usage("nothing to change: give --rename, --name or --email"))
            }
            Self::Edit { user: UserSelector { login }, rename, name, email } => {
                let mut body = without_nulls(json!({"login": rename, "name": name, "email": email}));
                if email.as_deref() == Some("") {
                    body["email"] = Value::Null;
                }
                let record = client.patch(&path_of("users", &login), &body)?;
                let renamed = rename.map(|new| format!(", now called {new}")).unwrap_or_default();
                output.changed(&record, "login", &format!("changed {login}{renamed}"))
            }
            Self::Ban { user: UserSelector { login }, reason } => {
                let record =
                    client.post(&format!("{}/ban", path_of("users", &login)), &json!({"reason": reason}))?;
                let sentence = format!("banned {login}: none of its tokens works any more");
                output.changed(&record, "login", &sentence)
            }
            Self::Unban(UserSelector { login }) => {
                let record = client.post(&format!("{}/unban", path_of("users", &login)), &json!({}))?;
                output.changed(&record, "login", &format!("unbanned {login}"))
            }
            Self::Delete { user: UserSelector { login }, yes } => {
                if !yes {
                    let tokens =
                        client.list(&format!("{}/tokens?limit=1000", path_of("users", &login)), None)?;
                    let live = tokens.iter().filter(|token| hint::is_live(token)).count();
                    let tokens = counted(live as u64, "token");
                    confirm(&format!("Delete {login} and revoke {tokens}, for good?"), yes)?;
                }
                output.done(&client.delete(&path_of("users", &login))?, &format!("deleted {login}"))
            }
        }
    }
}

impl Create {
    /// Creates the account, with the role and the invitation that the two switches add.
    fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let Self { login, name, email, kind, administrator, invite } = self;
        let login = login.ok_or_else(|| Failure::usage("name the login of the account"))?;
        if (administrator || invite) && matches!(kind, AccountKind::Service) {
            return Err(Failure::usage("a service account has only tokens: it cannot be invited"));
        }
        let name = name.as_ref().unwrap_or(&login);
        let body = without_nulls(json!({"name": name, "login": login, "kind": kind, "email": email}));
        let record = client.post("/v1/users", &body)?;
        let login = record["login"].as_str().unwrap_or_default();
        if administrator {
            client
                .post("/v1/grants", &json!({"role": "system-admin", "user": login}))
                .map_err(|failure| failure.with_line(&format!("{login} was created, without the role")))?;
        }
        if administrator || invite {
            print_stderr(&format!("created {}{login}", if administrator { "administrator " } else { "" }));
            return invitation(global, client, login)
                .map_err(|failure| failure.with_line(&format!("{login} was created, without a link")));
        }
        global.output.changed(&record, "login", &format!("created {login}"))
    }

    /// Reads `--admin` without an address as `--administrator`, which it meant before. An address has a
    /// colon, and a login never has. A value of the environment is never the switch, nor an empty one, which
    /// a script's variable may have: they are refused like those of any other command.
    fn take_switch(&mut self, global: &mut Global, arguments: &[String]) {
        let Some(written) = global.admin.take_if(|written| !written.contains(':')) else { return };
        let is_login = !written.is_empty();
        if !has_switch(arguments) || (is_login && self.login.is_some()) {
            global.admin = Some(written);
            return;
        }
        if is_login {
            self.login = Some(written);
        }
        // If both are given, the parser keeps the last one, which is the switch.
        let named = address(arguments, self.login.as_deref());
        let variable = if global.offline { None } else { std::env::var(ADMIN_VARIABLE).ok() };
        global.admin = named.or(variable.filter(|address| !address.is_empty()));
        self.administrator = true;
    }
}

/// Whether a command line has `--admin` with no value, or with one that may be the login after it.
fn has_switch(arguments: &[String]) -> bool {
    arguments.iter().enumerate().any(|(at, argument)| {
        argument == "--admin" && arguments.get(at + 1).is_none_or(|next| !next.is_empty())
    })
}

/// The listener's address on a command line that also has a bare `--admin`.
fn address(arguments: &[String], login: Option<&str>) -> Option<String> {
    let values = arguments.iter().enumerate().filter_map(|(at, argument)| match argument.as_str() {
        "--admin" => arguments.get(at + 1).map(String::as_str).filter(|next| !next.starts_with('-')),
        other => other.strip_prefix("--admin="),
    });
    values.filter(|value| Some(*value) != login).map(str::to_owned).next()
}

/// Prints the link to stdout, so that it can be piped into a mail.
fn invitation(global: &Global, client: &Client, login: &str) -> Result<(), Failure> {
    let mut created = client.post(&format!("{}/invitation", path_of("users", login)), &json!({}))?;
    print_stderr(
        "The link sets the password. It is shown only once, can be used once, and is valid for a day.",
    );
    if !created["link"].as_str().is_some_and(|link| link.starts_with("http")) {
        print_stderr(
            "The page has no address that a browser can open: add one to admin.listen, such as \"127.0.0.1:8081\", or set admin.url.",
        );
    }
    match global.output {
        // The link is shown only once, so every format includes it.
        Format::Id => print(created["link"].as_str().unwrap_or_default()),
        Format::Table => {
            // The link ends with this text.
            created.as_object_mut().map(|fields| fields.remove("invitation"));
            Format::Table.record(&created, "user")
        }
        other => other.record(&created, "user"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_named_beside_the_switch() {
        let check = |line: &str, expected: Option<&str>| {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(address(&arguments, Some("ann")).as_deref(), expected, "{line}");
        };
        check("user add ann --admin", None);
        check("user add --admin ann", None);
        check("user add --admin --name x ann", None);
        check("--admin unix:a.sock user add ann --admin", Some("unix:a.sock"));
        check("--admin gate.sock user add ann --admin", Some("gate.sock"));
        check("--admin=http://[::1]:1 user add ann --admin", Some("http://[::1]:1"));
        check("-c gateway.toml user add ann --name a:b --admin", None);
    }
}

//! `permgate init`: creates a configuration, the first administrator and a token, so that the first request
//! is one command away. Asks on a terminal for what was not given.

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, absolute},
};

use askama::Template;
use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, path_of},
    confirm::ask,
    failure::{Failure, print_stderr, reason},
    hint::quoted,
    output::print,
};
use crate::{
    authz::{administration::names, rules::ServiceKey},
    config::{self, Errors},
    store,
};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Address of the service to put behind tokens: http://HOST:PORT, https://HOST, unix:PATH
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// A path of the service that clients may request, with everything below; may be repeated. Default: all
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// Name of the service in scopes, such as tracker: a-z, 0-9 and -, beginning with a letter
    #[arg(long, value_name = "NAME", default_value = "app")]
    service: String,
    /// Address for clients; a free port on this machine if not given
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the page; a free port on this machine if not given
    #[arg(long, value_name = "ADDRESS")]
    page: Option<String>,
    /// Login of the first administrator; if not given, the current user's name, or admin for root
    #[arg(long, value_name = "LOGIN")]
    administrator: Option<String>,
}

/// The first administrator's login, link to choose a password with, and token to try.
struct FirstAccount {
    login: String,
    link: String,
    token: String,
}

/// The file that is written. All values but the service's name are TOML.
#[derive(Template)]
#[template(path = "init.toml", escape = "none")]
struct NewConfiguration<'a> {
    upstream: String,
    paths: String,
    service: &'a str,
    listen: String,
    page: String,
}

/// Ports to try for clients, each with the next one for the page.
const PORTS: [u16; 4] = [8080, 8180, 8280, 8380];
const LIFETIME: &str = "90d";

impl Init {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let file = global.config();
        let exists = |file: &Path| {
            Failure::usage(format!("{} exists: name another file with -c FILE, or edit it", file.display()))
        };
        if file.exists() {
            return Err(exists(file));
        }
        if ServiceKey::parse(&self.service).is_none() {
            let advice = "a-z, 0-9 and -, the first one a letter, such as tracker";
            return Err(Failure::usage(format!(
                "--service {:?}: a service's name has at most 63 of {advice}",
                self.service
            )));
        }
        let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
        let upstream = match self.upstream {
            Some(url) => url,
            None if asks => ask_until("Where does your service listen?", "http://127.0.0.1:8090", |url| {
                let local = "127.0.0.1:0";
                let text = configuration(url, &["/".to_owned()], &self.service, local, local);
                config::parse(&text, file).map_err(|errors| by_options(&errors, file).message)
            })?,
            None => {
                return Err(Failure::usage("name the service that you want behind tokens: --upstream URL"));
            }
        };
        let mut paths = self.paths;
        if paths.is_empty() && asks {
            let written = ask("Which of its paths may clients ask for? [all: /] ")?;
            paths = written.split([' ', ',']).filter(|path| !path.is_empty()).map(str::to_owned).collect();
        }
        if paths.is_empty() {
            paths.push("/".to_owned());
        }
        // Applications trust the name root, so it has to be chosen explicitly.
        let proposed = std::env::var("USER")
            .ok()
            .filter(|login| login != "root" && names::login(login).is_ok())
            .unwrap_or_else(|| "admin".to_owned());
        let login = match self.administrator {
            Some(login) => names::login(&login)
                .map_err(|error| Failure::usage(format!("--administrator {login:?}: {}", error.message)))?,
            None if asks => ask_until("Login of the first administrator?", &proposed, |login| {
                names::login(login).map_err(|error| error.message)
            })?,
            None => proposed,
        };
        let offset = PORTS.into_iter().find(|port| is_free(*port) && is_free(port + 1)).unwrap_or(PORTS[0]);
        let listen = self.listen.unwrap_or_else(|| format!("127.0.0.1:{offset}"));
        let page = self.page.unwrap_or_else(|| format!("127.0.0.1:{}", offset + 1));
        let text = configuration(&upstream, &paths, &self.service, &listen, &page);
        // Validated before anything is written, so that a mistake leaves nothing behind.
        let config = config::parse(&text, file).map_err(|errors| by_options(&errors, file))?;
        if store::exists(&config.store) {
            let path = config.store.path.display();
            let advice = "move it away, or run `permgate init` in another directory";
            return Err(Failure::usage(format!("there is a store in {path} already: {advice}")));
        }
        let mut out =
            OpenOptions::new().write(true).create_new(true).open(file).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::AlreadyExists => exists(file),
                    _ => Failure::failed(format!("cannot write {}: {}", file.display(), reason(&error))),
                }
            })?;
        let made = out.write_all(text.as_bytes()).and_then(|()| out.sync_all());
        let made = made.map_err(Failure::from).and_then(|()| {
            print_stderr(&format!("wrote {}: http://{listen} in front of {upstream}", file.display()));
            FirstAccount::create(global, login, &self.service)
        });
        let first = made.inspect_err(|_| {
            // Otherwise the next try would be refused.
            if fs::remove_file(file).is_ok() {
                print_stderr(&format!("removed {} again", file.display()));
            }
            // It may be the store of another process by now, or be in a directory with other files.
            if store::exists(&config.store) {
                let path = config.store.path.display();
                print_stderr(&format!(
                    "before the next try, remove the store in {path}, unless it is in use"
                ));
            }
        })?;
        let path = if paths[0] == "/" { "/" } else { &paths[0] };
        let curl = format!("curl -i -H \"Authorization: Bearer {}\" http://{listen}{path}", first.token);
        let steps = || print(&first.steps(global, &curl));
        global.output.document(&first.record(file, &curl), steps, || print(&first.token))
    }
}

impl FirstAccount {
    /// Creates them in the store itself, because no gateway runs yet.
    fn create(global: &Global, login: String, service: &str) -> Result<Self, Failure> {
        let client = Client::new(&Global { offline: true, admin: None, ..global.clone() })?;
        let path = path_of("users", &login);
        client.post("/v1/users", &json!({"login": login, "name": login}))?;
        client.post("/v1/grants", &json!({"role": "system-admin", "user": login}))?;
        let invitation = client.post(&format!("{path}/invitation"), &json!({}))?;
        let body = json!({"name": "first", "scope": [{"service": service}], "expires_in": LIFETIME});
        let created = client.post(&format!("{path}/tokens"), &body)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self { link: text(&invitation["link"]), token: text(&created["token"]), login })
    }

    fn steps(&self, global: &Global, curl: &str) -> String {
        let Self { login, link, .. } = self;
        let shown = quoted(&global.config().display().to_string());
        let file = if shown == "gateway.toml" { String::new() } else { format!("-c {shown} ") };
        format!(
            "\n1. Start the gateway:\n     permgate {file}run\n\n\
             2. Send a request. The token is {login}'s, valid for {LIFETIME}, and is shown only once:\n     {curl}\n\n\
             3. Open the page as {login}, and choose a password. The link works once, within a day:\n     {link}\n"
        )
    }

    fn record(&self, file: &Path, curl: &str) -> Value {
        let file = absolute(file).unwrap_or_else(|_| file.to_owned());
        json!({
            "file": file, "administrator": self.login, "link": self.link, "token": self.token, "curl": curl,
        })
    }
}

/// Asks until the answer is valid; an empty answer is the default.
fn ask_until<T>(
    question: &str,
    default: &str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<String, Failure> {
    loop {
        let written = ask(&format!("{question} [{default}] "))?;
        let answer = if written.is_empty() { default.to_owned() } else { written };
        match check(&answer) {
            Ok(_) => return Ok(answer),
            Err(why) => print_stderr(&why),
        }
    }
}

/// Attributes errors to options, because the file does not exist yet.
fn by_options(errors: &Errors, file: &Path) -> Failure {
    let lines = errors.0.iter().map(|problem| {
        let key = problem.excerpt.split(' ').next().unwrap_or_default();
        let variable = format!("{}: ", problem.file);
        let option = match key {
            // An environment variable sets the key in place of the option.
            _ if *problem.file != *file.display().to_string() => &variable,
            "urls" => "--upstream: ",
            "paths" => "--path: ",
            "listen" if problem.excerpt.contains("unix:permgate.sock") => "--page: ",
            "listen" => "--listen: ",
            _ => "--service: ",
        };
        let advice = if problem.advice.is_empty() { String::new() } else { format!("; {}", problem.advice) };
        format!("{option}{}{advice}", problem.message)
    });
    Failure::usage(lines.collect::<Vec<_>>().join("\n"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn configuration(upstream: &str, paths: &[String], service: &str, listen: &str, page: &str) -> String {
    let paths = paths.iter().map(|path| text(path)).collect::<Vec<_>>().join(", ");
    let (upstream, listen, page) = (text(upstream), text(listen), text(page));
    let new = NewConfiguration { upstream, paths, service, listen, page };
    new.render().expect("the template writes only texts")
}

/// A TOML string, which has the escapes of JSON.
fn text(word: &str) -> String {
    json!(word).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_valid() {
        let check = |upstream: &str, path: &str, service: &str, sound: bool| {
            let text =
                configuration(upstream, &[path.to_owned()], service, "127.0.0.1:8080", "127.0.0.1:8081");
            let parsed = config::parse(&text, Path::new("gateway.toml"));
            assert_eq!(parsed.is_ok(), sound, "{text}\n{parsed:?}");
            if let Ok(config) = parsed {
                assert!(config.warnings.is_empty(), "{:?}", config.warnings);
            }
        };
        check("http://127.0.0.1:8090", "/", "app", true);
        check("unix:/run/app.sock", "/api", "my-tracker", true);
        check("127.0.0.1:8090", "/api", "app", false);
        check("http://127.0.0.1:8090", "api", "app", false);
        check("http://127.0.0.1:8090", "/api", "My App", false);
        check("http://127.0.0.1:8090\"]\n[evil", "/api", "app", false);
    }
}

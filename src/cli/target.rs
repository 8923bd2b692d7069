//! The admin listener that a command talks to, and the token that it sends.

use std::{
    env,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Global, failure::Failure, token_file};
use crate::{config::Config, net::Address};

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// The variable that names the admin listener.
pub(super) const ADMIN_VARIABLE: &str = "PERMGATE_ADMIN";
/// The variable that holds the token to send.
const TOKEN_VARIABLE: &str = "PERMGATE_TOKEN";

impl Target {
    /// The addresses to try, best first: a unix socket needs no token.
    pub(super) fn candidates(global: &Global) -> Result<Vec<Self>, Failure> {
        if let Some(address) = &global.admin {
            return Self::parse(address).map(|target| vec![target]);
        }
        let config = load(global.config()).map_err(|failure| {
            failure.with_line("a gateway that runs is reached without the file, too: --admin unix:PATH")
        })?;
        // The command line speaks plain HTTP only.
        let certificates = !config.admin.tls.pairs.is_empty();
        let plain = config.admin.listen.iter().filter(|listen| !listen.uses_tls(certificates));
        let mut targets: Vec<Self> = plain.filter_map(|listen| Self::of_listener(&listen.address)).collect();
        targets.sort_by_key(|target| !matches!(target, Self::Unix(_)));
        if targets.is_empty() {
            let message = format!(
                "{} names no admin listener with a fixed address and without TLS",
                global.config().display()
            );
            return Err(Failure::usage(format!("{message}: name it with --admin")));
        }
        Ok(targets)
    }

    pub(super) fn parse(address: &str) -> Result<Self, Failure> {
        if let Some(path) = address.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = address.strip_prefix("http://").unwrap_or(address);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed = authority.parse::<http::uri::Authority>().ok();
        let sound =
            parsed.filter(|a| a.port_u16().is_some_and(|port| port != 0) && !a.as_str().contains('@'));
        match sound {
            Some(authority) => Ok(Self::Tcp(authority.to_string())),
            None => {
                let message = format!("{address:?} is not the address of an admin listener");
                Err(Failure::usage(format!("{message}: write unix:PATH or http://HOST:PORT")))
            }
        }
    }

    /// `None` if the address is not known here: a port that the system chooses, or a socket from systemd.
    fn of_listener(address: &Address) -> Option<Self> {
        match address {
            Address::Unix(path) => Some(Self::Unix(path.clone())),
            Address::Inherited(_) => None,
            Address::Tcp(address) if address.port() == 0 => None,
            Address::Tcp(address) if address.ip().is_unspecified() => {
                let local = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                Some(Self::Tcp(format!("{local}:{}", address.port())))
            }
            Address::Tcp(address) => Some(Self::Tcp(address.to_string())),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// The configuration, or every error in it.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|errors| Failure::usage(errors.to_string()))
}

/// The token from the named file, else from the environment. With it, the only listener that it may be sent
/// to, unless an address or configuration was named: otherwise anybody who can put a `gateway.toml` into a
/// directory would learn the tokens of users who work there.
pub(super) fn token(global: &Global) -> Result<Option<(Zeroizing<String>, Option<Target>)>, Failure> {
    let (token, target) = match &global.token_file {
        Some(path) => token_file::read(path)?,
        None => {
            let written = env::var(TOKEN_VARIABLE).ok().map(Zeroizing::new);
            let written = written.map(|text| Zeroizing::new(text.trim().to_owned()));
            let Some(token) = written.filter(|text| !text.is_empty()) else { return Ok(None) };
            (token, None)
        }
    };
    if global.admin.is_some() || global.config.is_some() {
        return Ok(Some((token, None)));
    }
    if target.is_none() {
        let message = "the token is not sent to an address from a gateway.toml that was only found in the working directory";
        let advice = "name the file with -c gateway.toml, or the address with --admin ADDRESS";
        return Err(Failure::usage(format!("{message}\n  {advice}")));
    }
    Ok(Some((token, target)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn addresses() {
        let check = |address: &str, expected: Option<&str>| {
            let target = Target::parse(address).ok().map(|target| target.to_string());
            assert_eq!(target.as_deref(), expected, "{address}");
        };
        check("unix:permgate.sock", Some("unix:permgate.sock"));
        check("http://127.0.0.1:8081", Some("http://127.0.0.1:8081"));
        check("http://localhost:8081/", Some("http://localhost:8081"));
        check("[::1]:8081", Some("http://[::1]:8081"));
        check("unix:", None);
        check("http://127.0.0.1", None);
        check("http://user@127.0.0.1:1", None);
        check("https://127.0.0.1:8081", None);
        check("http://127.0.0.1:8081/v1", None);
        check("127.0.0.1:0", None);
    }

    #[test]
    fn who_speaks_clear_text_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.toml");
        let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs");
        let check = |listen: &str, expected: &[&str]| {
            let (cert, key) = (certs.join("one.crt"), certs.join("one.key"));
            let text = format!(
                "version = 1\n[admin]\nlisten = {listen}\ntls = {{ cert = {cert:?}, key = {key:?} }}\n"
            );
            fs::write(&file, text).expect("it is written");
            let global = Global {
                config: Some(file.clone()),
                admin: None,
                token_file: None,
                offline: false,
                output: crate::cli::output::Format::Table,
            };
            let found: Vec<_> = Target::candidates(&global).unwrap_or_default();
            assert_eq!(found.iter().map(Target::to_string).collect::<Vec<_>>(), expected, "{listen}");
        };
        check(r#"["127.0.0.1:8081"]"#, &[]);
        check(r#"["https://127.0.0.1:8081"]"#, &[]);
        let beside = r#"["https://127.0.0.1:8444", "http://127.0.0.1:8081", "127.0.0.1:8443"]"#;
        check(beside, &["http://127.0.0.1:8081"]);
    }
}

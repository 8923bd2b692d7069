//! What a refusal leaves out, looked up with the caller's own rights: which name was misspelt, what it was probably
//! meant to be, and the command that helps.

use serde_json::Value;

use super::{
    client::{Client, escape},
    failure::Failure,
};
use crate::config::suggest::{closest, did_you_mean};

/// A name on the command line, as the record that it should belong to.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    User(&'a str),
    Group(&'a str),
    Role(&'a str),
}

/// More names than this are not searched for a similar one.
const SEARCHED: usize = 5000;

impl Named<'_> {
    fn parts(&self) -> (&'static str, &str, &'static str, &'static str) {
        match self {
            Named::User(name) => ("user", name, "/v1/users?limit=1000", "login"),
            Named::Group(name) => ("group", name, "/v1/groups?limit=1000", "name"),
            Named::Role(name) => ("role", name, "/v1/roles?limit=1000", "key"),
        }
    }
}

/// Says which of the names does not exist, where the listener said only that one does not.
pub(super) fn missing(client: &Client, failure: Failure, names: &[Named<'_>]) -> Failure {
    if failure.error() != "not_found" {
        return failure;
    }
    for named in names {
        let (noun, name, path, field) = named.parts();
        if matches!(named, Named::User("me")) {
            continue;
        }
        // Who may not list them is told no more than before.
        let Ok(records) = client.list(path, Some(SEARCHED)) else { continue };
        let known: Vec<&str> = records.iter().filter_map(|record| record[field].as_str()).collect();
        if known.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            continue;
        }
        let advice = match closest(name, known) {
            Some(word) => did_you_mean(word),
            None => format!("`permgate {noun} list` shows all"),
        };
        return failure.reworded(format!("there is no {noun} {name:?}: {advice}"));
    }
    failure
}

/// Why a scope was refused. The listener has one answer for a service that does not exist and for one that may not be
/// read; who may see all services is told which of the two it is.
pub(super) fn unreadable(client: &Client, failure: Failure, user: &str, scope: &Value) -> Failure {
    if failure.error() != "service_not_readable" {
        return failure;
    }
    let Ok(services) = client.list("/v1/services?detailed=true", None) else { return failure };
    let user = if user == "me" { own_login(client) } else { Some(user.to_owned()) };
    for entry in scope.as_array().into_iter().flatten() {
        let key = entry["service"].as_str().unwrap_or_default();
        let Some(service) = services.iter().find(|service| service["key"] == key) else {
            let known = services.iter().filter_map(|service| service["key"].as_str());
            let advice = closest(key, known)
                .map_or_else(|| "`permgate service list` shows all".to_owned(), did_you_mean);
            return failure.reworded(format!("there is no service {key:?}: {advice}"));
        };
        let Some(user) = &user else { continue };
        let reads = |login: &Value| login.as_str().is_some_and(|login| login.eq_ignore_ascii_case(user));
        if service["effective_readers"].as_array().is_some_and(|logins| logins.iter().any(reads)) {
            continue;
        }
        let readers: Vec<&str> =
            service["readers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let advice = match readers.first() {
            Some(group) => {
                format!(
                    "its readers are {}\n  permgate group add {} {user}",
                    readers.join(", "),
                    quoted(group)
                )
            }
            None => "it has no readers: only holders of read-service may".to_owned(),
        };
        return failure.reworded(format!("{user} may not read {key}: {advice}"));
    }
    failure
}

fn own_login(client: &Client) -> Option<String> {
    client.get("/v1/whoami").ok()?["user"].as_str().map(str::to_owned)
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.@+/:=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The id of the token that is meant: by its id, by what logs show of it (`pgt_ID_...`), or by its name.
pub(super) fn token_id(client: &Client, written: &str, user: Option<&str>) -> Result<String, Failure> {
    let bare = written.strip_prefix("pgt_").map_or(written, |rest| rest.split('_').next().unwrap_or(rest));
    let like_an_id = bare.len() == 12 && bare.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if like_an_id && user.is_none() {
        match client.get(&format!("/v1/tokens/{bare}")) {
            Ok(_) => return Ok(bare.to_owned()),
            Err(failure) if failure.error() != "not_found" => return Err(failure),
            Err(_) => {}
        }
    }
    let records = match user {
        Some(login) => tokens_of(client, login)?,
        None => match tokens_of(client, "me") {
            Err(failure) if failure.error() == "not_found" => client.list("/v1/tokens?limit=1000", None)?,
            other => other?,
        },
    };
    let named = |record: &&Value| {
        record["id"] == bare || record["name"].as_str().is_some_and(|name| same(name, written))
    };
    let mut found: Vec<&Value> = records.iter().filter(named).collect();
    // A name is used once among the live ones, and may have belonged to any number of dead ones.
    let live = |record: &Value| !matches!(record["state"].as_str(), Some("revoked" | "rotated" | "expired"));
    if found.iter().any(|record| live(record)) {
        found.retain(|record| live(record));
    }
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or_default().to_owned();
    match found.as_slice() {
        [one] => Ok(text(one, "id")),
        [] => {
            let names =
                records.iter().filter(|record| live(record)).filter_map(|record| record["name"].as_str());
            let advice = closest(written, names)
                .map_or_else(|| "`permgate token list` shows all".to_owned(), did_you_mean);
            Err(Failure::of_status(404, format!("there is no token {written:?}: {advice}")))
        }
        several => {
            let rows: Vec<String> = several
                .iter()
                .map(|record| {
                    format!("  {}  {}  {}", text(record, "id"), text(record, "user"), text(record, "state"))
                })
                .collect();
            let message = format!("{} tokens are called {written:?}: name one by its id", several.len());
            Err(Failure::usage(format!("{message}, or give --user\n{}", rows.join("\n"))))
        }
    }
}

fn tokens_of(client: &Client, login: &str) -> Result<Vec<Value>, Failure> {
    let listed = client.list(&format!("/v1/users/{}/tokens?limit=1000", escape(login)), None);
    listed.map_err(|failure| missing(client, failure, &[Named::User(login)]))
}

fn same(left: &str, right: &str) -> bool {
    left.to_lowercase() == right.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("developers", "developers");
        check("two words", "'two words'");
        check("it's", "'it'\\''s'");
        check("", "''");
    }
}

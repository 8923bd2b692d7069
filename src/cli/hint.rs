//! Better messages for refusals, from look-ups with the caller's own rights: which name was misspelt, what it
//! was probably meant to be, and the command that helps.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{
    client::{Client, path_of},
    failure::Failure,
    output::{items, texts},
};
use crate::{authz::accounts::fold, config::suggest};

/// At most this many names are searched for a similar one.
const SEARCHED: usize = 5000;

/// A longer word that refers to nothing may be a secret.
const MAX_SHOWN: usize = 40;

/// Names the user, group or role of a request that does not exist, if the listener said only that one does
/// not.
pub(super) fn name_missing(client: &Client, failure: Failure, path: &str, body: Option<&Value>) -> Failure {
    if failure.error != "not_found" {
        return failure;
    }
    for (noun, name) in names(path, body).into_iter().filter(|(_, name)| name != "me") {
        let (path, field) = match noun {
            "user" => ("/v1/users?limit=1000", "login"),
            "group" => ("/v1/groups?limit=1000", "name"),
            _ => ("/v1/roles?limit=1000", "key"),
        };
        // A caller who may not list them learns no more than before.
        let Ok(records) = client.list(path, Some(SEARCHED)) else { continue };
        let known: Vec<&str> = records.iter().filter_map(|record| record[field].as_str()).collect();
        if known.iter().any(|word| same(word, &name)) {
            continue;
        }
        let advice = advice(noun, &name, known);
        return failure.with_message(format!("there is no {noun} {name:?}: {advice}"));
    }
    failure
}

/// The users, groups and roles that a request names, in its path, query or body.
fn names(path: &str, body: Option<&Value>) -> Vec<(&'static str, String)> {
    let noun = |word: &str| match word {
        "user" | "users" | "members" => Some("user"),
        "group" | "groups" | "parent" => Some("group"),
        "role" | "roles" => Some("role"),
        _ => None,
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<&str> = path.split('/').skip(2).collect();
    let segments = segments.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1]));
    let in_path = segments.map(|(of, name)| (of, percent_decode_str(name).decode_utf8_lossy().into_owned()));
    let in_query = form_urlencoded::parse(query.as_bytes()).into_owned();
    let fields = body.and_then(Value::as_object).into_iter().flatten();
    let in_body = fields.filter_map(|(field, value)| Some((field.clone(), value.as_str()?.to_owned())));
    in_path.chain(in_query).chain(in_body).filter_map(|(of, name)| Some((noun(&of)?, name))).collect()
}

/// The known name that was probably meant.
fn advice<'a>(noun: &str, written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggest::advice(written, known, || format!("`permgate {noun} list` shows all"))
}

/// Fails if no service has this key. A caller who may not see all services is not told.
pub(super) fn known_service(client: &Client, key: &str) -> Result<(), Failure> {
    let Ok(services) = client.list("/v1/services?detailed=true", None) else { return Ok(()) };
    if services.iter().any(|service| service["key"] == key) {
        return Ok(());
    }
    Err(Failure::of_status(404, no_service(key, &services)))
}

fn no_service(key: &str, services: &[Value]) -> String {
    let known = services.iter().filter_map(|service| service["key"].as_str());
    format!("there is no service {key:?}: {}", advice("service", key, known))
}

/// Explains why a scope was refused. The listener answers alike for a service that does not exist and one
/// that may not be read; a caller who may see all services is told which of the two it is.
pub(super) fn unreadable(client: &Client, failure: Failure, user: &str, scope: &Value) -> Failure {
    if failure.error != "service_not_readable" {
        return failure;
    }
    let Ok(services) = client.list("/v1/services?detailed=true", None) else { return failure };
    let user = if user == "me" { own_login(client) } else { Some(user.to_owned()) };
    for entry in items(scope) {
        let key = entry["service"].as_str().unwrap_or_default();
        let Some(service) = services.iter().find(|service| service["key"] == key) else {
            return failure.with_message(no_service(key, &services));
        };
        let Some(user) = &user else { continue };
        let reads = |login: &Value| login.as_str().is_some_and(|login| login.eq_ignore_ascii_case(user));
        if service["effective_readers"].as_array().is_some_and(|logins| logins.iter().any(reads)) {
            continue;
        }
        let readers: Vec<&str> = texts(&service["readers"]).collect();
        let advice = match readers.first() {
            Some(group) => {
                let (all, group) = (readers.join(", "), quoted(group));
                format!("its readers are {all}\n  permgate group add {group} {user}")
            }
            None => "it has no readers: only holders of read-service may".to_owned(),
        };
        return failure.with_message(format!("{user} may not read {key}: {advice}"));
    }
    failure
}

fn own_login(client: &Client) -> Option<String> {
    client.get("/v1/whoami").ok()?["user"].as_str().map(str::to_owned)
}

/// The word, quoted for a shell if necessary.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.@+/:=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Finds a token's id by its id, by its form in logs (`pgt_ID_...`) or by its name. During a rotation two
/// tokens have the name, and the new one is meant.
pub(super) fn token_id(client: &Client, written: &str, user: Option<&str>) -> Result<String, Failure> {
    let mut found = tokens(client, written, user)?;
    if found.iter().any(|token| token["state"] != "rotating") {
        found.retain(|token| token["state"] != "rotating");
    }
    match found.as_slice() {
        [one] => Ok(text(&one["id"])),
        several => Err(ambiguous(written, several)),
    }
}

/// As [`token_id`], with the token that is being replaced: a revocation by name means both.
pub(super) fn token_ids(client: &Client, written: &str, user: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut found = tokens(client, written, user)?;
    if found.iter().filter(|token| token["state"] != "rotating").count() > 1
        || found.iter().any(|token| token["user"] != found[0]["user"])
    {
        return Err(ambiguous(written, &found));
    }
    found.sort_by_key(|token| token["state"] == "rotating");
    Ok(found.iter().map(|token| text(&token["id"])).collect())
}

/// The argument for a token as messages may show it: a whole token that was pasted must not appear in the
/// log of a terminal or a pipeline.
pub(super) fn shown(written: &str) -> Cow<'_, str> {
    match written.strip_prefix("pgt_").and_then(|rest| rest.split_once('_')) {
        Some((id, _)) => Cow::Owned(format!("pgt_{id}_...")),
        // As long as a secret, and longer than most names.
        None if written.len() > MAX_SHOWN && !written.contains(' ') => {
            Cow::Owned(format!("{}...", written.chars().take(8).collect::<String>()))
        }
        None => Cow::Borrowed(written),
    }
}

/// The tokens with the name or the id; only live ones, if there are any.
fn tokens(client: &Client, written: &str, user: Option<&str>) -> Result<Vec<Value>, Failure> {
    let bare = written.strip_prefix("pgt_").map_or(written, |rest| rest.split('_').next().unwrap_or(rest));
    let like_an_id = bare.len() == 12 && bare.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if like_an_id && user.is_none() {
        match client.get(&format!("/v1/tokens/{bare}")) {
            Ok(record) => return Ok(vec![record]),
            Err(failure) if failure.error != "not_found" => return Err(failure),
            Err(_) => {}
        }
    }
    let is_named = |record: &Value| {
        record["id"] == bare || record["name"].as_str().is_some_and(|name| same(name, written))
    };
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut take = |page: &[Value]| {
        for record in page {
            if is_named(record) {
                found.push(record.clone());
            } else if others.len() < SEARCHED && is_live(record) {
                others.push(text(&record["name"]));
            }
        }
        true
    };
    let of = |login: &str| format!("{}/tokens?limit=1000", path_of("users", login));
    match client.each_page(&of(user.unwrap_or("me")), &mut take) {
        // The operator has no tokens of its own, and means any.
        Err(failure) if user.is_none() && failure.error == "not_found" => {
            client.each_page("/v1/tokens?limit=1000", &mut take)?;
        }
        other => other?,
    }
    // A name is unique among live tokens, but any number of dead ones may have had it.
    if found.iter().any(is_live) {
        found.retain(is_live);
    }
    if found.is_empty() {
        let advice = advice("token", written, others.iter().map(String::as_str));
        return Err(Failure::of_status(404, format!("there is no token {:?}: {advice}", shown(written))));
    }
    Ok(found)
}

/// Whether the token of a record may still be used, now or later.
pub(super) fn is_live(record: &Value) -> bool {
    !matches!(record["state"].as_str(), Some("revoked" | "rotated" | "expired"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ambiguous(written: &str, tokens: &[Value]) -> Failure {
    let row = |token: &Value| ["id", "user", "state"].map(|field| text(&token[field])).join("  ");
    let rows: Vec<String> = tokens.iter().map(|token| format!("  {}", row(token))).collect();
    let of_several = tokens.iter().any(|token| token["user"] != tokens[0]["user"]);
    let advice = if of_several { ", or give --user" } else { "" };
    let called = shown(written);
    let message = format!("{} tokens are called {called:?}: name one by its id{advice}", tokens.len());
    Failure::usage(format!("{message}\n{}", rows.join("\n")))
}

/// Compares names as the store does.
fn same(left: &str, right: &str) -> bool {
    fold(left) == fold(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let check = |written: &str, expected: &str| assert_eq!(shown(written), expected);
        check("nightly", "nightly");
        check("pgt_CMKFd6cGPoSk", "pgt_CMKFd6cGPoSk");
        check("pgt_CMKFd6cGPoSk_...", "pgt_CMKFd6cGPoSk_...");
        check("pgt_CMKFd6cGPoSk_0123456789abcdef", "pgt_CMKFd6cGPoSk_...");
        check("perm:cm9vdA==.NDItMA==.1234567890abcdefghijklmnop", "perm:cm9...");
        check("the build of every pull request, twice a day", "the build of every pull request, twice a day");
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("developers", "developers");
        check("two words", "'two words'");
        check("it's", "'it'\\''s'");
        check("", "''");
    }
}

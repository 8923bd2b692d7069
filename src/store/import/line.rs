//! Parses one line of an import file: a JSON object of one of three kinds.
//!
//! `{"digest": HEX, "owner": LOGIN, "name": TEXT, "scope": ["youtrack", "hub:read"], "expires_at"?: RFC 3339 or a date}`
//! `{"user": LOGIN, "name"?: TEXT, "kind"?: "human" | "service"}`
//! `{"group": NAME, "members": [LOGIN, ...]}`

use serde::Deserialize;

use crate::{
    authz::{secret::Digest, subject::Access, time::Timestamp},
    store::{ImportedToken, model::UserKind},
};

/// A parsed line; its names are not validated yet.
#[derive(Clone, Debug)]
pub enum ImportRecord {
    Token(ImportedToken),
    User {
        login: String,
        name: Option<String>,
        kind: UserKind,
    },
    /// The group is created if it is missing. Members are added, never removed.
    Group {
        name: String,
        members: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    digest: Option<String>,
    owner: Option<String>,
    name: Option<String>,
    scope: Option<Vec<String>>,
    expires_at: Option<String>,
    user: Option<String>,
    kind: Option<String>,
    group: Option<String>,
    members: Option<Vec<String>>,
}

impl ImportRecord {
    /// Parses a line; `Err` says why it is invalid.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(text)
            .map_err(|e| format!("it is not a JSON object of a known form: {e}"))?;
        match raw {
            Raw { digest: Some(digest), user: None, group: None, kind, members, .. } => {
                let kind_of = "digest";
                forbid(kind_of, "kind", kind.is_some())?;
                forbid(kind_of, "members", members.is_some())?;
                let scope = require(kind_of, "scope", raw.scope)?;
                Ok(Self::Token(ImportedToken {
                    digest: Digest::from_hex(&digest).ok_or("`digest` is not 64 hexadecimal digits")?,
                    owner: require(kind_of, "owner", raw.owner)?,
                    name: require(kind_of, "name", raw.name)?,
                    scope: scope.iter().map(|entry| scope_entry(entry)).collect::<Result<_, _>>()?,
                    expires_at: raw
                        .expires_at
                        .map(|text| Timestamp::parse(&text).ok_or(NO_TIME))
                        .transpose()?,
                }))
            }
            Raw { user: Some(login), digest: None, group: None, .. } => {
                forbid("user", "owner", raw.owner.is_some())?;
                forbid("user", "scope", raw.scope.is_some())?;
                forbid("user", "expires_at", raw.expires_at.is_some())?;
                forbid("user", "members", raw.members.is_some())?;
                let kind = match raw.kind.as_deref() {
                    None | Some("human") => UserKind::Human,
                    Some("service") => UserKind::Service,
                    Some(_) => return Err("`kind` is neither human nor service".to_owned()),
                };
                Ok(Self::User { login, name: raw.name, kind })
            }
            Raw { group: Some(name), digest: None, user: None, .. } => {
                forbid("group", "name", raw.name.is_some())?;
                forbid("group", "owner", raw.owner.is_some())?;
                forbid("group", "scope", raw.scope.is_some())?;
                forbid("group", "expires_at", raw.expires_at.is_some())?;
                forbid("group", "kind", raw.kind.is_some())?;
                Ok(Self::Group { name, members: require("group", "members", raw.members)? })
            }
            _ => Err("it must have exactly one of `digest`, `user` and `group`".to_owned()),
        }
    }
}

const NO_TIME: &str =
    "`expires_at` is neither a date, such as 2027-01-31, nor a time, such as 2027-01-31T12:00:00Z";

fn require<T>(kind: &str, field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("a line with `{kind}` needs `{field}`"))
}

fn forbid(kind: &str, field: &str, there: bool) -> Result<(), String> {
    if there { Err(format!("a line with `{kind}` cannot have `{field}`")) } else { Ok(()) }
}

fn scope_entry(entry: &str) -> Result<(String, Access), String> {
    match entry.split_once(':') {
        None if !entry.is_empty() => Ok((entry.to_owned(), Access::Full)),
        Some((service, "read")) if !service.is_empty() => Ok((service.to_owned(), Access::Read)),
        _ => Err(format!("`scope` has `{entry}`, which is neither SERVICE nor SERVICE:read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |name: &str, text: &str, expected: &str| {
            let got = match ImportRecord::parse(text.as_bytes()) {
                Ok(ImportRecord::Token(token)) => {
                    let end = token.expires_at.map(Timestamp::as_millis);
                    format!("{}/{} {:?} {end:?}", token.owner, token.name, token.scope)
                }
                Ok(line) => format!("{line:?}"),
                Err(error) => error,
            };
            assert!(got.contains(expected), "{name}: {got}");
        };
        let hex = "ab".repeat(32);
        let token = |rest: &str| {
            format!(r#"{{"digest":"{hex}","owner":"ann","name":"ci","scope":["a","b:read"]{rest}}}"#)
        };
        check("a token", &token(""), r#"ann/ci [("a", Full), ("b", Read)] None"#);
        check("with an end", &token(r#","expires_at":"1970-01-01T00:00:01Z""#), "Some(1000)");
        check("a date", &token(r#","expires_at":"1970-01-02""#), "Some(86400000)");
        check("no such date", &token(r#","expires_at":"2030-02-30""#), "neither a date");
        check("an end without a zone", &token(r#","expires_at":"2030-01-01T00:00:00""#), "neither a date");
        check("an unknown field", &token(r#","notes":"x""#), "unknown field `notes`");
        check("a field twice", &token(r#","name":"y""#), "duplicate field");
        check("a field of another kind", &token(r#","members":[]"#), "cannot have `members`");
        check("two kinds", &token(r#","user":"bob""#), "exactly one of");
        check("no kind", "{}", "exactly one of");
        check("a short digest", r#"{"digest":"ab","owner":"a","name":"n","scope":["a"]}"#, "64 hexadecimal");
        check("no owner", &format!(r#"{{"digest":"{hex}","name":"n","scope":["a"]}}"#), "needs `owner`");
        for bad in ["", ":read", "a:write", "a:read:read", "a:full"] {
            let line = format!(r#"{{"digest":"{hex}","owner":"a","name":"n","scope":["{bad}"]}}"#);
            check(bad, &line, "neither SERVICE nor SERVICE:read");
        }
        check("a user", r#"{"user":"ann"}"#, r#"User { login: "ann", name: None, kind: Human }"#);
        check("a service user", r#"{"user":"ci","kind":"service","name":"CI"}"#, "kind: Service");
        check("a user of no kind", r#"{"user":"ci","kind":"robot"}"#, "neither human nor service");
        check("a group", r#"{"group":"ops","members":["ann"]}"#, r#"members: ["ann"]"#);
        check("a group without members", r#"{"group":"ops"}"#, "needs `members`");
        check("an array", "[1]", "not a JSON object");
        check("an open brace", "{", "not a JSON object");
        check("no text", "\u{0}", "not a JSON object");
    }
}

//! An event as a sentence whose names are links.

use serde_json::Value;

use crate::admin::{
    AuditView,
    web::{explain_link, link, words},
};

/// A part of a sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub text: String,
    pub link: Option<String>,
}

/// `known` is the target's name, used if the event itself has none.
pub fn sentence(view: &AuditView, known: Option<&str>) -> Vec<Part> {
    let change = view.change.as_ref().unwrap_or(&Value::Null);
    let field = |name: &str| change[name].as_str().unwrap_or_default();
    let name = Some(field("name")).filter(|name| !name.is_empty());
    let part = |name_or_field: &str| match name_or_field {
        "actor" => subject_part(&actor_as_target(&view.actor), None),
        "target" => subject_part(&view.target, name.or(known)),
        "owner" | "user" => subject_part(&format!("user:{}", field(name_or_field)), None),
        "role" => subject_part(&format!("role:{}", field("role")), None),
        "service" => service(field("service")),
        "configuration" => subject_part("config", None),
        "kind" => text(&view.event),
        other => text(field(other)),
    };
    if view.event == "refusal" {
        return refusal(view, change, part("target"));
    }
    // What stands between braces is a part, the rest is text.
    let pieces = template(view, field).split(['{', '}']).enumerate();
    let parts = pieces.map(|(index, piece)| if index % 2 == 1 { part(piece) } else { text(piece) });
    parts.filter(|part| !part.text.is_empty()).collect()
}

fn template<'a>(view: &AuditView, field: impl Fn(&str) -> &'a str) -> &'static str {
    let own = view.target == format!("user:{}", view.actor);
    match view.event.as_str() {
        "token.create" if field("owner") == view.actor => "{actor} created token {target}",
        "token.create" => "{actor} created token {target} for {owner}",
        "token.edit" => "{actor} changed token {target}",
        "token.rotate" => "{actor} rotated token {target}",
        "token.revoke" => "{actor} revoked token {target}",
        "token.import" => "{actor} imported tokens",
        "token.exchange" => "{actor} issued token {target} for {owner}",
        "user.create" => "{actor} created user {target}",
        "user.edit" => "{actor} changed user {target}",
        "user.ban" if field("reason").is_empty() => "{actor} banned {target}",
        "user.ban" => "{actor} banned {target}: {reason}",
        "user.unban" => "{actor} lifted the ban of {target}",
        "user.delete" => "{actor} deleted user {target}",
        "user.password" if own => "{actor} changed their password",
        "user.password" => "{actor} changed the password of {target}",
        "user.invite" => "{actor} invited {target}",
        "user.link" => "{actor} linked {target} to an identity provider",
        "user.unlink" => "{actor} unlinked {target} from the identity provider",
        "group.create" => "{actor} created group {target}",
        "group.edit" => "{actor} changed group {target}",
        "group.delete" => "{actor} deleted group {target}",
        "group.member.add" => "{actor} added {user} to {target}",
        "group.member.remove" => "{actor} removed {user} from {target}",
        "role.create" => "{actor} created role {target}",
        "role.edit" => "{actor} changed role {target}",
        "role.delete" => "{actor} deleted role {target}",
        "grant.add" => "{actor} granted {role} to {target}",
        "grant.remove" => "{actor} withdrew {role} from {target}",
        "session.begin" if own => "{actor} signed in",
        "session.begin" => "{target} signed in",
        "session.end" if own => "{actor} signed out",
        "session.end" => "{actor} signed out {target}",
        "session.refused" => "Signing in as {target} failed",
        "live.cut" if field("user").is_empty() => "{actor} cut a request to {service}",
        "live.cut" => "{actor} cut a request to {service} by {user}",
        "store.create" => "The store was created",
        "store.backup" => "{actor} took a backup of the store",
        "store.restore" => "{actor} restored a backup of the store",
        "config.reload" => "{actor} reloaded the {configuration}",
        "removal.revert" => "{target}: {event} by {by} was undone: {reason}",
        _ => "{actor}: {kind} {target}",
    }
}

fn refusal(view: &AuditView, change: &Value, target: Part) -> Vec<Part> {
    let count = usize::try_from(change["count"].as_u64().unwrap_or(1)).unwrap_or(usize::MAX);
    let reason = words::reason(view.reason.as_deref().unwrap_or_default());
    let mut parts = vec![text(&format!("{} with ", words::count(count, "request"))), target];
    if let Some(key) = &view.service {
        parts.extend([text(" for "), service(key)]);
    }
    let from = view.actor.trim_start_matches("address:");
    parts.push(text(&format!(" from {from} refused: {reason}")));
    parts
}

/// The link to the page that explains a refusal, with what the event has of the request.
pub fn explain(view: &AuditView, url: Option<&str>) -> Option<String> {
    (view.event == "refusal").then(|| explain_link(url, view.target.strip_prefix("token:")))
}

fn service(key: &str) -> Part {
    Part { text: key.to_owned(), link: Some(format!("/services#service-{key}")) }
}

fn text(text: &str) -> Part {
    Part { text: text.to_owned(), link: None }
}

fn actor_as_target(actor: &str) -> String {
    match actor {
        "operator" | "system" => actor.to_owned(),
        other if other.contains(':') => other.to_owned(),
        login => format!("user:{login}"),
    }
}

/// `token:<id>`, `user:<login>` and the like, as a name with a link to its page.
fn subject_part(written: &str, name: Option<&str>) -> Part {
    let named = |id: &str| name.unwrap_or(id).to_owned();
    let (text, link) = match written.split_once(':') {
        Some(("token", id)) => (named(id), Some(format!("/tokens/{id}"))),
        Some(("user", login)) => (login.to_owned(), Some(link("/users", login))),
        Some(("group", group)) => (group.to_owned(), Some(link("/groups", group))),
        Some(("role", key)) => (key.to_owned(), Some(format!("/roles#role-{key}"))),
        Some(("address", address)) => (address.to_owned(), None),
        Some(("exchange", rule)) => (format!("Exchange rule {rule}"), None),
        _ => match written {
            "operator" => ("The operator".to_owned(), None),
            "system" => ("permgate".to_owned(), None),
            "config" => ("configuration".to_owned(), Some("/configuration".to_owned())),
            "bearer" => ("an unknown token".to_owned(), None),
            other => (other.to_owned(), None),
        },
    };
    Part { text, link }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{admin::wire::Time, authz::time::Timestamp};

    fn event(event: &str, actor: &str, target: &str, change: Value) -> AuditView {
        AuditView {
            seq: 1,
            time: Time(Timestamp::from_millis(0)),
            event: event.to_owned(),
            actor: actor.to_owned(),
            target: target.to_owned(),
            service: None,
            request_id: None,
            outcome: "ok".to_owned(),
            reason: None,
            change: Some(change),
            prev: String::new(),
            hash: String::new(),
        }
    }

    #[test]
    fn an_event_reads_as_a_sentence() {
        let check = |view: AuditView, expected: &str| {
            let text: String = sentence(&view, Some("ci")).iter().map(|part| part.text.as_str()).collect();
            assert_eq!(text, expected);
        };
        let created = |owner: &str| json!({"name": "deploy", "owner": owner});
        check(event("token.create", "ann", "token:A1", created("ann")), "ann created token deploy");
        check(event("token.create", "root", "token:A1", created("ann")), "root created token deploy for ann");
        check(event("token.revoke", "ann", "token:A1", json!({"reason": "user"})), "ann revoked token ci");
        check(
            event("user.ban", "operator", "user:zoe", json!({"reason": "left"})),
            "The operator banned zoe: left",
        );
        let reverted = json!({"event": "user.ban", "by": "ann", "reason": "no such user"});
        check(
            event("removal.revert", "system", "user:zoe", reverted),
            "zoe: user.ban by ann was undone: no such user",
        );
        check(
            event("group.member.add", "root", "group:dev", json!({"user": "ann"})),
            "root added ann to dev",
        );
        check(
            event("grant.add", "root", "user:ann", json!({"role": "auditor"})),
            "root granted auditor to ann",
        );
        let cut = |user: Value| json!({"user": user, "service": "wiki", "path": "/wiki/a"});
        check(event("live.cut", "root", "token:A1", cut("ann".into())), "root cut a request to wiki by ann");
        check(event("live.cut", "root", "live:7", cut(Value::Null)), "root cut a request to wiki");
        check(
            event("token.exchange", "exchange:deploy", "token:A1", json!({"owner": "ci-bot"})),
            "Exchange rule deploy issued token ci for ci-bot",
        );
        check(event("store.create", "system", "store", Value::Null), "The store was created");
        check(
            event("store.restore", "operator", "store", json!({"users": 1})),
            "The operator restored a backup of the store",
        );
        check(event("something.new", "root", "user:ann", Value::Null), "root: something.new ann");
        let refused = AuditView {
            service: Some("wiki".to_owned()),
            reason: Some("token_revoked".to_owned()),
            ..event("refusal", "address:10.0.0.7", "token:A1", json!({"count": 3}))
        };
        assert_eq!(explain(&refused, Some("/wiki")).unwrap(), "/explain?method=GET&url=%2Fwiki&token_id=A1");
        check(refused, "3 requests with ci for wiki from 10.0.0.7 refused: revoked token");
    }

    #[test]
    fn names_lead_to_their_pages() {
        let check = |written: &str, link: Option<&str>| {
            assert_eq!(subject_part(written, None).link.as_deref(), link, "{written}");
        };
        check("user:ann", Some("/users/ann"));
        check("group:all staff", Some("/groups/all%20staff"));
        check("token:A1", Some("/tokens/A1"));
        check("role:auditor", Some("/roles#role-auditor"));
        check("operator", None);
    }
}

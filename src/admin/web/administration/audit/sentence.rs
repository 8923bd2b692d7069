//! An event as a sentence whose names are links.

use serde_json::Value;

use crate::admin::{
    AuditView,
    web::{address, link, words},
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
    let field = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
    let actor = subject_part(&actor_as_target(&view.actor), None);
    let name = Some(field("name")).filter(|name| !name.is_empty());
    let target = || subject_part(&view.target, name.as_deref().or(known));
    let role = || Part { text: field("role"), link: Some(format!("/roles#role-{}", field("role"))) };
    let user = || subject_part(&format!("user:{}", field("user")), None);
    let own = view.target == format!("user:{}", view.actor);
    let mut parts = match view.event.as_str() {
        "token.create" if field("owner") == view.actor => vec![actor, text(" created token "), target()],
        "token.create" => {
            vec![
                actor,
                text(" created token "),
                target(),
                text(" for "),
                subject_part(&format!("user:{}", field("owner")), None),
            ]
        }
        "token.edit" => vec![actor, text(" changed token "), target()],
        "token.rotate" => vec![actor, text(" rotated token "), target()],
        "token.revoke" => vec![actor, text(" revoked token "), target()],
        "token.import" => vec![actor, text(" imported tokens")],
        "token.exchange" => {
            let owner = subject_part(&format!("user:{}", field("owner")), None);
            vec![actor, text(" issued token "), target(), text(" for "), owner]
        }
        "user.create" => vec![actor, text(" created user "), target()],
        "user.edit" => vec![actor, text(" changed user "), target()],
        "user.ban" => {
            let reason = Some(field("reason")).filter(|reason| !reason.is_empty());
            vec![
                actor,
                text(" banned "),
                target(),
                text(&reason.map_or_else(String::new, |why| format!(": {why}"))),
            ]
        }
        "user.unban" => vec![actor, text(" lifted the ban of "), target()],
        "user.delete" => vec![actor, text(" deleted user "), target()],
        "user.password" if own => vec![actor, text(" changed their password")],
        "user.password" => vec![actor, text(" changed the password of "), target()],
        "user.invite" => vec![actor, text(" invited "), target()],
        "user.link" => vec![actor, text(" linked "), target(), text(" to an identity provider")],
        "user.unlink" => vec![actor, text(" unlinked "), target(), text(" from the identity provider")],
        "group.create" => vec![actor, text(" created group "), target()],
        "group.edit" => vec![actor, text(" changed group "), target()],
        "group.delete" => vec![actor, text(" deleted group "), target()],
        "group.member.add" => vec![actor, text(" added "), user(), text(" to "), target()],
        "group.member.remove" => vec![actor, text(" removed "), user(), text(" from "), target()],
        "role.create" => vec![actor, text(" created role "), target()],
        "role.edit" => vec![actor, text(" changed role "), target()],
        "role.delete" => vec![actor, text(" deleted role "), target()],
        "grant.add" => vec![actor, text(" granted "), role(), text(" to "), target()],
        "grant.remove" => vec![actor, text(" withdrew "), role(), text(" from "), target()],
        "session.begin" if own => vec![actor, text(" signed in")],
        "session.begin" => vec![target(), text(" signed in")],
        "session.end" if own => vec![actor, text(" signed out")],
        "session.end" => vec![actor, text(" signed out "), target()],
        "session.refused" => vec![text("Signing in as "), target(), text(" failed")],
        "live.cut" => {
            let by = if field("user").is_empty() { "" } else { " by " };
            vec![actor, text(" cut a request to "), service(&field("service")), text(by), user()]
        }
        "store.create" => vec![text("The store was created")],
        "store.restore" => vec![actor, text(" restored a backup of the store")],
        "config.reload" => vec![actor, text(" reloaded the "), subject_part("config", None)],
        "removal.revert" => {
            let (event, by, reason) = (field("event"), field("by"), field("reason"));
            let what = format!(": {event} by {by} was undone: {reason}");
            vec![target(), text(&what)]
        }
        "refusal" => refusal(view, change, target()),
        other => vec![actor, text(&format!(": {other} ")), target()],
    };
    parts.retain(|part| !part.text.is_empty());
    parts
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
pub fn explain(view: &AuditView, path: Option<&str>) -> Option<String> {
    if view.event != "refusal" {
        return None;
    }
    let token = view.target.strip_prefix("token:");
    let pairs = [("method", Some("GET")), ("url", Some(path.unwrap_or("/"))), ("token_id", token)];
    Some(address("/explain", pairs))
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

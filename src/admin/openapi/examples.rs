//! Example answers, by the name of their schema.

use serde_json::{Value, json};
use utoipa::openapi::schema::Type;

/// `None`: the schema needs no example.
pub(super) fn example(schema: &str) -> Option<Value> {
    Some(match schema {
        "Token" => token(),
        "User" => json!({
            "id": ID, "login": "ann", "name": "Ann", "email": "ann@example.com", "kind": "human",
            "banned": false, "ban_reason": null, "created_at": AT, "deleted_at": null,
            "groups": ["developers"], "roles": [], "revision": 3,
        }),
        "Group" => json!({
            "id": ID, "name": "developers", "parent": "staff", "built_in": false, "roles": [],
            "members": ["ann", "bob"], "revision": 1,
        }),
        "Role" => json!({
            "key": "auditor", "name": "Auditor", "permissions": ["read-audit"], "built_in": false, "revision": 1,
        }),
        "Grant" => json!({"role": "auditor", "user": "ann"}),
        "Service" => json!({
            "key": "youtrack", "title": "YouTrack", "about": "Issues, tags and boards", "paths": ["/rest", "/api"],
            "hosts": [], "built_in": false,
        }),
        "Session" => json!({
            "user": "ann", "user_id": ID, "name": "Ann", "csrf": DIGEST, "by": "password", "created_at": AT,
            "expires_at": LATER, "idle_until": LATER,
        }),
        "SessionRow" => json!({
            "created_at": AT, "last_seen_at": AT, "expires_at": LATER, "client": "192.0.2.7", "current": true,
        }),
        "Invitation" => json!({
            "user": "ann", "invitation": "5f0c...", "link": "https://gate.example.com/invitation#5f0c...",
            "expires_at": LATER,
        }),
        "Identity" => json!({"issuer": "https://id.example.com", "subject": "f3a1c9"}),
        "AuditEvent" => json!({
            "seq": 42, "time": AT, "event": "token.revoke", "actor": "ann", "target": "token:A1iceYt00001",
            "service": null, "request_id": REQUEST, "outcome": "ok", "reason": null,
            "change": {"reason": "user"}, "prev": DIGEST, "hash": DIGEST,
        }),
        "Live" => json!({
            "id": "1-17", "request_id": REQUEST, "service": "youtrack", "method": "GET", "path": "/api/events",
            "client": "192.0.2.7", "user": "ann", "token": "A1iceYt00001", "age_ms": 5200, "bytes_in": 0,
            "bytes_out": 8192,
        }),
        "Overview" => {
            let series =
                json!({"requests": [120], "refused": [3], "failed": [1], "p50": [1.5], "p95": [9.0]});
            json!({
                "ready": true, "writable": true, "tokens": 210, "imported": 0, "users": 37, "live": 4, "down": {}, "step": 10,
                "at": [AT], "all": series, "services": {"youtrack": series}, "refusals": {"unknown_token": 3},
            })
        }
        "Cluster" => json!({
            "node": "gate-1", "standing": "member", "position": 4711, "in_force": 4711, "permitted_ms": 8200,
            "members": [{"node": "gate-1", "acknowledged": 4711, "same_rules": true}], "departed": [], "waiting": 0,
        }),
        "Leaks" => json!({
            "items": [{"index": 0, "tokens": [{"id": "A1iceYt00001", "revoked_now": true}]}], "revoked": 1, "cut": 0,
        }),
        "Imported" => json!({
            "imported": 1, "known": 0, "refused": 1,
            "tokens": [
                {"id": "A1iceYt00001", "known": false},
                {"known": false, "error": "service_not_readable", "error_description": "the service cannot be read"},
            ],
        }),
        _ => return None,
    })
}

/// The example of a response that creates a record; a token's also has its text.
pub(super) fn created_example(schema: &str) -> Option<Value> {
    let mut example = example(schema)?;
    if schema == "Token" {
        example["token"] = TEXT.into();
        example["cut"] = 0.into();
    }
    Some(example)
}

/// An example object with these fields.
pub(super) fn fields(fields: &[(&str, Type)]) -> Value {
    let value = |(name, kind): &(&str, Type)| {
        let value = match (*name, kind) {
            ("sessions", _) => json!(2),
            (_, Type::Integer) => json!(1),
            (_, Type::Boolean) => json!(true),
            (_, Type::Array) => json!([]),
            ("group", _) => json!("developers"),
            ("role", _) => json!("auditor"),
            ("status", _) => json!("ok"),
            ("text", _) => json!("version = 1\n"),
            _ => json!("ann"),
        };
        ((*name).to_owned(), value)
    };
    Value::Object(fields.iter().map(value).collect())
}

/// The body of a refusal, with the first of the codes that `codes` lists for its status.
pub(super) fn problem(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("internal");
    let description = match code {
        "invalid_request" => "The query string: unknown field `colour`",
        "unauthorized" => "Missing credentials",
        "permission_denied" => "the permission update-user is needed",
        "not_found" => "There is no such token",
        "name_taken" => "the name \"ci\" is taken",
        "precondition_failed" => "The record has changed since it was read",
        "invalid_name" => "a token name must not be empty",
        "too_many_attempts" => "Too many wrong passwords: wait before the next one",
        _ => "What is wrong, in a sentence",
    };
    json!({"error": code, "error_description": description, "status": status, "request_id": REQUEST})
}

/// A token as the Hub calls return it.
pub(super) fn hub_token() -> Value {
    let user = json!({"type": "user", "id": ID, "login": "ann", "name": "Ann"});
    json!({
        "id": "A1iceYt00001", "name": "ci", "creationTime": 1_767_225_600_000_i64, "lastAccessTime": null,
        "expirationTime": null, "scope": [{"id": "youtrack", "key": "youtrack", "name": "YouTrack"}],
        "user": user, "author": user,
    })
}

pub(super) const TEXT: &str = "pgt_A1iceYt00001_...";
const ID: &str = "019b76da-a800-7000-8000-000000000001";
const AT: &str = "2026-01-01T00:00:00.000Z";
const LATER: &str = "2026-01-01T12:00:00.000Z";
const REQUEST: &str = "019b76daa80070008000000000000002";
const DIGEST: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn token() -> Value {
    json!({
        "id": "A1iceYt00001", "user": "ann", "user_id": ID, "author": "ann", "name": "ci", "note": "",
        "scope": [{"service": "youtrack", "access": "read"}], "allow_ips": ["192.0.2.0/24"], "state": "active",
        "created_at": AT, "not_before": null, "expires_at": LATER, "last_used_at": AT,
        "last_used_ip": "192.0.2.7", "last_used_service": "youtrack", "imported": false, "revoked_at": null,
        "revoked_by": null, "revoke_reason": null, "family": "A1iceYt00001", "rotated_to": null,
        "grace_until": null, "revision": 1,
    })
}

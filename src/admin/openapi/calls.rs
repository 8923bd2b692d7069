//! Every operation, in the order of the reference.

use utoipa::openapi::{ObjectBuilder, schema::Type};

use super::{
    super::{
        audit, cluster, configuration, explain, groups, hub, identities, invitations, live, overview,
        passwords, revoke_by_value, roles, services, session, tokens, users,
    },
    operation::{Operation, call, of_type},
};

const CUT: (&str, Type) = ("cut", Type::Integer);

pub(super) fn all() -> Vec<Operation> {
    [of_tokens(), of_values(), people(), of_groups(), of_roles(), sign_in(), operation(), of_hub()]
        .into_iter()
        .flatten()
        .collect()
}

fn of_tokens() -> Vec<Operation> {
    let filtered = |operation: Operation| {
        operation
            .query("service", "In the scope", Type::String)
            .query("unused_for", "A duration as 90d", Type::String)
            .query("expiring_in", "A duration as 30d", Type::String)
            .query("state", "pending, active, expired, rotating, rotated, revoked or suspended", Type::String)
            .paged()
    };
    vec![
        call(
            "POST /v1/users/{login}/tokens",
            "Create a token; the answer holds its text in `token`, once. `me` names the caller",
        )
        .body::<tokens::Create>()
        .creates::<tokens::TokenView>()
        .idempotent()
        .errors(&[409, 429]),
        filtered(call("GET /v1/users/{login}/tokens", "A user's tokens")).returns_page::<tokens::TokenView>(),
        filtered(call(
            "GET /v1/tokens",
            "All tokens, or only the caller's without the permission to see others",
        ))
        .query("user", "Of this login", Type::String)
        .returns_page::<tokens::TokenView>()
        .errors(&[404]),
        call("GET /v1/tokens/{id}", "A token").returns::<tokens::TokenView>(),
        call("PATCH /v1/tokens/{id}", "Rename a token, reduce its scope or let it expire earlier")
            .body::<tokens::Edit>()
            .returns::<tokens::TokenView>()
            .conditional()
            .errors(&[409]),
        call("DELETE /v1/tokens/{id}", "Revoke a token and cut its requests in flight; idempotent")
            .returns_fields(&[("revoked", Type::Boolean), CUT]),
        call(
            "POST /v1/tokens/{id}/rotate",
            "Rotate: create a replacement; the old token works until its grace period ends",
        )
        .optional_body::<tokens::Rotate>()
        .creates::<tokens::TokenView>()
        .idempotent()
        .errors(&[409, 429]),
        call("POST /v1/tokens/import", "Register existing secrets by their BLAKE3 digests")
            .body::<tokens::ImportRequest>()
            .returns::<tokens::Imported>(),
    ]
}

fn of_values() -> Vec<Operation> {
    let boolean = of_type(Type::Boolean);
    let active = ObjectBuilder::new().property("active", boolean).required("active");
    vec![
        call("POST /v1/tokens/revoke-by-value", "Revoke a token by its text")
            .body::<revoke_by_value::ByValue>()
            .returns_fields(&[("revoked", Type::Boolean), CUT]),
        call("POST /v1/leaks", "Revoke every token found in these texts as leaked")
            .body::<revoke_by_value::Report>()
            .returns::<revoke_by_value::Leaks>(),
        call("POST /oauth2/introspect", "Token introspection (RFC 7662); needs `introspect`")
            .token_form_body()
            .response(200, "application/json", active),
        call("POST /oauth2/revoke", "Token revocation (RFC 7009)").token_form_body().returns_object(),
    ]
}

fn people() -> Vec<Operation> {
    vec![
        call("GET /v1/users", "Users").paged().returns_page::<users::UserView>(),
        call("POST /v1/users", "Create a user")
            .body::<users::Create>()
            .creates::<users::UserView>()
            .errors(&[409]),
        call("GET /v1/users/{login}", "A user").returns::<users::UserView>(),
        call("PATCH /v1/users/{login}", "Change a user")
            .body::<users::Edit>()
            .returns::<users::UserView>()
            .conditional()
            .errors(&[409]),
        call("DELETE /v1/users/{login}", "Delete a user and revoke their tokens")
            .returns_fields(&[("deleted", Type::Boolean), CUT])
            .errors(&[409]),
        call(
            "POST /v1/users/{login}/ban",
            "Ban a user: their tokens and sessions stop working, requests in flight are cut",
        )
        .optional_body::<users::Ban>()
        .returns::<users::UserView>()
        .errors(&[409]),
        call("POST /v1/users/{login}/unban", "Lift a ban").returns::<users::UserView>().errors(&[409]),
        call("PUT /v1/users/{login}/password", "Set or remove a password; your own needs `current`")
            .body::<passwords::Password>()
            .returns_fields(&[("user", Type::String), ("password", Type::Boolean), CUT])
            .errors(&[429]),
        call(
            "POST /v1/users/{login}/invitation",
            "Create an invitation link, shown once, that sets a user's password",
        )
        .creates::<invitations::InvitationView>()
        .errors(&[409, 422]),
        call("GET /v1/users/{login}/identities", "The OpenID Connect subjects linked to a user")
            .returns_page::<identities::IdentityView>(),
        call("POST /v1/users/{login}/identities", "Link a provider's subject to a user")
            .body::<identities::Link>()
            .returns::<identities::IdentityView>()
            .errors(&[409]),
        call(
            "DELETE /v1/users/{login}/identities",
            "Unlink a user from all providers and end their sessions",
        )
        .returns_fields(&[("identities", Type::Integer), CUT]),
        call("DELETE /v1/users/{login}/sessions", "End all sessions of a user")
            .returns_fields(&[("sessions", Type::Integer), CUT]),
        call("GET /v1/whoami", "The caller, and what the caller may do").response(
            200,
            "application/json",
            ObjectBuilder::new()
                .property("operator", of_type(Type::Boolean))
                .required("operator")
                .required("permissions"),
        ),
    ]
}

fn of_groups() -> Vec<Operation> {
    let membership = [("group", Type::String), ("user", Type::String), ("member", Type::Boolean), CUT];
    vec![
        call("GET /v1/groups", "Groups").paged().returns_page::<groups::GroupView>(),
        call("POST /v1/groups", "Create a group")
            .body::<groups::Create>()
            .creates::<groups::GroupView>()
            .errors(&[404, 409]),
        call("GET /v1/groups/{name}", "A group").returns::<groups::GroupView>(),
        call("PATCH /v1/groups/{name}", "Rename a group or move it below another")
            .body::<groups::Edit>()
            .returns::<groups::GroupView>()
            .conditional()
            .errors(&[409]),
        call("DELETE /v1/groups/{name}", "Delete a group")
            .returns_fields(&[("deleted", Type::Boolean), CUT])
            .errors(&[409, 422]),
        call("PUT /v1/groups/{name}/members/{login}", "Add a user to a group")
            .returns_fields(&membership)
            .errors(&[409, 422]),
        call("DELETE /v1/groups/{name}/members/{login}", "Remove a user from a group")
            .returns_fields(&membership)
            .errors(&[409, 422]),
    ]
}

fn of_roles() -> Vec<Operation> {
    let granted = [("role", Type::String), ("granted", Type::Boolean), CUT];
    vec![
        call("GET /v1/roles", "Roles").paged().returns_page::<roles::RoleView>(),
        call("POST /v1/roles", "Create a role")
            .body::<roles::Create>()
            .creates::<roles::RoleView>()
            .errors(&[409]),
        call("GET /v1/roles/{key}", "A role").returns::<roles::RoleView>(),
        call("PATCH /v1/roles/{key}", "Rename a role or change its permissions")
            .body::<roles::Edit>()
            .returns::<roles::RoleView>()
            .conditional()
            .errors(&[409, 422]),
        call("DELETE /v1/roles/{key}", "Delete a role and its grants")
            .returns_fields(&[("deleted", Type::Boolean), CUT])
            .errors(&[409, 422]),
        call("GET /v1/grants", "Who holds which role").paged().returns_page::<roles::GrantView>(),
        call("POST /v1/grants", "Grant a role to a user or a group")
            .body::<roles::GrantView>()
            .returns_fields(&granted)
            .errors(&[404, 409]),
        call("DELETE /v1/grants", "Withdraw a role from a user or a group")
            .body::<roles::GrantView>()
            .returns_fields(&granted)
            .errors(&[404, 409]),
    ]
}

fn sign_in() -> Vec<Operation> {
    vec![
        call("POST /v1/session", "Sign in: sets a cookie and returns the `csrf` token for changes")
            .body::<session::SignIn>()
            .creates::<session::SessionView>()
            .errors(&[429])
            .open(),
        call("GET /v1/session", "Who is signed in").returns::<session::SessionView>().errors(&[404]),
        call("DELETE /v1/session", "Sign out")
            .returns_fields(&[("signed_out", Type::Boolean), CUT])
            .errors(&[404]),
        call("GET /v1/sessions", "Your own sessions").returns_page::<session::SessionRow>().errors(&[404]),
        call("DELETE /v1/sessions", "Sign out everywhere")
            .returns_fields(&[("sessions", Type::Integer), CUT])
            .errors(&[404]),
        call("POST /v1/invitation", "Set a password with an invitation")
            .body::<invitations::Redeem>()
            .returns_fields(&[("user", Type::String), ("password", Type::Boolean), CUT])
            .open(),
        call("POST /v1/invitation/check", "Whom an invitation is for, before it is used")
            .body::<invitations::Check>()
            .returns_fields(&[("user", Type::String), ("name", Type::String), ("expires_at", Type::String)])
            .open(),
    ]
}

fn operation() -> Vec<Operation> {
    let binary = || of_type(Type::String);
    vec![
        call("GET /v1/services", "The services that a scope may name")
            .query("readable_by", "A login, or `me`", Type::String)
            .query("detailed", "With readers, which needs `admin-read`", Type::Boolean)
            .returns_page::<services::ServiceView>()
            .errors(&[404]),
        call("GET /v1/overview", "The last hour in figures").returns::<overview::Overview>(),
        call("POST /v1/explain", "How a request would be decided, step by step")
            .body::<explain::ExplainRequest>()
            .returns_object()
            .errors(&[404]),
        call("GET /v1/audit", "The audit log, newest first").paged().returns_page::<audit::AuditView>(),
        call("GET /v1/audit/verify", "Verify the chain of the audit log")
            .returns_fields(&[("valid", Type::Boolean)]),
        call("GET /v1/live", "Requests in flight").returns_page::<live::LiveView>(),
        call("DELETE /v1/live/{id}", "Cut a request in flight").returns_fields(&[CUT]),
        call("GET /v1/cluster", "The cluster as this node sees it")
            .returns::<cluster::ClusterView>()
            .errors(&[404]),
        call("GET /v1/config", "The configuration in force, without secrets")
            .returns_fields(&[("text", Type::String)]),
        call("POST /v1/config/check", "Validate a configuration without changing anything")
            .body::<configuration::Check>()
            .returns_fields(&[("valid", Type::Boolean), ("errors", Type::Array)]),
        call("POST /v1/reload", "Reload the configuration file, all or nothing")
            .returns_fields(&[("reloaded", Type::Boolean), CUT])
            .errors(&[422]),
        call("GET /v1/backup", "A backup of the store as a stream").response(
            200,
            "application/octet-stream",
            binary(),
        ),
        call(
            "GET /v1/store/verify",
            "Read and verify the whole store; reports progress, then the result, line by line",
        )
        .response(200, "application/x-ndjson", binary()),
        call("GET /healthz", "Liveness: the process answers")
            .returns_fields(&[("status", Type::String)])
            .open(),
        call("GET /readyz", "Readiness: the gateway takes requests")
            .returns_fields(&[("status", Type::String)])
            .open(),
        call("GET /metrics", "Metrics in the Prometheus text format").response(
            200,
            "text/plain; version=0.0.4",
            binary(),
        ),
        call("GET /openapi.json", "This document").returns_object().open(),
    ]
}

fn of_hub() -> Vec<Operation> {
    let object = || of_type(Type::Object);
    let page = |items: &str| {
        let figure = || of_type(Type::Integer);
        let rows = utoipa::openapi::ArrayBuilder::new().items(object());
        object()
            .property("skip", figure())
            .property("top", figure())
            .property("total", figure())
            .property(items, rows)
    };
    let fields = |operation: Operation| operation.query("fields", "As id,name,scope(id)", Type::String);
    let paged = |operation: Operation| {
        fields(operation).query("$skip", "Rows to skip", Type::Integer).query("$top", "Rows", Type::Integer)
    };
    const JSON: &str = "application/json";
    vec![
        paged(call("GET /hub/api/rest/services", "Services in Hub's form")).response(
            200,
            JSON,
            page("services"),
        ),
        fields(call("GET /hub/api/rest/users/{user}", "A user by id, login or `me`")).returns_object(),
        paged(call("GET /hub/api/rest/users/{user}/permanenttokens", "A user's tokens")).response(
            200,
            JSON,
            page("permanenttokens"),
        ),
        fields(call(
            "POST /hub/api/rest/users/{user}/permanenttokens",
            "Create a token; the answer holds its text in `token`, once",
        ))
        .body::<hub::Body>()
        .returns_object()
        .errors(&[409, 429]),
        fields(call("GET /hub/api/rest/users/{user}/permanenttokens/{id}", "A token")).returns_object(),
        fields(call("POST /hub/api/rest/users/{user}/permanenttokens/{id}", "Rename or narrow a token"))
            .body::<hub::Body>()
            .returns_object()
            .errors(&[409]),
        call("DELETE /hub/api/rest/users/{user}/permanenttokens/{id}", "Revoke a token")
            .returns_fields(&[("revoked", Type::Boolean), CUT]),
    ]
}

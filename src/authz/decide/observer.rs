//! Observation of a decision's steps for `explain`. The silent observer compiles to nothing.

use http::Method;

use super::{Credential, Query};
use crate::authz::{
    carriers::CarrierKind,
    path::RequestPath,
    reason::Reason,
    rules::{Disagreement, Origin, Owner},
    secret::{BearerForm, redact},
    subject::{Access, Directory, Permission, Subject},
};

/// Receives the steps of a decision.
pub(in crate::authz) trait Observer {
    fn record(&mut self, step: &'static str, observe: impl FnOnce() -> Observation);
}

/// Ignores every step without computing its observation.
pub(in crate::authz) struct Silent;

/// What a step looked at, its result, and the rule that it applied.
pub(in crate::authz) struct Observation {
    pub looked_at: String,
    pub result: String,
    pub origin: Option<Origin>,
}

impl Observer for Silent {
    #[inline(always)]
    fn record(&mut self, _: &'static str, _: impl FnOnce() -> Observation) {}
}

impl Observation {
    fn new(looked_at: impl Into<String>, result: impl Into<String>) -> Self {
        Self { looked_at: looked_at.into(), result: result.into(), origin: None }
    }

    fn with_origin(self, origin: &Origin) -> Self {
        Self { origin: Some(origin.clone()), ..self }
    }

    pub fn method(query: &Query<'_>, supported: bool) -> Self {
        let result = if supported { "may be forwarded" } else { "TRACE and CONNECT are never forwarded" };
        Self::new(query.method.as_str(), result)
    }

    pub fn path(query: &Query<'_>) -> Self {
        match &query.path {
            Ok(path) => {
                let result = match path.readings().len() {
                    0 => "acceptable, with one reading".to_owned(),
                    others => {
                        format!("acceptable, with {others} other readings that must have the same owner")
                    }
                };
                Self::new(redact(path.literal()), result)
            }
            Err(error) => Self::new("the path", error.to_string()),
        }
    }

    pub fn owner(query: &Query<'_>, owner: &Result<Option<Owner<'_>>, Disagreement>) -> Self {
        let path = query.path.as_ref().map(RequestPath::literal).unwrap_or_default();
        let looked_at = format!("{}{}", query.host.unwrap_or("any host: "), redact(path));
        match owner {
            Ok(Some(owner)) => {
                let key = &owner.service.spec.key;
                let observation =
                    Self::new(looked_at, format!("\"{}\" belongs to the service \"{key}\"", owner.prefix));
                observation.with_origin(&owner.service.spec.origin)
            }
            Ok(None) => Self::new(looked_at, "belongs to no service"),
            Err(Disagreement::InvalidUtf8) => {
                Self::new(looked_at, "is not UTF-8, which its service does not allow")
            }
            Err(Disagreement::TooManyReadings) => Self::new(looked_at, "can be read in too many ways"),
            Err(Disagreement::Reading(reading)) => Self::new(
                looked_at,
                format!("some servers read \"{}\", which has another owner", redact(reading)),
            ),
        }
    }

    pub fn url(token_in_url: bool) -> Self {
        let result =
            if token_in_url { "has an access token, which has leaked" } else { "has no access token" };
        Self::new("path and query", result)
    }

    pub fn credential(query: &Query<'_>, public: Option<Owner<'_>>) -> Self {
        let result = match query.credential {
            Credential::Missing => "none was sent",
            Credential::UnsupportedScheme => "is not of the Bearer scheme",
            Credential::Ambiguous => "was sent more than once",
            Credential::Malformed => "is not one word after \"Bearer\"",
            Credential::AmbiguousCarrier => "was sent in more than one place, or twice in the same",
            Credential::MalformedCarrier => "is not one word",
            Credential::Bearer { form, .. }
            | Credential::Carried { form, .. }
            | Credential::Elsewhere { form, .. } => match form {
                BearerForm::Own => "a token in permgate's format",
                BearerForm::ChecksumMismatch => "a token in permgate's format, mistyped",
                BearerForm::Foreign => "a token in another format",
            },
        };
        let looked_at = match query.credential {
            Credential::Carried { kind: CarrierKind::Basic, .. } => "Authorization, Basic",
            Credential::Carried { kind: CarrierKind::Raw, .. } => "Authorization, without a scheme",
            Credential::Carried { kind: CarrierKind::Header, .. } => "a header field for tokens",
            Credential::Carried { kind: CarrierKind::Websocket, .. } => "Sec-WebSocket-Protocol",
            Credential::Elsewhere { .. } => "a field in which the service does not accept a token",
            Credential::AmbiguousCarrier | Credential::MalformedCarrier => {
                "the fields in which the service accepts a token"
            }
            _ => "Authorization",
        };
        match public.and_then(|owner| owner.public) {
            Some(rule) => {
                Self::new(looked_at, format!("{result}; a public rule needs none")).with_origin(&rule.origin)
            }
            None => Self::new(looked_at, result),
        }
    }

    pub fn token(authentic: &Result<Subject<'_>, Reason>, found: Option<Subject<'_>>) -> Self {
        let looked_at = found.map_or_else(
            || "the token".to_owned(),
            |subject| format!("token {} of {}", subject.token.id, subject.user.login),
        );
        match authentic {
            Ok(_) => Self::new(looked_at, "is valid"),
            Err(reason) => Self::new(looked_at, reason.code()),
        }
    }

    pub fn service(owner: Option<Owner<'_>>) -> Self {
        match owner {
            Some(owner) => Self::new("the owner of the path", owner.service.spec.key.as_str())
                .with_origin(&owner.service.spec.origin),
            None => Self::new("the owner of the path", "there is none"),
        }
    }

    pub fn service_methods(query: &Query<'_>, owner: Owner<'_>, allowed: bool) -> Self {
        let methods = owner.service.spec.methods.as_deref().unwrap_or_default();
        let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
        let looked_at = format!("{} among {}", query.method, methods.join(", "));
        let result = match (allowed, query.method_override) {
            (true, _) => "is allowed by the service",
            (false, true) => "a method override may hide another one",
            (false, false) => "is not allowed by the service",
        };
        Self::new(looked_at, result).with_origin(&owner.service.spec.origin)
    }

    pub fn read_service(
        subject: Subject<'_>,
        owner: Owner<'_>,
        directory: &Directory,
        may_read: bool,
    ) -> Self {
        let spec = &owner.service.spec;
        let groups: Vec<&str> = spec.readers.iter().map(String::as_str).collect();
        let looked_at = format!("{} among the readers [{}]", subject.user.login, groups.join(", "));
        let through = groups.iter().find(|name| subject.user.is_in(name, directory));
        let result = match (may_read, through) {
            (true, Some(group)) => format!("may read the service, by the group \"{group}\""),
            (true, None) if subject.user.permissions.contains(Permission::ReadService) => {
                "may read every service, by the Read Service permission".to_owned()
            }
            (true, None) => "may read the service".to_owned(),
            (false, _) => "is in no group with access and lacks the Read Service permission".to_owned(),
        };
        Self::new(looked_at, result).with_origin(&spec.origin)
    }

    pub fn scope(subject: Subject<'_>, owner: Owner<'_>, reading: bool) -> Self {
        let key = &owner.service.spec.key;
        let use_ = if reading { "reading" } else { "changing" };
        let result = match subject.token.scope.access(owner.service.id) {
            Some(Access::Full) => "grants full access",
            Some(Access::Read) if reading => "grants read access, and the request only reads",
            Some(Access::Read) => "grants only read access, and the request may change something",
            None => "does not list the service",
        };
        Self::new(format!("the token's scope for \"{key}\", {use_}"), result)
            .with_origin(&owner.service.spec.origin)
    }

    pub fn below(query: &Query<'_>, other: Owner<'_>) -> Self {
        let key = &other.service.spec.key;
        let looked_at = format!("what {} also reaches", query.method);
        Self::new(
            looked_at,
            format!("\"{}\" of the service \"{key}\", which needs full access", other.prefix),
        )
        .with_origin(&other.service.spec.origin)
    }

    pub fn anonymous(reason: Reason, owner: Owner<'_>) -> Self {
        let observation = Self::new(reason.code(), "forwarded without an identity: the token is not needed");
        match owner.public {
            Some(rule) => observation.with_origin(&rule.origin),
            None => observation,
        }
    }
}

//! The decision (docs/decision.md): the first row that applies decides. Only this module creates a
//! [`Permit`].

use std::net::IpAddr;

use http::Method;

use crate::authz::{
    carriers::CarrierKind,
    destination::Destination,
    path::{PathError, RequestPath},
    reason::{ErrorDetails, Reason},
    rules::{Disagreement, Owner, Rules, Service},
    secret::BearerForm,
    subject::{Access, Directory, Subject, Token, TokenEnd},
    time::Timestamp,
};

pub use credential::Credential;
pub(in crate::authz) use observer::{Observation, Observer, Silent};
use targets::SecondTarget;
pub(in crate::authz) use targets::services_below;

mod credential;
mod observer;
mod targets;

/// The inputs that the client controls.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub method: &'a Method,
    /// In lower case, without port.
    pub host: Option<&'a str>,
    /// Hosts that a trusted proxy names besides `host`.
    pub stated_hosts: &'a [String],
    pub path: Result<RequestPath<'a>, PathError>,
    /// Whether the path or the query contains a permgate token.
    pub token_in_url: bool,
    pub credential: Credential,
    /// The client's address; behind trusted proxies, the one that they report.
    pub client: IpAddr,
    pub upgrade: bool,
    /// Whether a method-override field was sent.
    pub method_override: bool,
    /// The second target of the request (WebDAV).
    pub destination: Option<&'a Destination>,
}

/// The inputs that the client does not control.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub rules: &'a Rules,
    pub directory: &'a Directory,
    /// The token that has the credential's digest.
    pub token: Option<&'a Token>,
    /// Whether any imported token exists.
    pub imports: bool,
    pub now: Timestamp,
}

/// Proof that a request may be forwarded. Only [`decide`] can create one.
#[derive(Clone, Debug)]
pub struct Permit<'a> {
    owner: Owner<'a>,
    subject: Option<Subject<'a>>,
    /// `None` for `Authorization: Bearer` or no credential.
    carrier: Option<CarrierKind>,
    /// When the decision may change by time alone: at the token's expiry or the end of its grace period.
    deadline: Option<Timestamp>,
}

/// Why a request is not forwarded.
#[derive(Clone, Debug)]
pub struct Denial<'a> {
    pub reason: Reason,
    /// What is wrong with the path, if that is the reason.
    pub path: Option<PathError>,
    /// The owner of the path, if the decision got that far.
    pub owner: Option<Owner<'a>>,
    /// The subject, if the token was recognised; for log and audit.
    pub subject: Option<Subject<'a>>,
}

/// Whether the method is TRACE, which echoes the request, or CONNECT, which is for proxies. Ignores case, as
/// an upstream may.
pub fn is_never_forwarded(method: &Method) -> bool {
    [Method::TRACE, Method::CONNECT].iter().any(|never| method.as_str().eq_ignore_ascii_case(never.as_str()))
}

/// Decides about a request by the current state. [`crate::authz::explain`] reports the same steps.
pub fn decide<'a>(query: &Query<'_>, facts: Facts<'a>) -> Result<Permit<'a>, Denial<'a>> {
    decide_observed(query, facts, &mut Silent)
}

/// Decides like [`decide`], and reports to the observer what each step looked at and its result.
pub(in crate::authz) fn decide_observed<'a>(
    query: &Query<'_>,
    facts: Facts<'a>,
    observer: &mut impl Observer,
) -> Result<Permit<'a>, Denial<'a>> {
    let mut denial = Denial { reason: Reason::MethodNotSupported, path: None, owner: None, subject: None };
    let supported = !is_never_forwarded(query.method);
    observer.record("method", || Observation::method(query, supported));
    if !supported {
        return Err(denial);
    }

    observer.record("path", || Observation::path(query));
    let path = match &query.path {
        Ok(path) => path,
        Err(error) => return Err(denial.for_path(*error)),
    };
    let owner = facts.rules.owner(path, query.host, query.method);
    observer.record("owner", || Observation::owner(query, &owner));
    denial.owner = match owner {
        Ok(owner) => owner,
        Err(Disagreement::InvalidUtf8) => return Err(denial.for_path(PathError::Utf8)),
        Err(Disagreement::TooManyReadings) => return Err(denial.for_path(PathError::TooManyReadings)),
        Err(Disagreement::Reading(_)) => return Err(denial.with_reason(Reason::AmbiguousPath)),
    };
    let owner = denial.owner;
    if let Some(owner) = &denial.owner
        && !facts.rules.is_owner_on(owner, path, query.stated_hosts, query.method)
    {
        return Err(denial.with_reason(Reason::BadForwarded));
    }
    let second =
        SecondTarget::resolve(query, facts.rules).map_err(|reason| denial.clone().with_reason(reason))?;

    observer.record("url", || Observation::url(query.token_in_url));
    if query.token_in_url {
        return Err(denial.with_reason(Reason::TokenInUrl));
    }

    let below = |owner| services_below(query, path, owner, facts.rules);
    let public =
        owner.filter(|owner| is_public(owner, query) && second.is_public(query) && below(*owner).is_empty());
    observer.record("credential", || Observation::credential(query, public));
    match query.credential {
        Credential::Ambiguous => return Err(denial.with_reason(Reason::AmbiguousAuthorization)),
        Credential::Malformed => return Err(denial.with_reason(Reason::MalformedAuthorization)),
        Credential::AmbiguousCarrier => return Err(denial.with_reason(Reason::AmbiguousCredential)),
        Credential::MalformedCarrier => return Err(denial.with_reason(Reason::MalformedCredential)),
        Credential::Missing | Credential::UnsupportedScheme => {
            if let Some(owner) = public {
                method_allowed(query, owner, observer)
                    .map_err(|reason| denial.clone().with_reason(reason))?;
                second.accepts(query, owner).map_err(|refused| denial.for_target(refused))?;
                return Ok(Permit { owner, subject: None, carrier: None, deadline: None });
            }
            let missing = query.credential == Credential::Missing;
            let reason = if missing { Reason::MissingCredentials } else { Reason::UnsupportedScheme };
            return Err(denial.with_reason(reason));
        }
        Credential::Bearer { .. } | Credential::Carried { .. } | Credential::Elsewhere { .. } => {}
    }

    let found = find_subject(&query.credential, facts);
    if let Ok(subject) = found {
        denial.subject = Some(subject);
    }
    let authentic = found.and_then(|subject| {
        check_state(&subject, query.client, facts.now)?;
        Ok(subject)
    });
    observer.record("token", || Observation::token(&authentic, denial.subject));
    let subject = match authentic {
        Ok(subject) => subject,
        Err(reason) => return Err(denial.with_reason(reason)),
    };
    let deadline = deadline(subject.token);

    observer.record("service", || Observation::service(owner));
    let Some(owner) = owner else { return Err(denial.with_reason(Reason::NoService)) };
    if let Credential::Elsewhere { .. } = query.credential {
        return Err(denial.with_reason(Reason::WrongCarrier));
    }
    if let Err(reason) = method_allowed(query, owner, observer) {
        return Err(denial.with_reason(reason));
    }

    let reading = owner.reading && !query.upgrade && !query.method_override;
    let may_read = subject.user.readable.contains(owner.service.id);
    observer.record("read service", || Observation::read_service(subject, owner, facts.directory, may_read));
    if may_read {
        observer.record("scope", || Observation::scope(subject, owner, reading));
    }
    let authorized = authorize(&subject, owner.service, reading).map_err(|reason| (reason, Some(owner)));
    let authorized = authorized.and_then(|()| second.authorize(&subject));
    let authorized = authorized.and_then(|()| {
        below(owner).iter().try_for_each(|other| {
            observer.record("below the path", || Observation::below(query, *other));
            authorize(&subject, other.service, false)
                .and_then(|()| method_allowed(query, *other, observer))
                .map_err(|reason| (reason, Some(*other)))
        })
    });
    let subject = match authorized {
        Ok(()) => Some(subject),
        // The token is valid but permits nothing here, so the public rule applies as if none had been sent.
        Err((reason, _)) if public.is_some() => {
            observer.record("public rule", || Observation::anonymous(reason, owner));
            None
        }
        Err(refused) => return Err(denial.for_target(refused)),
    };
    second.accepts(query, owner).map_err(|refused| denial.for_target(refused))?;
    Ok(Permit { owner, subject, carrier: query.credential.kind(), deadline })
}

/// Rows 5a to 5i: returns the subject of a credential that is valid now.
pub fn authenticate<'a>(
    credential: &Credential,
    client: IpAddr,
    facts: Facts<'a>,
) -> Result<Subject<'a>, Reason> {
    let subject = find_subject(credential, facts)?;
    check_state(&subject, client, facts.now)?;
    Ok(subject)
}

/// Rows 7 to 9: whether a subject may use a service. `reading` must be false for an Upgrade and for a method
/// override, whatever the method.
pub fn authorize(subject: &Subject<'_>, service: &Service, reading: bool) -> Result<(), Reason> {
    if !subject.user.readable.contains(service.id) {
        return Err(Reason::ReadServiceDenied);
    }
    match subject.token.scope.access(service.id) {
        None => Err(Reason::ScopeDenied),
        Some(Access::Read) if !reading => Err(Reason::ReadOnlyScope),
        Some(Access::Read | Access::Full) => Ok(()),
    }
}

/// Rows 5a to 5c: finds the token and its owner.
fn find_subject<'a>(credential: &Credential, facts: Facts<'a>) -> Result<Subject<'a>, Reason> {
    let (Credential::Bearer { form, digest }
    | Credential::Carried { form, digest, .. }
    | Credential::Elsewhere { form, digest }) = credential
    else {
        return Err(Reason::MissingCredentials);
    };
    match form {
        BearerForm::ChecksumMismatch => return Err(Reason::ChecksumMismatch),
        BearerForm::Foreign if !facts.imports => return Err(Reason::MalformedToken),
        BearerForm::Foreign | BearerForm::Own => {}
    }
    let (Some(token), Some(digest)) = (facts.token, *digest) else { return Err(Reason::UnknownToken) };
    let user = facts.directory.user(token.owner).ok_or(Reason::OwnerDeleted)?;
    Ok(Subject { digest, token, user })
}

/// Rows 5c to 5i: checks that the token and its owner are valid now, and the client's address.
fn check_state(subject: &Subject<'_>, client: IpAddr, now: Timestamp) -> Result<(), Reason> {
    let Subject { token, user, .. } = subject;
    if user.deleted {
        return Err(Reason::OwnerDeleted);
    }
    match token.restrictions.end {
        TokenEnd::Revoked => return Err(Reason::TokenRevoked),
        TokenEnd::Rotated { grace_until } if now >= grace_until => return Err(Reason::TokenRotated),
        TokenEnd::Rotated { .. } | TokenEnd::None => {}
    }
    if token.expires_at.is_some_and(|at| now >= at) {
        return Err(Reason::TokenExpired);
    }
    if token.restrictions.not_before.is_some_and(|at| now < at) {
        return Err(Reason::TokenNotYetValid);
    }
    if user.banned {
        return Err(Reason::OwnerBanned);
    }
    if is_allowed_from(token, client) { Ok(()) } else { Err(Reason::IpNotAllowed) }
}

/// Whether the token may be used from this address.
pub fn is_allowed_from(token: &Token, client: IpAddr) -> bool {
    let (client, networks) = (client.to_canonical(), &token.restrictions.allow_ips);
    networks.is_empty() || networks.iter().any(|net| net.contains(&client))
}

/// Whether a public rule permits this request. A method override hides the real method, so no rule applies.
/// An Upgrade does not count as reading, so it needs a rule that names its methods.
fn is_public(owner: &Owner<'_>, query: &Query<'_>) -> bool {
    owner.public.is_some_and(|rule| !query.method_override && (!query.upgrade || rule.methods.is_some()))
}

/// Whether the service accepts the method. If it restricts methods, it accepts none that an override hides.
fn accepts_method(service: &Service, query: &Query<'_>) -> bool {
    service.accepts_method(query.method) && !(query.method_override && service.spec.methods.is_some())
}

fn method_allowed(query: &Query<'_>, owner: Owner<'_>, observer: &mut impl Observer) -> Result<(), Reason> {
    let allowed = accepts_method(owner.service, query);
    if owner.service.spec.methods.is_some() {
        observer.record("service methods", || Observation::service_methods(query, owner, allowed));
    }
    if allowed { Ok(()) } else { Err(Reason::MethodNotAllowed) }
}

/// When the token's state changes by time alone.
pub fn deadline(token: &Token) -> Option<Timestamp> {
    token.expires_at.into_iter().chain(token.restrictions.end.grace_until()).min()
}

impl<'a> Denial<'a> {
    /// A denial for a reason that concerns no service.
    pub fn without_owner(reason: Reason) -> Self {
        Self { reason, path: None, owner: None, subject: None }
    }

    /// The response. It names the service only if the reason permits it; a 405 has `Allow`.
    pub fn details(&self) -> ErrorDetails {
        let service = self.owner.map(|owner| owner.service);
        let mut details = self.reason.details(service.map(|service| service.spec.key.as_str()));
        if let Some(error) = self.path {
            details.description = details.description.replacen(". ", &format!(": {error}. "), 1);
        }
        if self.reason == Reason::MethodNotAllowed {
            let methods = service.and_then(|service| service.spec.methods.as_deref()).unwrap_or_default();
            details.allow = Some(methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "));
        }
        details
    }

    /// Whether the response has details beyond those of its reason.
    pub fn has_details(&self) -> bool {
        let may_name =
            matches!(self.reason, Reason::ScopeDenied | Reason::ReadOnlyScope | Reason::MethodNotAllowed);
        may_name && self.owner.is_some() || self.path.is_some()
    }

    fn with_reason(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    fn for_path(self, error: PathError) -> Self {
        Self { reason: Reason::BadPath, path: Some(error), ..self }
    }

    /// This denial for another target, with that target's owner.
    fn for_target(self, (reason, owner): (Reason, Option<Owner<'a>>)) -> Self {
        Self { reason, owner, ..self }
    }
}

impl<'a> Permit<'a> {
    /// `Ok` or `OkAnonymous`.
    pub fn reason(&self) -> Reason {
        if self.subject.is_some() { Reason::Ok } else { Reason::OkAnonymous }
    }

    pub fn owner(&self) -> Owner<'a> {
        self.owner
    }

    /// `None` if a public rule permits the request anonymously.
    pub fn subject(&self) -> Option<Subject<'a>> {
        self.subject
    }

    /// The carrier that held the token, if not `Authorization: Bearer`.
    pub fn carrier(&self) -> Option<CarrierKind> {
        self.carrier
    }

    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}

#[cfg(test)]
mod tests;

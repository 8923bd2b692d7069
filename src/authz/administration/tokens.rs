//! Checks for creating, changing, replacing and revoking tokens, and limits of scopes and networks.

use std::time::Duration;

use ipnet::IpNet;

use super::{AdminError, AdminErrorCode, AdminFacts, Principal, invalid_value, names, refuse, users};
use crate::authz::{
    accounts::{Account, Power},
    decide::deadline,
    rules::ServiceId,
    subject::{Access, Permission, Scope, TokenEnd},
    time::Timestamp,
};

/// The default grace period of a replaced token.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(3600);
/// The longest grace period.
pub const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_SCOPE: usize = 50;
pub const MAX_NETWORKS: usize = 64;

/// The bounds of a token, which tokens derived from it must not exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBounds {
    /// Service keys, sorted.
    pub scope: Vec<(String, Access)>,
    pub expires_at: Option<Timestamp>,
    pub allow_ips: Vec<IpNet>,
}

impl TokenBounds {
    /// Takes from `by` what is narrower or shorter, and nothing that is wider.
    #[must_use]
    pub fn narrowed(mut self, by: &Self) -> Self {
        if by.scope.iter().all(|entry| allows(&self.scope, entry)) {
            self.scope.clone_from(&by.scope);
        }
        if networks_within(&by.allow_ips, &self.allow_ips) {
            self.allow_ips.clone_from(&by.allow_ips);
        }
        self.expires_at = self.expires_at.into_iter().chain(by.expires_at).min();
        self
    }
}

/// Finds the owner of a new token, and checks that the actor may create tokens for it.
pub fn owner<'a>(facts: &AdminFacts<'a>, login: &str) -> Result<&'a Account, AdminError> {
    let owner = users::find_for(facts, login, Permission::UpdateUser)?;
    facts.principal.require_update(owner.ix)?;
    if owner.record.banned.is_some() {
        return refuse(AdminErrorCode::UserBanned, format!("the user {login:?} is banned"));
    }
    Ok(owner)
}

pub fn name(text: &str) -> Result<String, AdminError> {
    names::text("token name", text, 1, 100)
}

pub fn note(text: &str) -> Result<String, AdminError> {
    names::text("note", text, 0, 500)
}

/// Checks the bounds of a new token: owner and actor can read every service, subset rule, the parent token's
/// limits, expiry in the future.
pub fn create(
    facts: &AdminFacts<'_>,
    owner: &Account,
    bounds: TokenBounds,
    not_before: Option<Timestamp>,
) -> Result<TokenBounds, AdminError> {
    let bounds = validate(bounds)?;
    let owned = Power::of_user(facts.accounts, facts.rules, owner);
    for (key, _) in &bounds.scope {
        let service = facts.rules.service_by_key(key).map(|service| service.id);
        let readable = |by: &Power| service.is_some_and(|id| by.readable.contains(id));
        if !readable(&owned) || !readable(&facts.principal.power) {
            return not_readable(key);
        }
    }
    if !facts.principal.is(owner.ix) {
        facts.principal.require_covers(&owned)?;
    }
    require_lifetime(facts, bounds.expires_at, "give it an expiry within that time")?;
    if not_before.zip(bounds.expires_at).is_some_and(|(start, end)| start >= end) {
        return invalid_value("the token would expire before it becomes valid");
    }
    require_within_parent(facts, &bounds)?;
    Ok(bounds)
}

/// Checks that a token may be replaced by one with the same bounds. Returns the old token's grace.
pub fn rotate(
    facts: &AdminFacts<'_>,
    owner: &Account,
    bounds: &TokenBounds,
    grace: Option<Duration>,
) -> Result<Duration, AdminError> {
    require_change(facts, owner)?;
    if owner.record.banned.is_some() {
        return refuse(AdminErrorCode::UserBanned, format!("the user {:?} is banned", owner.record.login));
    }
    // The actor gets a token that can also use what its owner becomes able to read later.
    if !facts.principal.is(owner.ix) && !facts.principal.has(Permission::ReadService) {
        for (key, _) in &bounds.scope {
            let service = facts.rules.service_by_key(key);
            if !service.is_some_and(|service| facts.principal.power.readable.contains(service.id)) {
                return not_readable(key);
            }
        }
    }
    if bounds.expires_at.is_some_and(|end| end <= facts.now) {
        return refuse(AdminErrorCode::ExpiryInPast, "the token has expired: create a new one");
    }
    require_lifetime(
        facts,
        bounds.expires_at,
        "a rotation keeps the expiry, so shorten the old token first",
    )?;
    require_within_parent(facts, bounds)?;
    let grace = grace.unwrap_or(DEFAULT_GRACE);
    if grace > MAX_GRACE {
        return invalid_value("the grace period of a replaced token is at most 7 days");
    }
    Ok(grace)
}

/// Checks the reduced bounds of a token; fails if they are wider in any respect.
pub fn edit(
    facts: &AdminFacts<'_>,
    owner: &Account,
    before: &TokenBounds,
    after: TokenBounds,
) -> Result<TokenBounds, AdminError> {
    require_change(facts, owner)?;
    if after == *before {
        return Ok(after);
    }
    let after = validate(after)?;
    if exceeds(&after, before) {
        return refuse(
            AdminErrorCode::CannotWiden,
            "a token can only be narrowed or shortened: create a new one",
        );
    }
    if after.expires_at != before.expires_at && after.expires_at.is_some_and(|end| end <= facts.now) {
        return refuse(
            AdminErrorCode::ExpiryInPast,
            "the new expiry is in the past: revoke the token instead",
        );
    }
    Ok(after)
}

/// Whether a token of the first bounds could do something that one of the second could not.
pub fn exceeds(bounds: &TokenBounds, other: &TokenBounds) -> bool {
    let ends = |bounds: &TokenBounds| bounds.expires_at.unwrap_or(Timestamp::from_millis(i64::MAX));
    bounds.scope.iter().any(|entry| !allows(&other.scope, entry))
        || ends(bounds) > ends(other)
        || !networks_within(&bounds.allow_ips, &other.allow_ips)
}

/// Checks the scope of a token that is registered by its digest. Every service must exist; whether the owner
/// may read it is checked at each request.
pub fn import(
    facts: &AdminFacts<'_>,
    scope: &[(String, Access)],
    expires_at: Option<Timestamp>,
) -> Result<Vec<(String, Access)>, AdminError> {
    facts.principal.require(Permission::AdminWrite)?;
    let bounds = validate(TokenBounds { scope: scope.to_vec(), expires_at, allow_ips: Vec::new() })?;
    if let Some((key, _)) = bounds.scope.iter().find(|(key, _)| facts.rules.service_by_key(key).is_none()) {
        let message = format!("the configuration has no service {key:?}");
        return refuse(AdminErrorCode::ServiceNotReadable, message);
    }
    if expires_at.is_some_and(|end| end <= facts.now) {
        return refuse(AdminErrorCode::ExpiryInPast, "the token has already expired");
    }
    require_within_parent(facts, &bounds)?;
    Ok(bounds.scope)
}

/// Owners can always revoke their tokens, since that only removes power.
pub fn revoke(principal: &Principal<'_>, owner: &Account) -> Result<(), AdminError> {
    if principal.is(owner.ix) { Ok(()) } else { principal.require(Permission::UpdateUser) }
}

fn require_change(facts: &AdminFacts<'_>, owner: &Account) -> Result<(), AdminError> {
    facts.principal.require_update(owner.ix)?;
    facts.require_covers_account(owner)
}

/// Sorts the scope, and checks that each service occurs once.
fn validate(mut bounds: TokenBounds) -> Result<TokenBounds, AdminError> {
    if bounds.scope.is_empty() || bounds.scope.len() > MAX_SCOPE {
        let code =
            if bounds.scope.is_empty() { AdminErrorCode::EmptyScope } else { AdminErrorCode::InvalidValue };
        return refuse(code, format!("a scope has 1 to {MAX_SCOPE} services"));
    }
    bounds.scope.sort();
    if let Some(twice) = bounds.scope.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("the scope names {} twice", twice[0].0.escape_debug());
        return refuse(AdminErrorCode::DuplicateService, message);
    }
    if bounds.allow_ips.len() > MAX_NETWORKS {
        return Err(too_many_networks());
    }
    Ok(bounds)
}

pub fn too_many_networks() -> AdminError {
    let message = format!("a token can have at most {MAX_NETWORKS} networks");
    AdminError::new(AdminErrorCode::InvalidValue, message)
}

/// Formats seconds as on the command line.
fn format_duration(seconds: i64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    match units.into_iter().find(|(unit, _)| seconds >= *unit && seconds % unit == 0) {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// `advice` is what to do about a lifetime that is too long.
fn require_lifetime(
    facts: &AdminFacts<'_>,
    expires_at: Option<Timestamp>,
    advice: &str,
) -> Result<(), AdminError> {
    if expires_at.is_some_and(|end| end <= facts.now) {
        return refuse(AdminErrorCode::ExpiryInPast, "the expiry is in the past");
    }
    let Some(longest) = facts.max_lifetime else { return Ok(()) };
    let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
    if expires_at.is_none_or(|end| end > facts.now.plus_seconds(longest)) {
        return refuse(
            AdminErrorCode::LifetimeTooLong,
            format!("a token can live at most {} here: {advice}", format_duration(longest)),
        );
    }
    Ok(())
}

/// A token that is created through a token must not be wider, longer-lived or usable from more addresses.
fn require_within_parent(facts: &AdminFacts<'_>, bounds: &TokenBounds) -> Result<(), AdminError> {
    let Some(parent) = facts.principal.parent.as_deref() else { return Ok(()) };
    let known = |key: &str| facts.rules.service_by_key(key).map(|service| service.id);
    let entries: Option<Vec<(ServiceId, Access)>> =
        bounds.scope.iter().map(|(key, access)| Some((known(key)?, *access))).collect();
    let narrower = entries.and_then(Scope::new).is_some_and(|scope| scope.is_within(&parent.scope));
    let revoked = (parent.restrictions.end == TokenEnd::Revoked).then_some(facts.now);
    let end = deadline(parent).into_iter().chain(revoked).min();
    let shorter = end.is_none_or(|end| bounds.expires_at.is_some_and(|own| own <= end));
    if narrower && shorter && networks_within(&bounds.allow_ips, &parent.restrictions.allow_ips) {
        return Ok(());
    }
    let message =
        "a token created with a token cannot be wider, longer-lived or usable from more addresses than it";
    refuse(AdminErrorCode::ExceedsParentToken, message)
}

fn allows(scope: &[(String, Access)], (key, access): &(String, Access)) -> bool {
    scope.iter().any(|(k, a)| k == key && a >= access)
}

/// An empty list stands for all addresses.
fn networks_within(inner: &[IpNet], outer: &[IpNet]) -> bool {
    outer.is_empty()
        || (!inner.is_empty() && inner.iter().all(|net| outer.iter().any(|wider| wider.contains(net))))
}

/// The error for an unknown service and for an unreadable one.
fn not_readable<T>(key: &str) -> Result<T, AdminError> {
    let message = format!("the service {key:?} does not exist, or the owner or the caller cannot read it");
    refuse(AdminErrorCode::ServiceNotReadable, message)
}

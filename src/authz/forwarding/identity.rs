//! The header fields and claims that tell a service who sent the request. The fields are built once for each
//! user and service, not for each request. The module `assertion` signs the claims.

use std::{cell::RefCell, ops::Deref, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::IdentityTooLarge;
use crate::authz::{
    decide::Permit,
    rules::{Service, ServiceId},
    secret::TokenId,
    subject::{Directory, User, UserIx},
};

/// The contents of an assertion: who sent the request, and the service that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    pub service: &'a str,
    pub user_id: &'a str,
    pub login: &'a str,
    /// The groups that `X-Permgate-Groups` would list.
    pub groups: Vec<&'a str>,
    pub token: TokenId,
}

/// One worker's cache of identity fields, for one directory and the rules that it was compiled with. It is
/// direct-mapped: an identity replaces the one in its slot.
pub struct IdentityCache<D> {
    directory: D,
    slots: RefCell<Vec<Option<Identity>>>,
}

/// The values are not shared with other workers, which would contend for their reference counts.
#[derive(Clone)]
struct Identity {
    key: (UserIx, ServiceId),
    reported: Rc<ReportedIdentity>,
    /// `None` until a request needs them.
    fields: Option<IdentityFields>,
}

type IdentityFields = Rc<[(HeaderName, HeaderValue)]>;

/// The number of slots; a power of two.
const SLOTS: usize = 1024;

const USER: HeaderName = HeaderName::from_static("x-permgate-user");
const USER_ID: HeaderName = HeaderName::from_static("x-permgate-user-id");
pub(super) const GROUPS: HeaderName = HeaderName::from_static("x-permgate-groups");
const TOKEN_ID: HeaderName = HeaderName::from_static("x-permgate-token-id");
const SERVICE: HeaderName = HeaderName::from_static("x-permgate-service");
pub const ASSERTION: HeaderName = HeaderName::from_static("x-permgate-assertion");

/// The longest `X-Permgate-Groups` in bytes; the limit of an assertion's groups too.
const MAX_GROUPS: usize = 4 << 10;

/// Encodes everything except unreserved characters (RFC 3986, 2.3): a comma separates groups.
const GROUP_NAME: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl<'a> Claims<'a> {
    /// `None` if the service wants no assertion, or the request is anonymous: an assertion always names a
    /// user.
    pub fn from_permit(
        permit: &Permit<'a>,
        directory: &'a Directory,
    ) -> Result<Option<Self>, IdentityTooLarge> {
        let service = permit.owner().service;
        let Some(subject) = permit.subject().filter(|_| service.spec.identity.has_assertion()) else {
            return Ok(None);
        };
        let groups: Vec<&str> = identity_groups(subject.user, service, directory).collect();
        if groups.iter().map(|group| group.len() + 1).sum::<usize>() > MAX_GROUPS {
            return Err(IdentityTooLarge);
        }
        Ok(Some(Self {
            service: service.spec.key.as_str(),
            user_id: &subject.user.id,
            login: &subject.user.login,
            groups,
            token: subject.token.id,
        }))
    }
}

/// A user's identity as it is reported to a service's upstream. Independent of the directory, so that a long
/// request does not keep the one from which it was forwarded.
pub struct ReportedIdentity {
    pub user_id: Box<str>,
    pub login: Rc<str>,
    /// Whether the upstream receives it.
    is_reported: bool,
    groups: Vec<Box<str>>,
}

impl ReportedIdentity {
    /// Without a service, the identity is reported to none.
    pub fn new(user: &User, service: Option<&Service>, directory: &Directory) -> Self {
        let reported =
            service.filter(|one| one.spec.identity.has_headers() || one.spec.identity.has_assertion());
        let groups = reported.into_iter().flat_map(|service| identity_groups(user, service, directory));
        let groups = groups.map(Box::from).collect();
        Self {
            user_id: (*user.id).into(),
            login: (*user.login).into(),
            is_reported: reported.is_some(),
            groups,
        }
    }

    /// Whether the reported identity is still true, given the user and service as they are now. An added
    /// group does not make it false.
    pub fn is_current(&self, user: &User, service: &Service, directory: &Directory) -> bool {
        let is_reported = |group| identity_groups(user, service, directory).any(|other| other == group);
        !self.is_reported
            || *self.login == *user.login && self.groups.iter().map(Box::as_ref).all(is_reported)
    }
}

impl<D: Deref<Target = Directory>> IdentityCache<D> {
    pub fn new(directory: D) -> Self {
        Self { directory, slots: RefCell::default() }
    }

    pub(super) fn set(&self, headers: &mut HeaderMap, permit: &Permit<'_>) -> Result<(), IdentityTooLarge> {
        let service = permit.owner().service;
        let Some(subject) = permit.subject() else {
            headers.insert(SERVICE, service.key_value.clone());
            return Ok(());
        };
        for (name, value) in self.identity(subject.user, service)?.iter() {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(id) = value(subject.token.id.as_bytes()) {
            headers.insert(TOKEN_ID, id);
        }
        Ok(())
    }

    /// The identity that a service's upstream receives.
    pub fn reported(&self, user: &User, service: &Service) -> Rc<ReportedIdentity> {
        self.with(user, service, |identity| Rc::clone(&identity.reported))
    }

    fn identity(&self, user: &User, service: &Service) -> Result<IdentityFields, IdentityTooLarge> {
        self.with(user, service, |identity| match &identity.fields {
            Some(known) => Ok(Rc::clone(known)),
            None => {
                let fields = fields(user, service, &self.directory)?;
                identity.fields = Some(Rc::clone(&fields));
                Ok(fields)
            }
        })
    }

    fn with<R>(&self, user: &User, service: &Service, then: impl FnOnce(&mut Identity) -> R) -> R {
        let key = (user.ix, service.id);
        // Indices are consecutive, so neighbours get distinct slots.
        let at = (user.ix.0 as usize ^ usize::from(service.id.0) << 4) % SLOTS;
        let slots = &mut *self.slots.borrow_mut();
        if slots.is_empty() {
            slots.resize(SLOTS, None);
        }
        then(match &mut slots[at] {
            Some(known) if known.key == key => known,
            other => {
                let reported = Rc::new(ReportedIdentity::new(user, Some(service), &self.directory));
                other.insert(Identity { key, reported, fields: None })
            }
        })
    }
}

fn fields(user: &User, service: &Service, directory: &Directory) -> Result<IdentityFields, IdentityTooLarge> {
    let groups = groups(user, service, directory)?;
    let named = [
        (SERVICE, service.spec.key.as_str()),
        (USER, &*user.login),
        (USER_ID, &*user.id),
        (GROUPS, groups.as_str()),
    ];
    let named = named.into_iter().filter(|(_, text)| !text.is_empty());
    Ok(named.filter_map(|(name, text)| Some((name, value(text.as_bytes())?))).collect())
}

fn groups(user: &User, service: &Service, directory: &Directory) -> Result<String, IdentityTooLarge> {
    let mut list = String::new();
    for group in identity_groups(user, service, directory) {
        list.push_str(if list.is_empty() { "" } else { "," });
        list.extend(percent_encoding::utf8_percent_encode(group, GROUP_NAME));
        if list.len() > MAX_GROUPS {
            return Err(IdentityTooLarge);
        }
    }
    Ok(list)
}

fn identity_groups<'a>(
    user: &'a User,
    service: &'a Service,
    directory: &'a Directory,
) -> impl Iterator<Item = &'a str> {
    service.identity_groups().iter().map(String::as_str).filter(|group| user.is_in(group, directory))
}

/// Never fails: keys, logins, ids and encoded names are printable ASCII.
fn value(text: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text).ok()
}

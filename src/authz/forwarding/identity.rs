//! The fields by which a service learns who asks. They are made once for each user and service, not
//! for each request.

use std::{cell::RefCell, ops::Deref, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::IdentityTooLarge;
use crate::authz::{
    decide::Permit,
    rules::{Service, ServiceId},
    secret::TokenId,
    subject::{Directory, User, UserIx},
};

/// What an assertion says about who asks, bound to the service that hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    pub service: &'a str,
    pub user_id: &'a str,
    pub login: &'a str,
    /// Those that the service's fields would name.
    pub groups: Vec<&'a str>,
    pub token: TokenId,
}

/// Identities as one worker has told them, of one directory and the rules that belong to it. A
/// bounded memory: who comes to a place that is taken has it.
pub struct Identities<D> {
    directory: D,
    places: RefCell<Vec<Option<Identity>>>,
}

/// Values of its own: one shared with other workers would have a count that all of them write.
#[derive(Clone)]
struct Identity {
    of: (UserIx, ServiceId),
    fields: IdentityFields,
}

type IdentityFields = Rc<[(HeaderName, HeaderValue)]>;

/// How many are remembered; a power of two.
const PLACES: usize = 1024;

const USER: HeaderName = HeaderName::from_static("x-permgate-user");
const USER_ID: HeaderName = HeaderName::from_static("x-permgate-user-id");
pub(super) const GROUPS: HeaderName = HeaderName::from_static("x-permgate-groups");
const TOKEN_ID: HeaderName = HeaderName::from_static("x-permgate-token-id");
const SERVICE: HeaderName = HeaderName::from_static("x-permgate-service");
pub const ASSERTION: HeaderName = HeaderName::from_static("x-permgate-assertion");

/// The longest `X-Permgate-Groups`; an assertion has the same limit.
const MAX_GROUPS: usize = 4 << 10;

/// All but unreserved characters: the comma separates.
const GROUP_NAME: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl<'a> Claims<'a> {
    /// `None` where the service asks for no assertion, and for the anonymous: an assertion always
    /// names a user.
    pub fn of(permit: &Permit<'a>, directory: &'a Directory) -> Result<Option<Self>, IdentityTooLarge> {
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

/// A user of a directory, as one service hears of them.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    pub user: &'a User,
    pub service: &'a Service,
    pub directory: &'a Directory,
}

impl Told<'_> {
    /// Whether what was told once is true by what would be told now. A group that has been joined since takes
    /// nothing away.
    pub fn holds(self, now: Told<'_>) -> bool {
        let identity = &self.service.spec.identity;
        if !identity.has_headers() && !identity.has_assertion() {
            return true;
        }
        let is_told = |group| now.groups().any(|other| other == group);
        self.user.login == now.user.login && self.groups().all(is_told)
    }

    fn groups(&self) -> impl Iterator<Item = &str> {
        identity_groups(self.user, self.service, self.directory)
    }
}

impl<D: Deref<Target = Directory>> Identities<D> {
    pub fn new(directory: D) -> Self {
        Self { directory, places: RefCell::default() }
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

    fn identity(&self, user: &User, service: &Service) -> Result<IdentityFields, IdentityTooLarge> {
        let of = (user.ix, service.id);
        // Numbers are given in turn, so that neighbours have places of their own.
        let at = (user.ix.0 as usize ^ usize::from(service.id.0) << 4) % PLACES;
        let places = &mut *self.places.borrow_mut();
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        match &places[at] {
            Some(known) if known.of == of => Ok(Rc::clone(&known.fields)),
            _ => {
                let fields = fields(user, service, &self.directory)?;
                places[at] = Some(Identity { of, fields: Rc::clone(&fields) });
                Ok(fields)
            }
        }
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

/// Keys, logins, ids and encoded names are printable ASCII by their own rules.
fn value(text: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text).ok()
}

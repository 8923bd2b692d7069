//! The second target of a request: WebDAV's `Destination` is written to by the same request, so it
//! needs all that the first target needs, and full access.

use super::{Query, is_public};
use crate::authz::{
    answer::Reason,
    rules::{Owner, Rules},
    subject::Subject,
};

/// Who owns the second target.
#[derive(Clone, Copy, Debug)]
pub enum SecondTarget<'r> {
    /// The request has none.
    Absent,
    Unowned,
    Owned(Owner<'r>),
}

/// The reason, and the service that a denial may name.
type TargetDenial<'r> = (Reason, Option<Owner<'r>>);

impl<'r> SecondTarget<'r> {
    /// The owner by agreement of all readings, and on every host that a trusted proxy names, as of the path itself.
    pub fn of(query: &Query<'_>, rules: &'r Rules) -> Result<Self, Reason> {
        let Some(destination) = query.destination else { return Ok(Self::Absent) };
        let Some(Ok(path)) = destination.path() else { return Err(Reason::BadDestination) };
        match rules.owner(&path, query.host, query.method) {
            Ok(Some(owner)) if rules.is_owner_on(&owner, &path, query.stated_hosts, query.method) => {
                Ok(Self::Owned(owner))
            }
            Ok(Some(_)) => Err(Reason::BadDestination),
            Ok(None) => Ok(Self::Unowned),
            Err(_) => Err(Reason::BadDestination),
        }
    }

    /// Whether it needs no token more than the path: a rule that opens one of them says nothing
    /// about the other.
    pub fn is_public(self, query: &Query<'_>) -> bool {
        match self {
            Self::Absent => true,
            Self::Unowned => false,
            Self::Owned(owner) => is_public(&owner, query),
        }
    }

    /// What nobody owns is answered like what the account may not read.
    pub fn authorize(self, subject: &Subject<'_>) -> Result<(), TargetDenial<'r>> {
        match self {
            Self::Absent => Ok(()),
            Self::Unowned => Err((Reason::ReadServiceDenied, None)),
            Self::Owned(owner) => {
                super::authorize(subject, owner.service, false).map_err(|reason| (reason, Some(owner)))
            }
        }
    }

    /// Whether the request can be forwarded with it, for who may: the upstream of the path is the
    /// only one that hears of it, and the service takes the method.
    pub fn accepts(self, query: &Query<'_>, first: Owner<'r>) -> Result<(), TargetDenial<'r>> {
        let Self::Owned(owner) = self else { return Ok(()) };
        if owner.service.spec.upstream != first.service.spec.upstream {
            return Err((Reason::BadDestination, Some(first)));
        }
        if super::takes(owner.service, query) { Ok(()) } else { Err((Reason::MethodNotAllowed, Some(owner))) }
    }
}

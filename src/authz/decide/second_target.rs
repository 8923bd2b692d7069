//! The second target of a request: WebDAV's `Destination`. The same request writes to it, so it must pass the
//! same checks as the path, with full access.

use super::{Query, is_public};
use crate::authz::{
    reason::Reason,
    rules::{Owner, Rules},
    subject::Subject,
};

/// The owner of the second target.
#[derive(Clone, Copy, Debug)]
pub enum SecondTarget<'r> {
    /// The request has no second target.
    Absent,
    Unowned,
    Owned(Owner<'r>),
}

/// The reason of a denial, and the owner that it may name.
type TargetDenial<'r> = (Reason, Option<Owner<'r>>);

impl<'r> SecondTarget<'r> {
    /// Finds the owner, on which all readings and all hosts named by a trusted proxy must agree, as for the
    /// path.
    pub fn resolve(query: &Query<'_>, rules: &'r Rules) -> Result<Self, Reason> {
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

    /// Whether the second target, if any, is public by a rule of its own: one for the path alone is not
    /// enough.
    pub fn is_public(self, query: &Query<'_>) -> bool {
        match self {
            Self::Absent => true,
            Self::Unowned => false,
            Self::Owned(owner) => is_public(&owner, query),
        }
    }

    /// Checks that the subject has full access. An unowned target gets the response of one that the account may
    /// not read.
    pub fn authorize(self, subject: &Subject<'_>) -> Result<(), TargetDenial<'r>> {
        match self {
            Self::Absent => Ok(()),
            Self::Unowned => Err((Reason::ReadServiceDenied, None)),
            Self::Owned(owner) => {
                super::authorize(subject, owner.service, false).map_err(|reason| (reason, Some(owner)))
            }
        }
    }

    /// Checks that an authorized request can be forwarded: the path's upstream must serve this target too,
    /// and this target's service must accept the method.
    pub fn accepts(self, query: &Query<'_>, first: Owner<'r>) -> Result<(), TargetDenial<'r>> {
        let Self::Owned(owner) = self else { return Ok(()) };
        if owner.service.spec.upstream != first.service.spec.upstream {
            return Err((Reason::BadDestination, Some(first)));
        }
        if super::accepts_method(owner.service, query) {
            Ok(())
        } else {
            Err((Reason::MethodNotAllowed, Some(owner)))
        }
    }
}

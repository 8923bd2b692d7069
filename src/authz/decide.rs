//! The decision of domain.md, first hit answers. Only this module makes a [`Permit`].

use std::net::IpAddr;

use http::{HeaderMap, Method};

use crate::authz::{
    answer::{Answer, Reason},
    path::{PathError, RequestPath},
    rules::{Owner, Rules},
    secret::{Digest, Form},
    subject::{Directory, Subject, Token},
    time::Timestamp,
};

/// What the `Authorization` fields of a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No field at all.
    Missing,
    /// A scheme other than `Bearer`.
    UnsupportedScheme,
    /// Two or more fields.
    Ambiguous,
    /// `Bearer` and then not one word of `token68`, or beyond 512 characters.
    Malformed,
    /// One word. The digest is of the canonical text; absent when the form alone refuses it.
    Bearer { form: Form, digest: Option<Digest> },
}

/// Every input that the client controls.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub method: &'a Method,
    /// Lower case, without port.
    pub host: Option<&'a str>,
    pub path: Result<RequestPath<'a>, PathError>,
    /// A permgate token stands in path or query.
    pub token_in_url: bool,
    pub credential: Credential,
    /// The client's address, behind trusted proxies the one they tell.
    pub client: IpAddr,
    pub upgrade: bool,
    /// A method-override field was sent.
    pub method_override: bool,
}

/// Every input that the client does not control.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub rules: &'a Rules,
    pub directory: &'a Directory,
    /// The token with the credential's digest.
    pub token: Option<&'a Token>,
    /// Whether any imported token exists.
    pub imports: bool,
    pub now: Timestamp,
}

/// Proof that a request may be forwarded: private fields, made by [`decide`] alone.
#[derive(Clone, Debug)]
pub struct Permit<'a> {
    owner: Owner<'a>,
    subject: Option<Subject<'a>>,
    /// The instant at which the decision may change by itself (expiry, end of grace).
    deadline: Option<Timestamp>,
}

/// Why not.
#[derive(Clone, Debug)]
pub struct Denial<'a> {
    pub reason: Reason,
    /// The service, where the decision came that far.
    pub owner: Option<Owner<'a>>,
    /// The subject, where the bearer was recognised (for the log and the audit).
    pub subject: Option<Subject<'a>>,
}

/// Decides by the present state. The steps are those of [`crate::authz::explain`].
pub fn decide<'a>(_query: &Query<'_>, _facts: Facts<'a>) -> Result<Permit<'a>, Denial<'a>> {
    todo!()
}

impl Credential {
    /// Reads the `Authorization` fields. The digest is made only where a look-up will follow: for
    /// our own form, and for a foreign one when `imports` exist.
    pub fn from_headers(_headers: &HeaderMap, _perm_alias: bool, _imports: bool) -> Self {
        todo!()
    }

    /// What the token index is asked for.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Credential::Bearer { digest, .. } => digest.as_ref(),
            _ => None,
        }
    }
}

impl Denial<'_> {
    /// The whole answer: the service's name where the table lets it be told, `Allow` with a 405.
    pub fn answer(&self) -> Answer {
        todo!()
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
    /// `None`: anonymous, by a public rule.
    pub fn subject(&self) -> Option<Subject<'a>> {
        self.subject
    }
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}

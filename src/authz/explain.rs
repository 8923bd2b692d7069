//! The same steps as the decision, told.

use crate::authz::{
    answer::{Answer, Reason},
    decide::{Facts, Query},
    rules::{Origin, ServiceKey},
    subject::UserIx,
};

/// A decision with its steps, in the order in which they were taken; the last one decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub steps: Vec<Step>,
    pub reason: Reason,
    /// The service, where the decision came that far.
    pub service: Option<ServiceKey>,
    /// The deciding line of the configuration.
    pub origin: Option<Origin>,
    pub outcome: Result<Forwarded, Answer>,
}

/// One step of the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was asked: `path`, `owner`, `token`, `scope`, ...
    pub name: &'static str,
    /// What was looked at; a permgate token in it is redacted.
    pub looked_at: String,
    /// What it came to.
    pub result: String,
    /// The rule that was consulted.
    pub origin: Option<Origin>,
}

/// What would be sent, apart from what the client's own fields bring along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Name of the `[upstream.NAME]`.
    pub upstream: String,
    /// The path, byte for byte; a permgate token in it is redacted.
    pub path: String,
    /// Names and values that are set; credentials are redacted.
    pub set: Vec<(String, String)>,
    /// Names, or `name*` for a whole namespace, of client fields that are dropped.
    pub dropped: Vec<String>,
}

/// Decides as [`crate::authz::decide::decide`] does, by the same code, and tells every step.
pub fn explain(_query: &Query<'_>, _facts: Facts<'_>) -> Explanation {
    todo!()
}

/// Explains as if the user sent a sound token whose scope fits: what the account itself may do.
/// The query's credential and the facts' token are not looked at.
pub fn explain_user(_query: &Query<'_>, _facts: Facts<'_>, _user: UserIx) -> Explanation {
    todo!()
}

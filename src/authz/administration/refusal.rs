//! Why a change is refused, with the stable code of the API.

use http::StatusCode;

/// Why a change was refused (domain.md, "Administration", errors).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    PermissionDenied,
    WouldEscalate,
    ServiceNotReadable,
    ExceedsParentToken,
    NotFound,
    NameTaken,
    UserBanned,
    TokenRevoked,
    CannotBanSelf,
    LastAdmin,
    /// Live ones, and those in their grace.
    TooManyTokens,
    /// Rows of revoked and replaced tokens: time helps.
    TooManyEndedTokens,
    /// A login, group, role or token name, a note, an address: what and why is in the message.
    InvalidName,
    EmptyScope,
    DuplicateService,
    ExpiryInPast,
    LifetimeTooLong,
    CannotWiden,
    /// Anything else that is wrong with a value (grace, cycle, depth, built-in): 422.
    InvalidValue,
}

impl Refusal {
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub const fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl RefusalCode {
    /// The `error` member of the answer.
    pub const fn word(self) -> &'static str {
        match self {
            RefusalCode::PermissionDenied => "permission_denied",
            RefusalCode::WouldEscalate => "would_escalate",
            RefusalCode::ServiceNotReadable => "service_not_readable",
            RefusalCode::ExceedsParentToken => "exceeds_parent_token",
            RefusalCode::NotFound => "not_found",
            RefusalCode::NameTaken => "name_taken",
            RefusalCode::UserBanned => "user_banned",
            RefusalCode::TokenRevoked => "token_revoked",
            RefusalCode::CannotBanSelf => "cannot_ban_self",
            RefusalCode::LastAdmin => "last_admin",
            RefusalCode::TooManyTokens | RefusalCode::TooManyEndedTokens => "too_many_tokens",
            RefusalCode::InvalidName => "invalid_name",
            RefusalCode::EmptyScope => "empty_scope",
            RefusalCode::DuplicateService => "duplicate_service",
            RefusalCode::ExpiryInPast => "expiry_in_past",
            RefusalCode::LifetimeTooLong => "lifetime_too_long",
            RefusalCode::CannotWiden => "cannot_widen",
            RefusalCode::InvalidValue => "invalid_value",
        }
    }

    pub const fn status(self) -> StatusCode {
        match self {
            RefusalCode::PermissionDenied
            | RefusalCode::WouldEscalate
            | RefusalCode::ServiceNotReadable
            | RefusalCode::ExceedsParentToken => StatusCode::FORBIDDEN,
            RefusalCode::NotFound => StatusCode::NOT_FOUND,
            RefusalCode::NameTaken
            | RefusalCode::UserBanned
            | RefusalCode::TokenRevoked
            | RefusalCode::CannotBanSelf
            | RefusalCode::LastAdmin
            | RefusalCode::TooManyTokens => StatusCode::CONFLICT,
            RefusalCode::TooManyEndedTokens => StatusCode::TOO_MANY_REQUESTS,
            RefusalCode::InvalidName
            | RefusalCode::EmptyScope
            | RefusalCode::DuplicateService
            | RefusalCode::ExpiryInPast
            | RefusalCode::LifetimeTooLong
            | RefusalCode::CannotWiden
            | RefusalCode::InvalidValue => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

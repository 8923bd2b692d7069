//! Errors of administration, with the stable codes of the API.

use http::StatusCode;
use strum::IntoStaticStr;

/// Why a change was refused (docs/domain.md, "Administration").
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    pub code: AdminErrorCode,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum AdminErrorCode {
    PermissionDenied,
    WouldEscalate,
    ServiceNotReadable,
    ExceedsParentToken,
    /// Not the current password, or no longer.
    WrongPassword,
    NotFound,
    NameTaken,
    UserBanned,
    TokenRevoked,
    CannotBanSelf,
    LastAdmin,
    /// Too many live tokens, including those in their grace period.
    TooManyTokens,
    /// Too many records of revoked and replaced tokens, which are dropped in time.
    #[strum(serialize = "too_many_tokens")]
    TooManyEndedTokens,
    /// An invalid login, name, note or address; the message says why.
    InvalidName,
    EmptyScope,
    DuplicateService,
    ExpiryInPast,
    LifetimeTooLong,
    CannotWiden,
    /// Any other invalid value (grace, cycle, depth, built-in): 422.
    InvalidValue,
}

impl AdminError {
    pub fn new(code: AdminErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub const fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl AdminErrorCode {
    /// The `error` member of the response.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }

    pub const fn status(self) -> StatusCode {
        match self {
            AdminErrorCode::PermissionDenied
            | AdminErrorCode::WouldEscalate
            | AdminErrorCode::ServiceNotReadable
            | AdminErrorCode::ExceedsParentToken
            | AdminErrorCode::WrongPassword => StatusCode::FORBIDDEN,
            AdminErrorCode::NotFound => StatusCode::NOT_FOUND,
            AdminErrorCode::NameTaken
            | AdminErrorCode::UserBanned
            | AdminErrorCode::TokenRevoked
            | AdminErrorCode::CannotBanSelf
            | AdminErrorCode::LastAdmin
            | AdminErrorCode::TooManyTokens => StatusCode::CONFLICT,
            AdminErrorCode::TooManyEndedTokens => StatusCode::TOO_MANY_REQUESTS,
            AdminErrorCode::InvalidName
            | AdminErrorCode::EmptyScope
            | AdminErrorCode::DuplicateService
            | AdminErrorCode::ExpiryInPast
            | AdminErrorCode::LifetimeTooLong
            | AdminErrorCode::CannotWiden
            | AdminErrorCode::InvalidValue => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

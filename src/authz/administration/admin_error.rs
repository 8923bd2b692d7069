//! Why a change is refused, with the stable code of the API.

use http::StatusCode;
use strum::IntoStaticStr;

/// Why a change was refused (domain.md, "Administration", errors).
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
    /// Not, or no longer, the present one.
    WrongPassword,
    NotFound,
    NameTaken,
    UserBanned,
    TokenRevoked,
    CannotBanSelf,
    LastAdmin,
    /// Live ones, and those in their grace.
    TooManyTokens,
    /// Rows of revoked and replaced tokens: time helps.
    #[strum(serialize = "too_many_tokens")]
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

impl AdminError {
    pub fn new(code: AdminErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub const fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl AdminErrorCode {
    /// The `error` member of the answer.
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
